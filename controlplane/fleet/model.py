"""The fleet as the policy describes it and as it stands now; pure values, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

PRIMARY = "primary"
"""The pool that normally serves everything."""

GATEWAY_POOL = "gateway"
"""The gateway is watched like a pool of its own, under this name: what it answers is what users get."""

CONTROLPLANE_POOL = "controlplane"
"""What is broken when the control plane itself is: a pool of one, under this name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a pool (or the gateway itself)."""

    name: str
    pool: str
    url: str
    """Base URL without a trailing slash, such as `http://10.0.1.1:8000`."""
    node: str = ""
    """The node it runs on; empty when the inventory does not say."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """Where a pool's endpoints are listed; exactly one of the two is given."""

    static: tuple[str, ...] = ()
    """Base URLs, written out."""
    file: str = ""
    """A Prometheus `file_sd` JSON file, read again whenever it changes. Relative paths start at the policy page."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Replicas that serve the service in one role."""

    endpoints: EndpointSource
    model: str = ""
    """The model name sent in requests to this pool; empty means the first one its `/v1/models` lists."""


@dataclass(frozen=True, slots=True)
class EnvoySpec:
    """An Envoy driven by file-based xDS."""

    xds_dir: str
    """The directory Envoy watches; it holds `rds.json`. Relative paths start at the policy page."""
    admin: str
    """Envoy's admin address: a URL, or `file:PATH` of a file that holds `host:port`."""
    listener: str
    """Where users' requests enter: a URL, or `file:PATH` of a file that holds `host:port`."""


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """What splits the service's traffic over its pools."""

    envoy: EnvoySpec


@dataclass(frozen=True, slots=True)
class ProcessSubstrateSpec:
    """A fleet of supervised processes on this machine (`controlplane up`)."""

    nodes_dir: str
    """Where the node supervisors keep `<node>.json` and obey `<node>.hold`."""
    links_dir: str = ""
    """Where the link relays obey `<node>.link`; empty is `links` beside `nodes_dir`."""


@dataclass(frozen=True, slots=True)
class NetnsSubstrateSpec:
    """The same with every endpoint in a network namespace of its own (`controlplane up --netns`; Linux, root)."""

    nodes_dir: str
    """Where the node supervisors keep `<node>.json`, which names the namespace, and obey `<node>.hold`."""


@dataclass(frozen=True, slots=True)
class SubstrateSpec:
    """Where the fleet runs, so that faults know what to break; exactly one is given."""

    process: ProcessSubstrateSpec | None = None
    netns: NetnsSubstrateSpec | None = None


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """The pools of one service, its gateway and the place it runs."""

    pools: Mapping[str, PoolSpec]
    """By role: `primary` is required; `standby` arms P0, `base` arms P2."""
    gateway: GatewaySpec | None = None
    """None: the fleet is watched, but no lever can be moved."""
    substrate: SubstrateSpec | None = None
    """None: no drill can be run."""
    engine: str = "auto"
    """Whose metric names to read: `auto` lets every page say for itself whose it is, and writes rules and panels with
    vLLM's names; else `vllm`, `sglang`, `tgi`, `triton`, `llamacpp`, `ray` or `reference` (which speaks vLLM's)."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The endpoints of a fleet at one moment, and what could not be read."""

    endpoints: tuple[Endpoint, ...]
    problems: tuple[str, ...] = ()

    def pool(self, name: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of one pool, in the order they are listed."""
        return tuple(e for e in self.endpoints if e.pool == name)

    def by_name(self) -> dict[str, Endpoint]:
        """Return the endpoints keyed by name."""
        return {e.name: e for e in self.endpoints}
