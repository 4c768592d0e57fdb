"""What the console's pages are made of: plain values, gathered by `app`, drawn by `console`."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.chaos.drill import Drill, Halt
from controlplane.chaos.fault import Lease
from controlplane.degradation.actuator import Receipt
from controlplane.flows.standing import Standing
from controlplane.incidents.incident import Entry, Incident


@dataclass(frozen=True, slots=True)
class ScheduledDrill:
    """A drill that is yet to come."""

    plan: str
    experiment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class IncidentView:
    """An incident with its timeline, oldest entry first."""

    incident: Incident
    timeline: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """Which of several replicas answers."""

    name: str
    """`leader`, `follower` or `taking over`."""
    leader: str
    """Who is in charge, by the name that people find it by; empty where nobody is known to be."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the console's front page."""

    standing: Standing
    incidents: tuple[IncidentView, ...]
    """Every open one, and the newest of the others."""
    drills: tuple[Drill, ...]
    """Newest first."""
    receipts: tuple[Receipt, ...]
    """Newest first."""
    leases: tuple[Lease, ...]
    """Faults in force now."""
    next_drill: ScheduledDrill | None
    now: datetime
    version: str
    halt: Halt | None = None
    """In force: no drill runs, and none starts."""
    role: Role = Role("leader", "")
    """Which replica shows this."""
