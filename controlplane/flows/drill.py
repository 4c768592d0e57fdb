"""The journey of a drill: gates -> lease stored -> fault injected and proven -> healed -> residue checked -> judged.

Chaos Toolkit walks the experiment in a child process and asks back for each fault; the faults (`flows.faults`), the
guards (`flows.watch`), the times and the verdict are ours, whatever becomes of the child.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import structlog

from controlplane.chaos.contract import Contract
from controlplane.chaos.drill import (
    NO_ROW,
    Drill,
    DrillBook,
    DrillLog,
    DrillPhase,
    Event,
    Facts,
    RowTimes,
    judge,
    time_phases,
)
from controlplane.chaos.experiment import Experiment, Walk
from controlplane.chaos.fault import Lease
from controlplane.chaos.guard import Guard
from controlplane.chaos.redundancy import Preview
from controlplane.chaos.safety import GateFacts, Go, Refusal, gate
from controlplane.errors import ControlplaneError, FencedError, StoreError, UsageError
from controlplane.flows.alerts import AlertPorts, Watched, follow, settle
from controlplane.flows.faults import FaultPorts, close_as_they_end, heal, until_healed
from controlplane.flows.notes import note
from controlplane.flows.watch import Users, WatchPorts, watch
from controlplane.policy.model import DrillPlan

WALK_LIMIT = timedelta(minutes=15)
"""A child that has not ended by then is killed; what its steps say that they wait for is not counted."""
VERIFIED_WITHIN_S = 10.0
"""A drill that was stopped has to be proven healed within this; what takes longer is said."""
SETTLE_S = 5.0
"""How long a gate may be closed only because something is not known yet, before that is the answer."""
STORE_AGAIN_S = 1.0
"""How long a database that refuses is left alone before it is asked again."""

T = TypeVar("T")

log = structlog.get_logger("drill")


@dataclass(frozen=True, slots=True)
class Order:
    """What the runner is asked to walk."""

    drill_id: str
    experiment: Path
    journal: Path
    limit_s: float
    """Seconds after which the child is killed, besides those that its steps say they wait for."""
    note: Callable[[str], Awaitable[None]]
    """Stores a step as it happens."""


@dataclass(frozen=True, slots=True)
class DrillPorts:
    """What this journey touches."""

    drills: DrillBook
    log: DrillLog
    faults: FaultPorts
    watching: WatchPorts
    alerts: AlertPorts
    walk: Callable[[Order], Awaitable[Walk]]
    """Runs an experiment's file for a drill."""
    experiment: Callable[[str], tuple[Experiment, Path]]
    """Finds and checks an experiment by its name."""
    preview: Callable[[Experiment, Path, DrillPlan], Preview]
    """What the experiment would do to the fleet as it stands."""
    facts: Callable[[Experiment, Preview, DrillPlan], Awaitable[GateFacts]]
    """What the gates look at, now."""
    row_times: Callable[[str, datetime], Awaitable[RowTimes | None]]
    """The first engagement of a row that was decided after a moment."""
    recovered: Callable[[str, datetime], Awaitable[datetime | None]]
    """When a row that was decided after a moment had given everything back, if it has."""
    objective: Callable[[str], timedelta | None]
    """What a row promises; None when the page has no such row."""
    published: Callable[[Drill], Awaitable[None]]
    """Renders the runbooks anew with the drill as evidence, and writes its report."""
    journals: Path
    """The directory that journals go to."""
    now: Callable[[], datetime]
    walked: set[str] = field(default_factory=set)
    """Ids of the drills that this process walks; one that runs and is not among them is called off by `recover`."""


@dataclass(frozen=True, slots=True)
class Started:
    """A drill that passed its gates and is stored; nothing is touched yet."""

    drill: Drill
    experiment: Experiment
    path: Path
    guards: Mapping[str, Guard]


async def start(ports: DrillPorts, name: str, plan: DrillPlan, requested_by: str, slot: str = "") -> Started | Refusal:
    """Ask the gates and store the drill; nothing is touched yet.

    Returns:
        The drill with its experiment, or every reason why not.

    Raises:
        UsageError: when there is no such experiment, or it proves a row the page does not have.
    """
    experiment, path = ports.experiment(name)
    objective = _objective(ports, experiment)
    asked = await _ask_gates(ports, experiment, path, plan)
    if isinstance(asked, Refusal):
        log.warning("refused", experiment=name, reasons=asked.reasons)
        return asked
    drill = Drill(
        id=uuid4().hex[:12],
        experiment=name,
        row=experiment.row,
        objective=objective,
        requested_by=requested_by,
        started_at=ports.now(),
        slot=slot,
        journal=str(ports.journals / f"{name}-{ports.now():%Y%m%dT%H%M%SZ}.json"),
    )
    if not await ports.drills.begin(drill):
        return Refusal((f"slot {slot} has been run already" if slot else "another drill began at the same moment",))
    log.info("started", drill=drill.id, experiment=name, gates=asked.seen)
    await _note(ports, drill, "gate", "; ".join(asked.seen), drill.started_at)
    return Started(drill, experiment, path, plan.guards)


async def dry_run(ports: DrillPorts, name: str, plan: DrillPlan) -> tuple[Preview, Go | Refusal]:
    """Say what a drill would do and what the gates say now; touches and stores nothing.

    Raises:
        UsageError: as `start`.
    """
    experiment, path = ports.experiment(name)
    _objective(ports, experiment)
    preview = ports.preview(experiment, path, plan)
    return preview, gate(plan.gates, await ports.facts(experiment, preview, plan))


def _objective(ports: DrillPorts, experiment: Experiment) -> timedelta:
    objective = timedelta(0) if experiment.row == NO_ROW else ports.objective(experiment.row)
    if objective is None:
        raise UsageError(
            f"{experiment.name} proves row {experiment.row}, which is not armed",
            "the policy page has no such row, or no pool",
            "add the pool it needs to `fleet.pools`",
        )
    if ports.faults.driver is None:
        raise UsageError(
            "this fleet cannot be drilled", "the page does not say where it runs", "add `fleet.substrate` to the page"
        )
    return objective


async def _ask_gates(ports: DrillPorts, experiment: Experiment, path: Path, plan: DrillPlan) -> Go | Refusal:
    """Ask every gate; one that is closed only because something is not known yet is asked again for a moment."""
    until = ports.now() + timedelta(seconds=SETTLE_S)
    while True:
        preview = ports.preview(experiment, path, plan)
        asked = gate(plan.gates, await ports.facts(experiment, preview, plan))
        if isinstance(asked, Go) or not asked.only_unknown or ports.now() >= until:
            return asked
        await asyncio.sleep(0.25)


async def run(ports: DrillPorts, started: Started) -> Drill:
    """Walk a started drill to its end, judge it, and publish what it proved.

    A database that refuses ends the faults as any reason to stop does, and is asked until the end is stored.

    Raises:
        FencedError: when another control plane has taken over; it has called the drill off, and ends its faults.
    """
    ports.walked.add(started.drill.id)
    try:
        return await _see_through(ports, started)
    finally:
        ports.walked.discard(started.drill.id)
        ports.faults.own.forget(started.drill.id)


async def _see_through(ports: DrillPorts, started: Started) -> Drill:
    drill = started.drill
    users = Users(ports.watching.counted())
    contract = Contract(started.experiment.expected_alerts, started.experiment.forbidden_alerts)
    watched = Watched()
    following = asyncio.create_task(follow(ports.alerts, drill, contract, watched))
    try:
        walk, trouble, stopped = await _walk_watched(ports, started, users)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    residues = await _settle(ports, drill, stopped)
    leases = await _tried(drill, lambda: ports.faults.leases.of_drill(drill.id))
    users.take(leases, ports.watching.counted(), ports.watching.readings())
    phases = await _tried(drill, lambda: _phases(ports, drill, leases))
    alerts = await settle(ports.alerts, drill, contract, watched)
    stopped = stopped or await _told_to_stop(ports, drill)
    facts = Facts(
        phases=phases,
        injected=sum(1 for lease in leases if lease.injected_at),
        proven=sum(1 for lease in leases if lease.proven_at),
        objective=drill.objective,
        residues=residues,
        journal_status=walk.status,
        deviated=walk.deviated,
        failed_activities=walk.failed_activities,
        proves_row=drill.row != NO_ROW,
        stopped=stopped,
        alerts=alerts,
    )
    outcome, reasons = judge(facts)
    ended = replace(
        drill, outcome=outcome, reasons=(*trouble, *reasons), ended_at=ports.now(), phases=phases, users=users.parts
    )
    ended = await _store(ports, ended)
    log.info("ended", drill=drill.id, outcome=ended.outcome, reasons=ended.reasons)
    try:
        await ports.published(ended)
    except ControlplaneError as error:  # What is stored stands; pages are written anew the next time.
        log.error("not published", drill=drill.id, what=error.what, why=error.why, fix=error.fix)
    return ended


async def _walk_watched(ports: DrillPorts, started: Started, users: Users) -> tuple[Walk, tuple[str, ...], str]:
    """Let the child walk under the eyes of the guards; when they say stop, faults end first and the child second.

    Returns:
        What the child says, what went wrong with it, and why the run was stopped (empty when it ended by itself).
    """
    drill, stopped = started.drill, ""
    step = partial(_note, ports, drill, "step")
    order = Order(drill.id, started.path, Path(drill.journal), WALK_LIMIT.total_seconds(), step)
    walking = asyncio.ensure_future(ports.walk(order))
    watching = asyncio.create_task(watch(ports.watching, drill, started.guards, users))
    closing = asyncio.create_task(_tried(drill, lambda: close_as_they_end(ports.faults, drill.id)))
    try:
        await asyncio.wait((walking, watching), return_when=asyncio.FIRST_COMPLETED)
        # A step that is refused because the drill was told to stop may end the child before the watch has seen it.
        stopped = _why(watching) if watching.done() else ports.faults.stops.why(drill.id)
        if stopped:
            at = ports.now()
            ports.faults.stops.stop(drill.id, stopped)
            ended = await heal(ports.faults, drill.id)
            log.warning("stopped", drill=drill.id, why=stopped, ended=ended)
            await _note(ports, drill, "guard", f"stopped: {stopped}", at)
            await _note(ports, drill, "heal", "every fault was told to end")
    finally:
        for task in (walking, watching, closing):
            task.cancel()
        await heal(ports.faults, drill.id)
        await asyncio.gather(walking, watching, closing, return_exceptions=True)
    return (*_walked(walking), stopped)


async def _note(ports: DrillPorts, drill: Drill, kind: str, text: str, at: datetime | None = None) -> None:
    """Note something that happened, now unless it has a time of its own."""
    await note(ports.log, drill.id, Event(at or ports.now(), kind, text))


async def _tried(drill: Drill, work: Callable[[], Awaitable[T]]) -> T:
    """Do some work of a drill anew until the database lets it: one that stays running would close the gate for ever.

    Raises:
        FencedError: at once: what is left of the drill is the business of whoever has taken over.
    """
    trouble = ""
    while True:
        try:
            return await work()
        except FencedError:
            raise
        except StoreError as error:
            if error.why != trouble:
                log.error("the database refuses", drill=drill.id, what=error.what, why=error.why, fix=error.fix)
            trouble = error.why
            await asyncio.sleep(STORE_AGAIN_S)


def _why(watching: "asyncio.Task[str]") -> str:
    """Return what the watch said; a watch that failed is a reason of its own."""
    error = watching.exception()
    return f"the watch failed: {error!r}" if error else watching.result()


def _walked(walking: "asyncio.Future[Walk]") -> tuple[Walk, tuple[str, ...]]:
    nothing = Walk("", deviated=False, failed_activities=())
    if walking.cancelled():
        return nothing, ()
    error = walking.exception()
    if isinstance(error, ControlplaneError):
        return nothing, (f"{error.what}: {error.why}",)
    if error:
        raise error
    return walking.result(), ()


async def _settle(ports: DrillPorts, drill: Drill, stopped: str) -> tuple[str, ...]:
    """Wait until nothing is left of the drill's faults; say when a stopped drill's took longer than it may."""
    began = ports.now()
    if stopped:
        left = await _tried(drill, lambda: until_healed(ports.faults, drill.id, VERIFIED_WITHIN_S))
        if left or ports.now() - began > timedelta(seconds=VERIFIED_WITHIN_S):
            text = f"not proven healed within {VERIFIED_WITHIN_S:g} s of the stop"
            log.error("not healed", drill=drill.id, what=text)
            await _note(ports, drill, "heal", text)
    residues = await _tried(drill, lambda: until_healed(ports.faults, drill.id))
    took = (ports.now() - began).total_seconds()
    text = f"left behind: {'; '.join(residues)}" if residues else f"nothing left after {took:.2f} s"
    await _note(ports, drill, "heal", text)
    return residues


async def _told_to_stop(ports: DrillPorts, drill: Drill) -> str:
    """Return why a drill was told to stop after its last step, when no watch looks any more; empty when it was not."""
    stored = await _tried(drill, lambda: ports.drills.get(drill.id))
    return ports.faults.stops.why(drill.id) or (stored.called_off if stored else "")


async def _store(ports: DrillPorts, drill: Drill) -> Drill:
    """Store how a drill ended; tried until it is stored.

    Returns:
        The drill as it is stored: what another control plane, which had taken over meanwhile, says of it stands.
    """
    stored = await _tried(drill, lambda: ports.drills.end(drill))
    text = f"{stored.outcome} {'; '.join(stored.reasons)}".strip()
    await _tried(drill, lambda: ports.log.note(drill.id, Event(stored.ended_at or ports.now(), "end", text)))
    ports.faults.stops.forget(drill.id)
    return stored


async def _phases(ports: DrillPorts, drill: Drill, leases: tuple[Lease, ...]) -> dict[DrillPhase, datetime]:
    injected = [lease.injected_at for lease in leases if lease.injected_at]
    if not injected:
        return {}
    fault = min(injected)
    times = await ports.row_times(drill.row, fault)
    recovered = await ports.recovered(drill.row, fault)
    return time_phases(leases, times, recovered)
