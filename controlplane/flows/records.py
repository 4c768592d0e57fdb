"""What was seen of each endpoint: its standing at a glance, and its row in the windows of the whole fleet.

Used by `observe`, and read by `evidence`. It reads no clock: looks carry their own times and `now` is an argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import ASKING, HELD, Failure, Look, Page
from controlplane.signals.sample import CATALOGUE
from controlplane.signals.window import CounterMatrix, GaugeMatrix, OutcomeMatrix
from controlplane.slo.threshold import Threshold

DEFAULT_WINDOW_S = 30.0
"""The window of signals that have no threshold of their own."""

STALE_AFTER_S = 10.0
"""A gauge that was not read for so long is unknown; one that is read seldom, after `STALE_AFTER_TURNS`."""

STALE_AFTER_TURNS = 3.0
"""So many intervals of its probe: one look may be lost and the next one late, and the gauge stays known."""

STUCK_AFTER = 2
"""Completions in a row that must time out, while the health check answers, before an engine counts as stuck."""

Edges = tuple[float, ...]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Patience:
    """How many looks in a row make an endpoint down, and up again."""

    failures: int = 3
    successes: int = 1


_USUAL_PATIENCE = Patience()


@dataclass(slots=True)
class EndpointRecord:
    """One endpoint at a glance."""

    endpoint: Endpoint
    row: int
    """Its row in every window."""
    down: bool = False
    """Proven down: refused, or enough looks in a row failed, and not enough succeeded since."""
    refused: bool = False
    """Hard proof: nothing listened there, and no request has been served since."""
    listening: bool = True
    """Something listens (again); it still has to serve a request before the endpoint is up."""
    looked: bool = False
    detail: str = ""
    answer_s: float | None = None
    """Seconds the last completion took; None when there was none or it failed."""
    first_token_s: float | None = None
    """Seconds to its first token; None where the completion is not streamed."""
    tokens_per_s: float | None = None
    """Tokens a second of it, from the request to the answer's end."""
    up_since: float = 0.0
    """Monotonic seconds of the last change between up and down."""
    succeeded: int = 0
    """Looks in a row that succeeded."""
    silent_from: float | None = None
    """When (monotonic seconds) the last row of failed looks began; None before any."""
    unanswered: int = 0
    """Completions in a row that timed out."""
    healthy: bool = False
    """The last health check succeeded."""
    failing: bool = False
    """Down by what was asked of it: refused, or requests in a row failed, and not enough were answered since."""
    cut_off: bool = False
    """Down by connects: enough in a row failed, with no request answered meanwhile."""
    unconnected: int = 0
    """Connects in a row that failed."""
    connected: int = 0
    """Connects in a row that succeeded."""


class Records:
    """Every endpoint there is, pool by pool, and the windows they share."""

    def __init__(
        self,
        thresholds: Mapping[str, Threshold],
        patience: Mapping[str, Patience] | None = None,
        every_s: Mapping[str, float] | None = None,
    ) -> None:
        """Begin with no endpoint.

        Args:
            thresholds: by signal; they say how long windows are.
            patience: by probe; how many looks in a row it takes for that probe's look to settle it, whichever probes
                the looks before it were of.
            every_s: by probe; seconds between its looks.
        """
        self._patience = dict(patience or {})
        self._stale_after_s = {
            probe: max(STALE_AFTER_S, STALE_AFTER_TURNS * seconds) for probe, seconds in (every_s or {}).items()
        }
        self._only_connects = "tcp" in self._patience and not ASKING & self._patience.keys()
        """No probe of the page asks a request: a connect is then all that there is to go by."""
        self.window_s = dict.fromkeys(CATALOGUE, DEFAULT_WINDOW_S) | {
            name: threshold.window.total_seconds() for name, threshold in thresholds.items()
        }
        self._longest_s = _longest(self.window_s)
        self.outcomes = OutcomeMatrix(self.window_s["availability"])
        self.counters: dict[str, CounterMatrix] = {}
        self.gauges: dict[str, GaugeMatrix] = {}
        self.histograms: dict[str, dict[Edges, CounterMatrix]] = {}
        """By the page's key, then by bucket edges: endpoints with other buckets cannot be added to one another."""
        self.partial: dict[str, dict[int, str]] = {}
        """By the gauge's name, then by row: why the answer it was last read from may not be whole."""
        self._edges: dict[tuple[str, int], Edges] = {}
        self.pools: dict[str, dict[str, EndpointRecord]] = {}
        self.emptied: set[str] = set()
        """Pools that had endpoints and have none any more: nobody is left there to be looked at."""
        self._free: list[int] = []
        self.generation = 0
        """Another number whenever endpoints came or went."""
        self.rows = 0
        self.looked: Flags = np.zeros(0, bool)
        self.down: Flags = np.zeros(0, bool)
        self.refused: Flags = np.zeros(0, bool)
        self.stuck: Flags = np.zeros(0, bool)

    # -- the inventory ---------------------------------------------------------------------------------------------

    def set_endpoints(self, pool: str, endpoints: Iterable[Endpoint]) -> None:
        """Follow the inventory: forget what left, begin records for what came, keep the rest."""
        self.generation += 1
        records = self.pools.setdefault(pool, {})
        wanted = {e.name: e for e in endpoints}
        if wanted:
            self.emptied.discard(pool)
        elif records:
            self.emptied.add(pool)
        for name in [n for n, r in records.items() if wanted.get(n) != r.endpoint]:
            self._forget(records.pop(name))
        for name, endpoint in wanted.items():
            if name not in records:
                records[name] = EndpointRecord(endpoint, self._row())

    def find(self, endpoint: Endpoint) -> EndpointRecord | None:
        """Return an endpoint's record; None when it is no longer, or not as it was."""
        record = self.pools.get(endpoint.pool, {}).get(endpoint.name)
        return record if record and (record.endpoint is endpoint or record.endpoint == endpoint) else None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every endpoint there is."""
        return tuple(record.endpoint for pool in self.pools.values() for record in pool.values())

    def _row(self) -> int:
        if self._free:
            return self._free.pop()
        self.rows += 1
        if self.rows > len(self.looked):
            more = np.zeros(max(16, self.rows), bool)
            self.looked, self.down = np.concatenate([self.looked, more]), np.concatenate([self.down, more])
            self.refused, self.stuck = np.concatenate([self.refused, more]), np.concatenate([self.stuck, more])
        return self.rows - 1

    def _forget(self, record: EndpointRecord) -> None:
        row = record.row
        self.outcomes.clear(row)
        for counter in self.counters.values():
            counter.clear(row)
        for gauge in self.gauges.values():
            gauge.clear(row)
        for name, by_edges in self.histograms.items():
            edges = self._edges.pop((name, row), None)
            if edges:
                by_edges[edges].clear(row)
        for partial in self.partial.values():
            partial.pop(row, None)
        for flags in (self.looked, self.down, self.refused, self.stuck):
            flags[row] = False
        self._free.append(row)

    # -- looks -----------------------------------------------------------------------------------------------------

    def take(self, record: EndpointRecord, look: Look) -> bool:
        """Take one look in; True when the endpoint went up or down by it.

        A look that says nothing, because the prober itself was at fault, is counted as such and changes nothing.
        """
        was_down, first = record.down, not record.looked
        if look.failure is Failure.PROBER:
            if look.says_alive:
                self.outcomes.discard(record.row, look.at)
            return False
        if look.probe == HELD:
            self._take_connection(record, look)
        elif look.probe == "tcp":
            self._take_connect(record, look)
        elif look.page is not None:
            self._take_page(record.row, look.at, look.page, self._stale_after_s.get(look.probe, STALE_AFTER_S))
        elif look.says_alive:
            self._take_outcome(record, look)
        if record.down == was_down and not (first and record.looked):
            return False
        row, record.up_since = record.row, look.at
        self.looked[row], self.down[row], self.refused[row] = record.looked, record.down, record.refused
        return True

    def _take_connection(self, record: EndpointRecord, look: Look) -> None:
        if look.failure is Failure.REFUSED:
            record.down = record.failing = record.refused = record.looked = self.refused[record.row] = True
            record.listening, record.succeeded, record.connected = False, 0, 0
            record.detail, record.answer_s = look.detail, None
            record.first_token_s = record.tokens_per_s = None
        elif look.ok:
            record.listening = True

    def _take_connect(self, record: EndpointRecord, look: Look) -> None:
        """Take a connect: failures can put an endpoint down, a success takes back only what connects found."""
        patience = self._patience.get("tcp", _USUAL_PATIENCE)
        if look.failure is not None:
            record.connected, record.unconnected = 0, record.unconnected + 1
            if record.unconnected >= patience.failures:
                record.down = record.cut_off = record.looked = True
                record.detail = f"{look.failure}: {look.detail}"
            return
        record.connected, record.unconnected = record.connected + 1, 0
        if record.connected < patience.successes:
            return
        record.cut_off = False
        if self._only_connects:
            record.looked, record.failing, record.refused = True, False, False
        if record.down and not record.failing:
            record.down, record.detail = False, ""

    def _take_outcome(self, record: EndpointRecord, look: Look) -> None:
        ok = look.failure is None
        if record.refused and not (record.listening and ok):
            return
        row, outcomes, patience = record.row, self.outcomes, self._patience.get(look.probe, _USUAL_PATIENCE)
        if record.refused:
            outcomes.clear(row)  # The first success of a new process: what failed before it was not this one.
            record.refused = self.refused[row] = False
        record.looked = True
        outcomes.add(row, look.at, ok=ok, times=look.asked)
        if ok:
            record.detail = ""
            record.succeeded += 1
            record.unconnected = 0
            if record.succeeded >= patience.successes:
                record.down = record.failing = record.cut_off = False
        else:
            record.detail = f"{look.failure}: {look.detail}"
            if record.succeeded or record.silent_from is None:
                record.silent_from = look.at - look.took_s
            record.succeeded = 0
            if outcomes.failures_in_a_row(row) >= patience.failures:
                record.down = record.failing = True
        if look.probe == "inference":
            record.answer_s = look.took_s if ok else None
            record.first_token_s = look.first_token_s if ok else None
            record.tokens_per_s = look.tokens / look.took_s if ok and look.tokens and look.took_s else None
            record.unanswered = record.unanswered + 1 if look.failure is Failure.TIMEOUT else 0
        else:
            record.healthy = ok
        if record.unanswered or self.stuck[row]:
            self.stuck[row] = record.healthy and record.unanswered >= STUCK_AFTER

    def _take_page(self, row: int, at: float, page: Page, stale_after_s: float) -> None:
        for name, value in page.counters.items():
            counter = self.counters.get(name)
            if counter is None:
                counter = self.counters[name] = CounterMatrix(self._longest_s.get(name, DEFAULT_WINDOW_S))
            counter.add(row, at, (value,))
        for name, histogram in page.histograms.items():
            self._buckets(name, row, histogram.edges).add(row, at, histogram.cumulative)
        for name, value in page.gauges.items():
            gauge = self.gauges.get(name)
            if gauge is None:
                gauge = self.gauges[name] = GaugeMatrix(stale_after_s)
            elif gauge.stale_after_s < stale_after_s:  # Two probes read it: the slower one's values last, too.
                gauge.stale_after_s = stale_after_s
            gauge.add(row, at, value)
            if page.partial:
                self.partial.setdefault(name, {})[row] = page.partial
            elif self.partial and name in self.partial:
                self.partial[name].pop(row, None)

    def _buckets(self, name: str, row: int, edges: Edges) -> CounterMatrix:
        """Return the window for these buckets; an endpoint whose buckets changed begins anew."""
        by_edges = self.histograms.setdefault(name, {})
        before = self._edges.get((name, row))
        if before is not edges and before != edges:
            if before:
                by_edges[before].clear(row)
            self._edges[name, row] = edges
        if edges not in by_edges:
            by_edges[edges] = CounterMatrix(self._longest_s.get(name, DEFAULT_WINDOW_S), len(edges))
        return by_edges[edges]


def _longest(window_s: Mapping[str, float]) -> dict[str, float]:
    """Return the longest window in which each key of a page is read."""
    longest: dict[str, float] = {}
    for name, signal in CATALOGUE.items():
        longest[signal.key] = max(longest.get(signal.key, 0.0), window_s[name])
    for key in ("requests", "server_errors"):
        longest[key] = max(longest.get(key, 0.0), window_s["error_rate"])
    longest["generated_tokens"] = max(longest.get("generated_tokens", 0.0), window_s["token_progress"])
    return longest
