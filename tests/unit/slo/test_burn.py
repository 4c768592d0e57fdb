"""Error budgets and burn rates, against the workbook's table."""

from datetime import timedelta

import pytest

from controlplane.slo.burn import RULES, Budget, BudgetWindow, Tally, Urgency, budget, burn_rate
from controlplane.slo.threshold import Band

PERIOD = timedelta(days=30)
TARGET = 0.999
DAY_S = 86_400.0
PER_MIN = 600.0


def window(error_rate: float, lasts: timedelta) -> tuple[BudgetWindow, float]:
    """Return a window with a good day behind it and then a time with errors, and when that time ended."""
    made = BudgetWindow(PERIOD)
    at = 0.0
    while at < DAY_S:
        made.add(at, PER_MIN, PER_MIN)
        at += 60.0
    end = at + lasts.total_seconds()
    while at < end:
        made.add(at, PER_MIN * (1 - error_rate), PER_MIN)
        at += 60.0
    return made, at - 1.0


def judged(error_rate: float, lasts: timedelta) -> Budget:
    made, now = window(error_rate, lasts)
    return budget(made, TARGET, now)


def test_the_factors_are_the_workbooks_for_thirty_days() -> None:
    assert [round(rule.factor(PERIOD), 6) for rule in RULES] == [14.4, 6.0, 3.0, 1.0]


def test_another_period_spends_the_same_shares() -> None:
    assert RULES[0].factor(timedelta(days=7)) == pytest.approx(0.02 * 7 * 24)


def test_a_fast_burn_pages_and_ends_minutes_after_it_is_over() -> None:
    made, now = window(0.02, timedelta(hours=1))  # 20x
    assert budget(made, TARGET, now).urgency is Urgency.PAGE
    for minute in range(6):
        made.add(now + 1 + minute * 60, 600, 600)
    assert budget(made, TARGET, now + 360).burns[0].trips is False


def test_a_short_blip_pages_nobody() -> None:
    assert judged(0.05, timedelta(minutes=2)).urgency is None


def test_a_slow_burn_is_a_ticket() -> None:
    result = judged(0.004, timedelta(days=1))  # 4x for a day
    assert result.urgency is Urgency.TICKET
    assert result.band is Band.WARN


def test_no_traffic_is_unknown_and_not_well() -> None:
    result = budget(BudgetWindow(PERIOD), TARGET, 100.0)
    assert result.band is Band.UNKNOWN
    assert result.left is None


def test_one_lost_request_of_few_is_no_page() -> None:
    made = BudgetWindow(PERIOD)
    for minute in range(60):
        made.add(minute * 60.0, 0.0 if minute == 59 else 1.0, 1.0)
    result = budget(made, TARGET, 3599.0)
    assert result.burns[0].long is not None
    assert result.burns[0].long > 14.4
    assert result.urgency is None
    assert "too little traffic" in result.burns[0].reason


def test_five_lost_requests_of_few_are_a_page() -> None:
    made = BudgetWindow(PERIOD)
    for minute in range(60):
        made.add(minute * 60.0, 0.0 if minute >= 55 else 1.0, 1.0)
    assert budget(made, TARGET, 3599.0).urgency is Urgency.PAGE


def test_what_is_left_of_the_budget_can_be_less_than_nothing() -> None:
    made = BudgetWindow(PERIOD)
    made.add(0.0, 99.0, 100.0)
    assert budget(made, TARGET, 1.0).left == pytest.approx(1 - 10)


def test_an_objective_of_everything_leaves_no_budget() -> None:
    assert burn_rate(Tally(1, 1), 1.0) == 0.0
    assert burn_rate(Tally(0, 1), 1.0) == float("inf")


def test_what_is_older_than_the_period_is_forgotten() -> None:
    made = BudgetWindow(timedelta(hours=1))
    made.add(0.0, 0.0, 10.0)
    made.add(7200.0, 5.0, 5.0)
    assert made.tally(7200.0, timedelta(hours=1)) == Tally(5.0, 5.0)
    made.add(10.0, 0.0, 10.0)
    assert made.tally(7200.0, timedelta(hours=1)) == Tally(5.0, 5.0)
