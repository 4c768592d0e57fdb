"""From windows to evidence: every signal of every pool in one pass over the whole fleet.

Used by `observe` alone. The rows of the windows are put in the order of the pools, and each signal is then a few
operations on arrays, however many endpoints there are. It reads no clock: `now` is an argument.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controlplane.flows.records import DEFAULT_WINDOW_S, STALE_AFTER_S, STALE_AFTER_TURNS, Records
from controlplane.signals.quantile import histogram_quantiles
from controlplane.signals.sample import CATALOGUE, Direction, Fold, Signal
from controlplane.signals.window import CounterMatrix, Increase
from controlplane.slo.threshold import Band, BandState, Threshold, advance
from controlplane.slo.verdict import Evidence

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(slots=True)
class Value:
    """A signal's value before it is judged. Not frozen: thousands are made in each pass."""

    value: float | None
    samples: int = 0
    low: float | None = None
    high: float | None = None
    source: str = ""
    reason: str = ""
    newest: float = float("-inf")
    """Monotonic seconds of the newest sample in it."""
    counted: bool = True
    """False where somebody else computed it and does not say of how many samples."""


class Assessor:
    """Turns records into evidence; it keeps the band each signal of each pool is in."""

    def __init__(self, thresholds: Mapping[str, Threshold]) -> None:
        self._thresholds = thresholds
        self._bands: dict[tuple[str, str], BandState] = {}
        self._unknown: dict[tuple[str, str], tuple[Value, Evidence]] = {}
        """Signals that are not exposed, and what was said of them: the same in every pass."""
        self._order: _Order | None = None

    def evidence(self, records: Records, now: float) -> dict[str, tuple[Evidence, ...]]:
        """Judge every signal of the catalogue for every pool."""
        if self._order is None or self._order.generation != records.generation:
            self._order = _ordered(records)
        reading = _Reading(records, self._order, now)
        columns = {name: reading.values(signal) for name, signal in CATALOGUE.items()}
        judged: dict[str, tuple[Evidence, ...]] = {}
        for i, pool in enumerate(reading.pools):
            judged[pool] = tuple(
                self._judge(pool, name, column[i], records.window_s[name], now) for name, column in columns.items()
            )
        for pool in records.pools.keys() - judged.keys():
            nothing = Value(None, reason="the pool has no endpoint")
            known = {"endpoints_down": _ALL_LEFT} if pool in records.emptied else {}
            judged[pool] = tuple(
                self._judge(pool, name, known.get(name, nothing), records.window_s[name], now) for name in CATALOGUE
            )
        return judged

    def _judge(self, pool: str, name: str, seen: Value, window_s: float, now: float) -> Evidence:
        key = pool, name
        before = self._unknown.get(key)
        if before is not None and before[0] is seen:
            return before[1]
        threshold = self._thresholds.get(name)
        value, reason = seen.value, seen.reason
        if threshold is None:
            band = Band.UNKNOWN if value is None else Band.OK
        else:
            if value is not None and seen.counted and seen.samples < threshold.min_samples:
                value = None
                reason = f"{seen.samples} samples in {window_s:g} s, {threshold.min_samples} wanted"
            state = advance(self._bands.get(key, _NOTHING_YET), value, threshold, CATALOGUE[name].worse, now)
            self._bands[key] = state
            band = state.band
        low, high = (seen.low, seen.high) if value is not None else (None, None)
        age_s = now - seen.newest if seen.newest > float("-inf") else None
        folded = CATALOGUE[name].fold
        windowed = None if folded in _AT_ONCE else window_s
        found = Evidence(name, value, band, seen.samples, low, high, seen.source, reason, windowed, age_s)
        if seen.value is None:
            self._unknown[key] = seen, found
        elif before is not None:
            del self._unknown[key]
        return found


@dataclass(frozen=True, slots=True)
class _Order:
    """The rows of the windows in the order of the pools; the same until the inventory changes."""

    generation: int
    pools: Sequence[str]
    """Those that have endpoints."""
    sizes: Sequence[int]
    rows: Rows
    starts: Rows
    """Where each pool begins."""


def _ordered(records: Records) -> _Order:
    pools = [name for name, endpoints in records.pools.items() if endpoints]
    sizes = [len(records.pools[name]) for name in pools]
    rows = [record.row for name in pools for record in records.pools[name].values()]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    return _Order(records.generation, pools, sizes, np.array(rows, np.int64), starts)


class _Reading:
    """One pass over the fleet: rows in the order of the pools, and what several signals have in common read once."""

    def __init__(self, records: Records, order: "_Order", now: float) -> None:
        self._records = records
        self._now = now
        self.pools = order.pools
        self.sizes = order.sizes
        self._order = order.rows
        self._starts = order.starts
        self._increases: dict[tuple[int, float], Increase] = {}

    def values(self, signal: Signal) -> Sequence[Value]:
        """Return a signal's value for every pool that has endpoints."""
        if not self.pools:
            return ()
        by_fold: dict[Fold, Callable[[Signal], Iterator[Value]]] = {
            Fold.OWN: self._own,
            Fold.QUANTILE: self._quantile,
            Fold.RATE: self._counted,
            Fold.GROWTH: self._counted,
        }
        values = list(by_fold.get(signal.fold, self._gauge)(signal))
        if signal.fold not in by_fold or signal.name not in self._records.gauges:
            return values
        return [own if own.value is not None else told for own, told in zip(values, self._told(signal), strict=True)]

    def _told(self, signal: Signal) -> Iterator[Value]:
        """Give what a Prometheus-compatible server computed, for a signal that the endpoints' own pages do not tell."""
        worst = Fold.MAX if signal.worse is Direction.UP else Fold.MIN
        for value in self._gauge(replace(signal, fold=worst, reads="")):
            source = f"PromQL, {value.samples} series" if value.value is not None else ""
            yield replace(value, source=source, counted=False)

    # -- arithmetic over pools -------------------------------------------------------------------------------------

    def _ordered(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return one number (or vector) an endpoint, in the order of the pools."""
        return rows[self._order]

    def _sum(self, ordered: NDArray[np.generic]) -> Floats:
        total: Floats = np.add.reduceat(ordered.astype(np.float64), self._starts, axis=0)
        return total

    def _most(self, ordered: NDArray[np.generic]) -> Floats:
        most: Floats = np.maximum.reduceat(ordered.astype(np.float64), self._starts)
        return most

    def _increase(self, window: CounterMatrix, span_s: float) -> Increase:
        """Return a window's increase in the order of the pools; several signals read the same one."""
        key = id(window), span_s
        if key not in self._increases:
            window.reserve(self._records.rows)
            seen, order = window.increase(self._now, span_s), self._order
            self._increases[key] = Increase(seen.grown[order], seen.seconds[order], seen.known[order], seen.at[order])
        return self._increases[key]

    def _newest(self, at: Floats, used: NDArray[np.bool_]) -> Floats:
        return self._most(np.where(used, at, -np.inf))

    # -- signals ---------------------------------------------------------------------------------------------------

    def _own(self, signal: Signal) -> Iterator[Value]:
        rules = {
            "availability": self._availability,
            "endpoints_down": self._endpoints_down,
            "error_rate": self._error_rate,
            "token_progress": self._token_progress,
        }
        return rules[signal.name]()

    def _availability(self) -> Iterator[Value]:
        records = self._records
        records.outcomes.reserve(records.rows)
        tally = records.outcomes.tally(self._now)
        refused = self._ordered(records.refused).astype(bool)
        good = self._sum(np.where(refused, 0, self._ordered(tally.good)))
        looks = self._ordered(tally.total)
        total = self._sum(np.where(refused, np.maximum(1, looks), looks))
        discarded, newest = self._sum(self._ordered(tally.discarded)), self._most(self._ordered(tally.at))
        for i, size in enumerate(self.sizes):
            source = f"health checks and completions of {size} endpoints"
            late = f"the prober itself was late: {discarded[i]:.0f} looks say nothing" if discarded[i] else ""
            if not total[i] or discarded[i] > total[i]:
                yield Value(None, int(total[i]), source=source, reason=late or "no look has ended yet")
            else:
                yield _share(good[i], total[i], source, late, newest[i])

    def _endpoints_down(self) -> Iterator[Value]:
        records = self._records
        looked = self._sum(self._ordered(records.looked))
        down = self._sum(self._ordered(records.down & records.looked))
        for i, pool in enumerate(self.pools):
            if looked[i] < self.sizes[i]:
                yield Value(None, reason="not every endpoint has been looked at yet")
                continue
            named = _named([r.endpoint.name for r in records.pools[pool].values() if r.down] if down[i] else [])
            source = "held connections and probes"
            yield _share(down[i], looked[i], source, named, self._now)

    def _error_rate(self) -> Iterator[Value]:
        requests = self._grown("requests", "error_rate")
        errors = self._grown("server_errors", "error_rate")
        for i, (grown, _, used, newest) in enumerate(requests):
            source = f"answers counted by {used} endpoints"
            if not used:
                yield Value(None, reason="the engine exposes no request counter, or it was not scraped twice yet")
            elif grown <= 0:
                yield Value(None, source=source, reason="no request was answered in the window", newest=newest)
            else:
                yield Value(errors[i][0] / grown, round(grown), source=source, newest=newest)

    def _token_progress(self) -> Iterator[Value]:
        """Of the endpoints that run requests, or whose completions time out: the share whose tokens move."""
        records = self._records
        stuck = self._ordered(records.stuck).astype(bool)
        tokens, running = records.counters.get("generated_tokens"), records.gauges.get("requests_running")
        moving = known = np.zeros(len(self._order), bool)
        newest = np.full(len(self.pools), -np.inf)
        if tokens:
            seen = self._increase(tokens, records.window_s["token_progress"])
            known, moving = seen.known, seen.known & (seen.grown[:, 0] > 0)
            newest = self._newest(seen.at, known)
        busy = np.zeros(len(self._order), bool)
        if running:
            running.reserve(records.rows)
            busy = self._ordered(running.values(self._now)).astype(np.float64) > 0
        asked = (busy & known) | (stuck & ~moving)
        good, total = self._sum(asked & moving), self._sum(asked)
        for i in range(len(self.pools)):
            if not total[i]:
                yield Value(None, reason="no endpoint runs a request, or its tokens are not counted")
            else:
                source = f"token counters and completions of {total[i]:.0f} busy endpoints"
                yield _share(good[i], total[i], source, "", newest[i])

    def _quantile(self, signal: Signal) -> Iterator[Value]:
        """Merge each pool's histograms before the quantile; endpoints whose edges differ are left out and counted."""
        by_edges = self._records.histograms.get(signal.key, {})
        span_s = self._records.window_s[signal.name]
        seen = [self._increase(window, span_s) for window in by_edges.values()]
        used = [self._sum(one.known).tolist() for one in seen]
        merged = [
            histogram_quantiles(signal.quantile, edges, self._sum(one.grown))
            for edges, one in zip(by_edges, seen, strict=True)
        ]
        newest = [self._newest(one.at, one.known).tolist() for one in seen]
        for i in range(len(self.pools)):
            most = max(range(len(seen)), key=lambda k: used[k][i], default=None)
            if most is None or not used[most][i]:
                yield _NO_HISTOGRAM
                continue
            source = f"histograms of {used[most][i]:.0f} endpoints"
            quantile, at = merged[most].at(i), newest[most][i]
            odd = self._with_other_edges(i, [one for k, one in enumerate(seen) if k != most]) if len(seen) > 1 else ()
            reason = f"{len(odd)} endpoints have other bucket edges and are left out: {_named(odd)}" if odd else ""
            if quantile is None:
                yield Value(None, source=source, reason="no request ended in the window", newest=at)
            else:
                yield Value(quantile.value, quantile.samples, quantile.low, quantile.high, source, reason, at)

    def _with_other_edges(self, i: int, others: Sequence[Increase]) -> list[str]:
        """Name the endpoints of a pool whose histograms grew in some other window."""
        mine = slice(self._starts[i], self._starts[i] + self.sizes[i])
        known = np.any([one.known[mine] for one in others], axis=0) if others else ()
        if not np.any(known):
            return []
        return [
            r.endpoint.name for r, odd in zip(self._records.pools[self.pools[i]].values(), known, strict=True) if odd
        ]

    def _grown(self, counter: str, signal: str) -> list[tuple[float, float, int, float]]:
        """Return for every pool: how much a counter grew, over how long at most, in how many endpoints, when last."""
        window = self._records.counters.get(counter)
        if window is None:
            return [(0.0, 0.0, 0, -np.inf)] * len(self.pools)
        seen = self._increase(window, self._records.window_s.get(signal, DEFAULT_WINDOW_S))
        grown, seconds, used = self._sum(seen.grown[:, 0]), self._most(seen.seconds), self._sum(seen.known)
        newest = self._newest(seen.at, seen.known)
        columns = grown.tolist(), seconds.tolist(), used.astype(np.int64).tolist(), newest.tolist()
        return list(zip(*columns, strict=True))

    def _counted(self, signal: Signal) -> Iterator[Value]:
        for total, seconds, used, newest in self._grown(signal.key, signal.name):
            if not used or seconds <= 0:
                yield _NO_COUNTER
            else:
                value = total / seconds if signal.fold is Fold.RATE else total
                yield Value(value, used, source=f"counters of {used} endpoints", newest=newest)

    def _gauge(self, signal: Signal) -> Iterator[Value]:
        gauge = self._records.gauges.get(signal.key)
        if gauge is None:
            yield from [_NO_GAUGE] * len(self.pools)
            return
        gauge.reserve(self._records.rows)
        values = self._ordered(gauge.values(self._now)).astype(np.float64)
        known = ~np.isnan(values)
        used, newest = self._sum(known), self._newest(gauge.at[self._order], known)
        if signal.fold is Fold.SUM:
            folded = self._sum(np.where(known, values, 0.0))
        elif signal.fold is Fold.MIN:
            folded = -self._most(np.where(known, -values, -np.inf))
        else:
            folded = self._most(np.where(known, values, -np.inf))
        partial = self._records.partial.get(signal.key)
        for i, (value, count, at) in enumerate(zip(folded.tolist(), used.tolist(), newest.tolist(), strict=True)):
            if not count:
                yield _NO_GAUGE
            else:
                reason = self._partly(partial, i) if partial else ""
                yield Value(value, int(count), source=f"{count:.0f} endpoints", reason=reason, newest=at)

    def _partly(self, partial: Mapping[int, str], i: int) -> str:
        """Say why what a pool's gauges were read from may not be whole."""
        rows = self._order[self._starts[i] : self._starts[i] + self.sizes[i]].tolist()
        return next((partial[row] for row in rows if row in partial), "")


def _share(part: float, whole: float, source: str, reason: str, newest: float) -> Value:
    return Value(float(part / whole), int(whole), source=source, reason=reason, newest=float(newest))


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


_NAMED = 20
"""How many endpoints are named in a reason."""
_AT_ONCE = (Fold.SUM, Fold.MAX, Fold.MIN)
"""Signals of one moment: they have no window."""
_NOTHING_YET = BandState()
_ALL_LEFT = Value(1.0, source="the inventory", reason="every endpoint has left the pool", counted=False)
"""Whoever lists the pool says that it has nobody left: that is no lack of data, it is an outage."""
_NO_HISTOGRAM = Value(None, reason="the engine exposes no such histogram, or it was not scraped twice yet")
_NO_COUNTER = Value(None, reason="the engine exposes no such counter, or it was not scraped twice yet")
_NO_GAUGE = Value(
    None, reason=f"not exposed, or not read for {STALE_AFTER_S:g} s, or {STALE_AFTER_TURNS:g} turns of a slower probe"
)
