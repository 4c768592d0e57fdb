"""Windows and quantiles against references that are too slow to ship and too simple to be wrong."""

import math
from bisect import bisect_left
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from controlplane.signals.quantile import histogram_quantile
from tests.support.one_row import Counter, Gauge, Outcomes

times = st.integers(0, 60).map(float)
counts = st.integers(0, 50).map(float)
scrapes = st.lists(st.tuples(times, st.tuples(counts, counts)), max_size=25)
SPAN_S = 10.0


def naive_increase(
    samples: list[tuple[float, tuple[float, float]]], now: float
) -> tuple[tuple[float, ...], float] | None:
    """All samples in order of arrival, those out of order left out, the window cut by hand."""
    taken: list[tuple[float, tuple[float, float]]] = []
    for at, values in samples:
        if not taken or at > taken[-1][0]:
            taken.append((at, values))
    start = now - SPAN_S
    before = [s for s in taken if s[0] < start]
    inside = [s for s in taken if s[0] >= start]
    if inside and inside[0][0] > start:
        inside = before[-1:] + inside
    if len(inside) < 2:
        return None
    grown = [0.0, 0.0]
    for (_, old), (_, new) in pairwise(inside):
        fell = any(o > n for o, n in zip(old, new, strict=True))
        grown = [g + (n if fell else n - o) for g, n, o in zip(grown, new, old, strict=True)]
    return tuple(grown), inside[-1][0] - inside[0][0]


@given(scrapes, st.integers(0, 15).map(float))
def test_a_counter_window_grows_as_the_whole_history_says(
    samples: list[tuple[float, tuple[float, float]]], later: float
) -> None:
    window = Counter(SPAN_S, 2)
    newest = 0.0
    for at, values in samples:
        window.add(at, values)
        newest = max(newest, at)
    assert window.increase(newest + later) == naive_increase(samples, newest + later)


@given(scrapes)
def test_growth_is_never_negative(samples: list[tuple[float, tuple[float, float]]]) -> None:
    window = Counter(SPAN_S, 2)
    for at, values in samples:
        window.add(at, values)
        found = window.increase(at)
        assert found is None or (min(found[0]) >= 0 and found[1] > 0)


@given(st.lists(st.tuples(times, st.booleans()), max_size=30), st.integers(0, 15).map(float))
def test_an_outcome_window_counts_as_the_whole_history_says(looks: list[tuple[float, bool]], later: float) -> None:
    looks = sorted(looks, key=lambda look: look[0])
    window = Outcomes(SPAN_S)
    for at, ok in looks:
        window.add(at, ok=ok)
    now = (looks[-1][0] if looks else 0.0) + later
    inside = [ok for at, ok in looks if now - SPAN_S <= at <= now]
    assert window.tally(now) == (sum(inside), len(inside))


@given(st.lists(st.tuples(times, counts), max_size=10), st.integers(0, 100).map(float))
def test_a_gauge_answers_with_the_newest_value_that_is_not_stale(
    samples: list[tuple[float, float]], now: float
) -> None:
    gauge = Gauge(SPAN_S)
    newest: tuple[float, float] | None = None
    for at, value in samples:
        gauge.add(at, value)
        if newest is None or at > newest[0]:
            newest = (at, value)
    expected = newest[1] if newest and now - newest[0] <= SPAN_S else None
    assert gauge.value(now) == expected


EDGES = (0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, math.inf)


def bucketed(values: list[float]) -> list[int]:
    held = [0] * len(EDGES)
    for value in values:
        held[bisect_left(EDGES, value)] += 1
    return held


def prometheus(q: float, held: list[int]) -> float:
    """promql/quantile.go, bucketQuantile, for classic buckets of positive edges."""
    cumulative = [sum(held[: i + 1]) for i in range(len(held))]
    rank = q * cumulative[-1]
    b = next((i for i in range(len(EDGES) - 1) if cumulative[i] >= rank), len(EDGES) - 1)
    if b == len(EDGES) - 1:
        return EDGES[-2]
    start, count = (EDGES[b - 1], cumulative[b] - cumulative[b - 1]) if b else (0.0, cumulative[0])
    rank -= cumulative[b - 1] if b else 0
    return start + (EDGES[b] - start) * (rank / count)


latencies = st.lists(st.floats(0.0001, 8.0), min_size=1, max_size=60)
quantiles = st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0])


@given(quantiles, latencies)
def test_the_exact_quantile_lies_within_the_stated_bounds(q: float, values: list[float]) -> None:
    found = histogram_quantile(q, EDGES, bucketed(values))
    assert found is not None
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    assert found.low <= exact <= found.high
    assert found.low <= found.value <= found.high
    assert found.samples == len(values)


@given(quantiles, latencies)
def test_the_estimate_is_prometheus_own(q: float, values: list[float]) -> None:
    held = bucketed(values)
    found = histogram_quantile(q, EDGES, held)
    assert found is not None
    assert math.isclose(found.value, prometheus(q, held), rel_tol=1e-9, abs_tol=1e-12)


@given(latencies, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_higher_quantile_is_never_lower(values: list[float], one: float, other: float) -> None:
    assume(one < other)
    held = bucketed(values)
    lower, higher = histogram_quantile(one, EDGES, held), histogram_quantile(other, EDGES, held)
    assert lower is not None
    assert higher is not None
    assert lower.value <= higher.value + 1e-9
