"""Whatever a whole matrix sees and whatever people tell it, in whatever order: it keeps its promises."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controlplane.degradation import turn
from controlplane.degradation.action import ServeFromCache, SwitchPool, UsePool
from controlplane.degradation.machine import Cue, Effect, Phase, Pin, Word
from controlplane.degradation.matrix import AlertFires, Condition, Degradation, Level, Mode, ReleasePlan, Row, Truth
from controlplane.degradation.turn import Facts, MatrixState, Turn, Worry
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, Verdict

HOLD_S, DWELL_S, LIMIT = 5.0, 3.0, 3
RELEASE = ReleasePlan((0.1, 0.5, 1.0), timedelta(seconds=HOLD_S))
DWELL = timedelta(seconds=DWELL_S)
ROWS = {
    Level.P0: Row(
        Level.P0, Condition("error_rate", above=0.05, dwell=DWELL), (SwitchPool(),), timedelta(minutes=5), RELEASE
    ),
    Level.P1: Row(
        Level.P1, Condition("queue_depth", above=100.0, dwell=DWELL), (ServeFromCache(),), timedelta(seconds=30),
        RELEASE, Level.P0,
    ),
    Level.P2: Row(
        Level.P2, AlertFires("Slow"), (UsePool("base", 0.5),), timedelta(seconds=60), RELEASE, Level.P1
    ),
}  # fmt: skip
LEVELS = list(ROWS)
IN_FORCE = (Phase.ENGAGED, Phase.RELEASING)


class MatrixMachine(RuleBasedStateMachine):
    """Three rows under random evidence, outcomes, pins and people, beside a plain record of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.matrix = Degradation(ROWS, max_switches_per_hour=LIMIT)
        self.state: MatrixState = turn.begin(self.matrix)
        self.values: dict[str, float | None] = {"error_rate": 0.0, "queue_depth": 0.0}
        self.true_since: dict[str, float | None] = dict.fromkeys(self.values)
        self.alerts: frozenset[str] | None = frozenset()
        self.well = True
        self.well_since: float | None = None
        self.worse = False
        self.pins: dict[Level, Pin] = {}
        self.asked: dict[Level, Effect] = {}
        self.approved: set[Level] = set()
        self.switched: list[float] = []

    @initialize(mode=st.sampled_from([Mode.AUTO, Mode.AUTO, Mode.APPROVE, Mode.OBSERVE]))
    def choose(self, mode: Mode) -> None:
        self.matrix = replace(self.matrix, mode=mode)

    # -- the world -----------------------------------------------------------------------------------------------------

    @rule(signal=st.sampled_from(["error_rate", "queue_depth"]), value=st.sampled_from([0.0, 200.0, None]))
    def signal_is(self, signal: str, value: float | None) -> None:
        self.values[signal] = value

    @rule(alerts=st.sampled_from([frozenset[str](), frozenset({"Slow"}), None]))
    def alerts_are(self, alerts: frozenset[str] | None) -> None:
        self.alerts = alerts

    @rule(well=st.booleans())
    def primary_is(self, *, well: bool) -> None:
        self.well = well

    @rule(worse=st.booleans())
    def the_other_pools_have_fewer_errors(self, *, worse: bool) -> None:
        self.worse = worse

    @rule(level=st.sampled_from(LEVELS), pin=st.sampled_from(Pin))
    def pin(self, level: Level, pin: Pin) -> None:
        self.pins[level] = pin

    @rule(passed=st.sampled_from([0.0, 0.5, 1.0, 3.0, 5.0, 11.0, 61.0]))
    def evaluate(self, passed: float) -> None:
        self.now += passed
        self.well_since = (self.now if self.well_since is None else self.well_since) if self.well else None
        for signal, value in self.values.items():
            since = self.true_since[signal]
            self.true_since[signal] = (self.now if since is None else since) if value else None
        before = self.state
        facts = Facts(self.evidence(), self.alerts, self.pins, self.others())
        taken = turn.advance(self.matrix, before, facts, self.now)
        self.check(before, taken)
        self.carry(taken)

    def evidence(self) -> dict[str, Evidence]:
        found = {"availability": Evidence("availability", 1.0, Band.OK if self.well else Band.BREACH)}
        for signal, value in self.values.items():
            found[signal] = Evidence(signal, value, Band.UNKNOWN if value is None else Band.OK)
        if self.is_worse():
            found["error_rate"] = Evidence("error_rate", 0.02, Band.OK, 1000)
        return found

    def is_worse(self) -> bool:
        """Two errors in a hundred trip nothing, and are more than the other pools have."""
        return self.worse and self.values["error_rate"] == 0.0

    def others(self) -> dict[str, Verdict]:
        answers = (Evidence("error_rate", 0.0, Band.OK, 1000),)
        return {pool: Verdict(pool, Band.OK, answers) for pool in ("standby", "cache", "base")}

    @precondition(lambda self: bool(self.asked))
    @rule(ok=st.booleans(), touched=st.booleans(), data=st.data())
    def an_effect_ends(self, data: st.DataObject, *, ok: bool, touched: bool) -> None:
        level = data.draw(st.sampled_from(sorted(self.asked)))
        effect, before = self.asked.pop(level), self.state.rows[level].state
        taken = turn.end(self.matrix, self.state, level, self.now, ok=ok, touched=ok or touched)
        after = taken.state.rows[level].state
        if effect is Effect.ENGAGE:
            assert after.phase is (Phase.ENGAGED if ok else Phase.FAILED)
        if effect is Effect.STEP_BACK and ok:
            assert (after.phase, after.step) == (
                Phase.RELEASING if before.step > 1 else Phase.ENGAGED, before.step - 1,
            ), "exactly one step"  # fmt: skip
        self.carry(taken)

    @rule(level=st.sampled_from(LEVELS), cue=st.sampled_from([Cue.APPROVE, Cue.REFUSE, Cue.RELEASE]))
    def a_person_says(self, level: Level, cue: Cue) -> None:
        before = self.state.rows[level].state
        taken = turn.tell(self.state, level, cue, self.now)
        if taken is None:
            return
        assert not before.busy
        if cue is Cue.APPROVE:
            assert before.word is Word.ASKED
            self.approved.add(level)
        if cue is Cue.REFUSE:
            assert taken.wanted == ()
        self.carry(taken)

    @rule()
    def a_person_pulls_the_brake(self) -> None:
        self.state = replace(self.state, braked=True)

    @precondition(lambda self: not self.asked and self.matrix.mode is not Mode.OBSERVE)
    @rule(level=st.sampled_from(LEVELS))
    def a_row_is_put_in_force_by_hand(self, level: Level) -> None:
        pinned = self.pins.pop(level, Pin.NOT)
        self.pins[level] = Pin.IN_FORCE
        self.evaluate(11.0)
        self.pins[level] = pinned
        if self.asked.pop(level, None):
            self.carry(turn.end(self.matrix, self.state, level, self.now, ok=True))

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.values, self.alerts, self.well = dict.fromkeys(self.values, 0.0), frozenset(), True
        self.worse = False
        for _ in range(3):
            self.evaluate(HOLD_S)

    @precondition(lambda self: self.state.braked)
    @rule()
    def a_person_lets_go_of_the_brake(self) -> None:
        self.state = turn.let_go(self.state)

    # -- the promises ----------------------------------------------------------------------------------------------

    def check(self, before: MatrixState, taken: Turn) -> None:
        for wanted in taken.wanted:
            level, effect = wanted.level, wanted.effect
            was, row = before.rows[level].state, taken.state.rows[level]
            pinned = self.pins.get(level, Pin.NOT)
            if effect is Effect.ENGAGE:
                self.check_engagement(level, before, taken, pinned)
            if effect is Effect.GIVE_BACK:
                assert pinned is not Pin.IN_FORCE, "a pin holds"
                assert not before.braked or was.word is Word.DISMISSED, "the brake holds"
                assert self.well_since is not None
                assert self.now - self.well_since >= HOLD_S
                assert self.now - was.since >= HOLD_S, "never flaps inside its hold"
                moved_all = level is not Level.P2
                known = row.answer.truth is not Truth.UNKNOWN
                assert known or moved_all or was.word is Word.DISMISSED, "unknown never releases"
                advances = was.phase is Phase.RELEASING and self.is_worse()
                assert not advances or was.word is Word.DISMISSED, "a worse canary never advances"
            if effect is Effect.STEP_BACK:
                assert self.is_worse()
                assert was.phase is Phase.RELEASING
                # Once the trigger has cleared it is a release like any other.
                cleared = row.answer.truth is Truth.NO and row.escalated_by is None
                left_alone = was.word is Word.DISMISSED and not cleared
                assert not left_alone or not self.well, "a person's release outweighs a comparison"
                assert not was.stepped_back or self.now - was.since >= HOLD_S, "it holds again after a step back"
                assert "0.00% errors of 1000 answers" in wanted.because[0], "both pools' numbers"
                alone = {w.effect for w in taken.wanted} == {Effect.STEP_BACK}
                assert not alone or set(taken.state.switches) <= set(before.switches), "a step back is no switch"
            if effect is Effect.TAKE_BACK:
                assert was.phase in IN_FORCE
            if effect is Effect.ASK:
                needs = self.matrix.mode is Mode.APPROVE or taken.state.braked or before.braked
                assert needs

    def check_engagement(self, level: Level, before: MatrixState, taken: Turn, pinned: Pin) -> None:
        assert self.matrix.mode is not Mode.OBSERVE
        if pinned is Pin.IN_FORCE:
            return
        row = taken.state.rows[level]
        assert pinned is not Pin.IDLE, "a pin to idle holds"
        assert before.rows[level].state.word is not Word.DISMISSED
        escalated = row.escalated_by is not None
        assert escalated or row.answer.truth is Truth.YES, "unknown never trips"
        if not escalated and level is not Level.P2:
            since = self.true_since["error_rate" if level is Level.P0 else "queue_depth"]
            assert since is not None
            assert self.now - since >= DWELL_S, "it dwells"
        if self.matrix.mode is Mode.APPROVE or before.braked:
            assert level in self.approved, "nothing engages without a person"

    def carry(self, taken: Turn) -> None:
        self.state = taken.state
        assert [told.worry for told in taken.told].count(Worry.BRAKE) <= 1
        for wanted in taken.wanted:
            if wanted.effect in (Effect.ENGAGE, Effect.GIVE_BACK, Effect.STEP_BACK, Effect.TAKE_BACK):
                assert wanted.level not in self.asked, "a second effect while one is carried out"
                self.asked[wanted.level] = wanted.effect
            if wanted.effect is Effect.CLOSE:
                assert self.state.rows[wanted.level].state.phase is Phase.IDLE

    @invariant()
    def it_is_busy_exactly_while_an_effect_is_carried_out(self) -> None:
        assert {level for level, row in self.state.rows.items() if row.state.busy} == set(self.asked)

    @invariant()
    def an_approval_ends_with_what_it_was_for(self) -> None:
        for level in list(self.approved):
            if self.state.rows[level].state.word is not Word.APPROVED:
                self.approved.discard(level)

    @invariant()
    def more_switches_than_an_hour_may_have_mean_the_brake(self) -> None:
        if len(self.state.switches) > LIMIT:
            assert self.state.braked

    @invariant()
    def only_what_waits_for_a_person_is_marked_so(self) -> None:
        for row in self.state.rows.values():
            if row.state.word is Word.ASKED:
                assert row.state.phase is Phase.PENDING

    def teardown(self) -> None:
        """From wherever it stands: a fleet that is well, levers that obey and people who let go bring it to idle."""
        self.pins, self.alerts, self.well, self.worse = {}, frozenset(), True, False
        self.values = dict.fromkeys(self.values, 0.0)
        for _ in range(120):
            for level in list(self.asked):
                self.asked.pop(level)
                self.carry(turn.end(self.matrix, self.state, level, self.now, ok=True))
            self.state = turn.let_go(self.state)
            if all(row.state.phase is Phase.IDLE for row in self.state.rows.values()):
                break
            self.evaluate(1.0)
        assert {row.state.phase for row in self.state.rows.values()} == {Phase.IDLE}, "it always ends"
        self.evaluate(1.0)
        assert {row.state.word for row in self.state.rows.values()} == {Word.NONE}


MatrixMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAMatrixUnderAnySequence = MatrixMachine.TestCase
