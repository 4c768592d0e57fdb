"""Budgets and baselines against references that are slow and plain."""

from datetime import UTC, datetime, timedelta
from statistics import median

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.slo.baseline import MAD_TO_SIGMA, SPREAD_FLOOR, Baseline, hour_of_week
from controlplane.slo.burn import RULES, BudgetWindow, Tally, budget, burn_rate

PERIOD = timedelta(hours=2)
EVENTS = st.lists(
    st.tuples(st.integers(0, 4 * 3600), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60
)  # fmt: skip


@given(EVENTS, st.integers(1, 120))
def test_a_tally_is_the_sum_of_the_whole_steps_in_its_window(events: list[tuple[int, int, int]], minutes: int) -> None:
    window = BudgetWindow(PERIOD)
    events = sorted(events)
    for at, good, bad in events:
        window.add(float(at), good, good + bad)
    now = events[-1][0]
    first = now // 60 - minutes + 1
    inside = [(good, bad) for at, good, bad in events if first <= at // 60 <= now // 60]
    expected = Tally(float(sum(g for g, _ in inside)), float(sum(g + b for g, b in inside)))
    assert window.tally(float(now), timedelta(minutes=minutes)) == expected


@given(EVENTS)
def test_the_order_of_events_within_a_period_does_not_matter(events: list[tuple[int, int, int]]) -> None:
    close = [(at % 3600, good, bad) for at, good, bad in events]
    one, other = BudgetWindow(PERIOD), BudgetWindow(PERIOD)
    for at, good, bad in close:
        one.add(at, good, good + bad)
    for at, good, bad in sorted(close, key=lambda event: -event[0]):
        other.add(at, good, good + bad)
    assert one.tally(3600.0, PERIOD) == other.tally(3600.0, PERIOD)


@given(st.floats(0.9, 0.9999), st.floats(0.0, 1.0), st.integers(1, 10**6))
def test_a_steady_error_rate_burns_at_its_ratio_to_what_is_allowed(target: float, failing: float, total: int) -> None:
    rate = burn_rate(Tally(total * (1 - failing), total), target)
    assert rate is not None
    assert abs(rate - failing / (1 - target)) < 1e-6 * max(1.0, rate)


@settings(max_examples=30)
@given(st.floats(0.0, 0.2))
def test_with_enough_traffic_a_rule_trips_when_the_rate_reaches_its_factor(failing: float) -> None:
    window = BudgetWindow(timedelta(days=30), step=timedelta(minutes=30))
    for i in range(48 * 4):
        window.add(i * 1800.0, 1e6 * (1 - failing), 1e6)
    result = budget(window, 0.99, 48 * 4 * 1800.0 - 1)
    for burn, rule in zip(result.burns, RULES, strict=True):
        rate = failing / 0.01
        factor = rule.factor(timedelta(days=30))
        if abs(rate - factor) > 1e-6:
            assert burn.trips is (rate > factor)


VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=6)


@given(VALUES, st.floats(0.001, 1e6))
def test_a_baseline_is_the_median_and_mad_of_the_same_hour_of_past_weeks(values: list[float], now_value: float) -> None:
    start = datetime(2026, 1, 5, 14, tzinfo=UTC)
    made = Baseline(days=28)
    for week, value in enumerate(values):
        made.add(start + timedelta(weeks=week), value)
        made.add(start + timedelta(weeks=week, hours=3), 7.0)
    now = start + timedelta(weeks=len(values))
    known = values[-4:]
    usual = made.usual(now)
    if len(known) < 3:
        assert usual is None
        return
    assert usual is not None
    middle = median(known)
    assert usual.median == middle
    spread = max(MAD_TO_SIGMA * median(abs(v - middle) for v in known), SPREAD_FLOOR * middle)
    assert usual.spread == spread
    score = made.deviation(now, now_value).score
    assert score is not None
    assert (score > 0) is (now_value > middle) or score == 0


@given(st.integers(0, 10**6))
def test_an_hour_of_the_week_comes_round_every_week(hour: int) -> None:
    assert hour_of_week(hour) == hour_of_week(hour + 168)
    assert 0 <= hour_of_week(hour) < 168
