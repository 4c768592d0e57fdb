"""The endpoints of pools that live in Kubernetes, pushed into memory by watches: one for each kind and namespace.

`follow` runs in the background; `read` asks nobody. What was known last stands in while an API server is gone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import aiohttp
import structlog

from controlplane.fleet.apiserver import ApiServer, Count, Followed, Resource, follow_all, kubeconfig_door
from controlplane.fleet.following import Change
from controlplane.fleet.model import Endpoint, FleetSpec, Inventory, KubernetesEndpoints
from controlplane.fleet.pods import (
    Document,
    Naming,
    Node,
    Pod,
    Selected,
    Slice,
    name_of,
    pod_endpoints,
    read_inference_pool,
    read_node,
    read_pod,
    read_slice,
    slice_endpoints,
)
from controlplane.fleet.selector import parse_selector

T = TypeVar("T")

TOGETHER_S = 0.02
"""Changes that come within this time are told once: a rollout is many changes."""
STALE_AFTER_S = 2.0
"""A watch that was cut is begun again in less; what takes longer is told."""

log = structlog.get_logger("kubernetes")


class Kept(Generic[T]):
    """The objects of one kind in one place, as they count here."""

    def __init__(self, resource: Resource, read: Callable[[Document], T], changed: Callable[[], None]) -> None:
        """Keep what `read` makes of each object; an object that it cannot read is left out, and named in the log."""
        self.by_name: dict[str, T] = {}
        self.followed = Followed(resource, self._take, changed)
        self._read = read
        self._changed = changed

    def _take(self, change: Change) -> None:
        before = dict(self.by_name) if change.whole else None
        if change.whole:
            self.by_name.clear()
        different = False
        for found in change.objects:
            different |= self._gone(found) if change.removed else self._put(found)
        if before is not None:
            different = before != self.by_name or not self.followed.synced
        if different:
            self._changed()

    def _put(self, found: Document) -> bool:
        try:
            name, value = name_of(found), self._read(found)
        except ValueError as error:
            log.warning("object left out", kind=self.followed.resource.plural, error=str(error))
            return self._gone(found)
        different = self.by_name.get(name) != value
        self.by_name[name] = value
        return different

    def _gone(self, found: Document) -> bool:
        try:
            return self.by_name.pop(name_of(found), None) is not None
        except ValueError:
            return False


@dataclass(slots=True)
class Cluster:
    """One context, with what is followed there."""

    kubeconfig: str
    context: str
    nodes: Kept[Node]
    pods: dict[str, Kept[Pod]] = field(default_factory=dict)
    """By namespace, likewise the others."""
    slices: dict[str, Kept[Slice]] = field(default_factory=dict)
    pools: dict[str, Kept[Selected]] = field(default_factory=dict)

    def followed(self) -> tuple[Followed, ...]:
        """Return everything that is followed here; endpoints first."""
        return (
            *(kept.followed for kept in self.pools.values()),
            *(kept.followed for kept in self.slices.values()),
            *(kept.followed for kept in self.pods.values()),
            self.nodes.followed,
        )


@dataclass(frozen=True, slots=True)
class _Pool:
    """One pool and where it lives."""

    naming: Naming
    cluster: Cluster


class KubernetesInventory:
    """The endpoints of a fleet whose pools live in Kubernetes; the others are left to other inventories."""

    def __init__(self, fleet: FleetSpec, base: Path) -> None:
        """Take the pools; nothing is asked before `follow`.

        Args:
            fleet: the fleet.
            base: where relative paths start.
        """
        self._clusters: dict[tuple[str, str], Cluster] = {}
        self._pools: list[_Pool] = []
        self._stale = True
        self._read: tuple[tuple[Endpoint, ...], dict[str, str]] = ((), {})
        self._tell: Callable[[], None] = lambda: None
        self._telling: asyncio.TimerHandle | None = None
        places: list[tuple[str, str, str]] = []
        for name, pool in fleet.pools.items():
            spec = pool.endpoints.kubernetes
            if spec is None:
                continue
            kubeconfig = str(base / spec.kubeconfig) if spec.kubeconfig else ""
            place = (kubeconfig, spec.context, spec.namespace)
            places += [place] if place not in places else []
            prefix = "" if place == places[0] else f"{name}."
            cluster = self._cluster(kubeconfig, spec)
            self._pools.append(_Pool(Naming(name, pool.model, spec, prefix), cluster))

    def _cluster(self, kubeconfig: str, spec: KubernetesEndpoints) -> Cluster:
        """Return the cluster of a pool, with all that the pool needs followed."""
        key, here = (kubeconfig, spec.context), spec.namespace
        cluster = self._clusters.get(key)
        if cluster is None:
            cluster = Cluster(kubeconfig, spec.context, Kept(Resource("nodes"), read_node, self._changed))
            self._clusters[key] = cluster
        if spec.service:
            if here not in cluster.slices:
                slices = Resource("endpointslices", "discovery.k8s.io", ("v1", "v1beta1"), here)
                cluster.slices[here] = Kept(slices, read_slice, self._changed)
            return cluster
        if here not in cluster.pods:
            cluster.pods[here] = Kept(Resource("pods", namespace=here), read_pod, self._changed)
        if spec.inference_pool and here not in cluster.pools:
            versions = ("inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2")
            pools = Resource("inferencepools", versions=versions, namespace=here)
            cluster.pools[here] = Kept(pools, read_inference_pool, self._changed)
        return cluster

    # -- following -----------------------------------------------------------------------------------------------------

    async def follow(self, session: aiohttp.ClientSession, count: Count, tell: Callable[[], None]) -> None:
        """Follow every cluster; ends only by being cancelled.

        Args:
            session: the HTTP connections to use.
            count: counts every request.
            tell: called soon after anything changed, once for all that changed together.
        """
        self._tell = tell
        async with asyncio.TaskGroup() as group:
            for cluster in self._clusters.values():
                api = ApiServer(session, kubeconfig_door(cluster.kubeconfig, cluster.context), count)
                group.create_task(follow_all(cluster.followed(), api))

    async def tried(self) -> None:
        """Wait until every kind has been listed once, or could not be."""
        for cluster in self._clusters.values():
            for followed in cluster.followed():
                await followed.tried.wait()

    def _changed(self) -> None:
        self._stale = True
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOGETHER_S, self._told)

    def _told(self) -> None:
        self._telling = None
        self._tell()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self) -> Inventory:
        """Return the endpoints that are known now; asks nobody."""
        if self._stale:
            self._stale = False
            self._read = self._assembled()
        endpoints, wrong = self._read
        counted: dict[str, int] = {}
        for endpoint in endpoints:
            counted[endpoint.pool] = counted.get(endpoint.pool, 0) + 1
        problems = [
            f"pool {pool.naming.pool}: {why}"
            for pool in self._pools
            if (why := self._problem(pool, counted.get(pool.naming.pool, 0)) or wrong.get(pool.naming.pool, ""))
        ]
        return Inventory(endpoints, tuple(problems))

    def _needs(self, pool: _Pool) -> tuple[Followed, ...]:
        """Return what a pool cannot do without. Nodes are not among it: they only say where an endpoint stands."""
        spec, cluster = pool.naming.spec, pool.cluster
        if spec.service:
            return (cluster.slices[spec.namespace].followed,)
        pools = (cluster.pools[spec.namespace].followed,) if spec.inference_pool else ()
        return (*pools, cluster.pods[spec.namespace].followed)

    def _problem(self, pool: _Pool, known: int) -> str:
        needed = self._needs(pool)
        for followed in needed:
            error = followed.trouble
            why = f"{error.what}: {error.why}; {error.fix}" if error else ""
            if not followed.synced:
                return why or f"{followed.resource.where} have not been listed yet"
            if error and followed.silent_s() > STALE_AFTER_S:
                stand_in = f"the {known} endpoints known last stand in, {followed.silent_s():.0f} s old"
                return f"{stand_in}: {why}"
        return ""

    def _assembled(self) -> tuple[tuple[Endpoint, ...], dict[str, str]]:
        found: list[Endpoint] = []
        wrong: dict[str, str] = {}
        for pool in self._pools:
            endpoints, why = self._endpoints(pool)
            found += endpoints
            if why:
                wrong[pool.naming.pool] = why
        return tuple(found), wrong

    def _endpoints(self, pool: _Pool) -> tuple[tuple[Endpoint, ...], str]:
        naming, cluster = pool.naming, pool.cluster
        spec, nodes = naming.spec, cluster.nodes.by_name
        if not cluster.nodes.followed.tried.is_set():
            return (), ""  # Endpoints that change their zone right after they came would be begun twice.
        if spec.service:
            return slice_endpoints(naming, cluster.slices[spec.namespace].by_name.values(), nodes)
        ports = (spec.port,) if spec.port else ()
        if spec.inference_pool:
            chosen = cluster.pools[spec.namespace].by_name.get(spec.inference_pool)
            if chosen is None:
                synced = cluster.pools[spec.namespace].followed.synced
                return (), f"no InferencePool {spec.namespace}/{spec.inference_pool}" if synced else ""
            chosen = Selected(chosen.requirements, ports or chosen.ports)
        else:
            chosen = Selected(parse_selector(spec.selector), ports)
        return pod_endpoints(naming, cluster.pods[spec.namespace].by_name.values(), nodes, chosen)
