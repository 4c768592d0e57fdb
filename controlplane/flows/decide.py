"""The journey from a verdict to a lever: rows of the matrix move, and what they ask for is carried out, one at a time.

`observe` judges and calls `decide`; people's instructions come through `instruct`. What a row does is decided by
`degradation/turn`; what is done is told by `switch`; wiring joins them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic

import structlog

from controlplane.degradation import turn
from controlplane.degradation.actuator import Receipt, RoutePlan
from controlplane.degradation.instruction import CONTROL_PLANE, Instruction, Kind
from controlplane.degradation.machine import Cue, Effect, Phase, Pin, RowState, Word, share_aimed_at, share_given_back
from controlplane.degradation.matrix import LEVELS, Alerts, Degradation, Level, Mode, Row, Truth
from controlplane.degradation.turn import Facts, Told, Turn, Wanted, Worry
from controlplane.errors import ControlplaneError
from controlplane.fleet.model import PRIMARY
from controlplane.flows.lever import End, Lever, Levers
from controlplane.flows.standing import MatrixStanding, RowStanding
from controlplane.slo.verdict import Verdict
from controlplane.telemetry import Metrics

log = structlog.get_logger("decide")


@dataclass(frozen=True, slots=True)
class DecidePorts:
    """What this journey touches."""

    levers: Levers | None
    """None when there is no gateway: the matrix can then only say what it would do."""
    spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
    """Starts a task in the process's own task group."""
    changed: Callable[[], None]
    """Tells whoever shows the standing that it changed."""
    metrics: Metrics
    now: Callable[[], datetime]
    tell: Callable[[Told], Awaitable[None]]
    """Tells people what they have to hear."""
    begun: Callable[[Instruction], Awaitable[None]]
    """Stores what the control plane itself told the matrix: the brake."""
    ended: Callable[[Instruction, str], Awaitable[None]]
    """Records that an instruction holds no longer, and why."""
    acting: Callable[[], bool] = lambda: True
    """Whether this control plane is in charge; one that is not evaluates every trigger and moves nothing."""
    alerts: Callable[[], Alerts] = frozenset
    """The alerts that fire now."""


@dataclass(slots=True)
class _RowRecord:
    """What is kept of one row beside what the matrix knows."""

    row: Row
    since: datetime | None = None
    detected_at: datetime | None = None
    """When the trigger last began to hold."""
    because: tuple[str, ...] = ()
    word: Instruction | None = None
    """What a person said last about it, while it lasts."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Questions and endings of one row are written down in their order: an incident would stay open for ever."""


class Decider:
    """Moves the matrix of one service."""

    def __init__(self, service: str, degradation: Degradation, ports: DecidePorts) -> None:
        self._service = service
        self._degradation = degradation
        self._matrix = degradation if ports.levers else _watching(degradation)
        self._ports = ports
        self._state = turn.begin(degradation)
        self._records = {level: _RowRecord(row) for level, row in degradation.rows.items()}
        self._verdicts: Mapping[str, Verdict] = {}
        self._pins: dict[Level, Instruction] = {}
        """By row; level `none` pins the others to idle."""
        self._brake: Instruction | None = None
        self._level_since = ports.now()
        for level in degradation.rows:
            for worry in Worry:  # A counter that was born with its first event would not be seen to grow.
                ports.metrics.worries.labels(service, level, worry)
        self._lever: Lever | None = None
        if ports.levers:
            rows = degradation.rows
            self._lever = Lever(service, rows, ports.levers, ports.metrics, self._given_back, self._ended, self._asks)

    # -- deciding --------------------------------------------------------------------------------------------------

    def decide(self, verdicts: Mapping[str, Verdict]) -> None:
        """Advance every row by what was judged, and start whatever the rows ask for."""
        self._verdicts = verdicts
        verdict = verdicts.get(PRIMARY)
        evidence = {e.signal: e for e in verdict.evidence} if verdict else {}
        if self._ports.acting():
            self._lapse_pins()
            facts = Facts(evidence, self._ports.alerts(), self._pinned(), verdicts)
            self._take(turn.advance(self._matrix, self._state, facts, monotonic()))
        else:
            facts = Facts(evidence, self._ports.alerts())
            self._state = turn.watch(self._matrix, self._state, facts, monotonic())
        self._export()

    def _take(self, taken: Turn) -> None:
        """Take over where the rows stand now, and carry out what they ask for."""
        level_before, before = self.level, self._state
        self._state = taken.state
        now = self._ports.now()
        for level, record in self._records.items():
            row = taken.state.rows[level]
            if record.since is None or row.state.phase is not before.rows[level].state.phase:
                record.since = now
                log.info("row", row=level, phase=row.state.phase, because=row.answer.because)
            if row.held_since is None and row.escalated_by is None:
                record.detected_at = None
            elif record.detected_at is None:
                record.detected_at = self._detected(row.escalated_by) or now
            if record.word and row.state.word is Word.NONE:
                self._end(record.word, "the trigger cleared")
                record.word = None
        if self.level is not level_before:
            self._level_since = now
        for wanted in taken.wanted:
            self._begin(wanted)
        for told in taken.told:
            self._tell(told)

    def _detected(self, by: Level | None) -> datetime | None:
        """Return when the harm was detected that a milder row could not mend."""
        return self._records[by].detected_at if by else None

    def _tell(self, told: Told) -> None:
        log.warning("told", row=told.level, worry=told.worry, text=told.text)
        self._ports.metrics.worries.labels(self._service, told.level, told.worry).inc()
        self._ports.spawn(self._recorded(self._ports.tell(told)))
        if told.worry is Worry.BRAKE:
            now = self._ports.now()
            key = f"{self._service}/brake/{now.isoformat(timespec='microseconds')}"
            self._brake = Instruction(key, self._service, Kind.BRAKE, Level.NONE, CONTROL_PLANE, told.text, now)
            self._ports.spawn(self._recorded(self._ports.begun(self._brake)))

    def _end(self, instruction: Instruction, why: str) -> None:
        self._ports.spawn(self._recorded(self._ports.ended(instruction, why)))

    async def _recorded(self, work: Awaitable[None]) -> None:
        """Write something down; what cannot be is said in the log, and the matrix goes on."""
        try:
            await work
        except ControlplaneError as error:
            log.error("not recorded", what=error.what, why=error.why, fix=error.fix)

    # -- acting ----------------------------------------------------------------------------------------------------

    def _begin(self, wanted: Wanted) -> None:
        """Start carrying an effect out; the row is busy until it has ended."""
        record = self._records[wanted.level]
        if self._lever is None:
            raise RuntimeError("a row moved without a lever")  # A matrix that only watches asks for nothing.
        level, now = wanted.level, self._ports.now()
        if wanted.effect in (Effect.ENGAGE, Effect.ASK):
            record.because = self._because(wanted)
            detected_at = record.detected_at or now
            if wanted.effect is Effect.ENGAGE:
                self._ports.spawn(self._lever.engage(level, record.because, detected_at, now))
            else:
                text = f"{level} waits for a person: {self._waits_for(record.row)}"
                written = self._written(record, self._lever.ask(level, record.because, detected_at, now, text))
                self._ports.spawn(self._asked(level, text, written))
        elif wanted.effect is Effect.CLOSE:
            self._ports.spawn(self._written(record, self._lever.close(level)))
        else:
            given = share_aimed_at(self._state.rows[level].state, record.row)
            why = "; ".join(wanted.because) if wanted.effect is Effect.STEP_BACK else ""
            self._ports.spawn(self._lever.shift(level, given, why))

    def _because(self, wanted: Wanted) -> tuple[str, ...]:
        pin = self._pins.get(wanted.level)
        return (pin.words, *wanted.because[1:]) if pin and wanted.because[:1] == ("pinned",) else wanted.because

    async def _asked(self, level: Level, text: str, written: Coroutine[None, None, None]) -> None:
        """Page people, and then write it down: a database that is away leaves nobody waiting unseen."""
        with closing(written):
            if self._lever:
                await self._lever.page(level, text)
            await written

    async def _written(self, record: _RowRecord, work: Coroutine[None, None, None]) -> None:
        """Write down what a row asks or that it is over, when what it had to say before has been written."""
        with closing(work):
            async with record.writing:
                await work
        self._ports.changed()

    def _ended(self, level: Level, end: End) -> None:
        """Take in how an effect ended, and decide anew: what was held up by it may go on."""
        self._take(turn.end(self._matrix, self._state, level, monotonic(), ok=end.ok, touched=end.touched))
        self.decide(self._verdicts)
        self._ports.changed()

    def _given_back(self, level: Level) -> float:
        return share_given_back(self._state.rows[level].state, self._records[level].row)

    def _asks(self, level: Level) -> bool:
        return self._state.rows[level].state.word is Word.ASKED

    def split_is(self, plan: RoutePlan) -> None:
        """Take note of a split that somebody else made: a rollout."""
        if self._lever:
            self._lever.plan = plan
        self._ports.changed()

    def resume(
        self,
        receipts: tuple[Receipt, ...],
        instructions: tuple[Instruction, ...] = (),
        left_open: Collection[str] = (),
    ) -> None:
        """Begin a term of ours: with the rows that are engaged once all is settled, and what people have said.

        Args:
            receipts: of the rows in force; all of their traffic is where they want it.
            instructions: what was said and holds.
            left_open: the rows that are not over by their incidents: one not in force ends its own once it is clear.
        """
        for level in self._stand(receipts, instructions):
            phase = Phase.PENDING if level in left_open and self._lever else Phase.IDLE
            phase = Phase.ENGAGED if self._holds(level) else phase
            word = self._state.rows[level].state.word
            self._begin_at(level, RowState(phase, monotonic(), word=word, left_open=phase is Phase.PENDING))

    def follow(self, receipts: tuple[Receipt, ...], instructions: tuple[Instruction, ...] = ()) -> None:
        """Show the rows in force and what people have said while another control plane is in charge.

        Called again and again; what has not changed since stays as it is.
        """
        held = {level: self._holds(level) for level in self._records}
        for level in self._stand(receipts, instructions):
            state, phase = self._state.rows[level].state, Phase.ENGAGED if self._holds(level) else Phase.IDLE
            if state.phase is not phase or state.misplaced or held[level] != self._holds(level):
                self._begin_at(level, RowState(phase, monotonic(), word=state.word))

    def _stand(self, receipts: tuple[Receipt, ...], instructions: tuple[Instruction, ...]) -> tuple[Level, ...]:
        """Take over what is stored; return the rows that it says everything about.

        Where a lever is being moved by a journey of an earlier term of ours, the end of that says where the row stands.
        """
        self._pins.clear()
        self._brake, self._state = None, replace(self._state, braked=False)
        for level, record in self._records.items():
            record.word = None
            self._set(level, replace(self._state.rows[level].state, word=Word.NONE))
        for instruction in instructions:
            self._hold(instruction)
            word, known = _WORDS.get(instruction.kind), self._state.rows.get(instruction.level)
            if word and known:
                self._set(instruction.level, replace(known.state, word=word))
        kept = {receipt.id for receipt in receipts}
        for level in self._records:
            if self._lever and self._holds(level) not in ("", *kept):
                self._lever.let_go(level)  # Another control plane has ended it.
        for receipt in receipts:
            self._take_over(receipt)
        return tuple(level for level, row in self._state.rows.items() if not row.state.busy)

    def _take_over(self, receipt: Receipt) -> None:
        record = self._records.get(receipt.level)
        if record is None or self._lever is None:
            log.error("an engaged row is no longer on the page", level=receipt.level, receipt=receipt.id)
            return
        known = self._holds(receipt.level) == receipt.id
        self._lever.take_over(receipt)
        if not known:
            record.because, record.since = receipt.because, receipt.decided_at
            self._level_since = receipt.decided_at

    def _holds(self, level: Level) -> str:
        return self._lever.holds(level) if self._lever else ""

    def _begin_at(self, level: Level, state: RowState) -> None:
        if state.phase is not Phase.ENGAGED:
            self._records[level].since = None
        self._set(level, state)

    def _set(self, level: Level, state: RowState) -> None:
        rows = self._state.rows
        self._state = replace(self._state, rows={**rows, level: replace(rows[level], state=state)})

    # -- what people say -------------------------------------------------------------------------------------------

    def refusal(self, kind: Kind, level: Level) -> str:
        """Say why a row has no use for an instruction now; an empty string when it has.

        One that is not in charge leaves all that may change from moment to moment to the one that is.
        """
        if self._ports.levers is None:
            return "the fleet has no gateway: no lever can be moved"
        acting = self._ports.acting()
        if kind is Kind.BRAKE:
            return "the brake is on already" if self._state.braked and acting else ""
        if kind is Kind.PIN and level is Level.NONE:
            return ""
        if level not in self._records:
            armed = ", ".join(sorted(self._records)) or "none"
            return f"row {level} is not armed; armed: {armed}"
        row, mode = self._state.rows[level], self._matrix.mode_of(self._records[level].row)
        if mode is Mode.OBSERVE:
            return f"row {level} only watches (mode observe): move the lever by hand"
        if kind is Kind.PIN or not acting:
            return ""
        if kind is Kind.RELEASE and row.answer.truth is Truth.YES and not self._primary_is_well():
            return f"the trigger of {level} holds and the primary pool is not well: its users would get errors"
        cue = Cue(kind.value)
        if turn.tell(self._state, level, cue, monotonic()) is None:
            busy = "its lever is being moved; ask again in a moment" if row.state.busy else f"it is {row.state.phase}"
            return f"row {level} cannot be {_DONE[kind]} now: {busy}"
        return ""

    def _primary_is_well(self) -> bool:
        verdict = self._verdicts.get(PRIMARY)
        return verdict is not None and turn.primary_is_well({e.signal: e for e in verdict.evidence})

    def instruct(self, instruction: Instruction) -> None:
        """Take what a person said, which is stored already; what a row has no use for any more is left alone."""
        self._hold(instruction)
        if instruction.kind in _CUES:
            if instruction.kind is Kind.RELEASE and instruction.level in self._pins:
                self._end(self._pins.pop(instruction.level), "released")
            said = turn.tell(self._state, instruction.level, _CUES[instruction.kind], monotonic())
            if said:
                self._take(said)
        self.decide(self._verdicts)
        self._ports.changed()

    def _hold(self, instruction: Instruction) -> None:
        """Keep what lasts."""
        record = self._records.get(instruction.level)
        if instruction.kind is Kind.PIN:
            if instruction.level in self._pins:
                self._end(self._pins[instruction.level], "pinned anew")
            self._pins[instruction.level] = instruction
        elif instruction.kind is Kind.BRAKE:
            self._brake, self._state = instruction, replace(self._state, braked=True)
        elif record:
            if record.word:
                self._end(record.word, "another word was said")
            record.word = instruction

    def drop(self, instruction: Instruction) -> None:
        """Forget a pin or a brake that somebody ended, which is stored already."""
        if instruction.kind is Kind.PIN and self._pins.get(instruction.level) == instruction:
            del self._pins[instruction.level]
        elif instruction.kind is Kind.BRAKE:
            self._brake, self._state = None, turn.let_go(self._state)
        self.decide(self._verdicts)
        self._ports.changed()

    @property
    def pins(self) -> tuple[Instruction, ...]:
        """The pins in force."""
        return tuple(self._pins.values())

    def held(self) -> tuple[Instruction, ...]:
        """Return the pins and the brake that are obeyed, also where they could not be stored."""
        return (*self._pins.values(), *((self._brake,) if self._brake else ()))

    def _pinned(self) -> dict[Level, Pin]:
        """Say to what each row is pinned; a pin of its own outweighs the one on the whole matrix."""
        if not self._pins:
            return {}
        others = Pin.IDLE if Level.NONE in self._pins else Pin.NOT
        return {level: Pin.IN_FORCE if level in self._pins else others for level in self._records}

    def _lapse_pins(self) -> None:
        now = self._ports.now()
        for level in [level for level, pin in self._pins.items() if not pin.holds(now)]:
            self._end(self._pins.pop(level), "its time is over")

    # -- showing ---------------------------------------------------------------------------------------------------

    @property
    def level(self) -> Level:
        """The level in force: the most severe row whose lever is away from its normal place."""
        away = (Phase.ENGAGED, Phase.RELEASING)
        levels = [level for level, record in self._records.items() if self._shown(record) in away]
        return max(levels, key=LEVELS.index, default=Level.NONE)

    @property
    def plan(self) -> RoutePlan | None:
        """The split that the lever was last told; None without a lever."""
        return self._lever.plan if self._lever else None

    def _shown(self, record: _RowRecord) -> Phase:
        """Return the phase that others see."""
        closing = self._lever is not None and self._lever.closing(record.row.level)
        return Phase.RELEASING if closing else self._state.rows[record.row.level].state.phase

    def _waits_for(self, row: Row) -> str:
        """Say what holds a row back whose trigger holds; an empty string when nothing does."""
        state = self._state.rows[row.level].state
        if state.phase is not Phase.PENDING:
            return ""
        if state.word is Word.ASKED:
            braked = "the brake is on; " if self._state.braked else ""
            return f"{braked}awaiting approval"
        if state.word is Word.DISMISSED:
            said = self._records[row.level].word
            return f"left alone until its trigger clears ({said.words})" if said else "left alone until it clears"
        pin = self._pins.get(Level.NONE)
        if pin and row.level not in self._pins:
            return pin.words
        return "mode observe" if self._matrix.mode_of(row) is Mode.OBSERVE else ""

    def standing(self) -> MatrixStanding:
        """Return how the matrix stands now."""
        record = self._records.get(self.level)
        rows = sorted(self._records.items(), reverse=True, key=lambda item: LEVELS.index(item[0]))
        return MatrixStanding(
            level=self.level,
            level_since=self._level_since,
            why=record.because if record else (),
            mode=self._degradation.mode,
            rows=tuple(self._row_standing(r) for _, r in rows),
            not_armed=self._degradation.not_armed,
            plan=self.plan,
            pins=self.pins,
            braked=self._state.braked,
            brake=self._brake,
        )

    def _row_standing(self, record: _RowRecord) -> RowStanding:
        row = self._state.rows[record.row.level]
        return RowStanding(
            record.row,
            self._shown(record),
            record.since or self._level_since,
            row.answer.because,
            self._given_back(record.row.level),
            self._waits_for(record.row),
            awaits_approval=row.state.phase is Phase.PENDING and row.state.word is Word.ASKED,
            said=record.word,
        )

    def _export(self) -> None:
        metrics, in_force = self._ports.metrics, self.level
        for level in LEVELS:
            metrics.level.labels(self._service, level).set(level is in_force)
        for row_level, record in self._records.items():
            metrics.row_objective.labels(self._service, row_level).set(record.row.within.total_seconds())
            for phase in Phase:
                here = phase is self._state.rows[row_level].state.phase
                metrics.row_phase.labels(self._service, row_level, phase).set(here)
            asks = self._state.rows[row_level].state.word is Word.ASKED
            metrics.row_waits.labels(self._service, row_level).set(asks)
        metrics.brake.labels(self._service).set(self._state.braked)


_DONE = {Kind.APPROVE: "approved", Kind.REFUSE: "refused", Kind.RELEASE: "released"}
_CUES = {Kind.APPROVE: Cue.APPROVE, Kind.REFUSE: Cue.REFUSE, Kind.RELEASE: Cue.RELEASE}
_WORDS = {Kind.APPROVE: Word.APPROVED, Kind.REFUSE: Word.DISMISSED, Kind.RELEASE: Word.DISMISSED}
"""What is left of an instruction after a restart."""


def _watching(degradation: Degradation) -> Degradation:
    """Return the matrix of a fleet whose lever nobody can move."""
    rows = {level: replace(row, mode=Mode.OBSERVE) for level, row in degradation.rows.items()}
    return replace(degradation, rows=rows, mode=Mode.OBSERVE)
