"""A drill is judged on what was stored while it ran, and only a whole one passes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.chaos.drill import Drill, DrillPhase, Facts, Outcome, RowTimes, judge, time_phases
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.fleet.model import Endpoint

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


PHASES = {phase: at(i) for i, phase in enumerate(DrillPhase)}
GOOD = Facts(PHASES, 2, 2, timedelta(minutes=5), (), "completed", deviated=False)


def without(*phases: DrillPhase) -> dict[DrillPhase, datetime]:
    return {phase: moment for phase, moment in PHASES.items() if phase not in phases}


def test_a_whole_drill_passes_without_a_reason() -> None:
    assert judge(GOOD) == (Outcome.PASSED, ())


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"injected": 0, "proven": 0}, Outcome.INVALID, "no fault was injected"),
        ({"proven": 1}, Outcome.INVALID, "only 1 of 2 faults could be proven"),
        ({"proven": 0, "journal_status": ""}, Outcome.INVALID, "only 0 of 2"),
        ({"residues": ("a hold",)}, Outcome.FAILED, "left behind: a hold"),
        ({"phases": without(DrillPhase.VERIFIED)}, Outcome.FAILED, "never restored service"),
        ({"phases": without(DrillPhase.DETECTED)}, Outcome.FAILED, "never restored service"),
        ({"phases": without(DrillPhase.HEALED)}, Outcome.FAILED, "the fault was never healed"),
        ({"phases": without(DrillPhase.RECOVERED)}, Outcome.FAILED, "never went back to normal"),
        ({"phases": PHASES | {DrillPhase.VERIFIED: at(302)}}, Outcome.FAILED, "objective missed: 301.0 s"),
        ({"deviated": True}, Outcome.FAILED, "steady state did not hold"),
        ({"failed_activities": ("await P0",)}, Outcome.FAILED, "activity failed: await P0"),
        ({"journal_status": "failed"}, Outcome.PASSED, ""),
        ({"journal_status": "aborted"}, Outcome.ABORTED, "ended as aborted"),
        ({"journal_status": "interrupted"}, Outcome.ABORTED, "ended as interrupted"),
        ({"journal_status": ""}, Outcome.ABORTED, "dead, without a journal"),
    ],
)
def test_a_drill_ends_as_the_worst_that_is_known_of_it(
    changes: dict[str, object], outcome: Outcome, reason: str
) -> None:
    found, reasons = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert found is outcome
    assert reason in " | ".join(reasons)


def test_a_row_that_restores_service_at_the_last_moment_kept_its_promise() -> None:
    phases = PHASES | {DrillPhase.VERIFIED: PHASES[DrillPhase.DETECTED] + timedelta(minutes=5)}
    assert judge(replace(GOOD, phases=phases))[0] is Outcome.PASSED


def test_every_reason_is_told() -> None:
    facts = replace(GOOD, residues=("x", "y"), deviated=True, phases=without(DrillPhase.HEALED, DrillPhase.VERIFIED))
    assert len(judge(facts)[1]) == 5


def lease(key: str, injected: float | None, healed: float | None) -> Lease:
    return Lease(
        key, "d", FaultKind.NODE_KILL, Endpoint(key, "primary", "http://a"), at(60), LeaseState.PROVEN, T0,
        injected_at=None if injected is None else at(injected), healed_at=None if healed is None else at(healed),
    )  # fmt: skip


ROW = RowTimes(at(2), at(3), at(4), at(5))


def test_the_fault_is_the_first_injection_and_healed_the_last_healing() -> None:
    phases = time_phases((lease("a", 1.5, 8), lease("b", 1, 9)), ROW, at(12))
    assert phases == {
        DrillPhase.FAULT: at(1), DrillPhase.DETECTED: at(2), DrillPhase.DECIDED: at(3), DrillPhase.ACTED: at(4),
        DrillPhase.VERIFIED: at(5), DrillPhase.HEALED: at(9), DrillPhase.RECOVERED: at(12),
    }  # fmt: skip


def test_without_an_injection_there_is_nothing_to_time() -> None:
    assert time_phases((lease("a", None, 3),), ROW, at(12)) == {}
    assert time_phases((), ROW, at(12)) == {}


def test_moments_that_have_not_come_are_absent() -> None:
    assert time_phases((lease("a", 1, None),), None, None) == {DrillPhase.FAULT: at(1)}
    assert set(time_phases((lease("a", 1, None),), RowTimes(at(2), at(3)), None)) == {
        DrillPhase.FAULT, DrillPhase.DETECTED, DrillPhase.DECIDED,
    }  # fmt: skip


def test_one_fault_that_is_not_healed_leaves_the_drill_unhealed() -> None:
    assert DrillPhase.HEALED not in time_phases((lease("a", 1, 8), lease("b", 1, None)), ROW, None)


def test_nothing_is_detected_before_it_was_broken() -> None:
    assert time_phases((lease("a", 10, 11),), ROW, None)[DrillPhase.DETECTED] == at(10)


def test_a_drill_tells_its_phases_in_seconds_from_the_fault() -> None:
    drill = Drill("d", "node-kill", "P0", timedelta(minutes=5), "ann", T0, phases=PHASES)
    assert drill.seconds(DrillPhase.VERIFIED) == 4.0
    assert replace(drill, phases=without(DrillPhase.FAULT)).seconds(DrillPhase.VERIFIED) is None
    assert replace(drill, phases=without(DrillPhase.VERIFIED)).seconds(DrillPhase.VERIFIED) is None


def test_an_experiment_that_redundancy_must_carry_needs_no_row_but_must_heal() -> None:
    phases = {DrillPhase.FAULT: at(0), DrillPhase.HEALED: at(8)}
    facts = replace(GOOD, phases=phases, proves_row=False, objective=timedelta(0))
    assert judge(facts) == (Outcome.PASSED, ())
    assert judge(replace(facts, phases={DrillPhase.FAULT: at(0)}))[0] is Outcome.FAILED
    assert judge(replace(facts, failed_activities=("no level is in force",)))[0] is Outcome.FAILED


def test_a_run_that_was_stopped_is_aborted_for_that_reason_and_what_is_left() -> None:
    stopped = replace(GOOD, stopped="guard availability: below 99%", residues=("a hold",), deviated=True)
    assert judge(stopped) == (Outcome.ABORTED, ("guard availability: below 99%", "left behind: a hold"))


def test_alerts_outside_the_contract_fail_the_drill() -> None:
    assert judge(replace(GOOD, alerts=("expected alert X did not fire",))) == (
        Outcome.FAILED, ("expected alert X did not fire",),
    )  # fmt: skip
