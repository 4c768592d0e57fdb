"""What a matrix would have done with signals that were recorded: thresholds, rows and levers on a clock of their own.

Levers obey at the next evaluation, and people approve at once. What was recorded is what it was: it does not change
because a lever would have been moved. Nothing here touches the outside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.degradation import turn
from controlplane.degradation.machine import Cue, Effect, Phase, Word
from controlplane.degradation.matrix import LEVELS, Degradation, Level, Mode, signals_of
from controlplane.degradation.turn import Facts, MatrixState, Turn, Wanted
from controlplane.errors import UsageError
from controlplane.fleet.model import PRIMARY
from controlplane.policy.model import Policy
from controlplane.signals.recording import ALERT, Point
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.threshold import Band, BandState, Threshold, advance
from controlplane.slo.verdict import Evidence, Verdict

EVERY_S = 0.5
"""How often a service is evaluated."""
STALE_AFTER_S = 4.0
"""A value that was not recorded again for so long (twice what the recorder leaves between two) is unknown."""
FLAPS_WITHIN_S = 600.0
"""A row that engages again so soon after it ended, with nobody asking for it, has flapped."""
LONGEST = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Change:
    """One move of one row."""

    at: datetime
    row: Level
    before: Phase
    after: Phase
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Simulated:
    """What would have happened."""

    since: datetime
    until: datetime
    changes: tuple[Change, ...]
    level_s: Mapping[Level, float]
    """Seconds in each level, the worst first."""
    flaps: tuple[str, ...]
    """What would have gone back and forth."""
    told: tuple[str, ...]
    """What people would have had to hear."""
    switches: int
    """Engagements, and shares taken back again."""
    unknown: tuple[str, ...]
    """Signals that rows look at and that were never recorded."""


def simulate(policy: Policy, points: Sequence[Point]) -> Simulated:
    """Run recorded signals through a policy's thresholds and matrix.

    Args:
        policy: the page to try.
        points: in the order of their times.

    Raises:
        UsageError: when they cover an absurdly long time.
    """
    since, until = points[0].at, points[-1].at
    if until - since > LONGEST:
        raise UsageError("the recording is too long", f"it covers {until - since}", "simulate at most a week at once")
    return _Run(policy, points).walk()


class _Run:
    """One walk through a recording."""

    def __init__(self, policy: Policy, points: Sequence[Point]) -> None:
        self._matrix = _trusted(policy.degradation)
        self._thresholds = policy.thresholds
        self._points = points
        self._state: MatrixState = turn.begin(self._matrix)
        self._bands: dict[str, BandState] = {}
        self._newest: dict[str, dict[str, Point]] = {PRIMARY: {}}
        """By pool and signal."""
        self._alerts: set[str] = set()
        self._moving: list[Level] = []
        self._changes: list[Change] = []
        self._told: list[str] = []
        self._flaps: list[str] = []
        self._ended_at: dict[Level, float] = {}
        self._level_s = dict.fromkeys(reversed(LEVELS), 0.0)
        self._switches = 0

    def walk(self) -> Simulated:
        """Evaluate as often as a running control plane would, from the first value to the last."""
        first, last = self._points[0].at, self._points[-1].at
        steps = int((last - first).total_seconds() / EVERY_S) + 1
        given = 0
        for i in range(steps + 1):
            now = i * EVERY_S
            at = first + timedelta(seconds=now)
            while given < len(self._points) and self._points[given].at <= at:
                self._take_in(self._points[given])
                given += 1
            for level in self._moving:
                self._take(turn.end(self._matrix, self._state, level, now, ok=True), at, now)
            self._moving = [level for level, row in self._state.rows.items() if row.state.busy]
            self._take(turn.advance(self._matrix, self._state, self._facts(at, now), now), at, now)
            self._moving = [level for level, row in self._state.rows.items() if row.state.busy]
            self._level_s[self._level()] += EVERY_S
        return Simulated(
            first, last, tuple(self._changes), {k: v for k, v in self._level_s.items() if v}, tuple(self._flaps),
            tuple(self._told), self._switches, self._never_seen(),
        )  # fmt: skip

    def _take_in(self, point: Point) -> None:
        if point.pool == ALERT:
            (self._alerts.add if point.value else self._alerts.discard)(point.signal)
        else:
            self._newest.setdefault(point.pool, {})[point.signal] = point

    def _facts(self, at: datetime, now: float) -> Facts:
        evidence = {name: self._judge(name, point, at, now) for name, point in self._newest[PRIMARY].items()}
        releasing = any(row.state.phase is Phase.RELEASING for row in self._state.rows.values())
        return Facts(evidence, frozenset(self._alerts), verdicts=self._others(at) if releasing else {})

    def _others(self, at: datetime) -> dict[str, Verdict]:
        """Return what was recorded of the other pools; how bad it is by itself matters to nobody."""
        return {
            pool: Verdict(pool, Band.UNKNOWN, tuple(
                Evidence(name, _fresh(point, at), Band.UNKNOWN, point.samples) for name, point in seen.items()
            ))
            for pool, seen in self._newest.items()
        }  # fmt: skip

    def _judge(self, name: str, point: Point, at: datetime, now: float) -> Evidence:
        value = _fresh(point, at)
        threshold: Threshold | None = self._thresholds.get(name)
        if threshold is None:
            return Evidence(name, value, Band.UNKNOWN if value is None else Band.OK, point.samples)
        if value is not None and 0 < point.samples < threshold.min_samples:
            value = None
        state = advance(self._bands.get(name, BandState()), value, threshold, CATALOGUE[name].worse, now)
        self._bands[name] = state
        return Evidence(name, value, state.band, point.samples)

    def _take(self, taken: Turn, at: datetime, now: float) -> None:
        before, self._state = self._state, taken.state
        for wanted in taken.wanted:
            self._count(wanted, now)
        for level, row in taken.state.rows.items():
            was = before.rows[level].state
            if row.state.phase is not was.phase:
                because = next((w.because for w in taken.wanted if w.level is level), row.answer.because)
                self._changes.append(Change(at, level, was.phase, row.state.phase, because))
                if row.state.phase is Phase.IDLE and was.phase is Phase.RELEASING:
                    self._ended_at[level] = now
        self._told += [told.text for told in taken.told]
        for level, row in taken.state.rows.items():
            if row.state.word is Word.ASKED and not row.state.busy:
                said = turn.tell(self._state, level, Cue.APPROVE, now)
                if said:
                    self._take(said, at, now)

    def _count(self, wanted: Wanted, now: float) -> None:
        level, effect = wanted.level, wanted.effect
        if effect is Effect.STEP_BACK:
            self._flaps.append(f"{level} went one step back after {now:g} s: {'; '.join(wanted.because)}")
        elif effect is Effect.TAKE_BACK:
            self._switches += 1
            self._flaps.append(f"{level} was taken back after {now:g} s, in the middle of its way back")
        elif effect is Effect.ENGAGE:
            self._switches += 1
            ended = self._ended_at.get(level)
            if ended is not None and now - ended <= FLAPS_WITHIN_S:
                self._flaps.append(f"{level} engaged again {now - ended:g} s after it had ended")

    def _level(self) -> Level:
        in_force = [
            level for level, row in self._state.rows.items() if row.state.phase in (Phase.ENGAGED, Phase.RELEASING)
        ]
        return max(in_force, key=LEVELS.index, default=Level.NONE)

    def _never_seen(self) -> tuple[str, ...]:
        wanted = {name for row in self._matrix.rows.values() for name in signals_of(row.when)}
        return tuple(sorted(wanted - self._newest[PRIMARY].keys()))


def _fresh(point: Point, at: datetime) -> float | None:
    """Return a recorded value while it still counts."""
    return point.value if (at - point.at).total_seconds() <= STALE_AFTER_S else None


def _trusted(matrix: Degradation) -> Degradation:
    """Return the matrix as it would act if it were trusted to: that is the question."""
    rows = {level: replace(row, mode=None) for level, row in matrix.rows.items()}
    return replace(matrix, rows=rows, mode=Mode.AUTO)
