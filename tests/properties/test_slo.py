"""Bands neither flap nor lie about their order."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controlplane.signals.sample import Direction
from controlplane.slo.threshold import SEVERITY, Band, BandState, Threshold, advance, classify

DWELL_S = 5.0
levels = st.tuples(*[st.floats(0, 100)] * 3).map(sorted)
values = st.floats(-10, 110)
readings = st.lists(st.tuples(st.floats(0.1, 7.0), st.none() | st.floats(0, 1)), max_size=40)


def threshold(healthy: float, warn: float, breach: float) -> Threshold:
    return Threshold(healthy, warn, breach, timedelta(seconds=30), timedelta(seconds=DWELL_S))


@given(levels, values, values, st.sampled_from(Band))
def test_a_worse_value_never_gets_a_better_band(edges: list[float], one: float, other: float, current: Band) -> None:
    better, worse = sorted((one, other))
    bands = [classify(value, threshold(*edges), Direction.UP, current) for value in (better, worse)]
    assert SEVERITY[bands[0]] <= SEVERITY[bands[1]]


@given(levels, values, st.sampled_from(Band))
def test_downwards_is_upwards_in_the_mirror(edges: list[float], value: float, current: Band) -> None:
    mirrored = threshold(*(-edge for edge in edges))
    assert classify(-value, mirrored, Direction.DOWN, current) is classify(
        value, threshold(*edges), Direction.UP, current
    )


@given(levels, values, st.sampled_from(Band))
def test_a_band_that_was_just_given_is_given_again(edges: list[float], value: float, current: Band) -> None:
    first = classify(value, threshold(*edges), Direction.UP, current)
    assert classify(value, threshold(*edges), Direction.UP, first) is first


@given(levels, values)
def test_being_in_a_worse_band_never_makes_a_value_look_better(edges: list[float], value: float) -> None:
    bands = [classify(value, threshold(*edges), Direction.UP, c) for c in (Band.OK, Band.WARN, Band.BREACH)]
    assert [SEVERITY[b] for b in bands] == sorted(SEVERITY[b] for b in bands)


@given(readings)
def test_a_known_band_holds_for_the_dwell_before_it_gives_way_to_another_known_one(
    seen: list[tuple[float, float | None]],
) -> None:
    state, now = BandState(), 0.0
    changes: list[tuple[float, Band]] = [(0.0, state.band)]
    for passed, value in seen:
        now += passed
        state = advance(state, value, threshold(0.3, 0.5, 0.8), Direction.UP, now)
        assert (state.band is Band.UNKNOWN) or value is not None
        if state.band is not changes[-1][1]:
            changes.append((now, state.band))
    for (since, before), (at, after) in pairwise(changes):
        if Band.UNKNOWN not in (before, after):
            assert at - since >= DWELL_S


@given(st.lists(st.sampled_from([0.49, 0.51]), min_size=2, max_size=60))
def test_a_value_that_hovers_at_a_level_trips_once_and_never_clears(hovering: list[float]) -> None:
    state, bands = BandState(Band.OK, Band.OK), []
    for now, value in enumerate(hovering):
        state = advance(state, value, threshold(0.3, 0.5, 0.8), Direction.UP, float(now))
        bands.append(state.band)
    assert sum(a is not b for a, b in pairwise([Band.OK, *bands])) <= 1


@given(readings)
def test_no_data_is_unknown_and_never_ok(seen: list[tuple[float, float | None]]) -> None:
    state, now = BandState(), 0.0
    for passed, value in seen:
        now += passed
        state = advance(state, value, threshold(0.3, 0.5, 0.8), Direction.UP, now)
        if value is None:
            assert state.band is Band.UNKNOWN
