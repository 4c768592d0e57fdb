"""One row of the matrix, from idle to engaged and back, told as the sequences an operator would see."""

from datetime import timedelta

import pytest

from controlplane.degradation.action import SwitchPool
from controlplane.degradation.canary import Canary
from controlplane.degradation.machine import (
    RETRY_AFTER_S,
    TRANSITIONS,
    Effect,
    Phase,
    Reading,
    RowState,
    Word,
    outcome,
    share_aimed_at,
    share_given_back,
    step,
)
from controlplane.degradation.matrix import Condition, Level, Mode, ReleasePlan, Row, Truth

HOLD_S = 10.0
ROW = Row(
    Level.P0, Condition("endpoints_down", above=1.0), (SwitchPool(),), timedelta(minutes=5),
    ReleasePlan((0.1, 0.5, 1.0), timedelta(seconds=HOLD_S)),
)  # fmt: skip
WELL = Reading(Truth.NO, primary_well=True)
WORSE = Reading(Truth.NO, primary_well=True, canary=Canary.WORSE)
ILL = Reading(Truth.YES, primary_well=False)
DWELLS = Reading(Truth.DWELLING, primary_well=False)
DARK = Reading(Truth.UNKNOWN, primary_well=False)


def at(phase: Phase, **changes: object) -> RowState:
    return RowState(phase, **changes)  # type: ignore[arg-type]


def test_a_trigger_that_holds_engages_an_idle_row_at_once_and_makes_it_busy() -> None:
    state, effects = step(RowState(), ILL, ROW, Mode.AUTO, 5.0)
    assert effects == (Effect.ENGAGE,)
    assert (state.phase, state.busy, state.since) == (Phase.ENGAGING, True, 5.0)


def test_a_trigger_that_dwells_makes_a_row_pending_and_one_that_clears_makes_it_idle_again() -> None:
    pending, effects = step(RowState(), DWELLS, ROW, Mode.AUTO, 1.0)
    assert (pending.phase, effects) == (Phase.PENDING, ())
    idle, effects = step(pending, WELL, ROW, Mode.AUTO, 2.0)
    assert (idle.phase, effects) == (Phase.IDLE, ())


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.PENDING, Phase.FAILED])
def test_an_unknown_trigger_moves_nothing(phase: Phase) -> None:
    state = at(phase, since=0.0)
    after, effects = step(state, DARK, ROW, Mode.AUTO, 1000.0)
    assert (after.phase, effects) == (phase, ())


def test_a_verified_engagement_is_engaged_and_a_failed_one_failed() -> None:
    engaging = at(Phase.ENGAGING, busy=True)
    assert outcome(engaging, ROW, ok=True, now=1.0)[0].phase is Phase.ENGAGED
    failed, effects = outcome(engaging, ROW, ok=False, now=1.0)
    assert (failed.phase, failed.busy, effects) == (Phase.FAILED, False, ())


def test_a_failed_row_tries_again_after_its_wait_and_not_before() -> None:
    failed = at(Phase.FAILED, since=100.0)
    assert step(failed, ILL, ROW, Mode.AUTO, 100.0 + RETRY_AFTER_S - 0.01)[1] == ()
    assert step(failed, ILL, ROW, Mode.AUTO, 100.0 + RETRY_AFTER_S)[1] == (Effect.ENGAGE,)


def test_a_failed_row_does_not_try_again_on_a_trigger_that_only_dwells() -> None:
    assert step(at(Phase.FAILED, since=0.0), DWELLS, ROW, Mode.AUTO, 100.0)[1] == ()


def test_a_failed_row_whose_trigger_clears_is_idle_and_its_incident_over() -> None:
    state, effects = step(at(Phase.FAILED), WELL, ROW, Mode.AUTO, 1.0)
    assert (state.phase, effects) == (Phase.IDLE, (Effect.CLOSE,))


def test_the_way_back_goes_by_steps_each_after_its_own_hold_and_ends_closed() -> None:
    state, now = at(Phase.ENGAGED, since=0.0), 0.0
    effects: tuple[Effect, ...] = ()
    given: list[float] = []
    steps: list[float] = []
    while state.phase is not Phase.IDLE and now < 100:
        state, effects = step(state, WELL, ROW, Mode.AUTO, now)
        if effects:
            assert effects == (Effect.GIVE_BACK,)
            steps.append(now)
            state, effects = outcome(state, ROW, ok=True, now=now)
            given.append(share_given_back(state, ROW))
        now += 1.0
    assert steps == [10.0, 20.0, 30.0]
    assert given == [0.1, 0.5, 0.0]
    assert effects == (Effect.CLOSE,)
    assert (state.phase, state.busy, state.step) == (Phase.IDLE, False, 0)


def test_a_single_moment_of_illness_starts_the_hold_again() -> None:
    state = at(Phase.ENGAGED, since=0.0)
    for now in range(9):
        state, effects = step(state, WELL, ROW, Mode.AUTO, float(now))
    state, effects = step(state, Reading(Truth.NO, primary_well=False), ROW, Mode.AUTO, 9.0)
    for now in range(10, 20):
        state, effects = step(state, WELL, ROW, Mode.AUTO, float(now))
        assert effects == (), now
    assert step(state, WELL, ROW, Mode.AUTO, 20.0)[1] == (Effect.GIVE_BACK,)


def test_a_primary_that_breaks_while_it_is_given_traffic_is_relieved_of_all_of_it() -> None:
    releasing = at(Phase.RELEASING, step=2, well_since=0.0)
    state, effects = step(releasing, ILL, ROW, Mode.AUTO, 1.0)
    assert effects == (Effect.TAKE_BACK,)
    assert (state.phase, state.step, state.well_since, state.busy) == (Phase.ENGAGED, 0, None, True)
    assert share_given_back(state, ROW) == 0.0


def test_a_primary_that_is_worse_on_its_share_goes_back_one_step_and_holds_again() -> None:
    state = at(Phase.RELEASING, step=2, since=0.0, well_since=0.0)
    state, effects = step(state, WORSE, ROW, Mode.AUTO, 1.0)
    assert (effects, state.busy, share_aimed_at(state, ROW)) == ((Effect.STEP_BACK,), True, 0.1)
    state, effects = outcome(state, ROW, ok=True, now=1.0)
    assert (state.phase, effects, share_given_back(state, ROW)) == (Phase.RELEASING, (), 0.1)
    for now in (1.5, 5.0, 1.0 + HOLD_S - 0.01):
        assert step(state, WORSE, ROW, Mode.AUTO, now)[1] == (), "what the windows show is from before"
        assert step(state, WELL, ROW, Mode.AUTO, now)[1] == (), "it holds again"
    assert step(state, WORSE, ROW, Mode.AUTO, 1.0 + HOLD_S)[1] == (Effect.STEP_BACK,)
    state, effects = step(state, WELL, ROW, Mode.AUTO, 1.0 + HOLD_S)
    assert (effects, share_aimed_at(state, ROW), state.stepped_back) == ((Effect.GIVE_BACK,), 0.5, False)


def test_from_the_first_step_it_goes_back_to_fully_engaged() -> None:
    state = at(Phase.RELEASING, step=1, since=0.0, well_since=0.0)
    state, effects = step(state, WORSE, ROW, Mode.AUTO, 1.0)
    assert (effects, share_aimed_at(state, ROW)) == ((Effect.STEP_BACK,), 0.0)
    state, effects = outcome(state, ROW, ok=True, now=2.0)
    assert (state.phase, state.step, state.since, state.well_since, effects) == (Phase.ENGAGED, 0, 2.0, None, ())


def test_a_trigger_that_holds_takes_everything_back_however_the_primary_compares() -> None:
    reading = Reading(Truth.YES, primary_well=True, canary=Canary.WORSE)
    state, effects = step(at(Phase.RELEASING, step=2), reading, ROW, Mode.AUTO, 1.0)
    assert (state.phase, effects, share_aimed_at(state, ROW)) == (Phase.ENGAGED, (Effect.TAKE_BACK,), 0.0)


def test_a_worse_primary_gives_its_share_back_also_while_the_brake_is_on() -> None:
    braked = Reading(Truth.NO, primary_well=True, braked=True, canary=Canary.WORSE)
    assert step(at(Phase.RELEASING, step=1), braked, ROW, Mode.AUTO, 1.0)[1] == (Effect.STEP_BACK,)


def test_a_release_that_a_person_asked_for_is_stopped_by_an_ill_primary_and_not_by_a_worse_one() -> None:
    state = at(Phase.RELEASING, step=1, well_since=0.0, word=Word.DISMISSED)
    assert step(state, Reading(Truth.YES, True, canary=Canary.WORSE), ROW, Mode.AUTO, 50.0)[1] == (Effect.GIVE_BACK,)
    assert step(state, Reading(Truth.NO, False, canary=Canary.WORSE), ROW, Mode.AUTO, 50.0)[1] == (Effect.STEP_BACK,)


@pytest.mark.parametrize("canary", [Canary.UNKNOWN, Canary.BETTER])
def test_nothing_that_the_judge_says_shortens_a_hold_and_too_few_answers_do_not_prolong_it(canary: Canary) -> None:
    state = at(Phase.RELEASING, step=1, since=0.0, well_since=0.0)
    reading = Reading(Truth.NO, primary_well=True, canary=canary)
    assert step(state, reading, ROW, Mode.AUTO, HOLD_S - 0.01)[1] == ()
    assert step(state, reading, ROW, Mode.AUTO, HOLD_S)[1] == (Effect.GIVE_BACK,)


def test_a_step_of_the_release_that_fails_takes_everything_back() -> None:
    state, effects = outcome(at(Phase.RELEASING, step=1, busy=True), ROW, ok=False, now=1.0)
    assert (state.phase, effects) == (Phase.ENGAGED, (Effect.TAKE_BACK,))


def test_an_engaged_row_stays_engaged_while_its_trigger_holds() -> None:
    assert step(at(Phase.ENGAGED), ILL, ROW, Mode.AUTO, 50.0)[1] == ()


def test_a_take_back_that_failed_is_tried_again_while_the_trigger_holds() -> None:
    """Otherwise a broken primary keeps the share that it was given."""
    state, effects = step(at(Phase.RELEASING, step=2), ILL, ROW, Mode.AUTO, 0.0)
    assert effects == (Effect.TAKE_BACK,)
    state, _ = outcome(state, ROW, ok=False, now=0.0)
    asked: list[Effect] = []
    for now in range(1, 61):
        state, effects = step(state, ILL, ROW, Mode.AUTO, float(now))
        asked += effects
    assert Effect.TAKE_BACK in asked


@pytest.mark.parametrize("trigger", [Truth.DWELLING, Truth.YES])
def test_a_row_gives_nothing_back_while_its_trigger_is_true_even_if_not_for_long_enough(trigger: Truth) -> None:
    state = at(Phase.RELEASING, since=0.0, step=1, well_since=0.0)
    assert Effect.GIVE_BACK not in step(state, Reading(trigger, primary_well=True), ROW, Mode.AUTO, 100.0)[1]


def test_a_primary_without_traffic_is_given_back_although_part_of_its_trigger_is_unknown() -> None:
    """Nobody can see the error rate of a pool that serves nothing; its probes vouch for it."""
    state = at(Phase.ENGAGED, since=0.0, well_since=0.0)
    reading = Reading(Truth.UNKNOWN, primary_well=True)
    assert step(state, reading, ROW, Mode.AUTO, 100.0)[1] == (Effect.GIVE_BACK,)


def test_observe_mode_goes_no_further_than_pending() -> None:
    state, effects = step(RowState(), ILL, ROW, Mode.OBSERVE, 1.0)
    assert (state.phase, effects) == (Phase.PENDING, ())
    state, effects = step(state, ILL, ROW, Mode.OBSERVE, 100.0)
    assert (state.phase, effects) == (Phase.PENDING, ())
    assert step(state, WELL, ROW, Mode.OBSERVE, 101.0)[0].phase is Phase.IDLE


def test_observe_mode_does_not_retry_a_row_that_failed() -> None:
    assert step(at(Phase.FAILED, since=0.0), ILL, ROW, Mode.OBSERVE, 100.0)[1] == ()


def test_a_busy_row_waits_for_its_outcome_but_still_notes_how_the_primary_is() -> None:
    busy = at(Phase.RELEASING, busy=True, well_since=3.0)
    state, effects = step(busy, ILL, ROW, Mode.AUTO, 50.0)
    assert (state.phase, state.busy, effects) == (Phase.RELEASING, True, ())
    assert state.well_since is None


def test_every_phase_can_be_reached_and_left() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert {transition.to for transition in TRANSITIONS.values()} == set(Phase)


def test_every_way_into_engaging_asks_for_the_engagement_and_no_other_way_does() -> None:
    for transition in TRANSITIONS.values():
        assert (Effect.ENGAGE in transition.effects) == (transition.to is Phase.ENGAGING)
