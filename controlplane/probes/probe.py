"""What a probe is and what a look returns; pure. The drivers beside this file do the looking."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from controlplane.fleet.model import Endpoint

HELD = "held"
"""What a look by a held connection calls itself: it comes unasked, when the connection comes or goes."""
ASKING = frozenset({"http", "inference"})
"""Probes that want a request answered."""


class Failure(StrEnum):
    """Why a look failed; each kind points to another cause."""

    REFUSED = "refused"
    """Nothing listens there: the process is gone."""
    RESET = "reset"
    """The connection broke in the middle."""
    TIMEOUT = "timeout"
    DNS = "dns"
    TLS = "tls"
    """No handshake: a certificate that is not trusted, another host's or out of date."""
    NETWORK = "network"
    """Unreachable, no route, or another error below HTTP."""
    STATUS = "status"
    """An answer with the wrong status."""
    ANSWER = "answer"
    """A 200 whose content is wrong: no tokens, not a metrics page."""
    PROBER = "prober"
    """Our own fault, such as a time-out while the prober itself did not get to run: it says nothing of the endpoint."""


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """Ask a path and want a 2xx."""

    path: str = "/health"
    status: int = 0
    """The status that is wanted; 0 takes any 2xx."""
    body: str = ""
    """Text that the answer must hold; empty takes any."""
    tls_days_left: int = 14
    """A certificate that ends in fewer days fails the look. Only for `https`; 0 never does."""
    every: timedelta = timedelta(milliseconds=500)
    timeout: timedelta = timedelta(milliseconds=600)
    """How long an endpoint may be silent. In this time it is asked up to three times, each on a connection of its own,
    and each counts towards `failures`."""
    jitter: float = 0.1
    """Share of `every` by which looks are spread, so that a fleet is not asked in one breath."""
    failures: int = 3
    """Looks in a row that must fail before the endpoint counts as down."""
    successes: int = 1
    """Looks in a row that must succeed before it counts as up again."""


@dataclass(frozen=True, slots=True)
class TcpSpec:
    """Open a connection and close it: a kernel that listens, not an engine that serves."""

    every: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(milliseconds=500)
    """For the name and the connect together."""
    jitter: float = 0.1
    failures: int = 3
    """Connects in a row that must fail, with no request answered meanwhile, before the endpoint counts as down."""
    successes: int = 1
    """Connects in a row that must succeed before one that only connects found down counts as up again."""


@dataclass(frozen=True, slots=True)
class InferenceSpec:
    """Ask for a real completion and want tokens, not a 200."""

    prompt: str = "ping"
    max_tokens: int = 4
    expect: str = ""
    """Text that the completion must hold; empty takes any tokens."""
    stream: bool = False
    """Ask for a stream: it also tells the time to the first token."""
    every: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)
    jitter: float = 0.1
    failures: int = 3
    successes: int = 1


@dataclass(frozen=True, slots=True)
class MetricsSpec:
    """Scrape the engine's own `/metrics` page."""

    path: str = "/metrics"
    every: timedelta = timedelta(seconds=2)
    timeout: timedelta = timedelta(seconds=1)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class HostSpec:
    """Read CPU, memory, disk and network: of this machine, and elsewhere from a node_exporter."""

    page: str = ""
    """URL of the node's page, such as `http://{host}:9100/metrics`: `{host}` is the endpoint's host, `{node}` its node.
    Empty: endpoints on other machines stay unknown."""
    every: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=1)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """Read the GPUs: of this machine through NVML, elsewhere from a dcgm-exporter."""

    page: str = ""
    """URL of the node's page, such as `http://{host}:9400/metrics`. Empty: GPUs elsewhere stay unknown."""
    every: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=1)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class LogsSpec:
    """Follow an engine's log: JSON lines, or plain ones as vLLM and SGLang write them."""

    file: str
    """The file; `{endpoint}`, `{node}` and `{pool}` are filled in. Relative paths start at the policy page."""
    engine: bool = False
    """Take the queue depth and the request times in the lines for the engine's own. Only where the engine exposes no
    metrics: otherwise the same requests would be told of twice."""
    every: timedelta = timedelta(seconds=1)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class PromqlSpec:
    """Ask a Prometheus-compatible server (Prometheus, Thanos, Mimir, VictoriaMetrics) instead of the endpoints."""

    url: str
    """Its base URL, such as `http://prometheus:9090`."""
    queries: Mapping[str, str]
    """By signal: an expression whose label `instance` (`host:port`), `endpoint` or `pool` says whom it is about."""
    over: timedelta = timedelta(0)
    """0 asks for the newest value; otherwise for a range this long, of which the newest point counts: a series that
    has just gone is then still seen."""
    every: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class EventsSpec:
    """Follow Kubernetes: restarts, OOMKilled, FailedScheduling, evictions, NodeNotReady, GPUs that are gone."""

    api: str = "https://kubernetes.default.svc"
    """The API server, where neither `context` nor `kubeconfig` says which."""
    namespace: str = "default"
    selector: str = ""
    """Label selector of the pods, such as `app=deepseek`; empty takes the whole namespace."""
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path, not a secret
    ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    context: str = ""
    """A context of the kubeconfig."""
    kubeconfig: str = ""
    """A kubeconfig file; empty with a `context` is the one that `kubectl` would use. Relative paths start at the policy
    page."""
    every: timedelta = timedelta(seconds=1)
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One entry of the page's `probes`; exactly one of them is given."""

    http: HttpSpec | None = None
    tcp: TcpSpec | None = None
    inference: InferenceSpec | None = None
    metrics: MetricsSpec | None = None
    host: HostSpec | None = None
    gpu: GpuSpec | None = None
    logs: LogsSpec | None = None
    promql: PromqlSpec | None = None
    events: EventsSpec | None = None

    @property
    def given(self) -> "AnySpec":
        """The one that is given."""
        every = (
            self.http, self.tcp, self.inference, self.metrics, self.host, self.gpu, self.logs, self.promql, self.events,
        )  # fmt: skip
        return next(spec for spec in every if spec is not None)


AnySpec = HttpSpec | TcpSpec | InferenceSpec | MetricsSpec | HostSpec | GpuSpec | LogsSpec | PromqlSpec | EventsSpec


@dataclass(frozen=True, slots=True)
class Histogram:
    """One scraped histogram: cumulative counts by ascending upper edge, the last one `+Inf`."""

    edges: tuple[float, ...]
    cumulative: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What one look read of the signals; an absent name is absent here, too.

    The keys are those of `Signal.key`, and `server_errors` for the error rate.
    """

    counters: Mapping[str, float] = field(default_factory=dict)
    """Cumulative, such as `requests`, `server_errors`, `generated_tokens`, `preemptions`, `gpu_ecc_errors`."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    """By signal name, in the signal's base unit."""
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    """By the P99 signal that is a quantile of it; edges in seconds."""
    engine: str = ""
    """Whose page it was, such as `vllm`; empty where no engine was asked."""
    notes: tuple[str, ...] = ()
    """What was said in words since the last look: lines with which an engine dies, reasons that Kubernetes gave."""
    partial: str = ""
    """Why the answer may not be whole (a Prometheus-compatible server said so); empty when nothing is known to lack."""


@dataclass(slots=True)
class Look:
    """One look at one endpoint. Not frozen: that would cost more than everything else about a look's making."""

    endpoint: Endpoint
    probe: str
    at: float
    """Monotonic seconds when the look ended."""
    took_s: float
    failure: Failure | None = None
    detail: str = ""
    page: Page | None = None
    served_by: str = ""
    """For a look through the gateway: the endpoint that answered."""
    first_token_s: float | None = None
    """For a streamed completion: seconds to its first token."""
    tokens: int = 0
    """For a completion: tokens generated."""
    tls_days_left: float | None = None
    """For `https`: days until the certificate ends."""
    asked: int = 1
    """How many times it was asked; a look that timed out is so many failures."""

    @property
    def ok(self) -> bool:
        """Tell whether the look found what it wanted."""
        return self.failure is None

    @property
    def says_nothing(self) -> bool:
        """Tell whether the look failed by the prober's own fault: it is neither a success nor a failure."""
        return self.failure is Failure.PROBER

    @property
    def says_alive(self) -> bool:
        """Tell whether this kind of look counts for availability: a served request or a health check.

        A connect does not: the kernel accepts for a process that is stopped.
        """
        return self.probe in ASKING


class Probe(Protocol):
    """A way of looking; one instance serves every endpoint."""

    @property
    def name(self) -> str:
        """The probe's name on the page, such as `http`."""

    @property
    def every(self) -> timedelta:
        """How often each endpoint is looked at."""

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once; never raises for what the endpoint does, and never takes longer than the probe's timeout."""


@runtime_checkable
class StartedProbe(Probe, Protocol):
    """A probe that calls back instead of being awaited: a look costs no task."""

    def start(self, endpoint: Endpoint, report: Callable[[Look], None]) -> None:
        """Look once and report once, within the probe's timeout and what the prober itself was late."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address gave: a body, or how it failed."""

    content: bytes | None
    failure: Failure | None = None
    detail: str = ""


class Fetch(Protocol):
    """Gets a page over HTTP, bounded in time and size; how it failed is a value."""

    async def __call__(self, url: str, within: timedelta) -> Fetched:
        """Get one page; only a 2xx has a content."""
