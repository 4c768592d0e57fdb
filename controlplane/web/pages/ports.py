"""What the console's pages are made of, and what their forms may ask for; `runtime.console` fills it in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.chaos.drill import Drill, Event, Halt
from controlplane.chaos.fault import Lease
from controlplane.chaos.redundancy import Preview
from controlplane.chaos.safety import Go, Refusal
from controlplane.degradation.instruction import Instruction, Kind, Refused
from controlplane.degradation.matrix import Level
from controlplane.flows.people import Said
from controlplane.flows.standing import Standing
from controlplane.render.reports.drill import Report
from controlplane.security.chain import AuditBook
from controlplane.signals.recording import Point
from controlplane.slo.threshold import Threshold
from controlplane.web.page import Overview, ScheduledDrill


class DrillDoor(Protocol):
    """Where drills are asked for, and stopped."""

    async def start(self, experiment: str, requested_by: str) -> Drill | Refusal:
        """Start a drill of an experiment, asked for by somebody; it runs on in the background."""

    async def preview(self, experiment: str) -> tuple[Preview, Go | Refusal]:
        """Say what a drill would do and what the gates say now; touches nothing."""

    async def abort(self, drill_id: str, why: str, by: str) -> Drill | Refusal:
        """Tell one running drill to stop: it injects nothing more, its faults end first, and it proves nothing."""

    async def halt(self, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
        """Stop every drill, end every fault, block new ones."""

    async def resume(self, by: str) -> Halt | None:
        """Let drills start again; returns the halt that was in force."""


@dataclass(frozen=True, slots=True)
class ExperimentLine:
    """One experiment as it is offered."""

    name: str
    title: str
    row: str
    """The row of the matrix it proves, or `none`."""
    blast_radius: str
    """In words."""
    description: str = ""
    problem: str = ""
    """Why it cannot be run as it is written; empty when it can."""


@dataclass(frozen=True, slots=True)
class ConsolePorts:
    """What the pages ask."""

    overview: Callable[[], Awaitable[Overview]]
    standing: Callable[[], Standing]
    thresholds: Mapping[str, Threshold]
    recorded: Callable[[timedelta], tuple[Point, ...]]
    """The signals of the last so many minutes, oldest first."""
    instruct: Callable[[Said], Awaitable[Instruction | Refused]]
    end: Callable[[Kind, Level, str, str], Awaitable[Instruction | Refused]]
    """Ends a pin or the brake: (kind, level, who, why)."""
    refusal: Callable[[Kind, Level], str]
    """Says why the matrix has no use for an instruction now; an empty string when it has."""
    instructions: Callable[[int], Awaitable[tuple[Instruction, ...]]]
    """The newest first."""
    desk: DrillDoor
    plan: Callable[[], tuple[ScheduledDrill, ...]]
    """The dates that come next, the soonest first."""
    experiments: Callable[[], Awaitable[tuple[ExperimentLine, ...]]]
    drills: Callable[[int], Awaitable[tuple[Drill, ...]]]
    """The newest first."""
    drill: Callable[[str], Awaitable[Drill | None]]
    events: Callable[[str], Awaitable[tuple[Event, ...]]]
    """What happened in a drill, oldest first."""
    leases: Callable[[str], Awaitable[tuple[Lease, ...]]]
    """The faults of a drill."""
    report: Callable[[Drill], Awaitable[Report]]
    halt: Callable[[], Awaitable[Halt | None]]
    audit: AuditBook
    now: Callable[[], datetime]
    version: str
