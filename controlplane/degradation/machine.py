"""How one row of the matrix moves; pure. The table below is the whole machine: docs and console draw it from here.

`flows/decide` feeds a row one reading per evaluation, what people tell it, and the outcome of what it was told to do;
the machine answers with the next state and the effects to carry out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from controlplane.degradation.action import share_of
from controlplane.degradation.canary import Canary
from controlplane.degradation.matrix import Mode, Row, Truth

RETRY_AFTER_S = 10.0
"""How long a row that could not be engaged waits before it tries again."""

TAKE_BACK_AGAIN_S = 1.0
"""How long a row waits before it tries again to take traffic back from a primary that is ill."""


class Phase(StrEnum):
    """Where a row stands."""

    IDLE = "idle"
    PENDING = "pending"
    ENGAGING = "engaging"
    ENGAGED = "engaged"
    RELEASING = "releasing"
    FAILED = "failed"


class Cue(StrEnum):
    """What one evaluation, or a person, says to a row."""

    CLEAR = "clear"
    """The trigger does not hold."""
    DWELL = "dwell"
    """It holds, but not for long enough, or something holds the row back."""
    TRIP = "trip"
    """It holds."""
    ASK = "ask"
    """It holds, and a person has to say whether the row may engage."""
    LAPSE = "lapse"
    """It holds no longer, and people know of it: they were asked, or said no, or its incident is open."""
    WELL = "well"
    """The primary has been well for the whole hold."""
    WORSE = "worse"
    """On the share that it has been given, the primary does worse than the pool that serves the rest."""
    BACK = "back"
    """The first share, too, has been taken back a step at a time."""
    RETRY = "retry"
    """The trigger still holds, and the wait after a failure is over."""
    DONE = "done"
    """What the row was told to do is verified."""
    FAIL = "fail"
    """What the row was told to do failed or was refused."""
    PIN = "pin"
    """A person wants the row in force, whatever its trigger says."""
    APPROVE = "approve"
    """A person lets the row engage that asked."""
    REFUSE = "refuse"
    """A person wants the row left alone until its trigger has cleared."""
    RELEASE = "release"
    """A person wants the traffic given back now."""


class Effect(StrEnum):
    """What a flow has to do after a transition."""

    ENGAGE = "engage"
    """Run the gate, store the intent, move the lever, verify."""
    GIVE_BACK = "give back"
    """Give the next share back to the primary and verify."""
    STEP_BACK = "step back"
    """Take the last share back that was given: to the one before it, or from the first one to fully engaged."""
    TAKE_BACK = "take back"
    """The primary broke again while it was being given traffic: go back to fully engaged."""
    CLOSE = "close"
    """It is over: the receipt is reverted, if there is one, and the incident resolved."""
    ASK = "ask"
    """Open the incident and tell people that the row waits for one of them."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a cue leads."""

    to: Phase
    effects: tuple[Effect, ...] = ()


TRANSITIONS: Mapping[tuple[Phase, Cue], Transition] = {
    (Phase.IDLE, Cue.DWELL): Transition(Phase.PENDING),
    (Phase.IDLE, Cue.TRIP): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.IDLE, Cue.ASK): Transition(Phase.PENDING, (Effect.ASK,)),
    (Phase.IDLE, Cue.PIN): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.PENDING, Cue.CLEAR): Transition(Phase.IDLE),
    (Phase.PENDING, Cue.LAPSE): Transition(Phase.IDLE, (Effect.CLOSE,)),
    (Phase.PENDING, Cue.TRIP): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.PENDING, Cue.ASK): Transition(Phase.PENDING, (Effect.ASK,)),
    (Phase.PENDING, Cue.APPROVE): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.PENDING, Cue.REFUSE): Transition(Phase.PENDING),
    (Phase.PENDING, Cue.PIN): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.ENGAGING, Cue.DONE): Transition(Phase.ENGAGED),
    (Phase.ENGAGING, Cue.FAIL): Transition(Phase.FAILED),
    (Phase.ENGAGED, Cue.TRIP): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.ENGAGED, Cue.WELL): Transition(Phase.RELEASING, (Effect.GIVE_BACK,)),
    (Phase.ENGAGED, Cue.RELEASE): Transition(Phase.RELEASING, (Effect.GIVE_BACK,)),
    (Phase.RELEASING, Cue.WELL): Transition(Phase.RELEASING, (Effect.GIVE_BACK,)),
    (Phase.RELEASING, Cue.WORSE): Transition(Phase.RELEASING, (Effect.STEP_BACK,)),
    (Phase.RELEASING, Cue.BACK): Transition(Phase.ENGAGED),
    (Phase.RELEASING, Cue.TRIP): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.RELEASING, Cue.PIN): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.RELEASING, Cue.RELEASE): Transition(Phase.RELEASING),
    (Phase.RELEASING, Cue.FAIL): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.RELEASING, Cue.DONE): Transition(Phase.IDLE, (Effect.CLOSE,)),
    (Phase.FAILED, Cue.RETRY): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.FAILED, Cue.ASK): Transition(Phase.PENDING, (Effect.ASK,)),
    (Phase.FAILED, Cue.REFUSE): Transition(Phase.PENDING),
    (Phase.FAILED, Cue.CLEAR): Transition(Phase.IDLE, (Effect.CLOSE,)),
}


_IN_FORCE = (Phase.ENGAGED, Phase.RELEASING)
_STEPS: Mapping[tuple[Effect, ...], int] = {(Effect.GIVE_BACK,): 1, (Effect.STEP_BACK,): -1}
"""How far effects go along the plan of a release."""
_AT_ONCE = (Effect.CLOSE, Effect.ASK)
"""Effects that no outcome is waited for."""


class Word(StrEnum):
    """What people have said about a row since its trigger began to hold."""

    NONE = "none"
    ASKED = "asked"
    """Nothing yet, and the row waits for it."""
    APPROVED = "approved"
    """It may act by itself until its trigger has cleared."""
    DISMISSED = "dismissed"
    """It is to be left alone until its trigger has cleared."""


_SAYS = {
    Cue.ASK: Word.ASKED,
    Cue.APPROVE: Word.APPROVED,
    Cue.REFUSE: Word.DISMISSED,
    Cue.RELEASE: Word.DISMISSED,
}
"""What a cue leaves behind."""


@dataclass(frozen=True, slots=True)
class RowState:
    """Where one row stands."""

    phase: Phase = Phase.IDLE
    since: float = 0.0
    """Monotonic seconds when the phase, or the last step of a release, began."""
    step: int = 0
    """How many shares of the release plan have been given back."""
    aim: int = 0
    """How many will have been, once what is being carried out is done."""
    stepped_back: bool = False
    """The last move of the release was a step back: until its hold is over, what is known of the pools is older."""
    well_since: float | None = None
    """Since when (monotonic seconds) the primary has been well without a break; None while it is not."""
    misplaced: bool = False
    """Taking traffic back failed: the lever is not where an engaged row's belongs."""
    busy: bool = False
    """An effect is being carried out; nothing moves until its outcome is known."""
    word: Word = Word.NONE
    left_open: bool = False
    """An earlier term left its incident open: it ends with the trigger, though this row has done nothing yet."""


class Pin(StrEnum):
    """What a person has pinned a row to."""

    NOT = "not"
    IN_FORCE = "in force"
    IDLE = "idle"
    """It begins nothing; what is in force ends in the usual way."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one evaluation saw."""

    trigger: Truth
    primary_well: bool
    """The primary pool's availability is known and healthy, and nothing else of it is in breach that users feel."""
    escalated: bool = False
    """A milder row's harm goes on and it could not mend it: this row is to trip, whatever its own trigger says."""
    pin: Pin = Pin.NOT
    spent: bool = False
    """The rows have switched as often in this hour as they may: a person has to let the next one engage."""
    braked: bool = False
    """The brake is on: a person has to let rows engage, and to give back what is in force."""
    canary: Canary = Canary.UNKNOWN
    """What the judge says of the primary on the share that the row has given back to it."""


def step(state: RowState, reading: Reading, row: Row, mode: Mode, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Advance one row by one evaluation.

    Args:
        state: where it stood.
        reading: what was seen; an unknown trigger trips nothing and clears nothing.
        row: the row's plan.
        mode: in `observe` a row goes no further than pending; in `approve` it waits there for a person.
        now: monotonic seconds.

    Returns:
        The next state and the effects to carry out, in order; none when nothing changes.
    """
    state = note_wellness(state, now, well=reading.primary_well)
    if state.busy:
        return state, ()
    phase = state.phase
    if state.word is not Word.NONE and _cleared(reading) and _forgets(state):
        state = replace(state, word=Word.NONE)
    if phase is Phase.ENGAGED or phase is Phase.RELEASING:
        cue = _cue_in_force(state, reading, row, now)
    else:
        cue = _cue(state, reading, mode, now)
    return (state, ()) if cue is None else apply_cue(state, cue, now)


def note_wellness(state: RowState, now: float, *, well: bool) -> RowState:
    """Keep since when the primary has been well without a break, also while nothing may move."""
    if well is (state.well_since is not None):
        return state
    return replace(state, well_since=now if well else None)


def instruct(state: RowState, cue: Cue, now: float) -> tuple[RowState, tuple[Effect, ...]] | None:
    """Pass on what a person says (`approve`, `refuse`, `release`); None where the row has no use for it now."""
    asked = cue is not Cue.APPROVE or state.word is Word.ASKED
    if state.busy or not asked or (state.phase, cue) not in TRANSITIONS:
        return None
    return apply_cue(state, cue, now)


def outcome(state: RowState, row: Row, *, ok: bool, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Tell a row how the effect it asked for ended.

    A step of a release keeps the row releasing, and its hold starts now, unless it was the last one: of the way back to
    the primary, or of the way back from it.
    """
    state = replace(state, busy=False)
    if state.phase is Phase.ENGAGED:
        return replace(state, step=0, since=now, well_since=None, misplaced=not ok), ()
    if state.phase is Phase.RELEASING and ok:
        state = replace(state, step=state.aim)
        if 0 < state.step < len(row.release.steps):
            return replace(state, since=now), ()
        if not state.step:
            return apply_cue(state, Cue.BACK, now)
    return apply_cue(state, Cue.DONE if ok else Cue.FAIL, now)


def apply_cue(state: RowState, cue: Cue, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Look a cue up in the table; one that is not there changes nothing."""
    transition = TRANSITIONS.get((state.phase, cue))
    if transition is None:
        return state, ()
    moved = transition.to is not state.phase
    waits = any(effect not in _AT_ONCE for effect in transition.effects)
    after = replace(
        state,
        phase=transition.to,
        since=now if moved else state.since,
        busy=waits,
        step=state.step if transition.to is Phase.RELEASING else 0,
        aim=state.step + _STEPS.get(transition.effects, 0) if transition.to is Phase.RELEASING else 0,
        stepped_back=transition.to is Phase.RELEASING
        and (_STEPS[transition.effects] < 0 if transition.effects in _STEPS else state.stepped_back),
        misplaced=state.misplaced and transition.to is Phase.ENGAGED,
        well_since=None if transition.to is Phase.ENGAGED else state.well_since,
        word=_word(state, cue, transition.to),
        left_open=state.left_open and transition.to is Phase.PENDING,
    )
    return after, transition.effects


def _word(state: RowState, cue: Cue, to: Phase) -> Word:
    """Return what people's word is after a transition: it lasts until the trigger clears, or a pin overrules it.

    A row that acts waits for nobody any more: what kept it, such as the brake, is gone.
    """
    if cue in _SAYS:
        return _SAYS[cue]
    over = cue in (Cue.CLEAR, Cue.LAPSE, Cue.PIN) or (state.word is Word.ASKED and to is not Phase.PENDING)
    ended = to is Phase.IDLE and state.word is not Word.DISMISSED
    return Word.NONE if over or ended else state.word


def share_given_back(state: RowState, row: Row) -> float:
    """Return the share (0..1) of the traffic that the row has given back to the primary."""
    if state.phase is Phase.RELEASING and state.step:
        return row.release.steps[min(state.step, len(row.release.steps)) - 1]
    return 0.0


def share_aimed_at(state: RowState, row: Row) -> float:
    """Return the share (0..1) that the primary is to have once what the row has asked for is done."""
    return row.release.steps[state.aim - 1] if state.aim else 0.0


def _releases(row: Row) -> tuple[Truth, ...]:
    """Return the answers of a row's trigger under which traffic may go back, given that the primary is well.

    A primary that serves nobody has no error rate and no latency: where a row has moved all of its traffic, their
    being unknown says nothing, and its probes' completions vouch for it. Elsewhere unknown releases nothing.
    """
    return (Truth.NO, Truth.UNKNOWN) if row.move and share_of(row.move) == 1.0 else (Truth.NO,)


def _cue(state: RowState, reading: Reading, mode: Mode, now: float) -> Cue | None:
    """Turn a reading into the one cue that matters to a row that is not in force."""
    failed = state.phase is Phase.FAILED
    waited = not failed or now - state.since >= RETRY_AFTER_S
    if reading.pin is Pin.IN_FORCE and mode is not Mode.OBSERVE:
        return (Cue.RETRY if failed else Cue.PIN) if waited else None
    truth = Truth.YES if reading.escalated else reading.trigger
    if truth is Truth.NO:
        return _cue_to_clear(state)
    if truth is Truth.UNKNOWN:
        return None
    held = mode is Mode.OBSERVE or reading.pin is Pin.IDLE or state.word is Word.DISMISSED
    if truth is Truth.DWELLING or held:
        return Cue.DWELL if state.phase is Phase.IDLE else None
    needs_a_person = mode is Mode.APPROVE or reading.spent or reading.braked
    if needs_a_person and state.word is not Word.APPROVED:
        return None if state.word is Word.ASKED else Cue.ASK
    return (Cue.RETRY if failed else Cue.TRIP) if waited else None


def _cleared(reading: Reading) -> bool:
    return reading.trigger is Truth.NO and not reading.escalated


def _forgets(state: RowState) -> bool:
    """Tell whether a row that does not move drops what people said; one that clears drops it on its way."""
    return state.phase is Phase.IDLE or (state.word is Word.DISMISSED and state.phase is not Phase.PENDING)


def _cue_to_clear(state: RowState) -> Cue | None:
    if state.phase is Phase.IDLE:
        return None
    people_know = state.left_open or state.word in (Word.ASKED, Word.DISMISSED)
    return Cue.LAPSE if state.phase is Phase.PENDING and people_know else Cue.CLEAR


def _cue_in_force(state: RowState, reading: Reading, row: Row, now: float) -> Cue | None:
    """Trip again on a true trigger; step back from a worse primary; go on when it was well for the whole hold.

    Taking traffic back from an ill primary is never held back: neither by a mode, nor by a brake, nor by a word. One
    that is well, and only worse than the other pool, keeps what a person wants it to have.
    """
    hold = row.release.hold.total_seconds()
    releasing = state.phase is Phase.RELEASING
    if reading.pin is Pin.IN_FORCE and releasing:
        return Cue.PIN
    dismissed = state.word is Word.DISMISSED
    if reading.trigger is Truth.YES and releasing and not (dismissed and reading.primary_well):
        return Cue.TRIP
    if state.misplaced and (not reading.primary_well or reading.pin is Pin.IN_FORCE):
        return Cue.TRIP if now - state.since >= TAKE_BACK_AGAIN_S else None
    if releasing and state.step and reading.canary is Canary.WORSE and not (dismissed and reading.primary_well):
        return None if state.stepped_back and now - state.since < hold else Cue.WORSE
    if reading.pin is Pin.IN_FORCE or (reading.braked and not dismissed):
        return None
    if reading.trigger not in _releases(row) and not (dismissed and releasing):
        return None
    well = state.well_since is not None and now - state.well_since >= hold
    return Cue.WELL if well and now - state.since >= hold else None
