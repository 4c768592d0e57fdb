"""What looks at the fleet: a probe for every entry of the page, in its order."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import aiohttp

from controlplane.fleet.apiserver import Count
from controlplane.policy.model import Policy
from controlplane.probes.events import EventsProbe
from controlplane.probes.fetch import Pages
from controlplane.probes.gpu import GpuProbe
from controlplane.probes.host import HostProbe
from controlplane.probes.http import HttpProbe, InferenceProbe, MetricsProbe
from controlplane.probes.logs import LogsProbe
from controlplane.probes.probe import InferenceSpec, Probe, ProbeSpec
from controlplane.probes.promql import PromqlProbe
from controlplane.probes.tcp import TcpProbe
from controlplane.probes.wire import Wire
from controlplane.signals.engines import engine_named


def asked_of(policy: Policy) -> InferenceSpec:
    """Return the completion that this page asks of endpoints; the default one where it asks for none."""
    return next((p.inference for p in policy.probes if p.inference), InferenceSpec())


class Looking:
    """The probes of one policy page."""

    def __init__(
        self,
        policy: Policy,
        base: Path,
        session: aiohttp.ClientSession,
        wire: Wire,
        pages: Pages,
        gateway_page: Callable[[], str],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        asked: Count,
    ) -> None:
        """Make them.

        Args:
            policy: the page.
            base: where its relative paths start.
            session: the HTTP connections of probes that are awaited.
            wire: the connections of probes that are not.
            pages: fetches pages of other places.
            gateway_page: the address of the gateway's own metrics; empty when it has none.
            spawn: starts a task in the process's own task group.
            asked: counts every request to an API server of Kubernetes.
        """
        self._asked = asked
        self._policy = policy
        self._base = base
        self._session = session
        self._wire = wire
        self._pages = pages
        self._gateway_page = gateway_page
        self._spawn = spawn
        spec = asked_of(policy)
        self.inference = InferenceProbe(wire, spec)
        """Asks for completions; the page's own, or one with the defaults."""
        self.probes = tuple(self._probe(spec) for spec in policy.probes)
        """In the page's order."""

    def _probe(self, spec: ProbeSpec) -> Probe:
        if spec.http:
            return HttpProbe(self._wire, spec.http)
        if spec.tcp:
            return TcpProbe(self._wire, spec.tcp)
        if spec.metrics:
            return MetricsProbe(self._wire, spec.metrics, engine_named(self._policy.fleet.engine), self._gateway_page)
        if spec.gpu:
            return GpuProbe(spec.gpu, self._pages)
        if spec.logs:
            return LogsProbe(spec.logs, self._base)
        if spec.promql:
            return PromqlProbe(spec.promql, self._pages)
        if spec.events:
            given = spec.events
            kubeconfig = str(self._base / given.kubeconfig) if given.kubeconfig else ""
            events = EventsProbe(self._session, replace(given, kubeconfig=kubeconfig), self._asked)
            self._spawn(events.follow())
            return events
        return HostProbe(spec.host, self._pages) if spec.host else self.inference
