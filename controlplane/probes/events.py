"""Following Kubernetes: restarts, OOMKilled, pods without a place, evictions, nodes not ready, GPUs that are gone.

What is known is kept while the API server cannot be reached, and a look says so. What it means is `kube_state`'s.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import aiohttp
import structlog

from controlplane.clock import utcnow
from controlplane.fleet.apiserver import Access, ApiServer, Count, Door, Followed, Resource, follow_all, kubeconfig_door
from controlplane.fleet.following import Change
from controlplane.fleet.model import Endpoint
from controlplane.probes.kube_state import ClusterState, Document, name_of
from controlplane.probes.probe import EventsSpec, Failure, Look

STALE_AFTER_S = 15.0
"""So long without a word from the API server, what is known counts as unknown."""
MISSHAPEN = (ValueError, TypeError, AttributeError, LookupError)
"""What an object of another shape than the API's raises."""

log = structlog.get_logger("events")


class EventsProbe:
    """What Kubernetes says of the endpoints; `follow` has to run beside it."""

    name = "events"

    def __init__(self, session: aiohttp.ClientSession, spec: EventsSpec, count: Count = lambda *_: None) -> None:
        """Take what is followed.

        Args:
            session: the HTTP connections to use.
            spec: the API server, the namespace and the pods.
            count: counts every request.
        """
        self.every = spec.every
        self.cluster = cluster = ClusterState()
        named = spec.kubeconfig or spec.context
        door = kubeconfig_door(spec.kubeconfig, spec.context) if named else files_door(spec)
        self._api = ApiServer(session, door, count)
        chosen = (("labelSelector", spec.selector),) if spec.selector else ()
        pods = Resource("pods", namespace=spec.namespace, query=chosen)
        self._pods = _followed(pods, cluster.pod, lambda name: cluster.pods.pop(name, None))
        self._nodes = _followed(Resource("nodes"), cluster.node, lambda name: cluster.nodes.pop(name, None))
        events = Resource("events", namespace=spec.namespace)
        self._events = _followed(events, lambda found: cluster.event(found, utcnow()), lambda _: None)
        self._told: dict[str, int] = {}

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once: at what was heard; asks nothing."""
        now = monotonic()
        for followed in (self._pods, self._events):
            if not followed.synced or followed.silent_s() > STALE_AFTER_S:
                error = followed.trouble
                why = f"{error.what}: {error.why}; {error.fix}" if error else "nothing has been heard from it yet"
                return Look(endpoint, self.name, now, 0.0, Failure.NETWORK, why)
        # Nodes belong to the whole cluster: an account that may not see them still hears of its own pods.
        self.cluster.nodes_known = self._nodes.synced and self._nodes.silent_s() <= STALE_AFTER_S
        since = self._told.get(endpoint.pool, 0)
        self._told[endpoint.pool] = self.cluster.count
        notes = tuple(text for number, text in self.cluster.told if number > since)
        return Look(endpoint, self.name, now, 0.0, page=self.cluster.page(endpoint, notes))

    async def follow(self) -> None:
        """Follow everything; ends only by being cancelled."""
        await follow_all((self._pods, self._events, self._nodes), self._api)


def _followed(resource: Resource, put: Callable[[Document], None], forget: Callable[[str], object]) -> Followed:
    known: set[str] = set()

    def take(change: Change) -> None:
        names = {name_of(found) for found in change.objects}
        for gone in known - names if change.whole else known & names if change.removed else ():
            forget(gone)
        if change.whole:
            known.clear()
        if change.removed:
            known.difference_update(names)
            return
        known.update(names)
        for found in change.objects:
            try:
                put(found)
            except MISSHAPEN as error:
                log.warning("object left out", kind=resource.plural, error=f"{type(error).__name__}: {error}")

    return Followed(resource, take, lambda: None)


def files_door(spec: EventsSpec) -> Door:
    """Return the door that an address, a token and an authority in files describe, as a pod has them."""

    def read() -> Access:
        token, authority = Path(spec.token_file), Path(spec.ca_file)
        # The token is read each time: Kubernetes renews it in its file.
        headers = {"authorization": f"Bearer {token.read_text(encoding='utf-8').strip()}"} if token.is_file() else {}
        tls = ssl.create_default_context(cafile=str(authority)) if authority.is_file() else True
        return Access(spec.api.rstrip("/"), headers, tls)

    async def door() -> Access:
        return await asyncio.to_thread(read)

    return door
