"""One evaluation of a whole matrix: every row's trigger, what rows and people mean to each other, and every step; pure.

`flows/decide` carries out what comes of it; `flows/simulate` runs the same over recorded signals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from controlplane.degradation.action import ServeFromCache, SwitchPool, share_of
from controlplane.degradation.canary import Canary, Judgement, judge_return
from controlplane.degradation.machine import (
    Cue,
    Effect,
    Phase,
    Pin,
    Reading,
    RowState,
    Word,
    instruct,
    note_wellness,
    outcome,
    step,
)
from controlplane.degradation.matrix import (
    LEVELS,
    Alerts,
    Answer,
    Condition,
    Degradation,
    Level,
    Mode,
    Row,
    Truth,
    evaluate,
)
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, Verdict

FELT_BY_USERS = ("latency_p99", "error_rate")
"""Signals of the primary that must not be in breach while traffic goes back to it."""

HOUR_S = 3600.0
_IN_FORCE = (Phase.ENGAGED, Phase.RELEASING)


@dataclass(frozen=True, slots=True)
class RowTurn:
    """One row between two evaluations."""

    state: RowState = field(default_factory=RowState)
    memory: Mapping[Condition, float] = field(default_factory=dict)
    """Since when its conditions have been true."""
    answer: Answer = field(default_factory=lambda: Answer(Truth.UNKNOWN))
    """What its trigger answered last."""
    held_since: float | None = None
    """Since when (monotonic seconds) the trigger has held, if only for too short; None while it does not."""
    escalated_by: Level | None = None
    """The milder row that could not mend the harm and tells this one to trip."""
    told: bool = False
    """People were told that it cannot mend the harm; once for as long as it is to act."""
    counted_at: float | None = None
    """When its last engagement was counted as a switch; None when a person had asked for it."""


@dataclass(frozen=True, slots=True)
class MatrixState:
    """Where a whole matrix stands."""

    rows: Mapping[Level, RowTurn]
    switches: tuple[float, ...] = ()
    """When (monotonic seconds) rows switched by themselves within the last hour, oldest first."""
    braked: bool = False
    """Nothing engages or is given back by itself until a person lets go of the brake."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one evaluation goes by."""

    evidence: Mapping[str, Evidence]
    """On the primary pool, by signal."""
    alerts: Alerts = frozenset()
    pins: Mapping[Level, Pin] = field(default_factory=dict)
    """Rows that a person has pinned."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """On every pool, by its name: what a share that was given back is judged by."""


class Worry(StrEnum):
    """What people have to hear of."""

    FAILED = "failed"
    """A row was refused, or its lever could not be moved or proven."""
    LATE = "late"
    """A row has not mended the harm within its objective."""
    BRAKE = "brake"
    """The rows have switched too often, and the brake is on."""


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that people have to hear."""

    level: Level
    worry: Worry
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One effect that a row asks for."""

    level: Level
    effect: Effect
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """What an evaluation comes to."""

    state: MatrixState
    wanted: tuple[Wanted, ...] = ()
    """P0's first."""
    told: tuple[Told, ...] = ()


def begin(matrix: Degradation) -> MatrixState:
    """Return a matrix in which nothing has happened."""
    return MatrixState({level: RowTurn() for level in matrix.rows})


def primary_is_well(evidence: Mapping[str, Evidence]) -> bool:
    """Tell whether the primary may be given traffic: positive evidence only, no data is not enough.

    Latency and errors count where they are known; a pool without traffic has none, and the steps of the release will
    tell.
    """
    availability = evidence.get("availability")
    if availability is None or availability.band is not Band.OK:
        return False
    return all(seen is None or seen.band is not Band.BREACH for seen in map(evidence.get, FELT_BY_USERS))


def advance(matrix: Degradation, state: MatrixState, facts: Facts, now: float) -> Turn:
    """Evaluate every trigger and advance every row, the worst first.

    Args:
        matrix: the rows and their rules.
        state: where they stood.
        facts: what was seen, and what people have pinned.
        now: monotonic seconds.

    Returns:
        Where they stand, what they ask for, and what people have to hear.
    """
    well = primary_is_well(facts.evidence)
    rows = {level: _read(matrix.rows[level], turn, facts, now) for level, turn in state.rows.items()}
    told = _escalate(matrix, rows, now)
    switches = tuple(at for at in state.switches if now - at < HOUR_S) if state.switches else ()
    braked, wanted = state.braked, []
    for level in sorted(rows, key=LEVELS.index, reverse=True):
        row, turn = matrix.rows[level], rows[level]
        pin = facts.pins.get(level, Pin.NOT)
        spent = len(switches) >= matrix.max_switches_per_hour
        judged = _judge(row, turn.state, facts)
        escalated = turn.escalated_by is not None
        reading = Reading(turn.answer.truth, well, escalated, pin, spent, braked, judged.canary)
        mode = matrix.mode_of(row)
        after, effects = step(turn.state, reading, row, mode, now)
        if after is not turn.state:
            rows[level] = replace(turn, state=after)
        for effect in effects:
            because = (judged.why,) if effect is Effect.STEP_BACK else _because(rows[level], pin)
            wanted.append(Wanted(level, effect, because))
            tried_before = effect is Effect.TAKE_BACK and turn.state.misplaced
            if (effect is Effect.ENGAGE or effect is Effect.TAKE_BACK) and not tried_before:
                by_itself = pin is not Pin.IN_FORCE and after.word is not Word.APPROVED
                switches = (*switches, now) if by_itself else switches
                rows[level] = replace(rows[level], counted_at=now if by_itself else None)
            too_many = len(switches) > matrix.max_switches_per_hour
            if not braked and (too_many or (effect is Effect.ASK and spent and mode is Mode.AUTO)):
                braked = True
                told.append(_brake(level, matrix.max_switches_per_hour))
    return Turn(MatrixState(rows, switches, braked), tuple(wanted), tuple(told))


_NOT_JUDGED = Judgement(Canary.UNKNOWN, "no share has been given back")


def _judge(row: Row, state: RowState, facts: Facts) -> Judgement:
    """Judge the primary on the share that a row has given back to it, against the pool that serves the rest."""
    if state.phase is not Phase.RELEASING or state.busy or not row.target:
        return _NOT_JUDGED
    other = facts.verdicts.get(row.target)
    seen = {evidence.signal: evidence for evidence in other.evidence} if other else {}
    return judge_return(facts.evidence, seen, same_model=isinstance(row.move, SwitchPool))


def watch(matrix: Degradation, state: MatrixState, facts: Facts, now: float) -> MatrixState:
    """Evaluate every trigger and move no row: what a control plane does that is not in charge.

    It notes when the primary was ill, too: a lease that lapsed for a while is no reason to give traffic back at once.
    """
    well, rows = primary_is_well(facts.evidence), {}
    for level, row in state.rows.items():
        read = _read(matrix.rows[level], row, facts, now)
        noted = note_wellness(read.state, now, well=well)
        rows[level] = read if noted is read.state else replace(read, state=noted)
    return replace(state, rows=rows)


def _read(row: Row, turn: RowTurn, facts: Facts, now: float) -> RowTurn:
    """Ask a row's trigger, and note since when it has held."""
    answer, memory = evaluate(row.when, facts.evidence, turn.memory, now, facts.alerts)
    same = answer == turn.answer and memory == turn.memory and turn.escalated_by is None
    if same and (turn.held_since is not None or (answer.truth is Truth.NO and not turn.told)):
        return turn
    held_since, told = turn.held_since, turn.told
    if answer.truth is Truth.NO:
        held_since, told = None, told and turn.escalated_by is not None
    elif answer.truth is Truth.UNKNOWN:
        held_since = None if turn.state.phase in (Phase.IDLE, Phase.PENDING) else held_since
    elif held_since is None:
        held_since = now
    return RowTurn(turn.state, memory, answer, held_since, None, told, turn.counted_at)


def _escalate(matrix: Degradation, rows: dict[Level, RowTurn], now: float) -> list[Told]:
    """Find the rows that cannot mend their harm, tell the next ones to trip, and say what people have to hear."""
    told, looked_at = [], list(rows)
    for level in looked_at:
        row, turn = matrix.rows[level], rows[level]
        worry = None if matrix.mode_of(row) is Mode.OBSERVE else _worry(row, turn, now)
        if worry is None:
            continue
        following = row.escalate if row.escalate in rows else None
        if following:
            rows[following] = replace(rows[following], escalated_by=level)
            looked_at.append(following)  # It may have failed already; the policy refuses circles.
        if not turn.told:
            rows[level] = replace(rows[level], told=True)
            told.append(Told(level, worry, _worry_words(row, worry, following)))
    return told


def _worry(row: Row, turn: RowTurn, now: float) -> Worry | None:
    """Tell whether a row's harm goes on although the row has done, or tried, what it can."""
    holds = turn.answer.truth is Truth.YES
    if turn.state.word is Word.DISMISSED or not (holds or turn.escalated_by is not None):
        return None
    # A row that tries again has not mended anything yet: what it told to trip would go idle, and be told anew.
    tries_again = turn.state.phase is Phase.ENGAGING and turn.told
    if turn.state.phase is Phase.FAILED or tries_again:
        return Worry.FAILED
    if not holds or turn.held_since is None:
        return None
    late = now - turn.held_since >= row.within.total_seconds()
    return Worry.LATE if late and not _reads_an_empty_pool(row, turn.state) else None


def _reads_an_empty_pool(row: Row, state: RowState) -> bool:
    """Tell whether a row in force has moved everything away, so that its trigger says nothing about users.

    The cache asks the primary for what it misses: there the trigger goes on to tell.
    """
    moved_all = row.move is not None and share_of(row.move) == 1.0 and not isinstance(row.move, ServeFromCache)
    return moved_all and state.phase in _IN_FORCE


def _worry_words(row: Row, worry: Worry, following: Level | None) -> str:
    what = "could not be put in force" if worry is Worry.FAILED else "has not mended the harm in its time"
    then = f"{following} is told to trip" if following else "no other row is left: a person has to act"
    return f"{row.level} {what}; {then}"


def _brake(level: Level, limit: int) -> Told:
    switches = f"{limit} switch{'' if limit == 1 else 'es'} within an hour"
    return Told(level, Worry.BRAKE, f"the brake is on after {switches}: nothing engages or is given back by itself")


def _because(turn: RowTurn, pin: Pin) -> tuple[str, ...]:
    """Say why a row moves."""
    if turn.escalated_by is not None:
        return (f"{turn.escalated_by} could not mend the harm", *turn.answer.because)
    return ("pinned", *turn.answer.because) if pin is Pin.IN_FORCE else turn.answer.because


# -- what happens between two evaluations -----------------------------------------------------------------------------


def end(matrix: Degradation, state: MatrixState, level: Level, now: float, *, ok: bool, touched: bool = True) -> Turn:
    """Tell a row how its effect ended.

    Args:
        matrix: the rows.
        state: where they stand.
        level: whose effect it was.
        now: monotonic seconds.
        ok: whether it is done and proven.
        touched: whether the lever was moved at all; what a gate refused is no switch.
    """
    turn = state.rows[level]
    after, effects = outcome(turn.state, matrix.rows[level], ok=ok, now=now)
    switches = state.switches if touched else tuple(at for at in state.switches if at != turn.counted_at)
    if Effect.TAKE_BACK in effects:
        switches = (*switches, now)
    brake = not state.braked and len(switches) > matrix.max_switches_per_hour
    ended = _with(replace(state, switches=switches, braked=state.braked or brake), level, after, effects)
    return replace(ended, told=(_brake(level, matrix.max_switches_per_hour),)) if brake else ended


def tell(state: MatrixState, level: Level, cue: Cue, now: float) -> Turn | None:
    """Pass on what a person says to a row; None where the row has no use for it now."""
    said = instruct(state.rows[level].state, cue, now)
    return _with(state, level, *said) if said else None


def let_go(state: MatrixState) -> MatrixState:
    """Let go of the brake; what was counted is forgotten."""
    return replace(state, switches=(), braked=False)


def _with(state: MatrixState, level: Level, after: RowState, effects: tuple[Effect, ...]) -> Turn:
    turn = replace(state.rows[level], state=after)
    wanted = tuple(Wanted(level, effect, turn.answer.because) for effect in effects)
    return Turn(replace(state, rows={**state.rows, level: turn}), wanted)
