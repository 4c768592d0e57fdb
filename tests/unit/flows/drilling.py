"""A drill on stand-ins: its books, a substrate, a child that does what a test tells it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.chaos.contract import AlertRoom
from controlplane.chaos.drill import Drill, Event, Halt, RowTimes
from controlplane.chaos.experiment import Experiment, Walk
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.guard import Guard, Reading
from controlplane.chaos.redundancy import BlastRadius, PoolNow, Preview, Target, preview
from controlplane.chaos.safety import GateFacts
from controlplane.errors import StoreError
from controlplane.fleet.model import Endpoint
from controlplane.flows.alerts import AlertPorts
from controlplane.flows.drill import DrillPorts, Order, Started, start
from controlplane.flows.faults import FaultPorts, FaultRequest, OwnLeases, Stops, inject
from controlplane.flows.halt import HaltPorts
from controlplane.flows.watch import WatchPorts
from controlplane.policy.model import DrillPlan, Slot
from tests.unit.flows.fakes import FakeDrills, FakeDriver, FakeLeases

EXPERIMENT = Experiment("node-kill", "Kill", "", "P0", "the primary pool")
GUARDS = {"availability": Guard(below=0.99, dwell=timedelta(seconds=0))}
PLAN = DrillPlan(Slot(), ("node-kill",), guards=GUARDS)
COMPLETED = Walk("completed", deviated=False, failed_activities=())
POOLS = {"primary": 2, "standby": 1, "base": 1}


def utcnow() -> datetime:
    return datetime.now(UTC)


def names(pool: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"{pool}-{i}", pool, "http://127.0.0.1:1") for i in range(POOLS.get(pool, 0)))


def refuse(
    monkeypatch: pytest.MonkeyPatch, book: type, call: str, times: int, error: type[StoreError] = StoreError
) -> None:
    """Let a call of a book be refused some times; from then on it is answered."""
    answered, left = getattr(book, call), iter(range(times))

    async def asked(*told: object) -> object:
        if next(left, None) is not None:
            raise error("the database refuses", "disk full", "free space")
        return await answered(*told)

    monkeypatch.setattr(book, call, asked)


@dataclass(slots=True)
class FakeHalts:
    """The halt, in memory."""

    kept: Halt | None = None

    async def halt(self, halt: Halt) -> None:
        self.kept = self.kept or halt

    async def resume(self, by: str, at: datetime) -> Halt | None:
        ended, self.kept = self.kept, None
        return ended

    async def current(self) -> Halt | None:
        return self.kept


@dataclass(slots=True)
class FakeLog:
    """What happened in drills."""

    kept: list[Event] = field(default_factory=list)

    async def note(self, drill_id: str, event: Event) -> None:
        self.kept.append(event)

    async def events(self, drill_id: str) -> tuple[Event, ...]:
        return tuple(self.kept)

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.kept if event.kind == kind]


class TimedLeases(FakeLeases):
    """Leases that keep the moment of every state, as the database does."""

    async def move(self, lease_id: str, state: LeaseState, at: datetime, detail: str = "") -> Lease:
        before = self.kept[lease_id]
        if before.state is LeaseState.HEALED:
            return before
        moment = {LeaseState.INJECTED: "injected_at", LeaseState.PROVEN: "proven_at", LeaseState.HEALED: "healed_at"}
        changed = {moment[state]: at} if state in moment else {}
        self.kept[lease_id] = replace(before, state=state, detail=detail, **changed)  # type: ignore[arg-type]
        return self.kept[lease_id]


Child = Callable[["Bench", Order], Awaitable[Walk]]


@dataclass(slots=True)
class Bench:
    """Everything a drill touches; a test turns what it wants to see."""

    child: Child
    journals: Path
    drills: FakeDrills = field(default_factory=FakeDrills)
    leases: TimedLeases = field(default_factory=TimedLeases)
    halts: FakeHalts = field(default_factory=FakeHalts)
    log: FakeLog = field(default_factory=FakeLog)
    driver: FakeDriver = field(default_factory=FakeDriver)
    stops: Stops = field(default_factory=Stops)
    own: OwnLeases = field(default_factory=OwnLeases)
    walked: set[str] = field(default_factory=set)
    leads: bool = True
    readings: dict[str, Reading] = field(default_factory=lambda: {"availability": Reading(1.0)})
    counted: tuple[float, float] = (0.0, 0.0)
    facts: dict[str, object] = field(default_factory=dict)
    published: list[Drill] = field(default_factory=list)
    ended_child: asyncio.Event = field(default_factory=asyncio.Event)
    experiment: Experiment = EXPERIMENT
    room: AlertRoom | None = None
    radius: BlastRadius = field(default_factory=BlastRadius)

    @property
    def faults(self) -> FaultPorts:
        return FaultPorts(
            self.leases, self.log, self.halts, self.driver, names, lambda: sum(POOLS.values()), lambda _: self.radius,
            utcnow, self.stops, self.own,
        )  # fmt: skip

    async def leading(self) -> bool:
        return self.leads

    @property
    def halting(self) -> HaltPorts:
        return HaltPorts(self.halts, self.drills, self.leases, self.driver, self.stops, self.own, self.walked, utcnow)

    @property
    def ports(self) -> DrillPorts:
        return DrillPorts(
            drills=self.drills,
            log=self.log,
            faults=self.faults,
            watching=WatchPorts(
                self.drills, self.leases, self.halts, self.stops, self.leading, lambda: self.readings,
                lambda: self.counted, utcnow,
            ),
            alerts=AlertPorts(self.room, self.leases, self.log, "chat", utcnow),
            walk=self._walk,
            experiment=lambda _: (self.experiment, Path("node-kill.yaml")),
            preview=self._preview,
            facts=self._facts,
            row_times=self._row_times,
            recovered=self._recovered,
            objective=lambda row: timedelta(minutes=5) if row == "P0" else None,
            published=self._published,
            journals=self.journals,
            now=utcnow,
            walked=self.walked,
        )  # fmt: skip

    async def tick(self) -> None:
        """Let the others run for a moment."""
        await asyncio.sleep(0.005)

    async def begun(self, plan: DrillPlan = PLAN) -> Started:
        """Return a drill that has passed its gates."""
        started = await start(self.ports, "node-kill", plan, "ann")
        assert isinstance(started, Started), started
        return started

    async def break_primaries(self, order: Order, lasts_s: float = 60.0) -> tuple[Lease, ...]:
        """Inject as the experiment's step does, through the API."""
        drill = await self.drills.get(order.drill_id)
        assert drill
        return await inject(
            self.faults, drill, FaultRequest(FaultKind.NODE_KILL, "primary", 1.0, timedelta(seconds=lasts_s))
        )

    async def _walk(self, order: Order) -> Walk:
        try:
            return await self.child(self, order)
        finally:
            self.ended_child.set()

    def _preview(self, _: Experiment, __: Path, plan: DrillPlan) -> Preview:
        target = Target("node-kill", "primary", tuple(e.name for e in names("primary")), timedelta(seconds=8))
        pools = [PoolNow(pool, tuple(e.name for e in names(pool))) for pool in POOLS]
        return preview((target,), pools, "primary", "standby", plan.blast_radius, 30.0)

    async def _facts(self, _: Experiment, preview: Preview, __: DrillPlan) -> GateFacts:
        halt = await self.halts.current()
        facts: Mapping[str, object] = {
            "open_incidents": 0, "standby_answers": True, "running_drill": "", "level": "none", "leases_open": 0,
            "budget_left": 1.0, "budget_burns": False, "frozen": "", "halted": halt.why if halt else "",
            "leads": self.leads, "clock_off_s": 0.0, "too_much": preview.refusals, "guards": (), **self.facts,
        }  # fmt: skip
        return GateFacts(now=utcnow(), **facts)  # type: ignore[arg-type]

    async def _row_times(self, _: str, after: datetime) -> RowTimes | None:
        moments = [after + timedelta(milliseconds=step) for step in (10, 20, 30, 40)]
        return RowTimes(*moments)

    async def _recovered(self, _: str, after: datetime) -> datetime | None:
        return after + timedelta(milliseconds=50)

    async def _published(self, drill: Drill) -> None:
        self.published.append(drill)
