"""A value is put into a band with hysteresis and a dwell, in whichever direction it gets worse."""

from datetime import timedelta

import pytest

from controlplane.signals.sample import Direction
from controlplane.slo.threshold import Band, BandState, Threshold, advance, classify

LATENCY = Threshold(0.5, 1.0, 2.0, timedelta(seconds=30), timedelta(seconds=5))
AVAILABILITY = Threshold(0.99, 0.95, 0.90, timedelta(seconds=10), timedelta(0))
OK, WARN, BREACH, UNKNOWN = Band.OK, Band.WARN, Band.BREACH, Band.UNKNOWN


@pytest.mark.parametrize(
    ("current", "value", "band"),
    [
        (OK, 0.5, OK), (OK, 0.99, OK), (OK, 1.0, WARN), (OK, 1.99, WARN), (OK, 2.0, BREACH),
        (WARN, 0.51, WARN), (WARN, 0.5, OK), (WARN, 1.5, WARN), (WARN, 2.0, BREACH),
        (BREACH, 1.0, BREACH), (BREACH, 0.99, WARN), (BREACH, 0.51, WARN), (BREACH, 0.5, OK),
        (UNKNOWN, 0.99, OK), (UNKNOWN, 1.5, WARN), (UNKNOWN, 9.0, BREACH),
    ],
)  # fmt: skip
def test_trip_and_clear_are_different_levels(current: Band, value: float, band: Band) -> None:
    assert classify(value, LATENCY, Direction.UP, current) is band


@pytest.mark.parametrize(
    ("current", "value", "band"),
    [
        (OK, 1.0, OK), (OK, 0.951, OK), (OK, 0.95, WARN), (OK, 0.90, BREACH), (OK, 0.0, BREACH),
        (WARN, 0.98, WARN), (WARN, 0.99, OK), (BREACH, 0.95, BREACH), (BREACH, 0.96, WARN), (BREACH, 1.0, OK),
    ],
)  # fmt: skip
def test_a_signal_that_gets_worse_downwards_is_classified_downwards(current: Band, value: float, band: Band) -> None:
    assert classify(value, AVAILABILITY, Direction.DOWN, current) is band


def walk(*seen: tuple[float, float | None], threshold: Threshold = LATENCY) -> list[Band]:
    state, bands = BandState(), []
    for now, value in seen:
        state = advance(state, value, threshold, Direction.UP, now)
        bands.append(state.band)
    return bands


def test_the_first_value_that_is_well_counts_at_once() -> None:
    assert walk((0, 0.1)) == [OK]


def test_a_worse_band_counts_once_it_has_held_for_the_dwell() -> None:
    assert walk((0, 0.1), (1, 3), (5.9, 3), (6, 3)) == [OK, OK, OK, BREACH]


def test_a_better_band_waits_out_the_same_dwell() -> None:
    assert walk((0, 0.1), (1, 3), (6, 3), (7, 0.1), (11.9, 0.1), (12, 0.1))[2:] == [BREACH, BREACH, BREACH, OK]


def test_a_value_that_returns_in_time_starts_the_dwell_again() -> None:
    assert walk((0, 0.1), (1, 3), (4, 0.1), (5, 3), (9, 3), (10, 3)) == [OK, OK, OK, OK, OK, BREACH]


def test_a_value_that_is_not_known_is_unknown_at_once() -> None:
    assert walk((0, 0.1), (1, None)) == [OK, UNKNOWN]


def test_a_bad_value_after_unknown_has_to_hold_before_it_counts() -> None:
    assert walk((0, None), (1, 3), (5.9, 3), (6, 3)) == [UNKNOWN, UNKNOWN, UNKNOWN, BREACH]


def test_a_value_that_is_not_a_number_is_never_well() -> None:
    assert walk((0, float("nan")))[-1] is not OK


def test_a_threshold_without_a_dwell_counts_at_once() -> None:
    state = advance(BandState(OK), 0.5, AVAILABILITY, Direction.DOWN, 1.0)
    assert state.band is BREACH
