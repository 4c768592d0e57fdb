"""A service in a time of its own: an observer and a decider joined as wiring joins them, with levers that obey."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from controlplane.degradation.action import SwitchPool, UsePool
from controlplane.degradation.actuator import Receipt, ReceiptState, RoutePlan
from controlplane.degradation.instruction import Instruction, Refused
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import AnyOf, Condition, Degradation, Level, Mode, ReleasePlan, Row
from controlplane.degradation.turn import Told
from controlplane.errors import ControlplaneError
from controlplane.fleet.model import Endpoint, Inventory
from controlplane.flows import decide, lever, observe, people, switch
from controlplane.flows.decide import DecidePorts, Decider
from controlplane.flows.lever import Decision, Levers
from controlplane.flows.observe import ObservePorts, Observer
from controlplane.flows.people import PeoplePorts, Said, TellPorts
from controlplane.flows.standing import RowStanding, Standing, stand
from controlplane.incidents.correlate import row_moves
from controlplane.probes.gateway_counts import Counts
from controlplane.probes.probe import Failure, Look
from controlplane.slo.threshold import Threshold
from controlplane.slo.verdict import Evidence, Verdict
from controlplane.telemetry import Metrics
from tests.unit.flows.fakes import Clock, FakeIncidents, FakeInstructions, receipt

PRIMARY = tuple(Endpoint(f"primary-{i}", "primary", f"http://p{i}") for i in range(2))
STANDBY = Endpoint("standby-0", "standby", "http://s0")
HOLD_S = 5.0
P0 = Row(
    Level.P0,
    AnyOf((Condition("endpoints_down", above=1.0), Condition("availability", below=0.5, dwell=timedelta(seconds=2)))),
    (SwitchPool(),), timedelta(minutes=5), ReleasePlan((0.5, 1.0), timedelta(seconds=HOLD_S)),
)  # fmt: skip
P2 = Row(
    Level.P2, Condition("endpoints_down", above=0.5), (UsePool("base", 0.5),), timedelta(hours=1),
    ReleasePlan((1.0,), timedelta(seconds=HOLD_S)),
)  # fmt: skip
THRESHOLDS = {"availability": Threshold(0.99, 0.95, 0.9, timedelta(seconds=3), timedelta(0))}


@dataclass(slots=True)
class FakeLevers:
    """Levers that move at once and prove it, unless an error or a refusal is set."""

    engaged: list[Decision] = field(default_factory=list)
    shifts: list[RoutePlan] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What each shift was for."""
    closed: list[Receipt] = field(default_factory=list)
    resolved: list[tuple[Level, str]] = field(default_factory=list)
    asked: list[tuple[Level, str]] = field(default_factory=list)
    paged: list[str] = field(default_factory=list)
    ask_errors: list[ControlplaneError] = field(default_factory=list)
    """What the next questions cannot be written down for."""
    engage_error: ControlplaneError | None = None
    engage_result: ReceiptState | None = ReceiptState.VERIFIED
    results: dict[Level, ReceiptState | None] = field(default_factory=dict)
    """How the engagement of a row ends, where it does not end like the others."""
    shift_ok: bool = True
    shift_error: ControlplaneError | None = None
    close_errors: list[ControlplaneError] = field(default_factory=list)
    """What the next closings fail with, and the next endings of an incident."""
    slow: asyncio.Event | None = None
    incidents: FakeIncidents = field(default_factory=FakeIncidents)
    """Where what a gate refuses is noted, and ends."""
    undoing: dict[Level, asyncio.Lock] = field(default_factory=dict)
    """By row: held while its errands are undone."""

    async def engage(self, decision: Decision) -> Receipt | None:
        self.engaged.append(decision)
        if self.slow:
            await self.slow.wait()
        if self.engage_error:
            raise self.engage_error
        result = self.results.get(decision.row.level, self.engage_result)
        if result is None:
            level, at = decision.row.level, decision.decided_at
            moves = row_moves("chat", level, "; ".join(decision.because), at, decision.detected_at, ())
            await self.incidents.take("chat", (moves,), at)
            return None
        times = dict.fromkeys(ReceiptState, decision.decided_at)
        return replace(
            receipt(result, f"r{len(self.engaged)}"), level=decision.row.level, after=decision.after,
            times=times,
        )  # fmt: skip

    async def shift(self, moved: Receipt, plan: RoutePlan, what: str) -> bool:
        assert what
        assert moved
        self.shifts.append(plan)
        self.said.append(what)
        if self.shift_error:
            raise self.shift_error
        return self.shift_ok

    async def close(self, ended: Receipt) -> Receipt:
        if self.close_errors:
            raise self.close_errors.pop()
        self.closed.append(ended)
        return ended

    async def resolve(self, level: Level, why: str) -> None:
        if self.close_errors:
            raise self.close_errors.pop()
        self.resolved.append((level, why))
        await switch.resolve(self.incidents, Clock(), "chat", level, why)

    def undone(self, row: Row) -> asyncio.Lock:
        return self.undoing.setdefault(row.level, asyncio.Lock())

    async def page(self, text: str) -> None:
        self.paged.append(text)

    async def ask(self, decision: Decision, text: str) -> None:
        if self.ask_errors:
            raise self.ask_errors.pop()
        self.asked.append((decision.row.level, text))

    def ports(self) -> Levers:
        return Levers(self.engage, self.shift, self.close, self.resolve, self.ask, self.undone, self.page)


@dataclass(slots=True)
class Books:
    """What outlives a control plane."""

    instructions: FakeInstructions = field(default_factory=FakeInstructions)
    incidents: FakeIncidents = field(default_factory=FakeIncidents)


class World:
    """An observer in a time of its own, with levers that obey."""

    def __init__(self, matrix: Degradation, books: "Books | None" = None) -> None:
        self.now = 100.0
        self.levers = FakeLevers()
        self.endpoints: tuple[Endpoint, ...] = (*PRIMARY, STANDBY)
        self.tasks: set[asyncio.Task[None]] = set()
        self.watchers: dict[Endpoint, Callable[[Look], None]] = {}
        """What is told when the connection to an endpoint comes or goes, while one is held."""
        self.let_go: set[str] = set()
        """Addresses to which no connection was held any more."""
        self.changes = 0
        self.metrics = Metrics()
        self.clock = Clock()
        self.told: list[Told] = []
        self.alerts: frozenset[str] | None = frozenset()
        self.acting = True
        self.counted: Counts | None = None
        """What the gateway has counted; None while it does not say."""
        self.beside: dict[str, tuple[Evidence, ...]] = {}
        """What is known of pools beside what the observer sees, by the pool's name."""
        self.books = books or Books()
        self.levers.incidents = self.books.incidents
        telling = TellPorts("chat", self.books.instructions, self.books.incidents, self.clock)

        async def tell(told: Told) -> None:
            self.told.append(told)
            await people.tell(telling, told)

        self.decider = Decider(
            "chat",
            matrix,
            DecidePorts(
                self.levers.ports(), self.spawn, self.change, self.metrics, self.clock, tell=tell,
                begun=lambda i: people.begun(telling, i), ended=lambda i, why: people.lapsed(telling, i, why),
                alerts=lambda: self.alerts, acting=lambda: self.acting,
            ),
        )  # fmt: skip
        self.people = PeoplePorts(
            telling, self.decider.refusal, self.decider.instruct, self.decider.drop, self.decider.held
        )
        ports = ObservePorts(
            self, None, self.judged, self.hold, self.spawn, self.change, self.metrics, self.clock,
            ask_gateway=self.ask_gateway,
        )  # fmt: skip
        self.observer = Observer("chat", THRESHOLDS, ports)

    def judged(self, verdicts: Mapping[str, Verdict]) -> None:
        beside = {
            pool: replace(verdict, evidence=(*verdict.evidence, *self.beside.get(pool, ())))
            for pool, verdict in verdicts.items()
        }
        self.decider.decide(beside)

    def ask_gateway(self, report: Callable[[float, Counts], None]) -> None:
        if self.counted is not None:
            report(self.now, self.counted)

    def read(self) -> Inventory:
        return Inventory(self.endpoints)

    def hold(self, endpoint: Endpoint, report: Callable[[Look], None]) -> Callable[[], None]:
        self.watchers[endpoint] = report

        def release() -> None:
            del self.watchers[endpoint]
            self.let_go |= {endpoint.url} - {held.url for held in self.watchers}

        return release

    @property
    def holding(self) -> set[str]:
        return {endpoint.name for endpoint in self.watchers}

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        return task

    def change(self) -> None:
        self.changes += 1

    def looks(self, *, ok: bool, endpoints: tuple[Endpoint, ...] = PRIMARY) -> None:
        for endpoint in endpoints:
            failure = None if ok else Failure.STATUS
            self.observer.take(Look(endpoint, "http", self.now, 0.01, failure))

    def kill(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints or PRIMARY:
            self.observer.take(Look(endpoint, "held", self.now, 0.0, Failure.REFUSED, "refused"))

    def revive(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints or PRIMARY:
            self.observer.take(Look(endpoint, "held", self.now, 0.0))
        self.looks(ok=True, endpoints=endpoints or PRIMARY)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def tick(self, seconds: int = 1, *, ok: bool | None = True) -> None:
        """Let seconds pass, each with a look at every endpoint and an evaluation."""
        for _ in range(seconds):
            self.now += 1.0
            if ok is not None:
                self.looks(ok=ok)
            self.observer.evaluate()
            await self.settle()

    def standing(self) -> Standing:
        matrix = self.decider.standing()
        return stand("chat", self.clock(), matrix, self.observer.pools(matrix.plan), self.observer.problems)

    def row(self, level: Level = Level.P0) -> RowStanding:
        return next(r for r in self.standing().rows if r.row.level is level)

    def phase(self, level: Level = Level.P0) -> Phase:
        return self.row(level).phase

    def weights(self) -> dict[str, int | None]:
        return {p.name: p.weight for p in self.standing().pools}

    async def say(self, said: Said) -> Instruction | Refused:
        answer = await people.instruct(self.people, said)
        await self.settle()
        return answer


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch, *rows: Row, mode: Mode = Mode.AUTO, switches: int = 6, books: Books | None = None
) -> AsyncIterator[World]:
    matrix = Degradation({row.level: row for row in rows or (P0,)}, mode, max_switches_per_hour=switches)
    world = World(matrix, books)
    for module in (observe, decide):
        monkeypatch.setattr(module, "monotonic", lambda: world.now)
    for pause in ("CLOSE_AGAIN_S", "ASK_AGAIN_S"):
        monkeypatch.setattr(lever, pause, 0.0)
    world.observer.follow_inventory()
    await world.settle()
    world.looks(ok=True)
    try:
        yield world
    finally:
        for task in world.tasks:
            task.cancel()
        ended = await asyncio.gather(*world.tasks, return_exceptions=True)
        failures = [e for e in ended if isinstance(e, Exception)]
        assert failures == []
