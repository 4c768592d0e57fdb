"""The ground a fleet stands on: where its endpoints are listed, and what can be broken there."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

import aiohttp

from controlplane.chaos.fault import FaultDriver, Reaper
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_reaper import KubeReaper
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import faults, kubernetes_faults
from controlplane.clock import utcnow
from controlplane.errors import FaultError
from controlplane.fleet.apiserver import Count
from controlplane.fleet.cluster import Cluster
from controlplane.fleet.files import FileInventory
from controlplane.fleet.inventory import InventorySource, Together
from controlplane.fleet.kubernetes import KubernetesInventory
from controlplane.fleet.model import Inventory, KubernetesSubstrateSpec, ProcessSubstrateSpec
from controlplane.fleet.prometheus import PrometheusInventory
from controlplane.policy.load import Loaded
from controlplane.telemetry import Metrics

LISTED_WITHIN_S = 15.0
"""How long one who asks once waits for every list."""

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


def counted_by(metrics: Metrics) -> Count:
    """Return what counts every request to an API server of Kubernetes."""

    def count(verb: str, resource: str, code: str) -> None:
        metrics.kubernetes_requests.labels(verb, resource, code).inc()

    return count


class Grounds:
    """Says which endpoints the fleet of a policy page has now, wherever its pools are listed."""

    def __init__(self, loaded: Loaded) -> None:
        fleet = loaded.policy.fleet
        self._kubernetes = KubernetesInventory(fleet, loaded.base)
        self._prometheus = PrometheusInventory(fleet)
        files = FileInventory(fleet, loaded.base)
        self._source: InventorySource = Together((files, self._kubernetes, self._prometheus))

    def read(self) -> Inventory:
        """Return the endpoints that are known now."""
        return self._source.read()

    def follow(
        self, session: aiohttp.ClientSession, metrics: Metrics, spawn: Spawn, changed: Callable[[], None]
    ) -> None:
        """Begin to follow whatever tells of its changes; `changed` is called soon after each."""
        spawn(self._kubernetes.follow(session, counted_by(metrics), changed))
        spawn(self._prometheus.follow(session, changed))

    async def listed(self) -> Inventory:
        """Ask every list once, and return the endpoints there are."""
        async with aiohttp.ClientSession() as session:
            following = [
                asyncio.create_task(self._kubernetes.follow(session, lambda *_: None, lambda: None)),
                asyncio.create_task(self._prometheus.follow(session, lambda: None)),
            ]
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTED_WITHIN_S):
                    await self._kubernetes.tried()
                    await self._prometheus.tried()
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        return self.read()


def inventory_of(loaded: Loaded) -> Grounds:
    """Return what says which endpoints the fleet of a policy page has now."""
    return Grounds(loaded)


def fault_driver(loaded: Loaded, state_dir: Path, count: Count | None = None) -> FaultDriver | None:
    """Return every fault of where the fleet runs, as one driver; None when the page does not say."""
    substrate = loaded.policy.fleet.substrate
    if substrate is None:
        return None
    if substrate.kubernetes:
        return kubernetes_faults(_ground(substrate.kubernetes, loaded.base, count))
    if substrate.netns:
        nodes_dir = loaded.base / substrate.netns.nodes_dir
        return faults("netns", Place(nodes_dir, nodes_dir.parent / "links", state_dir))
    process = substrate.process or ProcessSubstrateSpec("nodes")
    nodes_dir = loaded.base / process.nodes_dir
    links_dir = loaded.base / process.links_dir if process.links_dir else nodes_dir.parent / "links"
    return faults("process", Place(nodes_dir, links_dir, state_dir))


def reaper_of(loaded: Loaded, count: Count | None = None) -> Reaper | None:
    """Return what ends overdue faults by the substrate's own record of them; None where it keeps none."""
    substrate = loaded.policy.fleet.substrate
    if substrate is None or substrate.kubernetes is None:
        return None
    return KubeReaper(_ground(substrate.kubernetes, loaded.base, count))


def _ground(spec: KubernetesSubstrateSpec, base: Path, count: Count | None) -> Ground:
    kubeconfig = str(base / spec.kubeconfig) if spec.kubeconfig else ""
    return Ground(Cluster(kubeconfig, spec.context, FaultError, count), spec, utcnow)
