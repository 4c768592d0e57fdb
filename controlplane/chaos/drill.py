"""A drill: one run of one experiment, its phases, its outcome and the evidence it leaves; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from controlplane.chaos.fault import Lease


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
    """Path of the Chaos Toolkit journal."""

    def seconds(self, phase: DrillPhase) -> float | None:
        """Return the seconds from the fault to a phase, or None when one of them is not known."""
        fault, moment = self.phases.get(DrillPhase.FAULT), self.phases.get(phase)
        return (moment - fault).total_seconds() if fault and moment else None


class DrillBook(Protocol):
    """Where drills are kept."""

    async def begin(self, drill: Drill) -> bool:
        """Store a new drill; False when its slot has been run already."""

    async def end(self, drill: Drill) -> None:
        """Store how it ended."""

    async def recent(self, limit: int) -> tuple[Drill, ...]:
        """Return the newest drills first."""

    async def get(self, drill_id: str) -> Drill | None:
        """Return one drill."""


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


def judge(facts: Facts) -> tuple[Outcome, tuple[str, ...]]:
    """Decide a drill's outcome; Chaos Toolkit's status is one input, never the verdict.

    Returns:
        The outcome and every reason for it; a passed drill has none.
    """
    if not facts.injected:
        return Outcome.INVALID, ("no fault was injected",)
    if facts.proven < facts.injected:
        return Outcome.INVALID, (f"only {facts.proven} of {facts.injected} faults could be proven from outside",)
    reasons = [f"left behind: {r}" for r in facts.residues]
    took = _between(facts.phases, DrillPhase.DETECTED, DrillPhase.VERIFIED)
    if took is None:
        reasons.append("the row never restored service: no verified receipt")
    elif took > facts.objective:
        reasons.append(f"objective missed: {took.total_seconds():.1f} s from detected to verified")
    reasons += [text for phase, text in _MISSING.items() if phase not in facts.phases]
    if facts.deviated:
        reasons.append("the steady state did not hold afterwards")
    reasons += [f"activity failed: {name}" for name in facts.failed_activities]
    if facts.journal_status not in ("completed", "failed"):
        return Outcome.ABORTED, (*reasons, f"the runner ended as {facts.journal_status or 'dead, without a journal'}")
    return (Outcome.FAILED if reasons else Outcome.PASSED), tuple(reasons)


def _between(phases: Mapping[DrillPhase, datetime], start: DrillPhase, end: DrillPhase) -> timedelta | None:
    return phases[end] - phases[start] if start in phases and end in phases else None
