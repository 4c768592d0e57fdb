"""The rows of the matrix and the conditions that trip them; pure.

A condition answers in four values, because the machine needs all of them: `no`, `dwelling` (true, but not for long
enough), `yes`, and `unknown` (no data). `any` and `all` combine them by Kleene's three-valued logic, with `dwelling`
between `no` and `yes`: an unknown part never trips a row by itself and never makes it clear.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from controlplane.degradation.action import MOVES, Action, Move, pool_of
from controlplane.degradation.errand import CommandSpec, ReceiverSpec
from controlplane.degradation.warmup import WarmUp
from controlplane.signals.sample import spell
from controlplane.slo.threshold import SEVERITY, Band
from controlplane.slo.verdict import Evidence


class Level(StrEnum):
    """How degraded a service is: the most severe engaged row; P0 is the worst."""

    NONE = "none"
    P2 = "P2"
    P1 = "P1"
    P0 = "P0"


LEVELS: tuple[Level, ...] = (Level.NONE, Level.P2, Level.P1, Level.P0)
"""From none to the worst."""


class Truth(StrEnum):
    """What a condition answers."""

    NO = "no"
    UNKNOWN = "unknown"
    DWELLING = "dwelling"
    YES = "yes"


@dataclass(frozen=True, slots=True)
class Condition:
    """One signal of the primary pool against one level; exactly one of `above`, `below`, `band` is given."""

    signal: str
    above: float | None = None
    """True at this value and over it, in the signal's base unit."""
    below: float | None = None
    """True under this value."""
    band: Band | None = None
    """True in this band or a worse one. The band has its own dwell (see the thresholds)."""
    dwell: timedelta = timedelta(0)
    """How long it must be true (`for` on the page)."""


@dataclass(frozen=True, slots=True)
class AlertFires:
    """An alert, by its name (`alert: NAME` on the page); it has had its own time to be sure (its rule's `for`)."""

    alert: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Trips when one part does."""

    parts: tuple["Trigger", ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Trips when every part does."""

    parts: tuple["Trigger", ...]


Trigger = Condition | AlertFires | AnyOf | AllOf


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """How traffic goes back."""

    steps: tuple[float, ...] = (0.1, 0.5, 1.0)
    """Shares (0..1) given back, ascending, the last one 1."""
    hold: timedelta = timedelta(seconds=30)
    """How long the primary must be well before the first step, and how long each step is watched."""


class Mode(StrEnum):
    """Who pulls the lever."""

    AUTO = "auto"
    APPROVE = "approve"
    """A row that would engage waits for a person; what is in force is given back by itself."""
    OBSERVE = "observe"
    """Say what would be done, and do nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of the matrix."""

    level: Level
    when: Trigger
    do: tuple[Action, ...]
    """Carried out in this order; undone in the opposite one."""
    within: timedelta
    """The objective: from detection to restored service."""
    release: ReleasePlan
    escalate: Level | None = None
    """The row that is told to trip when this one is refused, fails, or has not helped `within` its time."""
    mode: Mode | None = None
    """Who pulls this row's lever; None: as the whole matrix says."""

    @property
    def move(self) -> Move | None:
        """The action that takes traffic away from the primary pool, if one does."""
        return next((action for action in self.do if isinstance(action, MOVES)), None)

    @property
    def target(self) -> str:
        """The pool that traffic goes to; an empty string when the row moves none."""
        return pool_of(self.move) if self.move else ""


MAX_SWITCHES_PER_HOUR = 6


@dataclass(frozen=True, slots=True)
class Degradation:
    """The matrix of one service."""

    rows: Mapping[Level, Row]
    mode: Mode = Mode.AUTO
    not_armed: Mapping[str, str] = field(default_factory=dict)
    """Default rows that this fleet cannot carry out, with the reason."""
    max_switches_per_hour: int = MAX_SWITCHES_PER_HOUR
    """Engagements, and shares taken back again, that the rows together may make by themselves; then the brake is on."""

    receivers: Mapping[str, ReceiverSpec] = field(default_factory=dict)
    """Who can be told, by name."""
    commands: Mapping[str, CommandSpec] = field(default_factory=dict)
    """What may be run, by name; nothing else is."""
    prewarm: tuple[WarmUp, ...] = ()
    """Pools that are warmed up by the clock, whatever the rows do."""

    def mode_of(self, row: Row) -> Mode:
        """Return who pulls a row's lever."""
        return row.mode or self.mode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trigger answers, with the conditions that made it so."""

    truth: Truth
    because: tuple[str, ...] = ()


def signals_of(trigger: Trigger) -> tuple[str, ...]:
    """Return the signals a trigger looks at, in the order they stand on the page, each once."""
    if isinstance(trigger, Condition):
        return (trigger.signal,)
    if isinstance(trigger, AlertFires):
        return ()
    return tuple(dict.fromkeys(name for part in trigger.parts for name in signals_of(part)))


def alerts_of(trigger: Trigger) -> tuple[str, ...]:
    """Return the alerts a trigger waits for, each once."""
    if isinstance(trigger, AlertFires):
        return (trigger.alert,)
    if isinstance(trigger, Condition):
        return ()
    return tuple(dict.fromkeys(name for part in trigger.parts for name in alerts_of(part)))


Memory = Mapping[Condition, float]
"""Since when (monotonic seconds) each condition has been true without a break."""

Alerts = AbstractSet[str] | None
"""Names of the alerts that fire now. None: who reports them is known to be silent, so that nobody can tell."""


class AtLeast(frozenset[str]):
    """Names of alerts that are known to fire, while nobody can tell what else does."""

    __slots__ = ()


def evaluate(
    trigger: Trigger,
    evidence: Mapping[str, Evidence],
    memory: Memory,
    now: float,
    alerts: Alerts = frozenset(),
) -> tuple[Answer, dict[Condition, float]]:
    """Answer a trigger from the evidence on the primary pool.

    Args:
        trigger: what to ask.
        evidence: the pool's signals by name.
        memory: what the last evaluation returned.
        now: monotonic seconds.
        alerts: what fires. An alert is told when it begins and when it ends, so one that was never told is `no`.

    Returns:
        The answer and the memory to pass next time.
    """
    kept: dict[Condition, float] = {}

    def ask(asked: Trigger) -> Answer:
        if isinstance(asked, Condition):
            return _condition(asked, evidence.get(asked.signal), memory, now, kept)
        if isinstance(asked, AlertFires):
            return _alert(asked, alerts)
        return _combined(asked, [ask(part) for part in asked.parts])

    return ask(trigger), kept


def _combined(trigger: AnyOf | AllOf, answers: list[Answer]) -> Answer:
    order = _ANY_ORDER if isinstance(trigger, AnyOf) else _ALL_ORDER
    truth = min((a.truth for a in answers), key=order.__getitem__)
    return Answer(truth, tuple(reason for a in answers if a.truth is truth for reason in a.because))


def _alert(asked: AlertFires, alerts: Alerts) -> Answer:
    if alerts is None:
        return Answer(Truth.UNKNOWN, (f"whether alert {asked.alert} fires is unknown",))
    if asked.alert in alerts:
        return Answer(Truth.YES, (f"alert {asked.alert} fires",))
    return _alert(asked, None) if isinstance(alerts, AtLeast) else Answer(Truth.NO)


# The first of these that some part answers is the whole's answer.
_ANY_ORDER = {Truth.YES: 0, Truth.DWELLING: 1, Truth.UNKNOWN: 2, Truth.NO: 3}
_ALL_ORDER = {Truth.NO: 0, Truth.UNKNOWN: 1, Truth.DWELLING: 2, Truth.YES: 3}


def _condition(
    condition: Condition, seen: Evidence | None, memory: Memory, now: float, kept: dict[Condition, float]
) -> Answer:
    holds = _holds(condition, seen)
    if holds is None or seen is None:
        return Answer(Truth.UNKNOWN, (f"{condition.signal} is unknown",))
    if not holds:
        return Answer(Truth.NO)
    since = memory.get(condition, now)
    kept[condition] = since
    reason = describe(condition, seen)
    long_enough = now - since >= condition.dwell.total_seconds()
    return Answer(Truth.YES if long_enough else Truth.DWELLING, (reason,))


def _holds(condition: Condition, seen: Evidence | None) -> bool | None:
    """Tell whether a condition is true now; None when there is no data."""
    if seen is None or seen.value is None:
        return None
    if condition.band is not None:
        return None if seen.band is Band.UNKNOWN else SEVERITY[seen.band] >= SEVERITY[condition.band]
    if condition.above is not None:
        return seen.value >= condition.above
    return condition.below is not None and seen.value < condition.below


def describe(condition: Condition, seen: Evidence) -> str:
    """Say in one line what was seen against what was asked."""
    value = "unknown" if seen.value is None else spell(condition.signal, seen.value)
    if condition.band is not None:
        return f"{condition.signal} is in {seen.band} at {value}"
    if condition.above is not None:
        return f"{condition.signal} is {value} (at or above {spell(condition.signal, condition.above)})"
    return f"{condition.signal} is {value} (below {spell(condition.signal, condition.below or 0.0)})"
