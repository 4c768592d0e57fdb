"""From looks to evidence: what was seen of each endpoint, kept in windows, and added up per pool.

Used by `observe` alone. It reads no clock: looks carry their own times and `now` is an argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Failure, Look
from controlplane.signals.quantile import histogram_quantile
from controlplane.signals.sample import CATALOGUE
from controlplane.signals.window import CounterWindow, GaugeWindow, OutcomeWindow
from controlplane.slo.threshold import Band, BandState, Threshold, advance
from controlplane.slo.verdict import Evidence

DOWN_AFTER_FAILURES = 3
"""Looks in a row that must fail before an endpoint is down without hard proof."""

DEFAULT_WINDOW_S = 30.0
"""The window of signals that have no threshold of their own."""

STALE_AFTER_S = 10.0
"""A gauge that was not read for so long is unknown."""

_RATES = {"request_rate": "requests", "tokens_rate": "generated_tokens"}
_QUANTILES = {"latency_p99": 0.99, "inter_token_latency_p99": 0.99}
_SUMMED = ("requests_running", "queue_depth")


@dataclass(slots=True)
class EndpointRecord:
    """Everything kept about one endpoint."""

    endpoint: Endpoint
    window_s: Mapping[str, float]
    outcomes: OutcomeWindow
    counters: dict[str, CounterWindow] = field(default_factory=dict)
    histograms: dict[str, CounterWindow] = field(default_factory=dict)
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gauges: dict[str, GaugeWindow] = field(default_factory=dict)
    refused: bool = False
    """Hard proof: nothing listened there, and no request has been served since."""
    listening: bool = True
    """Something listens (again); it still has to serve a request before the endpoint is up."""
    looked: bool = False
    detail: str = ""
    answer_s: float | None = None
    up_since: float = 0.0
    """Monotonic seconds of the last change between up and down."""

    @property
    def down(self) -> bool:
        """Tell whether the endpoint is proven down."""
        return self.refused or self.outcomes.failures_in_a_row() >= DOWN_AFTER_FAILURES

    def take(self, look: Look) -> bool:
        """Take one look in; True when the endpoint went up or down by it."""
        was_down, first = self.down, not self.looked
        if look.probe == "tcp":
            self._take_connection(look)
        elif look.page is not None:
            self._take_page(look)
        elif look.says_alive:
            self._take_outcome(look)
        if self.down != was_down or (first and self.looked):
            self.up_since = look.at
            return True
        return False

    def _take_connection(self, look: Look) -> None:
        if look.failure is Failure.REFUSED:
            self.refused, self.listening, self.looked = True, False, True
            self.detail, self.answer_s = look.detail, None
        elif look.ok:
            self.listening = True

    def _take_outcome(self, look: Look) -> None:
        if self.refused and not (self.listening and look.ok):
            return
        if self.refused:
            self.outcomes.clear()  # The first success of a new process: what failed before it was not this one.
        self.refused = False
        self.looked = True
        self.outcomes.add(look.at, ok=look.ok)
        self.detail = "" if look.ok else f"{look.failure}: {look.detail}"
        if look.probe == "inference":
            self.answer_s = look.took_s if look.ok else None

    def _take_page(self, look: Look) -> None:
        page = look.page
        if page is None:
            return
        for name, value in page.counters.items():
            self._window(self.counters, name).add(look.at, (value,))
        for name, histogram in page.histograms.items():
            if self.edges.get(name) != histogram.edges:
                self.edges[name] = histogram.edges
                self.histograms.pop(name, None)
            self._window(self.histograms, name).add(look.at, histogram.cumulative)
        for name, value in page.gauges.items():
            self.gauges.setdefault(name, GaugeWindow(STALE_AFTER_S)).add(look.at, value)

    def _window(self, windows: dict[str, CounterWindow], name: str) -> CounterWindow:
        if name not in windows:
            windows[name] = CounterWindow(self.window_s.get(name, DEFAULT_WINDOW_S))
        return windows[name]


@dataclass(frozen=True, slots=True)
class _Value:
    """A signal's value before it is judged."""

    value: float | None
    samples: int = 0
    low: float | None = None
    high: float | None = None
    source: str = ""
    reason: str = ""


class PoolRecord:
    """The records of one pool's endpoints, and the bands its signals are in."""

    def __init__(self, pool: str, thresholds: Mapping[str, Threshold]) -> None:
        self.pool = pool
        self._thresholds = thresholds
        self._windows_s = {name: t.window.total_seconds() for name, t in thresholds.items()}
        self._windows_s["requests"] = self._windows_s.get("error_rate", DEFAULT_WINDOW_S)
        self._windows_s["server_errors"] = self._windows_s["requests"]
        self._bands: dict[str, BandState] = {}
        self.endpoints: dict[str, EndpointRecord] = {}

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Follow the inventory: forget what left, begin records for what came, keep the rest."""
        wanted = {e.name: e for e in endpoints}
        for name in [n for n, r in self.endpoints.items() if wanted.get(n) != r.endpoint]:
            del self.endpoints[name]
        for name, endpoint in wanted.items():
            if name not in self.endpoints:
                window = OutcomeWindow(self._windows_s.get("availability", DEFAULT_WINDOW_S))
                self.endpoints[name] = EndpointRecord(endpoint, self._windows_s, window)

    def evidence(self, now: float) -> tuple[Evidence, ...]:
        """Judge every signal of the catalogue for this pool."""
        return tuple(self._judge(name, self._value(name, now), now) for name in CATALOGUE)

    def _judge(self, name: str, seen: _Value, now: float) -> Evidence:
        threshold = self._thresholds.get(name)
        if threshold is None:
            band = Band.UNKNOWN if seen.value is None else Band.OK
        else:
            if seen.value is not None and seen.samples < threshold.min_samples:
                short = (
                    f"{seen.samples} samples in {threshold.window.total_seconds():g} s, {threshold.min_samples} wanted"
                )
                seen = _Value(None, seen.samples, source=seen.source, reason=short)
            state = advance(self._bands.get(name, BandState()), seen.value, threshold, CATALOGUE[name].worse, now)
            self._bands[name] = state
            band = state.band
        return Evidence(name, seen.value, band, seen.samples, seen.low, seen.high, seen.source, seen.reason)

    def _value(self, name: str, now: float) -> _Value:
        records = list(self.endpoints.values())
        if name == "availability":
            return _availability(records, now)
        if name == "endpoints_down":
            return _endpoints_down(records)
        if name in _QUANTILES:
            return _quantile(name, records, now)
        if name == "error_rate":
            return _error_rate(records, now)
        if name in _RATES:
            return _rate(_RATES[name], records, now)
        return _gauge(name, records, now)


def _availability(records: list[EndpointRecord], now: float) -> _Value:
    good = total = 0
    for record in records:
        ok, looks = record.outcomes.tally(now)
        if record.refused:
            ok, looks = 0, max(1, looks)
        good, total = good + ok, total + looks
    if not total:
        return _Value(None, reason="no look has ended yet")
    return _Value(good / total, total, source=f"health checks and completions of {len(records)} endpoints")


def _endpoints_down(records: list[EndpointRecord]) -> _Value:
    looked = [r for r in records if r.looked]
    if not looked or len(looked) < len(records):
        return _Value(None, reason="not every endpoint has been looked at yet")
    down = [r.endpoint.name for r in looked if r.down]
    return _Value(len(down) / len(looked), len(looked), source="held connections and probes", reason=", ".join(down))


def _quantile(name: str, records: list[EndpointRecord], now: float) -> _Value:
    """Merge the pool's histograms before the quantile; endpoints whose edges differ are left out and named."""
    edges: tuple[float, ...] = ()
    merged: list[float] = []
    used, odd = 0, []
    for record in records:
        grown = record.histograms[name].increase(now) if name in record.histograms else None
        if grown is None:
            continue
        if edges and record.edges[name] != edges:
            odd.append(record.endpoint.name)
            continue
        edges = record.edges[name]
        merged = [a + b for a, b in zip(merged or [0.0] * len(edges), grown[0], strict=True)]
        used += 1
    if not used:
        return _Value(None, reason="the engine exposes no such histogram, or it was not scraped twice yet")
    counts = [after - before for before, after in zip([0.0, *merged[:-1]], merged, strict=True)]
    quantile = histogram_quantile(_QUANTILES[name], edges, counts)
    source = f"histograms of {used} endpoints"
    if quantile is None:
        return _Value(None, 0, source=source, reason="no request ended in the window")
    reason = f"other bucket edges: {', '.join(odd)}" if odd else ""
    return _Value(quantile.value, quantile.samples, quantile.low, quantile.high, source, reason)


def _grown(counter: str, records: list[EndpointRecord], now: float) -> tuple[float, float, int]:
    """Return how much a counter grew over the pool, the longest time it was seen over, and by how many endpoints."""
    total, seconds, used = 0.0, 0.0, 0
    for record in records:
        grown = record.counters[counter].increase(now) if counter in record.counters else None
        if grown:
            total, seconds, used = total + grown[0][0], max(seconds, grown[1]), used + 1
    return total, seconds, used


def _error_rate(records: list[EndpointRecord], now: float) -> _Value:
    requests, _, used = _grown("requests", records, now)
    errors, _, _ = _grown("server_errors", records, now)
    source = f"answers counted by {used} endpoints"
    if not used:
        return _Value(None, reason="the engine exposes no request counter, or it was not scraped twice yet")
    if requests <= 0:
        return _Value(None, 0, source=source, reason="no request was answered in the window")
    return _Value(errors / requests, round(requests), source=source)


def _rate(counter: str, records: list[EndpointRecord], now: float) -> _Value:
    total, seconds, used = _grown(counter, records, now)
    if not used or seconds <= 0:
        return _Value(None, reason="the engine exposes no such counter, or it was not scraped twice yet")
    return _Value(total / seconds, used, source=f"counters of {used} endpoints")


def _gauge(name: str, records: list[EndpointRecord], now: float) -> _Value:
    values = [v for r in records if name in r.gauges and (v := r.gauges[name].value(now)) is not None]
    if not values:
        return _Value(None, reason="not exposed, or not read for a while")
    worst = sum(values) if name in _SUMMED else max(values)
    return _Value(worst, len(values), source=f"{len(values)} endpoints")
