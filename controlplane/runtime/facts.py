"""What gates and guards look at, gathered from where it is known; what cannot be found out is None, never a guess."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog
import yaml

from controlplane.chaos import guard, redundancy
from controlplane.chaos.drill import HaltBook
from controlplane.chaos.experiment import Experiment, PlannedFault
from controlplane.chaos.fault import LeaseBook
from controlplane.chaos.guard import Reading
from controlplane.chaos.redundancy import PoolNow, Preview, Target
from controlplane.chaos.safety import GateFacts, left_of_period, pages
from controlplane.chaos.schedule import frozen
from controlplane.degradation.matrix import LEVELS, Level, Row
from controlplane.errors import ExperimentError, StoreError
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, Endpoint
from controlplane.flows.standing import BudgetStanding, Standing
from controlplane.flows.watch import ERROR_BOUND, LATENCY
from controlplane.incidents.book import IncidentBook
from controlplane.policy.model import DrillPlan, Policy

T = TypeVar("T")

JUDGED_WITHIN_S = 3.0
"""Verdicts that are older than this say nothing about now: the loop that makes them stands still."""
CLOCK_MEMORY = timedelta(minutes=10)

log = structlog.get_logger("facts")


class ClockWatch:
    """Compares the wall clock with the monotonic one, and remembers the largest jump of the last minutes."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._last: tuple[float, float] | None = None
        self._jumps: list[tuple[float, float]] = []

    def tick(self) -> None:
        """Compare once; called every few seconds."""
        wall, steady = self._now().timestamp(), monotonic()
        if self._last is not None:
            self._jumps.append((steady, (wall - self._last[0]) - (steady - self._last[1])))
        self._last = wall, steady
        oldest = steady - CLOCK_MEMORY.total_seconds()
        self._jumps = [(at, jump) for at, jump in self._jumps if at >= oldest]

    @property
    def off_s(self) -> float | None:
        """The largest jump of the last minutes, in seconds; None before there were two looks."""
        return max((jump for _, jump in self._jumps), key=abs, default=None)


class Judged:
    """When the verdicts were made last."""

    def __init__(self) -> None:
        self.at = monotonic()

    def mark(self) -> None:
        """Note that they were made now."""
        self.at = monotonic()


@dataclass(frozen=True, slots=True)
class FactPorts:
    """Where facts come from."""

    policy: Policy
    standing: Callable[[], Standing]
    budgets: Callable[[], tuple[BudgetStanding, ...]]
    judged_at: Callable[[], float]
    """Monotonic seconds of the last evaluation."""
    leads: Callable[[], Awaitable[bool]]
    halts: HaltBook
    leases: LeaseBook
    incidents: IncidentBook
    running_drill: Callable[[], Awaitable[str]]
    answers: Callable[[Endpoint], Awaitable[bool]]
    """Asks one endpoint for a completion."""
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    database_off_s: Callable[[], Awaitable[float]]
    """Seconds between the database's clock and ours; 0 where it has none of its own."""
    now: Callable[[], datetime]
    clock: ClockWatch


class DrillFacts:
    """Gathers what the gates of a drill look at."""

    def __init__(self, ports: FactPorts) -> None:
        self._ports = ports

    def readings(self) -> Mapping[str, Reading]:
        """Return the signals of what users get, as they were judged last."""
        standing = self._ports.standing()
        answering = GATEWAY_POOL if self._ports.policy.fleet.gateway else PRIMARY
        pool = next((p for p in standing.pools if p.name == answering), None)
        if pool is None:
            return {}
        late_s = monotonic() - self._ports.judged_at()
        if late_s > JUDGED_WITHIN_S:
            return {e.signal: Reading(None, why=f"not judged for {late_s:.0f} s") for e in pool.verdict.evidence}
        found = {e.signal: Reading(e.value, e.age_s, e.reason) for e in pool.verdict.evidence}
        latency = pool.verdict.signal(LATENCY)
        return found | ({ERROR_BOUND: Reading(latency.high)} if latency else {})

    def preview(self, experiment: Experiment, path: Path, plan: DrillPlan) -> Preview:
        """Do the arithmetic of an experiment on the fleet as it stands.

        Raises:
            ExperimentError: when its faults cannot be read.
        """
        standing = self._ports.standing()
        up = {e.endpoint.name: e.up for pool in standing.pools for e in pool.endpoints}
        pools = [self._pool_now(name, up) for name in self._ports.policy.fleet.pools]
        row = self._row(experiment)
        rate = self.readings().get("request_rate")
        waves = redundancy.waves(_page(path), experiment.faults) or ((),)
        previews = [
            redundancy.preview(
                [self._target(fault) for fault in wave], pools, PRIMARY, row.target if row else "", plan.blast_radius,
                rate.value if rate else None,
            )
            for wave in waves
        ]  # fmt: skip
        return redundancy.worst(previews, [self._target(fault) for fault in experiment.faults])

    def _row(self, experiment: Experiment) -> Row | None:
        """Return the row an experiment proves; the most severe one there is where redundancy must carry the fault."""
        rows = self._ports.policy.degradation.rows
        if experiment.row == Level.NONE:
            return next((rows[level] for level in reversed(LEVELS) if level in rows), None)
        return rows.get(Level(experiment.row)) if experiment.row in LEVELS else None

    def _target(self, fault: PlannedFault) -> Target:
        names = [e.name for e in self._ports.endpoints(fault.pool)]
        return Target(fault.kind, fault.pool, tuple(names[: fault.broken_at_once(len(names))]), fault.lasts)

    def _pool_now(self, name: str, up: Mapping[str, bool | None]) -> PoolNow:
        names = [e.name for e in self._ports.endpoints(name)]
        return PoolNow(name, tuple(n for n in names if up.get(n) is True), tuple(n for n in names if not up.get(n)))

    async def facts(self, experiment: Experiment, preview: Preview, plan: DrillPlan) -> GateFacts:
        """Gather everything that the gates look at."""
        ports = self._ports
        budgets = ports.budgets()
        lefts = [left_of_period(b.budget, self._period_s(b.objective)) for b in budgets]
        known = [left for left in lefts if left is not None]
        halt = await _or_none(ports.halts.current())
        open_incidents = await _or_none(ports.incidents.open_incidents(ports.policy.service))
        leases = await _or_none(ports.leases.open_leases())
        readings = self.readings()
        unknown = tuple(filter(None, (guard.unknown(signal, readings.get(signal)) for signal in plan.guards)))
        wrong = tuple(filter(None, (guard.wrong(s, held, readings.get(s)) for s, held in plan.guards.items())))
        return GateFacts(
            open_incidents=None if open_incidents is None else len(open_incidents[0]),
            standby_answers=await self._standby_answers(experiment),
            running_drill=_only(await _or_none(ports.running_drill())),
            level=ports.standing().level,
            leases_open=None if leases is None else len(leases[0]),
            now=ports.now(),
            budget_left=min(known) if known and len(known) == len(lefts) else None,
            budget_burns=any(pages(b.budget) for b in budgets) if known else None,
            frozen=self._frozen(plan),
            halted=None if halt is None else halt[0].why if halt[0] else "",
            leads=await ports.leads(),
            clock_off_s=await self._clock_off_s(),
            too_much=preview.refusals,
            guards=None if wrong and set(wrong) <= set(unknown) else wrong,
            unknown_guards=unknown,
        )

    async def _standby_answers(self, experiment: Experiment) -> bool | None:
        """Ask the very pool that the drilled row would send everything to."""
        row = self._row(experiment)
        endpoints = self._ports.endpoints(row.target) if row else ()
        for endpoint in endpoints:
            if await self._ports.answers(endpoint):
                return True
        return False if endpoints else None

    def _period_s(self, objective: str) -> float:
        return next(o.window for o in self._ports.policy.objectives if o.name == objective).total_seconds()

    def _frozen(self, plan: DrillPlan) -> str:
        """Return the freeze that today is in, by the calendar of the plan's time zone."""
        freezes = [freeze for other in (*self._ports.policy.drills.values(), plan) for freeze in other.freeze]
        return frozen(freezes, self._ports.now().astimezone(ZoneInfo(plan.at.timezone)).date())

    async def _clock_off_s(self) -> float | None:
        jump, apart = self._ports.clock.off_s, await _or_none(self._ports.database_off_s())
        return None if jump is None or apart is None else max((jump, apart[0]), key=abs)


def _page(path: Path) -> Mapping[str, Any]:
    try:
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"cannot read {path}", str(error), "mend the file") from error
    return page if isinstance(page, Mapping) else {}


async def _or_none(asked: Awaitable[T]) -> tuple[T] | None:
    """Return an answer of the store in a tuple of one, or None when the store refuses."""
    try:
        return (await asked,)
    except StoreError as error:
        log.error("fact unknown", what=error.what, why=error.why)
        return None


def _only(found: tuple[str] | None) -> str | None:
    return None if found is None else found[0]
