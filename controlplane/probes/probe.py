"""What a probe is and what a look returns; pure. The drivers beside this file do the looking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from controlplane.fleet.model import Endpoint


class Failure(StrEnum):
    """Why a look failed; each kind points to another cause."""

    REFUSED = "refused"
    """Nothing listens there: the process is gone."""
    RESET = "reset"
    """The connection broke in the middle."""
    TIMEOUT = "timeout"
    DNS = "dns"
    NETWORK = "network"
    """Unreachable, no route, or another error below HTTP."""
    STATUS = "status"
    """An answer with the wrong status."""
    ANSWER = "answer"
    """A 200 whose content is wrong: no tokens, not a metrics page."""


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """Ask a path and want a 2xx."""

    path: str = "/health"
    every: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class InferenceSpec:
    """Ask for a real completion and want tokens, not a 200."""

    prompt: str = "ping"
    max_tokens: int = 4
    every: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class MetricsSpec:
    """Scrape the engine's own `/metrics` page."""

    path: str = "/metrics"
    every: timedelta = timedelta(seconds=2)
    timeout: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class HostSpec:
    """Read CPU and memory of the machine, for endpoints that run on this one."""

    every: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One entry of the page's `probes`; exactly one of them is given."""

    http: HttpSpec | None = None
    inference: InferenceSpec | None = None
    metrics: MetricsSpec | None = None
    host: HostSpec | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """One scraped histogram: cumulative counts by ascending upper edge, the last one `+Inf`."""

    edges: tuple[float, ...]
    cumulative: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a metrics page held of the signals we read; an absent name is absent here too."""

    counters: Mapping[str, float] = field(default_factory=dict)
    """`requests`, `server_errors`, `generated_tokens`."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    """By signal name, in the signal's base unit."""
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    """By the signal that is a quantile of it; edges in seconds."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one endpoint."""

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

    @property
    def ok(self) -> bool:
        """Tell whether the look found what it wanted."""
        return self.failure is None

    @property
    def says_alive(self) -> bool:
        """Tell whether this kind of look counts for availability: a served request or a health check."""
        return self.probe in ("http", "inference")


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
