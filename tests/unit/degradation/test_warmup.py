"""When a warm-up is due: before a peak of the calendar, or before one that was learnt."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.degradation.warmup import Due, Peak, WarmUp, Weekday, next_due, next_peak

NINE = Peak(9, timezone="Asia/Shanghai")
THURSDAY = datetime(2026, 11, 5, tzinfo=UTC)


def test_a_warm_up_is_due_its_time_before_the_next_peak() -> None:
    due = next_due(WarmUp("standby", NINE), THURSDAY, None)
    assert due == Due(THURSDAY - timedelta(hours=1), THURSDAY + timedelta(hours=1))


def test_a_peak_that_begins_now_is_over_for_warming_up() -> None:
    begins = THURSDAY + timedelta(hours=1)
    assert next_peak(NINE, begins - timedelta(seconds=1)) == begins
    assert next_peak(NINE, begins) == begins + timedelta(days=1)


@pytest.mark.parametrize(
    ("days", "after_days"),
    [((Weekday.THU,), 0), ((Weekday.FRI, Weekday.MON), 1), ((Weekday.WED,), 6), ((), 0)],
)
def test_a_peak_comes_on_its_days_only(days: tuple[Weekday, ...], after_days: int) -> None:
    assert next_peak(Peak(9, 30, days=days), THURSDAY) == THURSDAY + timedelta(days=after_days, hours=9, minutes=30)


def test_a_day_is_one_of_the_peaks_own_time_zone() -> None:
    """Friday 07:00 in Shanghai is still Thursday in UTC."""
    friday = Peak(7, timezone="Asia/Shanghai", days=(Weekday.FRI,))
    assert next_peak(friday, THURSDAY) == THURSDAY + timedelta(hours=23)


def test_the_same_time_of_day_is_meant_before_and_after_the_clocks_change() -> None:
    berlin = Peak(9, timezone="Europe/Berlin")
    saturday = datetime(2026, 3, 28, tzinfo=UTC)
    first = next_peak(berlin, saturday)
    assert first == saturday + timedelta(hours=8)
    assert next_peak(berlin, first) == first + timedelta(hours=23)


def test_without_a_time_the_learnt_peak_counts_and_none_is_none() -> None:
    peak = THURSDAY + timedelta(days=3)
    assert next_due(WarmUp("base", before=timedelta(minutes=30)), THURSDAY, peak) == Due(
        peak - timedelta(minutes=30), peak
    )
    assert next_due(WarmUp("base"), THURSDAY, None) is None
    assert next_due(WarmUp("base", NINE), THURSDAY, peak) == next_due(WarmUp("base", NINE), THURSDAY, None)
