"""A trigger answers no, unknown, dwelling or yes, and says which conditions made it so."""

from datetime import timedelta

import pytest

from controlplane.degradation.action import SwitchPool, UsePool, missing_pool
from controlplane.degradation.matrix import (
    AlertFires,
    AllOf,
    Answer,
    AnyOf,
    Condition,
    Trigger,
    Truth,
    alerts_of,
    evaluate,
    signals_of,
)
from controlplane.fleet.model import EndpointSource, PoolSpec
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

NO, UNKNOWN, DWELLING, YES = Truth.NO, Truth.UNKNOWN, Truth.DWELLING, Truth.YES

"""One condition for each answer, against the evidence below."""
CONDITIONS = {
    NO: Condition("cpu_utilization", above=0.9),
    UNKNOWN: Condition("gpu_utilization", above=0.9),
    DWELLING: Condition("error_rate", above=0.05, dwell=timedelta(seconds=3)),
    YES: Condition("availability", below=0.5),
}
EVIDENCE = {
    "cpu_utilization": Evidence("cpu_utilization", 0.2, Band.OK),
    "gpu_utilization": Evidence("gpu_utilization", None, Band.UNKNOWN),
    "error_rate": Evidence("error_rate", 0.2, Band.BREACH),
    "availability": Evidence("availability", 0.1, Band.BREACH),
}


def answer(trigger: Trigger, evidence: dict[str, Evidence] | None = None) -> Answer:
    return evaluate(trigger, EVIDENCE if evidence is None else evidence, {}, 100.0)[0]


@pytest.mark.parametrize("truth", Truth)
def test_each_condition_of_this_table_answers_as_it_is_named(truth: Truth) -> None:
    assert answer(CONDITIONS[truth]).truth is truth


@pytest.mark.parametrize(
    ("left", "right", "any_of", "all_of"),
    [
        (NO, NO, NO, NO),
        (NO, UNKNOWN, UNKNOWN, NO),
        (NO, DWELLING, DWELLING, NO),
        (NO, YES, YES, NO),
        (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
        (UNKNOWN, DWELLING, DWELLING, UNKNOWN),
        (UNKNOWN, YES, YES, UNKNOWN),
        (DWELLING, DWELLING, DWELLING, DWELLING),
        (DWELLING, YES, YES, DWELLING),
        (YES, YES, YES, YES),
    ],
)
def test_any_and_all_combine_by_kleenes_logic_with_dwelling_between_unknown_and_yes(
    left: Truth, right: Truth, any_of: Truth, all_of: Truth
) -> None:
    for parts in ((CONDITIONS[left], CONDITIONS[right]), (CONDITIONS[right], CONDITIONS[left])):
        assert answer(AnyOf(parts)).truth is any_of
        assert answer(AllOf(parts)).truth is all_of


def test_triggers_nest() -> None:
    inner = AllOf((CONDITIONS[YES], CONDITIONS[NO]))
    assert answer(AnyOf((inner, CONDITIONS[UNKNOWN]))).truth is UNKNOWN
    assert answer(AllOf((AnyOf((CONDITIONS[YES], CONDITIONS[UNKNOWN])), CONDITIONS[YES]))).truth is YES


def test_no_evidence_at_all_is_unknown_and_never_no() -> None:
    assert answer(CONDITIONS[NO], {}) == Answer(UNKNOWN, ("cpu_utilization is unknown",))


def test_the_answer_names_the_conditions_that_made_it_so_and_no_others() -> None:
    because = answer(AnyOf((CONDITIONS[NO], CONDITIONS[YES], CONDITIONS[DWELLING]))).because
    assert len(because) == 1
    assert because[0].startswith("availability is 10")


@pytest.mark.parametrize(
    ("condition", "value", "truth"),
    [
        (Condition("error_rate", above=0.05), 0.05, YES),
        (Condition("error_rate", above=0.05), 0.0499, NO),
        (Condition("availability", below=0.5), 0.5, NO),
        (Condition("availability", below=0.5), 0.4999, YES),
        (Condition("endpoints_down", above=1.0), 1.0, YES),
        (Condition("endpoints_down", above=1.0), 0.99, NO),
        (Condition("error_rate", above=0.0), 0.0, YES),
    ],
)
def test_above_includes_its_level_and_below_does_not(condition: Condition, value: float, truth: Truth) -> None:
    seen = {condition.signal: Evidence(condition.signal, value, Band.OK)}
    assert answer(condition, seen).truth is truth


@pytest.mark.parametrize(
    ("asked", "seen", "truth"),
    [
        (Band.WARN, Band.OK, NO), (Band.WARN, Band.WARN, YES), (Band.WARN, Band.BREACH, YES),
        (Band.BREACH, Band.OK, NO), (Band.BREACH, Band.WARN, NO), (Band.BREACH, Band.BREACH, YES),
        (Band.WARN, Band.UNKNOWN, UNKNOWN), (Band.BREACH, Band.UNKNOWN, UNKNOWN),
    ],
)  # fmt: skip
def test_a_band_condition_holds_in_that_band_and_worse_and_is_unknown_in_an_unknown_one(
    asked: Band, seen: Band, truth: Truth
) -> None:
    condition = Condition("latency_p99", band=asked)
    assert answer(condition, {"latency_p99": Evidence("latency_p99", 1.0, seen)}).truth is truth


def test_a_condition_dwells_from_the_first_evaluation_that_saw_it_true_until_its_time_is_over() -> None:
    condition = CONDITIONS[DWELLING]
    memory: dict[Condition, float] = {}
    truths = []
    for now in (10.0, 12.9, 13.0, 14.0):
        told, memory = evaluate(condition, EVIDENCE, memory, now)
        truths.append(told.truth)
    assert truths == [DWELLING, DWELLING, YES, YES]


@pytest.mark.parametrize("gap", [Evidence("error_rate", 0.0, Band.OK), Evidence("error_rate", None, Band.UNKNOWN)])
def test_a_break_of_any_kind_starts_the_dwell_again(gap: Evidence) -> None:
    condition = CONDITIONS[DWELLING]
    _, memory = evaluate(condition, EVIDENCE, {}, 0.0)
    _, memory = evaluate(condition, {"error_rate": gap}, memory, 2.0)
    assert memory == {}
    told, memory = evaluate(condition, EVIDENCE, memory, 4.0)
    assert told.truth is DWELLING
    assert evaluate(condition, EVIDENCE, memory, 7.0)[0].truth is YES


def test_the_parts_of_a_combination_dwell_each_for_itself() -> None:
    slow = Condition("cpu_utilization", above=0.1, dwell=timedelta(seconds=10))
    both = AllOf((CONDITIONS[DWELLING], slow))
    _, memory = evaluate(both, EVIDENCE, {}, 0.0)
    assert evaluate(both, EVIDENCE, memory, 5.0)[0].truth is DWELLING
    assert evaluate(both, EVIDENCE, memory, 10.0)[0].truth is YES


@pytest.mark.parametrize(
    ("action", "missing"),
    [(SwitchPool(), ""), (SwitchPool("cache"), "cache"), (UsePool("standby"), ""), (UsePool("base", 0.5), "base")],
)
def test_an_action_names_the_pool_the_fleet_lacks(action: SwitchPool | UsePool, missing: str) -> None:
    pools = {name: PoolSpec(EndpointSource(file="x")) for name in ("primary", "standby")}
    assert missing_pool((action,), pools) == missing


@pytest.mark.parametrize(
    ("alerts", "truth", "because"),
    [
        (frozenset({"Slow", "Other"}), YES, ("alert Slow fires",)),
        (frozenset({"Other"}), NO, ()),
        (frozenset(), NO, ()),
        (None, UNKNOWN, ("whether alert Slow fires is unknown",)),
    ],
)
def test_an_alert_is_a_condition_and_only_a_broken_path_makes_it_unknown(
    alerts: frozenset[str] | None, truth: Truth, because: tuple[str, ...]
) -> None:
    assert evaluate(AlertFires("Slow"), {}, {}, 0.0, alerts)[0] == Answer(truth, because)


def test_an_alert_combines_with_signals_like_any_condition() -> None:
    both = AllOf((AlertFires("Slow"), CONDITIONS[YES]))
    assert evaluate(both, EVIDENCE, {}, 0.0, frozenset({"Slow"}))[0].truth is YES
    assert evaluate(both, EVIDENCE, {}, 0.0, frozenset())[0].truth is NO
    assert signals_of(both) == ("availability",)
    assert alerts_of(AnyOf((both, CONDITIONS[NO]))) == ("Slow",)
