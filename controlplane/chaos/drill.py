"""A drill: one run of one experiment, its phases, its outcome and the evidence it leaves; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from controlplane.chaos.fault import Lease

NO_ROW = "none"
"""As the row of an experiment: redundancy must carry the fault, and no row may have to engage."""


class DrillPhase(StrEnum):
    """The moments a drill times, in the order they happen."""

    FAULT = "fault"
    DETECTED = "detected"
    DECIDED = "decided"
    ACTED = "acted"
    VERIFIED = "verified"
    HEALED = "healed"
    RECOVERED = "recovered"
    """Traffic is back where it was before the fault."""


class Outcome(StrEnum):
    """How a drill ended."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    """The fault was real and the row did not keep its promise."""
    INVALID = "invalid"
    """The fault was not injected, or not proven: the drill says nothing about the row."""
    REFUSED = "refused"
    """A gate was closed; nothing was touched."""
    ABORTED = "aborted"
    """Stopped before it could tell."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What users got in one part of a drill."""

    requests: float
    failed: float
    p99_s: float | None = None
    """The worst P99 that was read in it; a quantile over the signal's window, with its error bound."""
    p99_high_s: float | None = None
    """Upper bound of its error."""

    @property
    def availability(self) -> float | None:
        """Share (0..1) of requests that did not fail; None when there were none."""
        return 1.0 - self.failed / self.requests if self.requests > 0 else None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a drill, stored as it happens."""

    at: datetime
    kind: str
    """`gate`, `step`, `fault`, `guard`, `heal`, `alert`, `end`."""
    text: str


class SlotState(StrEnum):
    """How one date of the schedule stands."""

    PLANNED = "planned"
    """Known before it came: only such a date may be made up for when the control plane was down."""
    POSTPONED = "postponed"
    """A gate was closed; it is tried again inside the plan's window."""
    STARTED = "started"
    MISSED = "missed"
    """Its window is over, a later date has come, or the page no longer has it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One experiment's date in the schedule."""

    experiment: str
    name: str
    """Such as `monthly/2026-12-01T10:00+0800`."""
    due_at: datetime
    state: SlotState
    reasons: tuple[str, ...]
    """Why it was postponed or missed."""
    at: datetime
    """When it came to stand like this."""
    attempts: int = 0


class SlotBook(Protocol):
    """Where the schedule's dates are kept, once for every control plane on the database."""

    async def plan_slot(self, slot: Slot) -> None:
        """Store a date that is to come; one that is known stays as it stands."""

    async def keep_slot(self, slot: Slot) -> None:
        """Store how an attempt at a date ended; attempts add up."""

    async def due_slots(self, now: datetime) -> tuple[Slot, ...]:
        """Return the dates that have come and are neither started nor missed, oldest first."""

    async def ran(self, experiment: str, slot: str) -> bool:
        """Tell whether a date of an experiment has been run, by whichever control plane."""


@dataclass(frozen=True, slots=True)
class Halt:
    """A stop of every drill, in force until it is resumed."""

    why: str
    by: str
    at: datetime


class HaltBook(Protocol):
    """Where the halt is kept: it survives a restart and holds for every control plane on the database."""

    async def halt(self, halt: Halt) -> None:
        """Store a halt; one that is in force stays, with its own reason."""

    async def resume(self, by: str, at: datetime) -> Halt | None:
        """End the halt; return the one that was in force, if any."""

    async def current(self) -> Halt | None:
        """Return the halt in force, if any."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill as it is stored."""

    id: str
    experiment: str
    row: str
    """The row of the matrix it proves, such as `P0`."""
    objective: timedelta
    requested_by: str
    started_at: datetime
    slot: str = ""
    """The schedule's slot, such as `monthly/2026-12-01`; empty for a drill that a person asked for."""
    outcome: Outcome = Outcome.RUNNING
    reasons: tuple[str, ...] = ()
    ended_at: datetime | None = None
    phases: Mapping[DrillPhase, datetime] = field(default_factory=dict)
    journal: str = ""
    """Path of the Chaos Toolkit journal; the report is beside it."""
    users: Mapping[str, Measured] = field(default_factory=dict)
    """What users got `before`, `during` and `after` the fault, as the gateway counted it."""
    called_off: str = ""
    """Who told it to stop while it ran, and why; empty when nobody did."""

    def seconds(self, phase: DrillPhase) -> float | None:
        """Return the seconds from the fault to a phase, or None when one of them is not known."""
        fault, moment = self.phases.get(DrillPhase.FAULT), self.phases.get(phase)
        return (moment - fault).total_seconds() if fault and moment else None


class DrillBook(Protocol):
    """Where drills are kept."""

    async def begin(self, drill: Drill) -> bool:
        """Store a new drill; False when its slot has been run already, or another drill runs."""

    async def end(self, drill: Drill) -> Drill:
        """Store how it ended, and return it as it is stored: one that has ended already stays as it is."""

    async def call_off(self, drill_id: str, why: str) -> Drill | None:
        """Tell a drill to stop, wherever it runs, and return it; the first reason stays. None when it does not run."""

    async def recent(self, limit: int) -> tuple[Drill, ...]:
        """Return the newest drills first."""

    async def get(self, drill_id: str) -> Drill | None:
        """Return one drill."""


class DrillLog(Protocol):
    """Where what happens in a drill is kept, as it happens."""

    async def note(self, drill_id: str, event: Event) -> None:
        """Store something that happened in a drill."""

    async def events(self, drill_id: str) -> tuple[Event, ...]:
        """Return what happened in a drill, oldest first."""


@dataclass(frozen=True, slots=True)
class RowTimes:
    """What the row's receipt says of one engagement; None for a moment that has not come."""

    detected: datetime
    decided: datetime
    acted: datetime | None = None
    verified: datetime | None = None


def time_phases(
    leases: tuple[Lease, ...], row: RowTimes | None, recovered_at: datetime | None
) -> dict[DrillPhase, datetime]:
    """Put the moments of a drill together from what was stored while it ran.

    Args:
        leases: the drill's faults; the first injection is the fault, the last healing is healed.
        row: the first engagement of the drilled row after the fault; None when there was none.
        recovered_at: when the service was back to normal, if it is.
    """
    injected = [lease.injected_at for lease in leases if lease.injected_at]
    if not injected:
        return {}
    phases = {DrillPhase.FAULT: min(injected)}
    if row:
        moments = {
            DrillPhase.DETECTED: max(row.detected, phases[DrillPhase.FAULT]),
            DrillPhase.DECIDED: row.decided,
            DrillPhase.ACTED: row.acted,
            DrillPhase.VERIFIED: row.verified,
        }
        phases |= {phase: at for phase, at in moments.items() if at}
    healed = [lease.healed_at for lease in leases if lease.healed_at]
    if len(healed) == len(leases):
        phases[DrillPhase.HEALED] = max(healed)
    if recovered_at:
        phases[DrillPhase.RECOVERED] = recovered_at
    return phases


_MISSING = {
    DrillPhase.HEALED: "the fault was never healed",
    DrillPhase.RECOVERED: "the service never went back to normal",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a finished run is judged on."""

    phases: Mapping[DrillPhase, datetime]
    injected: int
    proven: int
    objective: timedelta
    residues: tuple[str, ...]
    journal_status: str
    """Chaos Toolkit's own status: `completed`, `failed`, `aborted`, `interrupted`, or empty without a journal."""
    deviated: bool
    """Chaos Toolkit saw the steady state deviate."""
    failed_activities: tuple[str, ...] = ()
    """Activities of the method that did not do what they should, by name: Chaos Toolkit calls such a run completed."""
    proves_row: bool = True
    """False when redundancy must carry the fault: no row has to engage, and none has to give anything back."""
    stopped: str = ""
    """Why the run was stopped before its end: a guard, a halt, a person; empty when nobody did."""
    alerts: tuple[str, ...] = ()
    """What was wrong with the alerts: expected ones that did not fire, forbidden ones that did."""


def judge(facts: Facts) -> tuple[Outcome, tuple[str, ...]]:
    """Decide a drill's outcome; Chaos Toolkit's status is one input, never the verdict.

    Returns:
        The outcome and every reason for it; a passed drill has none.
    """
    left = tuple(f"left behind: {r}" for r in facts.residues)
    if facts.stopped:
        return Outcome.ABORTED, (facts.stopped, *left)
    if not facts.injected:
        return Outcome.INVALID, ("no fault was injected",)
    if facts.proven < facts.injected:
        return Outcome.INVALID, (f"only {facts.proven} of {facts.injected} faults could be proven from outside",)
    reasons = [*left, *facts.alerts]
    if facts.proves_row:
        took = _between(facts.phases, DrillPhase.DETECTED, DrillPhase.VERIFIED)
        reasons += _too_slow(took, facts.objective)
    needed = set(_MISSING) if facts.proves_row else {DrillPhase.HEALED}
    reasons += [text for phase, text in _MISSING.items() if phase in needed and phase not in facts.phases]
    if facts.deviated:
        reasons.append("the steady state did not hold afterwards")
    reasons += [f"activity failed: {name}" for name in facts.failed_activities]
    if facts.journal_status not in ("completed", "failed"):
        return Outcome.ABORTED, (*reasons, f"the runner ended as {facts.journal_status or 'dead, without a journal'}")
    return (Outcome.FAILED if reasons else Outcome.PASSED), tuple(reasons)


def _too_slow(took: timedelta | None, objective: timedelta) -> list[str]:
    if took is None:
        return ["the row never restored service: no verified receipt"]
    if took > objective:
        return [f"objective missed: {took.total_seconds():.1f} s from detected to verified"]
    return []


def _between(phases: Mapping[DrillPhase, datetime], start: DrillPhase, end: DrillPhase) -> timedelta | None:
    return phases[end] - phases[start] if start in phases and end in phases else None
