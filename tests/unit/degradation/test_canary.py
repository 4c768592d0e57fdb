"""A pool on trial: blamed for what chance does not explain, praised only for enough answers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.degradation.canary import Canary, Health, error_bounds, health, judge_canary, judge_return
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

WELL = Health(1000, 1, 0.2, 0.25, 1000)


@pytest.mark.parametrize(
    ("canary", "other", "said"),
    [
        (WELL, WELL, Canary.BETTER),
        (Health(1000, 0, 0.1, 0.1, 1000), WELL, Canary.BETTER),
        (Health(1000, 60, 0.2, 0.25, 1000), WELL, Canary.WORSE),
        (Health(1000, 1, 0.5, 0.6, 1000), WELL, Canary.WORSE),
        (Health(10, 8, None, None, 0), WELL, Canary.WORSE),
        (Health(20, 0, 0.2, 0.2, 20), WELL, Canary.UNKNOWN),
        (Health(99, 0, 0.9, 0.9, 99), WELL, Canary.UNKNOWN),
        (Health(1000, 1, None, None, 0), WELL, Canary.UNKNOWN),
        (Health(), WELL, Canary.UNKNOWN),
        (WELL, Health(), Canary.BETTER),
        (Health(1000, 100, 0.2, 0.2, 1000), Health(), Canary.WORSE),
        (Health(1000, 60, 0.2, 0.25, 1000), Health(1000, 55, 0.2, 0.25, 1000), Canary.BETTER),
    ],
)
def test_a_canary_is_judged_by_errors_and_p99_against_the_other_pool(
    canary: Health, other: Health, said: Canary
) -> None:
    judgement = judge_canary(canary, other)
    assert judgement.canary is said
    assert judgement.why


def test_two_pools_that_are_the_same_are_hardly_ever_told_apart() -> None:
    draw = random.Random(1)

    def sample(n: int, rate: float) -> Health:
        return Health(n, sum(draw.random() < rate for _ in range(n)), 0.2, 0.2, n)

    blamed = sum(judge_canary(sample(300, 0.02), sample(900, 0.02)).canary is Canary.WORSE for _ in range(300))
    caught = sum(judge_canary(sample(300, 0.15), sample(900, 0.02)).canary is Canary.WORSE for _ in range(100))
    assert blamed <= 3
    assert caught >= 95


@given(st.integers(0, 5000), st.floats(0, 1))
def test_the_bounds_of_an_error_rate_hold_it_and_stay_within_zero_and_one(answers: int, share: float) -> None:
    errors = round(answers * share)
    low, high = error_bounds(Health(answers, errors))
    assert 0.0 <= low <= high <= 1.0
    if answers:
        assert low <= errors / answers + 1e-12
        assert high >= errors / answers - 1e-12


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 500))
def test_more_errors_never_make_a_canary_look_better(answers: int, errors: int, more: int) -> None:
    order = [Canary.BETTER, Canary.UNKNOWN, Canary.WORSE]
    errors = min(errors, answers)
    before = judge_canary(Health(answers, errors, 0.2, 0.2, answers), WELL).canary
    after = judge_canary(Health(answers, min(answers, errors + more), 0.2, 0.2, answers), WELL).canary
    assert order.index(after) >= order.index(before)


def test_health_is_read_from_the_evidence_and_what_is_unknown_stays_so() -> None:
    evidence = {
        "error_rate": Evidence("error_rate", 0.1, Band.OK, samples=50),
        "latency_p99": Evidence("latency_p99", 0.3, Band.OK, samples=40, low=0.25, high=0.5),
    }
    assert health(evidence) == Health(50, 5.0, 0.25, 0.5, 40)
    assert health({}) == Health()
    unknown = {name: Evidence(name, None, Band.UNKNOWN, samples=7) for name in evidence}
    assert health(unknown) == Health()


def seen(p99_s: float, band: Band = Band.WARN, error_rate: float = 0.0) -> dict[str, Evidence]:
    return {
        "error_rate": Evidence("error_rate", error_rate, Band.OK, 1000),
        "latency_p99": Evidence("latency_p99", p99_s, band, 1000, p99_s * 0.98, p99_s * 1.02),
    }


@pytest.mark.parametrize(
    ("primary", "same_model", "said"),
    [
        (seen(1.5), True, Canary.WORSE),
        (seen(1.5), False, Canary.BETTER),
        (seen(0.6, Band.OK), True, Canary.BETTER),
        (seen(0.5), True, Canary.BETTER),
        (seen(0.5, Band.OK, 0.03), True, Canary.WORSE),
        (seen(0.5, Band.OK, 0.03), False, Canary.WORSE),
        ({}, True, Canary.UNKNOWN),
    ],
)
def test_a_primary_on_its_way_back_need_not_beat_what_stood_in_for_it(
    primary: dict[str, Evidence], *, same_model: bool, said: Canary
) -> None:
    assert judge_return(primary, seen(0.4), same_model=same_model).canary is said


def test_the_reason_shows_the_numbers_of_both_pools() -> None:
    why = judge_return(seen(1.5, error_rate=0.01), seen(0.4), same_model=True).why
    assert why.endswith(
        "; the primary: 1.00% errors of 1000 answers, P99 1.47 s to 1.53 s"
        "; the other: 0.00% errors of 1000 answers, P99 0.392 s to 0.408 s"
    )
    assert judge_return({}, {}, same_model=True).why.endswith("; the primary: no answers; the other: no answers")
