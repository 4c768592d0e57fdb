"""Where everything of a fleet lies: each endpoint's settings, its public address, its link. Pure: ports are given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from controlplane.target.gateway import Doors
from controlplane.target.gateway_clusters import Place
from controlplane.target.rundir import RunDir
from controlplane.target.spec import CacheSpec, EndpointSpec, FleetSpec, PoolSpec, RelaySpec


@dataclass(frozen=True, slots=True)
class Seat:
    """One node's place: its process and how clients reach it."""

    node: str
    pool: str
    endpoint: EndpointSpec | CacheSpec
    host: str
    port: int
    """Where clients reach the endpoint; the link's port where there is a link."""
    link: RelaySpec | None = None
    gateway_from: str = ""
    """The address that the gateway comes from, where it has one of its own."""

    @property
    def place(self) -> Place:
        """What the gateway must know."""
        return Place(self.endpoint.name, self.host, self.gateway_port)

    @property
    def gateway_port(self) -> int:
        """Where the gateway reaches the endpoint: at a port of its own where there is a link."""
        return self.link.gateway_port if self.link else self.port

    @property
    def discovered(self) -> dict[str, object]:
        """What Prometheus' file_sd must know."""
        labels = {"pool": self.pool, "endpoint": self.endpoint.name, "node": self.node, "model": self.endpoint.model}
        return {"targets": [f"{self.host}:{self.port}"], "labels": labels}


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole fleet."""

    seats: tuple[Seat, ...]
    doors: Doors

    def places(self, pool: str) -> list[Place]:
        """Return a pool's endpoints as the gateway sees them."""
        return [seat.place for seat in self.seats if seat.pool == pool]


def node_names(pools: Mapping[str, PoolSpec]) -> list[str]:
    """Return the node of every endpoint, in order."""
    return [f"node-{pool}-{number}" for pool, wanted in pools.items() for number in range(wanted.endpoints)]


def ports_needed(spec: FleetSpec) -> int:
    """Return how many free ports ``lay_out`` takes: three a node, and the gateway's three."""
    return 3 * len(node_names(spec.pools)) + 3


def lay_out(
    spec: FleetSpec,
    run_dir: RunDir,
    *,
    ports: Sequence[int],
    token: str,
    cpus: Sequence[int],
    homes: Mapping[str, tuple[str, str, int]],
    outside: str = "127.0.0.1",
    gateway_from: str = "",
) -> Layout:
    """Give everything its place.

    Args:
        spec: the fleet.
        run_dir: where links are controlled and answers kept.
        ports: at least ``ports_needed`` free TCP ports of 127.0.0.1.
        token: the cache's secret.
        cpus: CPUs that endpoints may be bound to.
        homes: network namespace, address and port by node; empty where endpoints share this machine's network.
        outside: this machine's address as endpoints see it.
        gateway_from: the address that the gateway comes from, where it has one of its own.
    """
    free = iter(ports)
    turn = cycle(cpus)
    cached = any(pool.serves == "cache" for pool in spec.pools.values())
    doors = Doors(spec.gateway_port or next(free), next(free), next(free) if cached else None, outside)
    learner = _learner(spec.pools)
    seats: list[Seat] = []
    for pool, number in _members(spec.pools):
        wanted, name = spec.pools[pool], f"{pool}-{number}"
        endpoint: EndpointSpec | CacheSpec
        if wanted.serves == "cache":
            endpoint = replace(
                spec.cache,
                name=name,
                model=wanted.model,
                upstream=f"http://{doors.fills_host}:{doors.fills}",
                token=token,
                directory=spec.cache.directory or run_dir.answers.resolve() / name,
            )
        else:
            endpoint = EndpointSpec(name=name, model=wanted.model, seed=spec.seed, max_queue=spec.max_queue)
        cpu = (next(turn),) if spec.pin_cpus else ()
        seat = _seat(replace(endpoint, cpus=cpu), pool, run_dir, free, homes, links=spec.links)
        seats.append(replace(seat, gateway_from=gateway_from))
    cache_at = next((f"http://{seat.host}:{seat.port}" for seat in seats if seat.pool == learner), None)
    return Layout(tuple(_publishing(seat, cache_at, token, spec.pools) for seat in seats), doors)


def _members(pools: Mapping[str, PoolSpec]) -> Iterator[tuple[str, int]]:
    return ((pool, number) for pool, wanted in pools.items() for number in range(wanted.endpoints))


def _learner(pools: Mapping[str, PoolSpec]) -> str | None:
    """Return the pool that finished answers are published to."""
    return next((name for name, pool in pools.items() if pool.serves == "cache" and pool.endpoints), None)


def _seat(
    endpoint: EndpointSpec | CacheSpec,
    pool: str,
    run_dir: RunDir,
    free: Iterator[int],
    homes: Mapping[str, tuple[str, str, int]],
    *,
    links: bool,
) -> Seat:
    node = f"node-{endpoint.name}"
    if node in homes:
        netns, host, port = homes[node]
        return Seat(node, pool, replace(endpoint, netns=netns, host=host, port=port), host, port)
    placed = replace(endpoint, port=next(free))
    if not links:
        return Seat(node, pool, placed, placed.host, placed.port)
    control, node_file = run_dir.link(node).resolve(), run_dir.node(node).resolve()
    link = RelaySpec(node, next(free), placed.port, control, node_file, next(free))
    return Seat(node, pool, placed, link.host, link.port, link)


def _publishing(seat: Seat, cache_at: str | None, token: str, pools: Mapping[str, PoolSpec]) -> Seat:
    """Have an endpoint publish its answers, when the cache stands in for its model."""
    endpoint = seat.endpoint
    if cache_at is None or not isinstance(endpoint, EndpointSpec):
        return seat
    stood_in_for = {pool.model for pool in pools.values() if pool.serves == "cache"}
    if endpoint.model not in stood_in_for:
        return seat
    return replace(seat, endpoint=replace(endpoint, publish_url=cache_at, publish_token=token))
