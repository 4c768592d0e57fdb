"""How one row of the matrix moves; pure. The table below is the whole machine: docs and console draw it from here.

`flows/observe` feeds a row one reading per evaluation and the outcome of what it was told to do; the machine answers
with the next state and the effects to carry out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from controlplane.degradation.action import share_of
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
    """What one evaluation says to a row."""

    CLEAR = "clear"
    """The trigger does not hold."""
    DWELL = "dwell"
    """It holds, but not for long enough."""
    TRIP = "trip"
    """It holds."""
    WELL = "well"
    """The primary has been well for the whole hold."""
    RETRY = "retry"
    """The trigger still holds, and the wait after a failure is over."""
    DONE = "done"
    """What the row was told to do is verified."""
    FAIL = "fail"
    """What the row was told to do failed or was refused."""


class Effect(StrEnum):
    """What a flow has to do after a transition."""

    ENGAGE = "engage"
    """Run the gate, store the intent, move the lever, verify."""
    GIVE_BACK = "give back"
    """Give the next share back to the primary and verify."""
    TAKE_BACK = "take back"
    """The primary broke again while it was being given traffic: go back to fully engaged."""
    CLOSE = "close"
    """It is over: the receipt is reverted, if there is one, and the incident resolved."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a cue leads."""

    to: Phase
    effects: tuple[Effect, ...] = ()


TRANSITIONS: Mapping[tuple[Phase, Cue], Transition] = {
    (Phase.IDLE, Cue.DWELL): Transition(Phase.PENDING),
    (Phase.IDLE, Cue.TRIP): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.PENDING, Cue.CLEAR): Transition(Phase.IDLE),
    (Phase.PENDING, Cue.TRIP): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.ENGAGING, Cue.DONE): Transition(Phase.ENGAGED),
    (Phase.ENGAGING, Cue.FAIL): Transition(Phase.FAILED),
    (Phase.ENGAGED, Cue.TRIP): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.ENGAGED, Cue.WELL): Transition(Phase.RELEASING, (Effect.GIVE_BACK,)),
    (Phase.RELEASING, Cue.WELL): Transition(Phase.RELEASING, (Effect.GIVE_BACK,)),
    (Phase.RELEASING, Cue.TRIP): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.RELEASING, Cue.FAIL): Transition(Phase.ENGAGED, (Effect.TAKE_BACK,)),
    (Phase.RELEASING, Cue.DONE): Transition(Phase.IDLE, (Effect.CLOSE,)),
    (Phase.FAILED, Cue.RETRY): Transition(Phase.ENGAGING, (Effect.ENGAGE,)),
    (Phase.FAILED, Cue.CLEAR): Transition(Phase.IDLE, (Effect.CLOSE,)),
}


_ENGAGED = (Phase.ENGAGED, Phase.RELEASING)


@dataclass(frozen=True, slots=True)
class RowState:
    """Where one row stands."""

    phase: Phase = Phase.IDLE
    since: float = 0.0
    """Monotonic seconds when the phase, or the last step of a release, began."""
    step: int = 0
    """How many shares of the release plan have been given back."""
    well_since: float | None = None
    """Since when (monotonic seconds) the primary has been well without a break; None while it is not."""
    misplaced: bool = False
    """Taking traffic back failed: the lever is not where an engaged row's belongs."""
    busy: bool = False
    """An effect is being carried out; nothing moves until its outcome is known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one evaluation saw."""

    trigger: Truth
    primary_well: bool
    """The primary pool's availability is known and healthy, and nothing else of it is in breach that users feel."""


def step(state: RowState, reading: Reading, row: Row, mode: Mode, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Advance one row by one evaluation.

    Args:
        state: where it stood.
        reading: what was seen; an unknown trigger trips nothing and clears nothing.
        row: the row's plan.
        mode: in `observe` a row goes no further than pending.
        now: monotonic seconds.

    Returns:
        The next state and the effects to carry out, in order; none when nothing changes.
    """
    state = _note_wellness(state, reading, now)
    if state.busy:
        return state, ()
    cue = _cue(state, reading, row, now)
    if cue is None:
        return state, ()
    if mode is Mode.OBSERVE and cue in (Cue.TRIP, Cue.RETRY) and state.phase not in _ENGAGED:
        cue = Cue.DWELL  # Shown as pending, and no further.
    return apply_cue(state, cue, now)


def outcome(state: RowState, row: Row, *, ok: bool, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Tell a row how the effect it asked for ended.

    A step of a release that is not the last one keeps the row releasing; its hold starts now.
    """
    state = replace(state, busy=False)
    if state.phase is Phase.ENGAGED:
        return replace(state, step=0, since=now, well_since=None, misplaced=not ok), ()
    if state.phase is Phase.RELEASING and ok:
        given = state.step + 1
        if given < len(row.release.steps):
            return replace(state, step=given, since=now), ()
        state = replace(state, step=given)
    return apply_cue(state, Cue.DONE if ok else Cue.FAIL, now)


def apply_cue(state: RowState, cue: Cue, now: float) -> tuple[RowState, tuple[Effect, ...]]:
    """Look a cue up in the table; one that is not there changes nothing."""
    transition = TRANSITIONS.get((state.phase, cue))
    if transition is None:
        return state, ()
    moved = transition.to is not state.phase
    waits = any(effect is not Effect.CLOSE for effect in transition.effects)
    after = replace(
        state,
        phase=transition.to,
        since=now if moved else state.since,
        busy=waits,
        step=state.step if transition.to is Phase.RELEASING else 0,
        misplaced=state.misplaced and transition.to is Phase.ENGAGED,
        well_since=None if transition.to is Phase.ENGAGED else state.well_since,
    )
    return after, transition.effects


def share_given_back(state: RowState, row: Row) -> float:
    """Return the share (0..1) of the traffic that the row has given back to the primary."""
    if state.phase is Phase.RELEASING and state.step:
        return row.release.steps[min(state.step, len(row.release.steps)) - 1]
    return 0.0


def _releases(row: Row) -> tuple[Truth, ...]:
    """Return the answers of a row's trigger under which traffic may go back, given that the primary is well.

    A primary that serves nobody has no error rate and no latency: where a row has moved all of its traffic, their
    being unknown says nothing, and its probes' completions vouch for it. Elsewhere unknown releases nothing.
    """
    return (Truth.NO, Truth.UNKNOWN) if row.move and share_of(row.move) == 1.0 else (Truth.NO,)


def _note_wellness(state: RowState, reading: Reading, now: float) -> RowState:
    if not reading.primary_well:
        return replace(state, well_since=None)
    return state if state.well_since is not None else replace(state, well_since=now)


def _cue(state: RowState, reading: Reading, row: Row, now: float) -> Cue | None:
    """Turn a reading into the one cue that matters in this phase."""
    if state.phase in _ENGAGED:
        return _cue_for_release(state, reading, row, now)
    if reading.trigger is Truth.UNKNOWN:
        return None
    if reading.trigger is Truth.NO:
        return Cue.CLEAR
    if state.phase is Phase.FAILED:
        again = reading.trigger is Truth.YES and now - state.since >= RETRY_AFTER_S
        return Cue.RETRY if again else None
    return Cue.TRIP if reading.trigger is Truth.YES else Cue.DWELL


def _cue_for_release(state: RowState, reading: Reading, row: Row, now: float) -> Cue | None:
    """Trip again on a true trigger; go on only when the primary was well for the whole hold."""
    if reading.trigger is Truth.YES and state.phase is Phase.RELEASING:
        return Cue.TRIP
    if state.misplaced and not reading.primary_well:
        return Cue.TRIP if now - state.since >= TAKE_BACK_AGAIN_S else None
    if reading.trigger not in _releases(row):
        return None
    hold = row.release.hold.total_seconds()
    well = state.well_since is not None and now - state.well_since >= hold
    return Cue.WELL if well and now - state.since >= hold else None
