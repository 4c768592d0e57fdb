"""The ports of the console's pages, made of an overview; what is asked of them is noted."""

from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.chaos.drill import Drill, Event, Halt, Outcome
from controlplane.chaos.fault import Lease
from controlplane.chaos.redundancy import Preview, Target
from controlplane.chaos.safety import Go, Refusal
from controlplane.degradation.instruction import Instruction, Kind, Refused
from controlplane.degradation.matrix import Level
from controlplane.errors import UsageError
from controlplane.flows.people import Said
from controlplane.flows.standing import Standing
from controlplane.render.reports.drill import Report
from controlplane.signals.recording import Point
from controlplane.web.page import Overview, ScheduledDrill
from controlplane.web.pages.ports import ConsolePorts, ExperimentLine
from tests.support import incident_pages
from tests.support.doors import MemoryAudit

PREVIEW = Preview(
    (Target("node-kill", "primary", ("primary-0",), timedelta(seconds=8)),), 4, ("primary-0",), "primary",
    ("primary-1",), 20.0, 10.0, 20.0, (),
)  # fmt: skip
LINES = (
    ExperimentLine("node-kill", "Every primary node dies", "P0", "2 of 4 endpoints"),
    ExperimentLine("queue-flood", "The queue floods", "P1", "1 of 4 endpoints"),
    ExperimentLine("broken", "broken", "", "", problem="it names no row: a drill proves one row"),
)


@dataclass(slots=True)
class Asked:
    """What the pages' forms asked for, and what they are to be answered."""

    calls: list[str] = field(default_factory=list)
    refused: str = ""
    """Why no instruction can be followed, and no drill started or stopped."""
    halt: Halt | None = None
    drill: Drill | None = None
    """Which drill there is besides the overview's."""


@dataclass(frozen=True, slots=True)
class FakeDesk:
    """Notes what is asked of it."""

    view: Overview
    asked: Asked

    async def start(self, experiment: str, requested_by: str) -> Drill | Refusal:
        self.asked.calls.append(f"start {experiment} for {requested_by}")
        if self.asked.refused:
            return Refusal((self.asked.refused,))
        return next(drill for drill in self.view.drills if drill.experiment == experiment)

    async def preview(self, experiment: str) -> tuple[Preview, Go | Refusal]:
        if experiment not in [line.name for line in LINES]:
            raise UsageError(f"no experiment `{experiment}`", "there are others", "name one of them")
        return PREVIEW, Refusal((self.asked.refused,)) if self.asked.refused else Go(("no freeze", "the clock is sane"))

    async def abort(self, drill_id: str, why: str, by: str) -> Drill | Refusal:
        self.asked.calls.append(f"stop {drill_id} for {by}: {why}")
        refused = self.asked.refused
        found = (*self.view.drills, *([self.asked.drill] if self.asked.drill else []))
        return Refusal((refused,)) if refused else next(one for one in found if one.id == drill_id)

    async def halt(self, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
        self.asked.calls.append(f"halt for {by}: {why}")
        self.asked.halt = Halt(why, by, self.view.now)
        return self.asked.halt, ()

    async def resume(self, by: str) -> Halt | None:
        self.asked.calls.append(f"resume for {by}")
        ended, self.asked.halt = self.asked.halt, None
        return ended


def points(view: Overview) -> tuple[Point, ...]:
    """Return ten minutes of what every pool of an overview shows now, with a bump in the middle."""
    found = []
    for second in range(600, 0, -5):
        at = view.now - timedelta(seconds=second)
        for pool in view.standing.pools:
            for seen in pool.verdict.evidence:
                value = seen.value * (1.6 if 250 < second < 320 else 1.0) if seen.value is not None else None
                found.append(Point(at, pool.name, seen.signal, value, seen.samples))
    return tuple(found)


def ports(view: Overview, asked: Asked | None = None, audit: MemoryAudit | None = None) -> ConsolePorts:  # noqa: C901
    """Return what the pages of an overview are made of."""
    asked = asked or Asked()
    asked.halt = asked.halt or view.halt
    drills = (*((asked.drill,) if asked.drill else ()), *view.drills)

    async def overview() -> Overview:
        return view

    def standing() -> Standing:
        return view.standing

    async def instruct(said: Said) -> Instruction | Refused:
        lasts = f" for {said.lasts}" if said.lasts else ""
        asked.calls.append(f"{said.who}: {said.kind} {said.level}{lasts}: {said.why}")
        made = Instruction("i1", "chat", said.kind, said.level, said.who, said.why, view.now)
        return Refused(asked.refused) if asked.refused else made

    async def end(kind: Kind, level: Level, who: str, why: str) -> Instruction | Refused:
        asked.calls.append(f"{who}: end {kind} {level}: {why}")
        return Refused(asked.refused) if asked.refused else Instruction("i1", "chat", kind, level, who, why, view.now)

    async def instructions(limit: int) -> tuple[Instruction, ...]:
        return (Instruction("i0", "chat", Kind.PIN, Level.P2, "ann", "peak", view.now - timedelta(hours=1)),)[:limit]

    async def experiments() -> tuple[ExperimentLine, ...]:
        return LINES

    def plan() -> tuple[ScheduledDrill, ...]:
        return (view.next_drill,) if view.next_drill else ()

    async def recent(limit: int) -> tuple[Drill, ...]:
        return drills[:limit]

    async def drill(drill_id: str) -> Drill | None:
        return next((found for found in drills if found.id == drill_id), None)

    async def events(drill_id: str) -> tuple[Event, ...]:
        return (Event(view.now - timedelta(seconds=30), "step", f"begins in {drill_id}"),)

    async def leases(drill_id: str) -> tuple[Lease, ...]:
        return tuple(lease for lease in view.leases if lease.drill_id == drill_id)

    async def report(found: Drill) -> Report:
        return Report(found, await leases(found.id), await events(found.id), drills)

    async def halt() -> Halt | None:
        return asked.halt

    return ConsolePorts(
        overview=overview, standing=standing, thresholds=incident_pages.policy().thresholds,
        recorded=lambda lasts: tuple(p for p in points(view) if view.now - p.at <= lasts), instruct=instruct, end=end,
        refusal=lambda _kind, _level: asked.refused, instructions=instructions, desk=FakeDesk(view, asked),
        plan=plan, experiments=experiments, drills=recent, drill=drill, events=events, leases=leases, report=report,
        halt=halt, audit=audit or MemoryAudit(), now=lambda: view.now, version=view.version,
    )  # fmt: skip


def running(view: Overview) -> Drill | None:
    """Return the drill of an overview that runs."""
    return next((drill for drill in view.drills if drill.outcome is Outcome.RUNNING), None)
