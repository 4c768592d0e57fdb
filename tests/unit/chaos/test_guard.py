"""A guard that is out of bounds, or cannot be evaluated, for too long stops the drill."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.guard import STALE_S, Guard, Reading, watch, wrong

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
GUARDS = {"availability": Guard(below=0.99, dwell=timedelta(seconds=10))}
GOOD, BAD, UNKNOWN = Reading(0.999), Reading(0.5), Reading(None, why="nothing came")


def broken(story: list[tuple[float, Reading | None]], guards: Mapping[str, Guard] = GUARDS) -> list[float]:
    """Return the seconds at which a guard breaks, when it is looked at at these seconds with these readings."""
    since: Mapping[str, datetime] = {}
    found = []
    for seconds, reading in story:
        readings = {"availability": reading} if reading else {}
        since, why = watch(guards, readings, since, T0 + timedelta(seconds=seconds))
        found += [seconds] * bool(why)
    return found


def test_a_guard_breaks_when_it_was_out_of_bounds_for_its_time() -> None:
    assert broken([(0, GOOD), (1, BAD), (5, BAD), (10.9, BAD), (11, BAD)]) == [11]


def test_one_good_look_begins_the_time_anew() -> None:
    assert broken([(0, BAD), (9, BAD), (9.5, GOOD), (10, BAD), (19, BAD), (20, BAD)]) == [20]


@pytest.mark.parametrize("nothing", [UNKNOWN, None, Reading(1.0, age_s=STALE_S + 1)])
def test_what_is_unknown_counts_as_broken(nothing: Reading | None) -> None:
    assert broken([(0, nothing), (5, nothing), (10, nothing)]) == [10]
    assert broken([(0, BAD), (5, nothing), (10, BAD)]) == [10]


def test_a_guard_without_a_time_breaks_at_once() -> None:
    assert broken([(0, BAD)], {"availability": Guard(below=0.99)}) == [0]


def test_bounds_are_told_in_the_signals_unit() -> None:
    assert wrong("availability", GUARDS["availability"], Reading(0.98)) == "availability is 98%, below 99%"
    assert wrong("latency_p99", Guard(above=2.0), Reading(2.5)) == "latency_p99 is 2.5 s, not below 2 s"
    assert wrong("availability", GUARDS["availability"], UNKNOWN) == "availability is unknown: nothing came"
    assert wrong("latency_p99", Guard(above=2.0), Reading(1.9, age_s=1.0)) == ""


@given(st.lists(st.sampled_from([GOOD, BAD, UNKNOWN, None]), max_size=60), st.integers(0, 8))
def test_it_breaks_exactly_when_no_look_of_the_last_dwell_was_good(story: list[Reading | None], dwell: int) -> None:
    guards = {"availability": Guard(below=0.99, dwell=timedelta(seconds=dwell))}
    expected = [
        float(i) for i in range(len(story)) if i >= dwell and all(r is not GOOD for r in story[i - dwell : i + 1])
    ]
    assert broken([(float(i), reading) for i, reading in enumerate(story)], guards) == expected
