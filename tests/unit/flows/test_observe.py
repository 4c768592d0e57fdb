"""Looks become verdicts, verdicts move rows, rows move levers; whatever a lever does, nothing gets stuck."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from controlplane.degradation.action import SwitchPool, UsePool
from controlplane.degradation.actuator import Receipt, ReceiptState, RoutePlan
from controlplane.degradation.machine import RETRY_AFTER_S, Phase
from controlplane.degradation.matrix import AnyOf, Condition, Degradation, Level, Mode, ReleasePlan, Row
from controlplane.errors import ActuatorError, ControlplaneError, StoreError
from controlplane.fleet.model import Endpoint, Inventory
from controlplane.flows import observe
from controlplane.flows.observe import Decision, Levers, ObservePorts, Observer, primary_is_well
from controlplane.probes.probe import Failure, Look
from controlplane.slo.threshold import Band, Threshold
from controlplane.slo.verdict import Evidence
from controlplane.telemetry import Metrics
from tests.unit.flows.fakes import Clock, receipt, split

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
    closed: list[Receipt] = field(default_factory=list)
    resolved: list[tuple[Level, str]] = field(default_factory=list)
    engage_error: ControlplaneError | None = None
    engage_result: ReceiptState | None = ReceiptState.VERIFIED
    shift_ok: bool = True
    shift_error: ControlplaneError | None = None
    close_errors: list[ControlplaneError] = field(default_factory=list)
    slow: asyncio.Event | None = None

    async def engage(self, decision: Decision) -> Receipt | None:
        self.engaged.append(decision)
        if self.slow:
            await self.slow.wait()
        if self.engage_error:
            raise self.engage_error
        if self.engage_result is None:
            return None
        times = dict.fromkeys(ReceiptState, decision.decided_at)
        return replace(
            receipt(self.engage_result, f"r{len(self.engaged)}"), level=decision.row.level, after=decision.after,
            times=times,
        )  # fmt: skip

    async def shift(self, moved: Receipt, plan: RoutePlan, what: str) -> bool:
        assert what
        assert moved
        self.shifts.append(plan)
        if self.shift_error:
            raise self.shift_error
        return self.shift_ok

    async def close(self, ended: Receipt) -> Receipt:
        if self.close_errors:
            raise self.close_errors.pop()
        self.closed.append(ended)
        return ended

    async def resolve(self, level: Level, why: str) -> None:
        self.resolved.append((level, why))

    def ports(self) -> Levers:
        return Levers(self.engage, self.shift, self.close, self.resolve)


class World:
    """An observer in a time of its own, with levers that obey."""

    def __init__(self, rows: Mapping[Level, Row], mode: Mode) -> None:
        self.now = 100.0
        self.levers = FakeLevers()
        self.endpoints: tuple[Endpoint, ...] = (*PRIMARY, STANDBY)
        self.tasks: set[asyncio.Task[None]] = set()
        self.holding: set[str] = set()
        self.changes = 0
        self.metrics = Metrics()
        ports = ObservePorts(
            self, None, self.levers.ports(), self.hold, self.spawn, self.change, self.metrics, Clock()
        )  # fmt: skip
        self.observer = Observer("chat", THRESHOLDS, Degradation(rows, mode), ports)

    def read(self) -> Inventory:
        return Inventory(self.endpoints)

    def hold(self, endpoint: Endpoint, _: Callable[[Look], None]) -> Callable[[], None]:
        self.holding.add(endpoint.name)
        return lambda: self.holding.discard(endpoint.name)

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
            self.observer.take(Look(endpoint, "tcp", self.now, 0.0, Failure.REFUSED, "refused"))

    def revive(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints or PRIMARY:
            self.observer.take(Look(endpoint, "tcp", self.now, 0.0))
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

    def phase(self, level: Level = Level.P0) -> Phase:
        return next(r.phase for r in self.observer.standing().rows if r.row.level is level)

    def weights(self) -> dict[str, int | None]:
        return {p.name: p.weight for p in self.observer.standing().pools}


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, *rows: Row, mode: Mode = Mode.AUTO) -> AsyncIterator[World]:
    world = World({row.level: row for row in rows or (P0,)}, mode)
    monkeypatch.setattr(observe, "monotonic", lambda: world.now)
    monkeypatch.setattr(observe, "CLOSE_AGAIN_S", 0.0)
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


async def test_hard_evidence_on_the_whole_pool_engages_at_once_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        await world.tick(5, ok=None)
        (decision,) = world.levers.engaged
        assert split(decision.before) == {"primary": 100}
        assert split(decision.after) == {"standby": 100}
        assert decision.because == ("endpoints_down is 100% (at or above 100%)",)
        assert decision.detected_at <= decision.decided_at
        assert world.phase() is Phase.ENGAGED
        assert world.observer.level is Level.P0
        assert world.weights() == {"primary": 0, "standby": 100}


async def test_one_dead_endpoint_of_two_engages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill(PRIMARY[0])
        await world.tick(1, ok=None)
        assert world.levers.engaged == []


async def test_soft_evidence_dwells_before_it_engages(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = replace(P0, when=Condition("availability", below=0.5, dwell=timedelta(seconds=2)))
    async with running(monkeypatch, soft) as world:
        await world.tick(5)
        phases = []
        for _ in range(6):
            await world.tick(1, ok=False)
            phases.append(world.phase())
        assert phases == [Phase.IDLE, Phase.IDLE, Phase.PENDING, Phase.PENDING, Phase.ENGAGED, Phase.ENGAGED]
        assert len(world.levers.engaged) == 1
        (decision,) = world.levers.engaged
        assert decision.decided_at > decision.detected_at


async def test_no_data_engages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await world.tick(60, ok=None)
        assert world.phase() is Phase.IDLE
        assert world.levers.engaged == []


async def test_traffic_returns_by_steps_once_the_primary_is_well_and_the_receipt_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        await world.tick(int(HOLD_S) - 1)
        assert world.levers.shifts == []
        await world.tick(3 * int(HOLD_S))
        assert [split(plan) for plan in world.levers.shifts] == [{"primary": 50, "standby": 50}, {"primary": 100}]
        assert [r.id for r in world.levers.closed] == ["r1"]
        assert (world.phase(), world.observer.level) == (Phase.IDLE, Level.NONE)
        assert world.weights() == {"primary": 100, "standby": 0}


async def test_nothing_is_given_back_while_the_primary_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        await world.tick(60, ok=None)
        assert world.levers.shifts == []
        assert world.phase() is Phase.ENGAGED


async def test_a_primary_that_dies_again_on_the_way_back_loses_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        assert split(world.levers.shifts[-1]) == {"primary": 50, "standby": 50}
        world.kill()
        await world.settle()
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        assert world.phase() is Phase.ENGAGED
        assert len(world.levers.engaged) == 1


@pytest.mark.parametrize("error", [ActuatorError("stuck", "why"), StoreError("disk full", "why")])
async def test_a_lever_that_raises_makes_a_failed_row_that_tries_again(
    monkeypatch: pytest.MonkeyPatch, error: ControlplaneError
) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_error = error
        world.kill()
        await world.settle()
        assert world.phase() is Phase.FAILED
        assert world.observer.level is Level.NONE
        assert world.weights()["primary"] == 100
        world.levers.engage_error = None
        await world.tick(int(RETRY_AFTER_S) + 1, ok=None)
        assert world.phase() is Phase.ENGAGED
        assert len(world.levers.engaged) == 2


@pytest.mark.parametrize("result", [None, ReceiptState.FAILED])
async def test_a_switch_that_was_refused_or_failed_ends_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, result: ReceiptState | None
) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_result = result
        world.kill()
        await world.settle()
        assert world.phase() is Phase.FAILED
        world.revive()
        await world.tick(1)
        assert world.phase() is Phase.IDLE
        assert [level for level, _ in world.levers.resolved] == [Level.P0]


async def test_a_shift_that_raises_takes_the_traffic_back_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        world.levers.shift_error = ActuatorError("stuck", "why")
        await world.tick(int(HOLD_S) + 1)
        assert world.phase() is Phase.ENGAGED
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        world.levers.shift_error = None
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE


async def test_a_closing_that_cannot_be_stored_is_tried_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        world.levers.close_errors = [StoreError("disk full"), StoreError("disk full")]
        await world.tick(4 * int(HOLD_S))
        assert [r.id for r in world.levers.closed] == ["r1"]


async def test_observe_mode_says_what_it_sees_and_moves_no_lever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.OBSERVE) as world:
        world.kill()
        await world.tick(60, ok=None)
        assert world.levers.engaged == []
        assert world.phase() is Phase.PENDING
        assert world.observer.standing().rows[0].because[0] == "endpoints_down is 100% (at or above 100%)"


async def test_rows_that_trip_together_pull_one_lever_and_their_plans_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, P0, P2) as world:
        world.levers.slow = asyncio.Event()
        world.kill()
        await world.settle()
        assert len(world.levers.engaged) == 1
        world.levers.slow.set()
        await world.settle()
        plans = [split(decision.after) for decision in world.levers.engaged]
        assert len(plans) == 2
        assert plans[-1] == {"base": 50, "standby": 50}
        assert world.levers.engaged[1].before == world.levers.engaged[0].after
        assert world.observer.level is Level.P0


async def test_rows_that_were_engaged_before_a_restart_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.observer.resume((receipt(ReceiptState.VERIFIED),))
        assert (world.observer.level, world.phase()) == (Level.P0, Phase.ENGAGED)
        assert world.weights() == {"primary": 0, "standby": 100}
        assert world.observer.standing().why == ("endpoints_down is 100%",)
        await world.tick(4 * int(HOLD_S))
        assert [r.id for r in world.levers.closed] == ["r1"]
        assert world.levers.engaged == []


async def test_a_receipt_of_a_row_that_left_the_page_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.observer.resume((replace(receipt(ReceiptState.VERIFIED), level=Level.P2),))
        assert world.observer.level is Level.NONE


async def test_the_inventory_is_followed_and_each_endpoint_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        assert world.holding == {"primary-0", "primary-1", "standby-0"}
        world.endpoints = (PRIMARY[0],)
        world.observer.follow_inventory()
        await world.settle()
        assert world.holding == {"primary-0"}


async def test_a_look_at_an_endpoint_that_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.endpoints = (PRIMARY[0], STANDBY)
        world.observer.follow_inventory()
        world.kill(PRIMARY[1])
        await world.tick(1, ok=None)
        assert world.levers.engaged == []


async def test_an_endpoint_whose_last_look_has_not_ended_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stalled:
        name = "http"
        every = timedelta(seconds=1)

        def __init__(self) -> None:
            self.begun: list[str] = []

        async def look(self, endpoint: Endpoint) -> Look:
            self.begun.append(endpoint.name)
            await asyncio.Event().wait()
            raise AssertionError

    async with running(monkeypatch) as world:
        probe = Stalled()
        for _ in range(2):
            for endpoint in world.observer.targets:
                world.observer.look(probe, endpoint)
            await world.settle()
        assert sorted(probe.begun) == ["primary-0", "primary-1", "standby-0"]
        skipped = world.metrics.registry.get_sample_value("controlplane_probes_skipped_total", {"probe": "http"})
        assert skipped == 3


async def test_whoever_shows_the_standing_is_told_of_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        before = world.changes
        await world.tick(3)
        assert world.changes >= before + 3
        standing = world.observer.standing()
        assert [p.name for p in standing.pools] == ["primary", "standby"]
        assert standing.pools[0].verdict.band is Band.OK
        assert standing.pools[1].verdict.band is Band.UNKNOWN


@pytest.mark.parametrize(
    ("bands", "well"),
    [
        ({}, False),
        ({"availability": Band.UNKNOWN}, False),
        ({"availability": Band.WARN}, False),
        ({"availability": Band.OK}, True),
        ({"availability": Band.OK, "latency_p99": Band.UNKNOWN}, True),
        ({"availability": Band.OK, "latency_p99": Band.BREACH}, False),
        ({"availability": Band.OK, "error_rate": Band.BREACH}, False),
        ({"availability": Band.OK, "gpu_utilization": Band.BREACH}, True),
    ],
)
def test_only_positive_evidence_makes_a_primary_well(bands: dict[str, Band], *, well: bool) -> None:
    assert primary_is_well({name: Evidence(name, 1.0, band) for name, band in bands.items()}) is well


async def test_a_scrape_of_us_sees_the_verdicts_and_the_signals_that_are_known_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        await world.tick(1)
        seen = world.metrics.registry.get_sample_value
        primary = {"service": "chat", "pool": "primary"}
        assert seen("controlplane_verdict", {**primary, "verdict": "ok"}) == 1
        assert seen("controlplane_verdict", {**primary, "verdict": "breach"}) == 0
        assert seen("controlplane_signal_value", {**primary, "signal": "availability"}) == 1
        assert seen("controlplane_signal_value", {**primary, "signal": "queue_depth"}) is None
        world.now += 60.0
        world.observer.evaluate()
        assert seen("controlplane_signal_value", {**primary, "signal": "availability"}) is None
        assert seen("controlplane_probes_total", {"probe": "http", "result": "ok"}) == 4
