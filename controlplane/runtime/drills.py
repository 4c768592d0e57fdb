"""Drills as this process runs them: asked for by people, due by the schedule, halted; and what becomes overdue.

The schedule's dates are rows of the database, known before they come. So a date that came while no control plane ran
is made up for inside its plan's window, the latest one only; each is run once, whoever finds it first; and a fresh
control plane breaks nothing because of a date before its time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from controlplane.chaos.drill import Drill, Halt, Outcome, Slot, SlotBook, SlotState
from controlplane.chaos.redundancy import Preview
from controlplane.chaos.safety import Go, Refusal
from controlplane.chaos.schedule import overdue, slot_name
from controlplane.chaos.score import Month, months
from controlplane.errors import ControlplaneError, StoreError
from controlplane.flows import drill as drill_flow
from controlplane.flows import halt as halt_flow
from controlplane.flows.drill import DrillPorts
from controlplane.flows.halt import HaltPorts
from controlplane.policy.model import DrillPlan
from controlplane.policy.model import Slot as Calendar
from controlplane.runtime.scheduler import upcoming
from controlplane.telemetry import Metrics

SCHEDULE_EVERY = timedelta(seconds=15)
"""How often dates that were postponed are tried again."""

SCORED_DRILLS = 200
"""How many of the newest drills are scored, month by month."""

log = structlog.get_logger("drills")


class ScheduleBook(SlotBook, Protocol):
    """The schedule's dates, and what overdue is counted from."""

    async def last_passed(self) -> Mapping[str, datetime]:
        """Return when each experiment passed last; those that never did are missing."""

    async def known_since(self) -> Mapping[str, datetime]:
        """Return since when each experiment is on the schedule."""


@dataclass(frozen=True, slots=True)
class DeskPorts:
    """What the desk needs."""

    plans: Mapping[str, DrillPlan]
    drilling: DrillPorts
    halting: HaltPorts
    schedule: ScheduleBook
    spawn: Callable[[Coroutine[None, None, None]], object]
    acting: Callable[[], bool]
    changed: Callable[[], None]
    metrics: Metrics
    now: Callable[[], datetime]


class DrillDesk:
    """Where drills are asked for."""

    def __init__(self, ports: DeskPorts) -> None:
        self._ports = ports
        self._busy = asyncio.Lock()
        self._month: Month | None = None
        metrics = ports.metrics
        metrics.drill_score.by = lambda: [((), self._month.score)] if self._month else []
        metrics.drill_median.by = lambda: [((t,), s) for t, s in self._month.times_s.items()] if self._month else []

    def plan_for(self, experiment: str) -> DrillPlan:
        """Return the plan whose gates, guards and limits hold for an experiment: the first that names it.

        One that no plan names is held to the defaults, and to the guards of every plan.
        """
        named = next((plan for plan in self._ports.plans.values() if experiment in plan.experiments), None)
        if named:
            return named
        guards = {signal: held for plan in self._ports.plans.values() for signal, held in plan.guards.items()}
        return DrillPlan(Calendar(), (experiment,), guards=guards)

    async def start(self, experiment: str, requested_by: str) -> Drill | Refusal:
        """Start a drill that somebody asks for; it runs on in the background.

        Raises:
            UsageError: when there is no such experiment, or it proves a row the page does not have.
        """
        started = await drill_flow.start(self._ports.drilling, experiment, self.plan_for(experiment), requested_by)
        if isinstance(started, Refusal):
            return started

        async def run() -> None:
            with self._shown_running(experiment):
                await drill_flow.run(self._ports.drilling, started)
            await self.show()

        self._ports.spawn(run())
        self._ports.changed()
        return started.drill

    async def preview(self, experiment: str) -> tuple[Preview, Go | Refusal]:
        """Say what a drill would do and what the gates say now; touches nothing.

        Raises:
            UsageError: as `start`.
        """
        return await drill_flow.dry_run(self._ports.drilling, experiment, self.plan_for(experiment))

    async def abort(self, drill_id: str, why: str, by: str) -> Drill | Refusal:
        """Tell one running drill to stop: it injects nothing more, its faults end first, and it proves nothing.

        It is stored, and whichever control plane runs the drill looks several times a second.
        """
        told = await self._ports.drilling.drills.call_off(drill_id, f"aborted by {by}: {why}")
        if told is None:
            return Refusal((f"no drill {drill_id} runs",))
        log.warning("aborted", drill=drill_id, why=why, by=by)
        self._ports.changed()
        return told

    async def halt(self, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
        """Stop every drill, end every fault, block new ones."""
        try:
            return await halt_flow.halt(self._ports.halting, why, by)
        finally:
            await self.show()
            self._ports.changed()

    async def resume(self, by: str) -> Halt | None:
        """Let drills start again."""
        ended = await halt_flow.resume(self._ports.halting, by)
        await self.show()
        self._ports.changed()
        return ended

    def next_due(self, now: datetime, count: int = 1) -> tuple[tuple[datetime, str, DrillPlan], ...]:
        """Return the next dates of each plan with the plan's name, the soonest first."""
        coming = [(at, name, plan) for name, plan in self._ports.plans.items() for at in upcoming(plan.at, now, count)]
        return tuple(sorted(coming, key=lambda found: (found[0], found[1])))

    async def keep_schedule(self) -> None:
        """Write down the dates that come next, run what is due while it is not at it already, and show how all stands.

        Who does not act shows it, too: another control plane may run drills, halt them and let them start again.
        """
        if self._ports.acting() and not self._busy.locked():
            async with self._busy:
                await self._run_due()
        await self.show()

    async def _run_due(self) -> None:
        now = self._ports.now()
        for at, name, plan in self.next_due(now):
            for experiment in plan.experiments:
                planned = Slot(experiment, slot_name(name, at), at, SlotState.PLANNED, (), now)
                await self._ports.schedule.plan_slot(planned)
        for slot in await self._ports.schedule.due_slots(now):
            await self._attempt(slot)

    async def _attempt(self, slot: Slot) -> None:
        """Run one date, or say why not."""
        now = self._ports.now()
        found = self._plan_of(slot)
        why = self._why_missed(slot, found[1] if found else None, now)
        if found is None or why:
            await self._keep(slot, SlotState.MISSED, (why,))
            return
        if await self._ports.schedule.ran(slot.experiment, slot.name):
            await self._keep(slot, SlotState.STARTED, ())
            return
        try:
            started = await drill_flow.start(
                self._ports.drilling, slot.experiment, found[1], f"schedule {found[0]}", slot.name
            )
        except ControlplaneError as error:
            await self._postpone(slot, (f"{error.what}: {error.why}",))
            return
        if isinstance(started, Refusal):
            if await self._ports.schedule.ran(slot.experiment, slot.name):
                await self._keep(slot, SlotState.STARTED, ())
            else:
                await self._postpone(slot, started.reasons)
            return
        try:
            await self._keep(slot, SlotState.STARTED, ())
        except StoreError as error:  # The drill is stored with its date: the next look at the dates finds it there.
            log.error("not kept", slot=slot.name, what=error.what, why=error.why)
        self._ports.changed()
        with self._shown_running(slot.experiment):
            await drill_flow.run(self._ports.drilling, started)

    @contextmanager
    def _shown_running(self, experiment: str) -> Iterator[None]:
        """Show as a metric that a drill of an experiment runs."""
        running = self._ports.metrics.drill_running.labels(experiment)
        running.set(1)
        try:
            yield
        finally:
            running.set(0)

    def _plan_of(self, slot: Slot) -> tuple[str, DrillPlan] | None:
        """Return the plan that has this very date, with its name; None when the page no longer has it."""
        name = slot.name.partition("/")[0]
        plan = self._ports.plans.get(name)
        if plan is None or slot.experiment not in plan.experiments:
            return None
        times = upcoming(plan.at, slot.due_at - timedelta(seconds=1), 1)
        return (name, plan) if times and slot_name(name, times[0]) == slot.name else None

    def _why_missed(self, slot: Slot, plan: DrillPlan | None, now: datetime) -> str:
        """Return why a date is not tried any more, or an empty string."""
        if plan is None:
            return "the page no longer has this date"
        if now - slot.due_at > plan.retry_within:
            return f"its window of {plan.retry_within} is over: {'; '.join(slot.reasons) or 'no control plane ran'}"
        later = upcoming(plan.at, slot.due_at + timedelta(seconds=1), 1)
        return "a later date has come" if later and later[0] <= now else ""

    async def _postpone(self, slot: Slot, reasons: tuple[str, ...]) -> None:
        log.warning("postponed", experiment=slot.experiment, slot=slot.name, reasons=reasons)
        self._ports.metrics.drill_postponed.labels(slot.experiment).inc()
        await self._keep(slot, SlotState.POSTPONED, reasons)

    async def _keep(self, slot: Slot, state: SlotState, reasons: tuple[str, ...]) -> None:
        await self._ports.schedule.keep_slot(replace(slot, state=state, reasons=reasons, at=self._ports.now()))

    async def show(self) -> None:
        """Show as metrics what passed when, the month's score, what is overdue, and whether drills are halted."""
        metrics, now = self._ports.metrics, self._ports.now()
        try:
            passed, since = await self._ports.schedule.last_passed(), await self._ports.schedule.known_since()
            metrics.drills_halted.set(await self._ports.halting.halts.current() is not None)
            scored = months(await self._ports.drilling.drills.recent(SCORED_DRILLS))
        except StoreError as error:
            log.error("not shown", what=error.what, why=error.why)
            return
        self._month = scored[0] if scored else None
        for experiment, at in passed.items():
            metrics.drill_passed_at.labels(experiment).set(at.timestamp())
        for plan in self._ports.plans.values():
            for experiment in plan.experiments:
                late = overdue(passed.get(experiment), since.get(experiment, now), now, plan.overdue_after)
                metrics.drill_overdue.labels(experiment).set(late)
                self._begin_at_zero(experiment)

    def _begin_at_zero(self, experiment: str) -> None:
        """Show a scheduled experiment before its first drill: a counter that is born with 1 grows by 0."""
        self._ports.metrics.drill_running.labels(experiment)
        for outcome in Outcome:
            if outcome is not Outcome.RUNNING:
                self._ports.metrics.drills.labels(experiment, outcome)
