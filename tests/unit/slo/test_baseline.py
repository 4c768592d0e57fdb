"""What is usual at an hour of the week."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.slo.baseline import HOURS_NEEDED, Baseline, hour_of_week

MONDAY = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def taught(weeks: int, *values: float) -> tuple[Baseline, datetime]:
    """Return a baseline that saw some Monday mornings, and the Monday morning after."""
    made = Baseline(days=28)
    for week in range(weeks):
        start = MONDAY + timedelta(weeks=week)
        for minute in range(0, 60, 5):
            made.add(start + timedelta(minutes=minute), values[week % len(values)])
        made.add(start + timedelta(hours=1), 1.0)
    return made, MONDAY + timedelta(weeks=weeks, minutes=10)


def test_two_weeks_are_not_learnt_yet() -> None:
    made, now = taught(2, 10.0, 12.0)
    assert made.deviation(now, 99.0).reason == "not learnt yet"
    assert made.deviation(now, 99.0).spelled == "not learnt yet"


def test_three_weeks_are_enough() -> None:
    made, now = taught(3, 10.0, 12.0, 11.0)
    usual = made.usual(now)
    assert usual is not None
    assert (usual.median, usual.weeks) == (11.0, 3)
    assert made.deviation(now, 11.0).score == 0.0
    assert made.deviation(now, 11.0 + 2 * 1.4826).score == pytest.approx(2.0)
    assert made.deviation(now, 11.0 - 1.4826).spelled == "1.0 spreads below usual"


def test_one_odd_week_of_four_moves_nothing() -> None:
    made, now = taught(4, 10.0, 10.0, 500.0, 10.0)
    usual = made.usual(now)
    assert usual is not None
    assert usual.median == 10.0


def test_other_hours_are_not_mixed_in() -> None:
    made, now = taught(3, 10.0)
    assert made.usual(now + timedelta(hours=5)) is None


def test_the_hour_that_goes_on_does_not_make_itself_usual() -> None:
    made, now = taught(3, 10.0)
    for minute in range(20):
        made.add(now + timedelta(minutes=minute), 900.0)
    usual = made.usual(now)
    assert usual is not None
    assert usual.median == 10.0


def test_what_was_learnt_survives_a_restart() -> None:
    made, now = taught(3, 10.0, 12.0, 11.0)
    again = Baseline()
    again.load(made.dump())
    assert again.usual(now) == made.usual(now)


def test_the_week_begins_on_monday() -> None:
    assert hour_of_week(int(MONDAY.timestamp() // 3600)) == 9


def busy_weeks(hours: int, largest: int) -> Baseline:
    """Return a baseline of the values of every hour from Monday 09:00 on; one hour of the week is the busiest."""
    made = Baseline(days=28)
    for n in range(hours):
        made.add(MONDAY + timedelta(hours=n), 100.0 if n % 168 == largest else float(n % 24))
    return made


def test_the_busiest_hour_of_the_week_is_forecast_for_its_next_time() -> None:
    made, now = busy_weeks(4 * 168, largest=30), MONDAY + timedelta(weeks=4)
    peak = now + timedelta(hours=30)
    assert made.busiest(now) == peak
    assert made.busiest(peak - timedelta(seconds=1)) == peak
    assert made.busiest(peak) == peak + timedelta(weeks=1), "it has begun"
    assert made.busiest(peak + timedelta(minutes=30)) == peak + timedelta(weeks=1)


def test_one_odd_week_makes_no_forecast() -> None:
    made = busy_weeks(3 * 168, largest=30)
    for n in range(168):
        made.add(MONDAY + timedelta(weeks=3, hours=n), 500.0 if n == 99 else float(n % 24))
    assert made.busiest(MONDAY + timedelta(weeks=4)) == MONDAY + timedelta(weeks=4, hours=30)


def test_nothing_is_forecast_before_most_of_the_week_is_learnt() -> None:
    learnt = 2 * 168 + HOURS_NEEDED
    assert busy_weeks(learnt, largest=30).busiest(MONDAY + timedelta(hours=learnt - 1)) is None
    assert busy_weeks(learnt + 1, largest=30).busiest(MONDAY + timedelta(hours=learnt)) is not None
    assert Baseline().busiest(MONDAY) is None
