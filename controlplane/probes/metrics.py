"""What a metrics page says of the signals: the few families we judge by, out of the hundreds it holds; pure.

Which families those are, under which names and with which labels, stands in `signals/engines`. What a page's series
mean is worked out once for each layout (see `exposition`); after that a scrape is a few sums over known places.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, isnan, nan

from controlplane.probes.exposition import Layout, Layouts, Scrape
from controlplane.probes.exposition import Series as Line
from controlplane.probes.probe import Histogram, Page
from controlplane.signals.engines import DCGM, ENGINES, ENVOY, EngineNames, Match, Merge, Quantity, Series, recognise

_KNOWN = frozenset(
    name
    for engine in (*ENGINES.values(), ENVOY, DCGM)
    for family in engine.families()
    for name in (family, f"{family}_bucket")
)


def is_wanted(name: str) -> bool:
    """Tell whether a series of this name is read for any engine; the rest of a page need not be parsed."""
    return name in _KNOWN


def read_page(content: bytes, names: EngineNames | None) -> Page:
    """Read a page that comes alone; a page that comes again and again is read by `read_scrape`.

    Args:
        content: the page, in Prometheus' text format or OpenMetrics.
        names: the series to read; None lets the page say whose it is. A series that is not on the page is absent from
            the result.

    Raises:
        ValueError: when the page cannot be parsed, or is no engine's that we know.
    """
    return read_scrape(Layouts(is_wanted).read(content), whose(content, names))


def whose(content: bytes, names: EngineNames | None) -> EngineNames:
    """Return the engine whose page this is, unless it is named.

    Raises:
        ValueError: when it is no engine's that we know.
    """
    engine = names or recognise(content)
    if engine is None:
        raise ValueError("no engine that we know exposes such a page; name it with `fleet.engine`")
    return engine


def read_scrape(scrape: Scrape, engine: EngineNames) -> Page:
    """Return what a scrape says; what its series mean is kept with its layout."""
    memo = scrape.layout.memo
    plan = memo.get(engine)
    if plan is None:
        plan = memo[engine] = _plan(scrape.layout, engine)
    values = scrape.values
    counters = {key: value for key, ways in plan.counters if (value := _amount(ways, values)) is not None}
    if "requests" in counters:
        counters.setdefault("server_errors", 0.0)  # A counter with labels is born with its first error.
    gauges = {key: value for key, ways in plan.gauges if (value := _amount(ways, values)) is not None}
    histograms = {key: found for key, buckets in plan.histograms if (found := _histogram(buckets, values)) is not None}
    return Page(counters, gauges, histograms, engine.name)


# --- what a layout's series mean, once --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """One family as places on a page."""

    series: Series
    places: tuple[tuple[int, tuple[int, ...]], ...]
    """(place of the value, places of what divides it)."""
    else_zero: bool
    """No wanted label set on the page means none happened: the family is there, with the labels asked for."""


_Ways = tuple[tuple[_Part, ...], ...]
_Buckets = tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]
"""Ascending edges, and the places to add up for each."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an engine's quantities are on pages of one layout."""

    counters: tuple[tuple[str, _Ways], ...]
    gauges: tuple[tuple[str, _Ways], ...]
    histograms: tuple[tuple[str, _Buckets], ...]


_Placed = Mapping[str, Sequence[tuple[int, Line]]]
"""The lines of a page by family."""


def _plan(layout: Layout, engine: EngineNames) -> _Plan:
    placed: dict[str, list[tuple[int, Line]]] = {}
    for i, line in enumerate(layout.series):
        placed.setdefault(line.name, []).append((i, line))
    return _Plan(
        tuple((key, ways) for key, quantity in engine.counters.items() if (ways := _ways(quantity, placed))),
        tuple((key, ways) for key, quantity in engine.gauges.items() if (ways := _ways(quantity, placed))),
        tuple((key, found) for key, quantity in engine.histograms.items() if (found := _buckets(quantity, placed))),
    )


def _ways(quantity: Quantity, placed: _Placed) -> _Ways:
    """Keep the ways whose families are all on the page."""
    return tuple(
        tuple(_part(series, placed) for series in way)
        for way in quantity.ways
        if all(series.name in placed for series in way)
    )


def _part(series: Series, placed: _Placed) -> _Part:
    lines = placed[series.name]
    divisors = [{_key(line): i for i, line in placed.get(name, ())} for name in series.over]
    places = tuple(
        (i, tuple(by_labels[_key(line)] for by_labels in divisors))
        for i, line in lines
        if _all_match(series.only, line.labels) and all(_key(line) in by_labels for by_labels in divisors)
    )
    asked = {match.label for match in series.only if match.wanted and match.pattern}
    counted = bool(asked) and any(asked <= line.labels.keys() for _, line in lines)
    return _Part(series, places, else_zero=counted and series.merge is Merge.SUM)


def _key(line: Line) -> frozenset[tuple[str, str]]:
    return frozenset(line.labels.items())


def _all_match(matches: Iterable[Match], labels: Mapping[str, str]) -> bool:
    return all((_pattern(m.pattern).fullmatch(labels.get(m.label, "")) is not None) is m.wanted for m in matches)


@lru_cache(maxsize=128)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _buckets(quantity: Quantity, placed: _Placed) -> _Buckets | None:
    """Find a histogram's buckets by the first of its names that is on the page; label sets are added up."""
    for way in quantity.ways:
        by_edge: dict[float, list[int]] = {}
        for series in way:
            for i, line in placed.get(f"{series.name}_bucket", ()):
                if _all_match(series.only, line.labels):
                    by_edge.setdefault(_edge(line.labels.get("le", "")) * series.scale, []).append(i)
        if inf in by_edge:
            edges = tuple(sorted(by_edge))
            return edges, tuple(tuple(by_edge[edge]) for edge in edges)
    return None


def _edge(text: str) -> float:
    """Read a bucket's edge.

    Raises:
        ValueError: when it is no number.
    """
    try:
        edge = float(text)
    except ValueError:
        edge = nan
    if isnan(edge):
        raise ValueError(f"a bucket's edge is `{text}`")
    return edge


# --- the numbers of one scrape ----------------------------------------------------------------------------------------


def _amount(ways: _Ways, values: Sequence[float]) -> float | None:
    """Return a counter or gauge by the first of its ways that gives a number."""
    for way in ways:
        total = 0.0
        for part in way:
            value = _merged(part, values)
            if value is None:
                break
            total += value
        else:
            return total
    return None


def _merged(part: _Part, values: Sequence[float]) -> float | None:
    """Return one family as one number; what is not a number, infinite, or blank, is no reading."""
    series = part.series
    found = []
    for place, divisors in part.places:
        value = values[place]
        if not isfinite(value) or value >= series.blank_from:
            continue
        if divisors:
            whole = sum(values[d] for d in divisors)
            if not 0 < whole < inf:
                continue
            value /= whole
        found.append(value * series.scale)
    if not found:
        return 0.0 if part.else_zero and not part.places else None
    return _MERGES[series.merge](found)


_MERGES: Mapping[Merge, Callable[[list[float]], float]] = {Merge.SUM: sum, Merge.MAX: max, Merge.COUNT: len}


def _histogram(buckets: _Buckets, values: Sequence[float]) -> Histogram | None:
    edges, places = buckets
    cumulative = tuple([values[p[0]] if len(p) == 1 else sum([values[i] for i in p]) for p in places])
    return Histogram(edges, cumulative) if all(map(isfinite, cumulative)) else None
