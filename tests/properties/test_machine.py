"""Whatever a row is told, in whatever order: it keeps the promises of the matrix."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.degradation.action import SwitchPool
from controlplane.degradation.canary import Canary
from controlplane.degradation.machine import (
    TRANSITIONS,
    Cue,
    Effect,
    Phase,
    Reading,
    RowState,
    apply_cue,
    outcome,
    share_given_back,
    step,
)
from controlplane.degradation.matrix import Condition, Level, Mode, ReleasePlan, Row, Truth

HOLD_S = 5.0
ROW = Row(
    Level.P0, Condition("endpoints_down", above=1.0), (SwitchPool(),), timedelta(minutes=5),
    ReleasePlan((0.1, 0.5, 1.0), timedelta(seconds=HOLD_S)),
)  # fmt: skip


def assert_in_the_table(before: RowState, after: RowState, effects: tuple[Effect, ...]) -> None:
    ways = [t for (phase, _), t in TRANSITIONS.items() if phase is before.phase]
    assert any(t.to is after.phase and t.effects == effects for t in ways), (before, after, effects)


class RowMachine(RuleBasedStateMachine):
    """One row under random readings, outcomes and modes, with a model of what the lever has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = RowState()
        self.asked: Effect | None = None
        self.well_since: float | None = None
        self.closed = True
        """Nothing is engaged: every engagement that was verified has been closed."""

    @rule(
        trigger=st.sampled_from(Truth),
        well=st.booleans(),
        mode=st.sampled_from([Mode.AUTO, Mode.AUTO, Mode.OBSERVE]),
        canary=st.sampled_from(Canary),
        passed=st.sampled_from([0.0, 0.5, 1.0, 4.9, 5.0, 11.0]),
    )
    def read(self, trigger: Truth, mode: Mode, passed: float, canary: Canary, *, well: bool) -> None:
        self.now += passed
        self.well_since = (self.now if self.well_since is None else self.well_since) if well else None
        before = self.state
        self.state, effects = step(before, Reading(trigger, well, canary=canary), ROW, mode, self.now)
        if before.phase is Phase.FAILED and Effect.CLOSE in effects:
            self.closed = False  # Nothing is engaged, but its incident is open: it ends with the row.
        self.carry(effects)
        if before.busy:
            assert effects == ()
            assert self.state.phase is before.phase
            return
        if trigger is Truth.UNKNOWN or mode is Mode.OBSERVE:
            assert Effect.ENGAGE not in effects
        if Effect.ENGAGE in effects:
            assert trigger is Truth.YES
        if Effect.GIVE_BACK in effects:
            assert trigger is not Truth.YES
            assert self.well_since is not None
            assert self.now - self.well_since >= HOLD_S
            assert self.now - before.since >= HOLD_S
            assert before.phase is Phase.ENGAGED or canary is not Canary.WORSE, "a worse canary never advances"
        if Effect.STEP_BACK in effects:
            assert canary is Canary.WORSE
            assert trigger is not Truth.YES, "a trigger that holds takes everything back"
            assert not before.stepped_back or self.now - before.since >= HOLD_S, "it holds again after a step back"
        if self.state.phase is not before.phase or effects:
            observed = mode is Mode.OBSERVE and (before.phase, self.state.phase) == (Phase.IDLE, Phase.PENDING)
            if not observed:
                assert_in_the_table(before, self.state, effects)

    @precondition(lambda self: self.asked is not None)
    @rule(ok=st.booleans(), took=st.sampled_from([0.0, 0.1, 7.0]))
    def end(self, took: float, *, ok: bool) -> None:
        self.now += took
        asked, self.asked = self.asked, None
        before = self.state
        self.state, effects = outcome(before, ROW, ok=ok, now=self.now)
        if asked is Effect.ENGAGE:
            assert self.state.phase is (Phase.ENGAGED if ok else Phase.FAILED)
            self.closed = not ok
        if asked is Effect.STEP_BACK and ok:
            assert share_given_back(self.state, ROW) == (0.0, *ROW.release.steps)[before.step - 1], "exactly one step"
            assert (self.state.phase is Phase.ENGAGED) == (before.step == 1)
        if asked in (Effect.GIVE_BACK, Effect.STEP_BACK) and not ok:
            assert effects == (Effect.TAKE_BACK,)
        self.carry(effects)

    def carry(self, effects: tuple[Effect, ...]) -> None:
        assert len(effects) <= 1
        for effect in effects:
            if effect is Effect.CLOSE:
                assert not self.closed, "closed what was not engaged"
                self.closed = True
            else:
                assert self.asked is None, "a second effect while one is carried out"
                self.asked = effect

    @invariant()
    def it_is_busy_exactly_while_an_effect_is_carried_out(self) -> None:
        assert self.state.busy == (self.asked is not None)

    @invariant()
    def the_share_given_back_is_one_of_the_plans(self) -> None:
        assert share_given_back(self.state, ROW) in (0.0, *ROW.release.steps)
        assert 0 <= self.state.step <= len(ROW.release.steps)

    @invariant()
    def what_is_engaged_is_in_a_phase_that_says_so(self) -> None:
        assert self.closed == (self.state.phase not in (Phase.ENGAGED, Phase.RELEASING))

    def teardown(self) -> None:
        """From wherever it stands, a fleet that is well again and levers that obey bring it back to idle."""
        for _ in range(60):
            if self.asked:
                self.end(ok=True, took=0.0)
            elif self.state.phase is Phase.IDLE:
                break
            else:
                self.read(Truth.NO, mode=Mode.AUTO, passed=1.0, canary=Canary.UNKNOWN, well=True)
        assert self.state.phase is Phase.IDLE
        assert self.closed


RowMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestARowUnderAnySequence = RowMachine.TestCase


states = st.builds(
    RowState,
    phase=st.sampled_from(Phase),
    since=st.floats(0, 100),
    step=st.integers(0, 3),
    well_since=st.none() | st.floats(0, 100),
    busy=st.booleans(),
)


@given(states, st.sampled_from(Cue), st.floats(100, 200))
def test_a_cue_does_what_the_table_says_and_one_that_is_not_there_changes_nothing(
    state: RowState, cue: Cue, now: float
) -> None:
    after, effects = apply_cue(state, cue, now)
    transition = TRANSITIONS.get((state.phase, cue))
    if transition is None:
        assert (after, effects) == (state, ())
    else:
        assert (after.phase, effects) == (transition.to, transition.effects)
        assert after.since == (now if transition.to is not state.phase else state.since)
