"""The schedule: each date once, postponed while a gate is closed, made up for inside its window, missed after it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.chaos.drill import Drill, Halt, Outcome, Slot, SlotState
from controlplane.chaos.experiment import Walk
from controlplane.chaos.fault import FaultKind
from controlplane.chaos.safety import Refusal
from controlplane.chaos.schedule import slot_name
from controlplane.errors import UsageError
from controlplane.flows.drill import Order
from controlplane.flows.faults import FaultRequest, heal, inject
from controlplane.policy.model import DrillPlan
from controlplane.policy.model import Slot as Calendar
from controlplane.runtime.drills import DeskPorts, DrillDesk
from controlplane.telemetry import Metrics
from tests.unit.flows.drilling import COMPLETED, GUARDS, Bench, refuse
from tests.unit.flows.fakes import FakeDrills

DUE = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)
PLAN = DrillPlan(Calendar("1st tue", 10), ("node-kill",), guards=GUARDS)
NAME = slot_name("monthly", DUE)


class Schedule:
    """The schedule's book, in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Slot] = {}
        self.done: set[tuple[str, str]] = set()
        self.passed: dict[str, datetime] = {}

    async def plan_slot(self, slot: Slot) -> None:
        self.kept.setdefault((slot.experiment, slot.name), slot)

    async def keep_slot(self, slot: Slot) -> None:
        before = self.kept[slot.experiment, slot.name]
        self.kept[slot.experiment, slot.name] = replace(slot, attempts=before.attempts + 1)

    async def due_slots(self, now: datetime) -> tuple[Slot, ...]:
        waiting = (SlotState.PLANNED, SlotState.POSTPONED)
        return tuple(s for s in self.kept.values() if s.state in waiting and s.due_at <= now)

    async def ran(self, experiment: str, slot: str) -> bool:
        return (experiment, slot) in self.done

    async def last_passed(self) -> dict[str, datetime]:
        return self.passed

    async def known_since(self) -> dict[str, datetime]:
        return {slot.experiment: slot.due_at for slot in self.kept.values()}

    def states(self) -> dict[str, SlotState]:
        return {slot.name: slot.state for slot in self.kept.values()}


class Desk:
    """A desk on stand-ins, at a time a test sets."""

    def __init__(self, journals: Path, plan: DrillPlan = PLAN) -> None:
        async def child(bench: Bench, order: Order) -> Walk:
            await bench.break_primaries(order)
            await heal(bench.faults, order.drill_id)
            return COMPLETED

        self.bench = Bench(child, journals)
        self.schedule = Schedule()
        self.metrics = Metrics()
        self.now = DUE - timedelta(days=2)
        self.tasks: list[asyncio.Task[None]] = []
        self.desk = DrillDesk(
            DeskPorts(
                {"monthly": plan}, self.bench.ports, self.bench.halting, self.schedule, self._spawn,
                lambda: self.bench.leads, lambda: None, self.metrics, lambda: self.now,
            )
        )  # fmt: skip

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def at(self, moment: datetime) -> dict[str, SlotState]:
        self.now = moment
        await self.desk.keep_schedule()
        return self.schedule.states()

    def drills(self) -> list[Drill]:
        return list(self.bench.drills.kept.values())

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"experiment": "node-kill"})


async def test_a_date_is_known_before_it_comes_and_runs_when_it_does(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert await desk.at(DUE - timedelta(hours=1)) == {NAME: SlotState.PLANNED}
    assert desk.drills() == []
    assert (await desk.at(DUE + timedelta(seconds=5)))[NAME] is SlotState.STARTED
    (drill,) = desk.drills()
    assert (drill.slot, drill.outcome, drill.requested_by) == (NAME, Outcome.PASSED, "schedule monthly")
    await desk.at(DUE + timedelta(seconds=20))
    assert len(desk.drills()) == 1


async def test_a_date_whose_start_cannot_be_kept_is_run_and_found_started_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    refuse(monkeypatch, Schedule, "keep_slot", 1)
    assert (await desk.at(DUE))[NAME] is SlotState.PLANNED
    assert [drill.outcome for drill in desk.drills()] == [Outcome.PASSED]
    desk.schedule.done.add(("node-kill", NAME))
    assert (await desk.at(DUE + timedelta(seconds=15)))[NAME] is SlotState.STARTED
    assert len(desk.drills()) == 1


async def test_a_fresh_control_plane_does_not_run_a_date_before_its_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE + timedelta(minutes=5))
    assert desk.drills() == []
    assert list(desk.schedule.states().values()) == [SlotState.PLANNED]


async def test_a_date_that_came_while_nobody_ran_is_made_up_for_inside_its_window(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    assert (await desk.at(DUE + timedelta(hours=5)))[NAME] is SlotState.STARTED
    late = Desk(tmp_path)
    await late.at(DUE - timedelta(hours=1))
    assert (await late.at(DUE + timedelta(hours=7)))[NAME] is SlotState.MISSED
    assert late.drills() == []
    assert "its window of 6:00:00 is over: no control plane ran" in late.schedule.kept["node-kill", NAME].reasons[0]


async def test_of_dates_that_were_slept_through_only_the_last_is_run(tmp_path: Path) -> None:
    patient = replace(PLAN, retry_within=timedelta(days=60))
    desk = Desk(tmp_path, patient)
    await desk.at(DUE - timedelta(hours=1))
    january = datetime(2027, 1, 5, 10, 0, tzinfo=UTC)
    await desk.schedule.plan_slot(Slot("node-kill", slot_name("monthly", january), january, SlotState.PLANNED, (), DUE))
    states = await desk.at(january + timedelta(hours=1))
    assert states[NAME] is SlotState.MISSED
    assert states[slot_name("monthly", january)] is SlotState.STARTED
    assert len(desk.drills()) == 1


async def test_a_closed_gate_postpones_a_date_and_it_runs_when_the_gate_opens(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.bench.facts["open_incidents"] = 1
    await desk.at(DUE - timedelta(hours=1))
    assert (await desk.at(DUE))[NAME] is SlotState.POSTPONED
    assert (await desk.at(DUE + timedelta(minutes=1)))[NAME] is SlotState.POSTPONED
    kept = desk.schedule.kept["node-kill", NAME]
    assert (kept.reasons, kept.attempts) == (("1 incident is open",), 2)
    assert desk.metric("controlplane_drill_postponed_total") == 2
    desk.bench.facts["open_incidents"] = 0
    assert (await desk.at(DUE + timedelta(hours=3)))[NAME] is SlotState.STARTED


async def test_a_date_the_page_no_longer_has_is_not_run(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stray = DUE + timedelta(days=1)
    await desk.schedule.plan_slot(Slot("node-kill", slot_name("monthly", stray), stray, SlotState.PLANNED, (), DUE))
    await desk.schedule.plan_slot(Slot("gone", NAME, DUE, SlotState.PLANNED, (), DUE))
    assert set((await desk.at(stray + timedelta(hours=1))).values()) >= {SlotState.MISSED}
    assert desk.drills() == []


async def test_a_date_that_another_control_plane_ran_is_not_run_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    desk.schedule.done.add(("node-kill", NAME))
    assert (await desk.at(DUE))[NAME] is SlotState.STARTED
    assert desk.drills() == []


async def test_only_the_leader_keeps_the_schedule(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    desk.bench.leads = False
    assert (await desk.at(DUE))[NAME] is SlotState.PLANNED


async def test_who_does_not_lead_shows_what_others_do_with_halts_and_drills(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    desk.bench.leads = False
    await desk.desk.halt("smoke", "ann")
    desk.now = DUE + timedelta(days=39)
    await desk.desk.show()
    assert desk.metrics.registry.get_sample_value("controlplane_drills_halted") == 1
    assert desk.metric("controlplane_drill_overdue") == 1
    await desk.bench.halts.resume("mei", desk.now)
    desk.schedule.passed["node-kill"] = desk.now
    await desk.desk.keep_schedule()
    assert desk.metrics.registry.get_sample_value("controlplane_drills_halted") == 0
    assert desk.metric("controlplane_drill_overdue") == 0


async def test_a_halt_is_shown_while_a_date_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    end = FakeDrills.end
    shown: list[float | None] = []

    async def ended(book: FakeDrills, drill: Drill) -> Drill:
        await desk.bench.halts.halt(Halt("smoke", "ann", desk.now))
        await desk.desk.keep_schedule()
        shown.append(desk.metrics.registry.get_sample_value("controlplane_drills_halted"))
        return await end(book, drill)

    monkeypatch.setattr(FakeDrills, "end", ended)
    await desk.at(DUE)
    assert shown == [1]


async def test_what_has_not_passed_for_too_long_is_overdue(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    assert desk.metric("controlplane_drill_overdue") == 0
    desk.now = DUE + timedelta(days=39)
    await desk.desk.show()
    assert desk.metric("controlplane_drill_overdue") == 1
    desk.schedule.passed["node-kill"] = DUE + timedelta(days=30)
    await desk.desk.show()
    assert desk.metric("controlplane_drill_overdue") == 0
    assert desk.metric("controlplane_drill_last_passed_timestamp_seconds") == (DUE + timedelta(days=30)).timestamp()


async def test_a_scheduled_experiment_is_counted_from_0_before_its_first_drill(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    assert desk.metric("controlplane_drill_running") == 0
    for outcome in set(Outcome) - {Outcome.RUNNING}:
        labels = {"experiment": "node-kill", "outcome": outcome.value}
        assert desk.metrics.registry.get_sample_value("controlplane_drills_total", labels) == 0
    assert desk.metrics.registry.get_sample_value("controlplane_drill_score_ratio") is None, "no drill, no score"


async def test_the_newest_month_is_scored_and_a_drill_shows_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    await desk.at(DUE - timedelta(hours=1))
    running: list[float | None] = []
    end = FakeDrills.end

    async def ended(book: FakeDrills, drill: Drill) -> Drill:
        running.append(desk.metric("controlplane_drill_running"))
        return await end(book, drill)

    monkeypatch.setattr(FakeDrills, "end", ended)
    await desk.at(DUE)
    assert running == [1]
    assert desk.metric("controlplane_drill_running") == 0
    assert desk.metrics.registry.get_sample_value("controlplane_drill_score_ratio") == 1.0
    assert desk.metrics.registry.get_sample_value("controlplane_drill_median_seconds", {"time": "MTTD"}) is not None


async def test_a_drill_asked_for_by_name_is_held_to_the_plan_that_names_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.desk.plan_for("node-kill") is PLAN
    stray = desk.desk.plan_for("gpu-saturation")
    assert stray.guards == GUARDS
    assert not isinstance(await desk.desk.start("node-kill", "ann"), Refusal)
    await asyncio.gather(*desk.tasks)
    assert desk.drills()[0].outcome is Outcome.PASSED


async def test_a_drill_that_runs_is_aborted_with_a_reason_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    refused = await desk.desk.abort("nothing", "smoke", "ann")
    assert refused == Refusal(("no drill nothing runs",))
    drill = await desk.desk.start("node-kill", "ann")
    assert isinstance(drill, Drill)
    told = await desk.desk.abort(drill.id, "seen enough", "mei")
    assert isinstance(told, Drill)
    assert told.called_off == "aborted by mei: seen enough"
    second = await desk.desk.abort(drill.id, "me too", "ann")
    assert isinstance(second, Drill)
    assert second.called_off == told.called_off, "the first reason stays"
    await asyncio.gather(*desk.tasks)
    (ended,) = desk.drills()
    assert ended.outcome is Outcome.ABORTED
    assert "aborted by mei: seen enough" in ended.reasons
    assert isinstance(await desk.desk.abort(drill.id, "again", "mei"), Refusal)


async def test_a_drill_that_was_told_to_stop_elsewhere_breaks_nothing_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    drill = await desk.desk.start("node-kill", "ann")
    assert isinstance(drill, Drill)
    told = await desk.bench.drills.call_off(drill.id, "aborted by mei: seen enough")
    assert told is not None
    fault = FaultRequest(FaultKind.NODE_KILL, "primary", 1.0, timedelta(seconds=8))
    with pytest.raises(UsageError, match="is being stopped"):
        await inject(desk.bench.faults, told, fault)
    await asyncio.gather(*desk.tasks)
    (ended,) = desk.drills()
    assert ended.outcome is Outcome.ABORTED
    assert "aborted by mei: seen enough" in ended.reasons
