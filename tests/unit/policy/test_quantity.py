"""Durations and ratios are read as people write them, and nothing else is."""

from datetime import timedelta

import pytest

from controlplane.policy.quantity import duration, number, ratio, spell_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1h30m", 5400), ("30d", 2_592_000), ("0s", 0), ("1.5s", 1.5),
     (" 5s ", 5), ("1d1h1m1s1ms", 90_061.001)],
)  # fmt: skip
def test_a_duration_is_read_in_its_unit(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5", 5, 0.5, "", "s", "5 s", "5sec", "-5s", "5s!", "s5", "1h 30m", None, True, [5]])
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5%", 0.005), ("100%", 1.0), ("0%", 0.0), ("50 %", 0.5), (0.25, 0.25), (1, 1.0), (0, 0.0)]
)
def test_a_ratio_is_a_share_of_one(text: object, value: float) -> None:
    assert ratio(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["101%", 1.01, -0.1, "-5%", "5", "half", True, None, float("nan"), float("inf")])
def test_anything_else_is_no_ratio(text: object) -> None:
    with pytest.raises(ValueError, match="a ratio from 0% to 100%"):
        ratio(text)


@pytest.mark.parametrize("text", [-1, "100", True, None, float("nan"), [1]])
def test_a_number_is_a_plain_number_that_is_not_negative(text: object) -> None:
    with pytest.raises(ValueError, match="a number"):
        number(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(timedelta(0), "0s"), (timedelta(seconds=90), "1m30s"), (timedelta(days=30), "30d"),
     (timedelta(milliseconds=500), "500ms"), (timedelta(hours=25), "1d1h")],
)  # fmt: skip
def test_a_duration_is_spelled_with_the_largest_units_first(value: timedelta, text: str) -> None:
    assert spell_duration(value) == text
