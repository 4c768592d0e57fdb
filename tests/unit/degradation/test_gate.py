"""Whether a pool may take another one's traffic: certain harm refuses, a missing number does not."""

from dataclasses import replace

import pytest

from controlplane.degradation.gate import Asked, Opinion, PoolFacts, judge_standby
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

ALIVE = (Asked("standby-0", ok=True),)
MODEL = frozenset({"deepseek"})


def facts(**values: float) -> PoolFacts:
    return PoolFacts(2, {name: Evidence(name, value, Band.OK, samples=100) for name, value in values.items()}, MODEL)


IDLE = facts(error_rate=0.0, kv_cache_utilization=0.0, queue_depth=0.0)
BUSY = facts(error_rate=0.0, kv_cache_utilization=0.6, queue_depth=0.0, request_rate=100.0)
DEAD = replace(BUSY, up=0)


def judged(target: PoolFacts, source: PoolFacts = BUSY, *, share: float = 1.0, same_model: bool = True) -> Opinion:
    return judge_standby("standby", ALIVE, target, source, share, same_model=same_model)


@pytest.mark.parametrize("source", [BUSY, DEAD])
def test_a_pool_that_answers_and_has_room_may_take_it(source: PoolFacts) -> None:
    assert judged(facts(kv_cache_utilization=0.0), replace(source, evidence={})).refusal == ""
    halved = judge_standby("standby", (*ALIVE, *ALIVE), IDLE, source, 1.0, same_model=True)
    assert halved == Opinion()


@pytest.mark.parametrize("signal", ["error_rate", "latency_p99", "queue_depth", "kv_cache_utilization"])
def test_a_pool_that_is_itself_ill_is_refused_while_the_first_one_serves(signal: str) -> None:
    ill = PoolFacts(2, {signal: Evidence(signal, 0.4, Band.BREACH, samples=100)}, MODEL)
    assert judged(ill).refusal == f"standby is itself in breach of {signal}"


@pytest.mark.parametrize(("signal", "taken"), [("latency_p99", True), ("error_rate", True), ("queue_depth", False)])
def test_when_the_first_one_is_dead_slow_answers_are_better_than_none_but_a_full_pool_is_refused(
    signal: str, *, taken: bool
) -> None:
    ill = PoolFacts(2, {signal: Evidence(signal, 0.4, Band.BREACH, samples=100)}, MODEL)
    opinion = judged(ill, DEAD)
    said = f"standby is itself in breach of {signal}"
    assert (said in opinion.notes) is taken
    assert opinion.refusal == ("" if taken else said)


def test_a_pool_of_errors_is_refused_without_a_threshold_and_only_with_enough_answers() -> None:
    assert "of 100 answers" in judged(facts(error_rate=0.2)).refusal
    few = PoolFacts(2, {"error_rate": Evidence("error_rate", 0.2, Band.OK, samples=3)}, MODEL)
    assert judged(few).refusal == ""
    dead = judged(facts(error_rate=0.6), DEAD)
    assert dead.refusal == "", "it gave a completion: some answers are better than none"
    assert "60.0% of 100 answers of standby are errors" in dead.notes


def test_a_prober_that_was_late_says_nothing_about_the_pool() -> None:
    late = (Asked("standby-0", None, "the prober itself was late"),)
    opinion = judge_standby("standby", late, IDLE, DEAD, 1.0, same_model=True)
    assert opinion.refusal == ""
    assert "whether standby answers is not known: the prober itself was late" in opinion.notes
    assert "gives a completion" in judge_standby("standby", late, IDLE, BUSY, 1.0, same_model=True).refusal


def test_a_pool_with_too_little_room_is_refused_while_the_first_one_serves_and_taken_when_it_is_dead() -> None:
    alive, dead = judged(IDLE, BUSY), judged(IDLE, DEAD)
    assert "would need 120% of its key-value cache" in alive.refusal
    assert "still serves" in alive.refusal
    assert dead.refusal == ""
    small = judge_standby("standby", ALIVE, facts(kv_cache_utilization=0.7), DEAD, 1.0, same_model=True)
    assert small.refusal == ""
    assert "would need 130%" in small.notes[0]
    assert judged(IDLE, BUSY, share=0.5).refusal == ""


def test_a_pool_that_is_full_with_a_queue_is_short_whatever_moves() -> None:
    full = facts(kv_cache_utilization=0.97, queue_depth=8.0)
    assert "8 requests wait there already" in judged(full).refusal


@pytest.mark.parametrize("source", [BUSY, DEAD])
def test_a_number_that_nobody_knows_refuses_nothing_and_is_said(source: PoolFacts) -> None:
    opinion = judged(PoolFacts(), source)
    assert opinion.refusal == ""
    assert opinion.notes == (
        "the room left in standby is not known", "whether standby serves the same model is not known",
    )  # fmt: skip


def test_another_model_is_refused_only_where_it_must_be_the_same() -> None:
    other = replace(IDLE, models=frozenset({"qwen"}))
    assert judged(other, DEAD).refusal == "standby serves another model: qwen instead of deepseek"
    assert judged(other, DEAD, same_model=False).refusal == ""


def test_a_pool_that_gives_no_completion_is_refused_with_how_each_endpoint_failed() -> None:
    asked = (Asked("standby-0", ok=False, detail="refused"), Asked("standby-1", ok=False, detail="timeout"))
    opinion = judge_standby("standby", asked, IDLE, DEAD, 1.0, same_model=True)
    assert opinion.refusal == "no endpoint of standby gives a completion: standby-0: refused; standby-1: timeout"
    assert judge_standby("standby", (), IDLE, DEAD, 1.0, same_model=True).refusal == "pool standby has no endpoints"
