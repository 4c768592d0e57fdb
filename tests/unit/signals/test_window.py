"""Windows answer from what they saw inside their span, and with nothing where they saw too little."""

from math import inf, nan

import pytest

from tests.support.one_row import Counter, Gauge, Outcomes


def counter(span_s: float, *samples: tuple[float, float]) -> Counter:
    window = Counter(span_s)
    for at, value in samples:
        window.add(at, (value,))
    return window


def test_a_counter_says_nothing_from_one_sample() -> None:
    assert Counter(10).increase(0) is None
    assert counter(10, (0, 5)).increase(0) is None


def test_growth_is_the_newest_minus_the_oldest_sample() -> None:
    assert counter(10, (0, 5), (2, 8), (4, 9)).increase(4) == ((4.0,), 4)


def test_the_sample_just_before_the_window_begins_it() -> None:
    assert counter(10, (0, 0), (8, 80), (16, 160), (24, 240)).increase(24) == ((160.0,), 16)


def test_a_counter_that_fell_was_restarted_and_grew_from_zero() -> None:
    assert counter(60, (0, 100), (1, 110), (2, 4), (3, 9)).increase(3) == ((19.0,), 3)


def test_one_bucket_that_fell_restarts_the_whole_histogram() -> None:
    window = Counter(60, 2)
    window.add(0, (5.0, 10.0))
    window.add(1, (6.0, 4.0))
    assert window.increase(1) == ((6.0, 4.0), 1)


def test_a_newest_sample_older_than_the_window_says_nothing() -> None:
    window = counter(10, (0, 1), (2, 2))
    assert window.increase(11) == ((1.0,), 2)
    assert window.increase(12.1) is None


def test_a_sample_that_is_not_newer_is_left_out() -> None:
    assert counter(60, (5, 10), (5, 99), (4, 50), (6, 12)).increase(6) == ((2.0,), 1)


def test_a_window_keeps_no_more_than_it_needs() -> None:
    window = counter(10, *((float(t), float(t)) for t in range(1000)))
    assert window.increase(999) == ((10.0,), 10)
    assert window.matrix.depth <= 16


def test_a_gauge_is_its_newest_value_until_it_is_stale() -> None:
    gauge = Gauge(10)
    assert gauge.value(0) is None
    gauge.add(5, 0.7)
    gauge.add(3, 0.1)
    assert gauge.value(5) == 0.7
    assert gauge.value(15) == 0.7
    assert gauge.value(15.1) is None
    gauge.add(20, 0.0)
    assert gauge.value(20) == 0.0


@pytest.mark.parametrize("strange", [nan, inf, -inf, 1e308])
def test_a_sample_that_is_no_number_is_left_out(strange: float) -> None:
    window = Counter(60, 2)
    for at, values in ((0, (1.0, 1.0)), (1, (2.0, 2.0)), (2, (3.0, strange)), (3, (5.0, 4.0))):
        window.add(at, values)
    assert window.increase(3) == ((4.0, 3.0), 3)
    gauge = Gauge(10)
    gauge.add(0, 0.5)
    gauge.add(1, strange)
    assert gauge.value(1) == 0.5


def outcomes(*looks: tuple[float, bool], span_s: float = 10) -> Outcomes:
    window = Outcomes(span_s)
    for at, ok in looks:
        window.add(at, ok=ok)
    return window


def test_outcomes_count_what_lies_inside_the_window() -> None:
    window = outcomes((0, True), (5, False), (9, True))
    assert window.tally(9) == (2, 3)
    assert window.tally(12) == (1, 2)
    assert window.tally(100) == (0, 0)
    assert window.tally(6) == (1, 2)


@pytest.mark.parametrize(
    ("looks", "run"), [("", 0), ("s", 0), ("f", 1), ("sff", 2), ("ffs", 0), ("fsfff", 3)]
)  # fmt: skip
def test_failures_in_a_row_are_counted_from_the_newest(looks: str, run: int) -> None:
    assert outcomes(*((float(i), look == "s") for i, look in enumerate(looks))).failures_in_a_row() == run


def test_a_cleared_window_knows_of_nothing() -> None:
    window = outcomes((0, True), (1, False))
    assert window.tally(1) == (1, 2)
    window.clear()
    assert window.tally(1) == (0, 0)
    assert window.failures_in_a_row() == 0
