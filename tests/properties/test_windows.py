"""The fleet's windows say what the plainest implementation says, whatever comes in."""

from itertools import pairwise
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.signals.quantile import histogram_quantile, histogram_quantiles
from controlplane.signals.window import CounterMatrix, GaugeMatrix, OutcomeMatrix
from tests.support import plain_windows as plain

SPAN_S = 30.0
ROWS = 4
gaps = st.one_of(st.just(0.0), st.floats(0.125, 7.0), st.sampled_from([5.0, SPAN_S, 1.5 * SPAN_S]))
counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))


@st.composite
def scrapes(draw: st.DrawFn) -> list[tuple[int, float, tuple[float, ...]]]:
    """Scrapes of a few endpoints in any mixture: gaps, bursts, repeats, samples out of order, restarts."""
    at, out = 100.0, []
    for _ in range(draw(st.integers(0, 60))):
        at += draw(gaps)
        late = draw(st.sampled_from([0.0, 0.0, 0.0, 3.0, 40.0]))
        out.append((draw(st.integers(0, ROWS - 1)), at - late, tuple(float(x) for x in draw(counts))))
    return out


@settings(max_examples=300, deadline=None)
@given(scrapes(), st.lists(st.integers(0, 60), max_size=6), gaps, st.sampled_from([SPAN_S, 10.0]))
def test_counters_grow_as_the_plain_window_says(
    samples: list[tuple[int, float, tuple[float, ...]]], reads: list[int], after: float, span_s: float
) -> None:
    fast = CounterMatrix(SPAN_S, width=3)
    slow = [plain.CounterWindow(SPAN_S) for _ in range(ROWS)]
    now = 100.0
    for i, (row, at, values) in enumerate([*samples, (0, -1.0, (0.0, 0.0, 0.0))]):
        now = max(now, at)
        if i in reads:  # Reading in between settles what waits: it must make no difference.
            fast.increase(now)
        fast.add(row, at, values)
        slow[row].add(at, values)
    now += after
    got = fast.increase(now, span_s)
    for row, window in enumerate(slow):
        window.span_s = span_s  # The plain one keeps what the longer span needs, and is asked for the shorter.
        wanted = window.increase(now)
        known = row < len(got.known) and bool(got.known[row])
        assert known == (wanted is not None)
        if wanted:
            assert tuple(got.grown[row]) == wanted[0]
            assert got.seconds[row] == wanted[1]


@settings(max_examples=200, deadline=None)
@given(scrapes(), gaps)
def test_gauges_keep_the_newest_value_until_it_is_stale(
    samples: list[tuple[int, float, tuple[float, ...]]], after: float
) -> None:
    fast = GaugeMatrix(10.0)
    slow = [plain.GaugeWindow(10.0) for _ in range(ROWS)]
    now = 100.0
    for row, at, values in samples:
        now = max(now, at)
        fast.add(row, at, values[0])
        slow[row].add(at, values[0])
        if values[1] > 30:
            fast.values(now)
    now += after
    got = fast.values(now)
    for row, gauge in enumerate(slow):
        value = gauge.value(now)
        assert (row < len(got) and not np.isnan(got[row])) == (value is not None)
        assert value is None or got[row] == value


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, ROWS - 1), gaps, st.booleans(), st.integers(0, 30)), max_size=80), gaps)
def test_outcomes_tally_as_the_plain_window_says(looks: list[tuple[int, float, bool, int]], after: float) -> None:
    fast = OutcomeMatrix(SPAN_S)
    slow = [plain.OutcomeWindow(SPAN_S) for _ in range(ROWS)]
    now = 100.0
    for row, gap, ok, odd in looks:
        now += gap
        if odd == 0:
            fast.clear(row)
            slow[row].clear()
        fast.add(row, now, ok=ok)
        slow[row].add(now, ok=ok)
        assert fast.failures_in_a_row(row) == slow[row].failures_in_a_row()
        if odd == 1:
            fast.tally(now)
    now += after
    got = fast.tally(now)
    for row, window in enumerate(slow):
        seen = (int(got.good[row]), int(got.total[row])) if row < len(got.total) else (0, 0)
        assert seen == window.tally(now)


EDGES = (0.1, 0.25, 0.5, 1.0, 2.0, inf)
buckets = st.lists(st.integers(0, 1000), min_size=len(EDGES), max_size=len(EDGES))


@given(st.lists(buckets, min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_many_quantiles_at_once_are_the_single_ones(histograms: list[list[int]], q: float) -> None:
    many = histogram_quantiles(q, EDGES, np.cumsum(np.array(histograms, float), axis=1))
    for i, histogram in enumerate(histograms):
        wanted = plain.histogram_quantile(q, EDGES, histogram)
        got = many.at(i)
        assert (got is None) == (wanted is None)
        if got and wanted:
            assert (got.low, got.high, got.samples) == (wanted.low, wanted.high, wanted.samples)
            assert got.value == pytest.approx(wanted.value, rel=1e-12)
        assert histogram_quantile(q, EDGES, histogram) == got


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_exact_quantile_lies_within_the_bounds(seconds: list[float], q: float) -> None:
    counts = [sum(low < x <= high for x in seconds) for low, high in pairwise((-1.0, *EDGES))]
    got = histogram_quantile(q, EDGES, counts)
    exact = sorted(seconds)[max(0, int(np.ceil(round(q * len(seconds), 9))) - 1)]
    assert got is not None
    assert got.low <= exact <= got.high
    assert got.low <= got.value <= got.high
    assert got.samples == len(seconds)


def test_a_sample_that_is_no_number_is_as_none_at_all() -> None:
    counter, gauge = CounterMatrix(SPAN_S), GaugeMatrix(10.0)
    for at, value in ((1.0, 5.0), (2.0, nan), (3.0, 9.0), (4.0, inf)):
        counter.add(0, at, (value,))
        gauge.add(0, at, value)
    assert counter.increase(5.0).grown[0, 0] == 4.0
    assert gauge.values(5.0)[0] == 9.0


def test_a_row_that_is_cleared_begins_again() -> None:
    counter = CounterMatrix(SPAN_S)
    counter.add(0, 1.0, (5.0,))
    counter.add(0, 2.0, (8.0,))
    counter.clear(0)
    assert not counter.increase(2.0).known[0]
    counter.add(0, 1.5, (100.0,))  # Older than what was cleared: it is the first sample of a new row.
    counter.add(0, 3.0, (101.0,))
    assert counter.increase(3.0).grown[0, 0] == 1.0


def test_looks_that_say_nothing_are_counted_apart() -> None:
    looks = OutcomeMatrix(SPAN_S)
    looks.add(0, 1.0, ok=False)
    looks.discard(0, 2.0)
    looks.add(0, 3.0, ok=False)
    tally = looks.tally(3.0)
    assert (tally.good[0], tally.total[0], tally.discarded[0]) == (0, 2, 1)
    assert looks.failures_in_a_row(0) == 2
