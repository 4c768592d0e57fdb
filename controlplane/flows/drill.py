"""The journey of a drill: gates -> lease stored -> fault injected and proven -> healed -> residue checked -> judged.

Chaos Toolkit walks the experiment in a child process and asks back for each fault; the faults, the leases, the times
and the verdict are ours, whatever becomes of the child.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import structlog

from controlplane.chaos.drill import Drill, DrillBook, DrillPhase, Facts, Outcome, RowTimes, judge, time_phases
from controlplane.chaos.experiment import Experiment, Walk
from controlplane.chaos.fault import MAX_LEASE, FaultDriver, FaultKind, Lease, LeaseBook, LeaseState, Setting
from controlplane.chaos.safety import GateFacts, GateSpec, Go, Refusal, gate
from controlplane.errors import ControlplaneError, FaultError, UsageError
from controlplane.fleet.model import Endpoint

WALK_LIMIT = timedelta(minutes=15)
"""A child that has not ended by then is killed."""
HEAL_WITHIN_S = 60.0
"""How long the fleet has to come back after the last lease ended."""
POLL_S = 0.1

log = structlog.get_logger("drill")


@dataclass(frozen=True, slots=True)
class DrillPorts:
    """What this journey touches."""

    drills: DrillBook
    leases: LeaseBook
    driver: FaultDriver | None
    """None when the page names no substrate: no drill can be run."""
    walk: Callable[[Path, str, Path, float], Awaitable[Walk]]
    """Runs an experiment's file for a drill: (experiment, drill id, journal, limit in seconds)."""
    experiment: Callable[[str], tuple[Experiment, Path]]
    """Finds and checks an experiment by its name."""
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    """The endpoints of a pool, by its name."""
    facts: Callable[[str], Awaitable[GateFacts]]
    """What the gates look at, now, for a drill of a row."""
    row_times: Callable[[str, datetime], Awaitable[RowTimes | None]]
    """The first engagement of a row that was decided after a moment."""
    recovered: Callable[[str, datetime], Awaitable[datetime | None]]
    """When a row that was decided after a moment had given everything back, if it has."""
    objective: Callable[[str], timedelta | None]
    """What a row promises; None when the page has no such row."""
    published: Callable[[Drill], Awaitable[None]]
    """Renders the runbooks anew with the drill as evidence."""
    journals: Path
    """The directory that journals go to."""
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """What an experiment asks for."""

    kind: FaultKind
    pool: str
    share: float
    """Share (0..1) of the pool's endpoints; at least one is taken."""
    lasts: timedelta
    only: tuple[str, ...] = ()
    """Names of the endpoints to break; empty takes the share."""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    """How the fault is to be; every one of its kind's, settled."""


async def start(
    ports: DrillPorts, name: str, spec: GateSpec, requested_by: str, slot: str = ""
) -> tuple[Drill, Path] | Refusal:
    """Ask the gates and store the drill; nothing is touched yet.

    Returns:
        The drill and its experiment's file, or every reason why not.

    Raises:
        UsageError: when there is no such experiment, or it proves a row the page does not have.
    """
    experiment, path = ports.experiment(name)
    objective = ports.objective(experiment.row)
    if objective is None:
        raise UsageError(
            f"{name} proves row {experiment.row}, which is not armed", "the policy page has no such row, or no pool",
            "add the pool it needs to `fleet.pools`",
        )  # fmt: skip
    if ports.driver is None:
        raise UsageError(
            "this fleet cannot be drilled", "the page does not say where it runs", "add `fleet.substrate` to the page"
        )
    asked = gate(spec, await ports.facts(experiment.row))
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
        return Refusal((f"slot {slot} has been run already",))
    log.info("started", drill=drill.id, experiment=name, gates=asked.seen if isinstance(asked, Go) else ())
    return drill, path


async def run(ports: DrillPorts, drill: Drill, path: Path) -> Drill:
    """Walk a started drill to its end, judge it, and publish what it proved."""
    walk = Walk("", deviated=False, failed_activities=())
    trouble: tuple[str, ...] = ()
    watch = asyncio.create_task(_close_as_they_end(ports, drill.id))
    try:
        walk = await ports.walk(path, drill.id, Path(drill.journal), WALK_LIMIT.total_seconds())
    except ControlplaneError as error:
        trouble = (f"{error.what}: {error.why}",)
    finally:
        watch.cancel()
        await heal(ports, drill.id)
    residues = await _wait_until_healed(ports, drill.id)
    leases = await ports.leases.of_drill(drill.id)
    phases = await _phases(ports, drill, leases)
    facts = Facts(
        phases=phases,
        injected=sum(1 for lease in leases if lease.injected_at),
        proven=sum(1 for lease in leases if lease.proven_at),
        objective=drill.objective,
        residues=residues,
        journal_status=walk.status,
        deviated=walk.deviated,
        failed_activities=walk.failed_activities,
    )
    outcome, reasons = judge(facts)
    ended = replace(drill, outcome=outcome, reasons=(*trouble, *reasons), ended_at=ports.now(), phases=phases)
    await ports.drills.end(ended)
    log.info("ended", drill=drill.id, outcome=outcome, reasons=ended.reasons)
    await ports.published(ended)
    return ended


async def _phases(ports: DrillPorts, drill: Drill, leases: tuple[Lease, ...]) -> dict[DrillPhase, datetime]:
    injected = [lease.injected_at for lease in leases if lease.injected_at]
    if not injected:
        return {}
    fault = min(injected)
    times = await ports.row_times(drill.row, fault)
    recovered = await ports.recovered(drill.row, fault)
    return time_phases(leases, times, recovered)


async def inject(ports: DrillPorts, drill: Drill, request: FaultRequest) -> tuple[Lease, ...]:
    """Inject one kind of fault into a share of a pool: leases stored first, then the harm, then the proof.

    Returns:
        The leases; one that is `injected` and not `proven` could not be proven from outside.

    Raises:
        UsageError: when the request is not allowed, or there is nothing to break.
        FaultError: when an injection failed; what had been injected is healed again.
    """
    if drill.outcome is not Outcome.RUNNING:
        raise UsageError(f"drill {drill.id} has ended", f"it ended as {drill.outcome}", "start a new one")
    if not timedelta(0) < request.lasts <= MAX_LEASE:
        raise UsageError(
            f"a fault may not last {request.lasts}", f"the longest lease is {MAX_LEASE}", "ask for a shorter one"
        )
    endpoints = ports.endpoints(request.pool)
    chosen = endpoints[: max(1, round(len(endpoints) * request.share))]
    if request.only:
        chosen = tuple(endpoint for endpoint in endpoints if endpoint.name in request.only)
    gone = sorted(set(request.only) - {endpoint.name for endpoint in chosen})
    if not chosen or gone or ports.driver is None:
        raise UsageError(
            f"nothing to break in pool {request.pool}", f"it has no {', '.join(gone) or 'endpoints'}",
            "check `fleet.pools` and its inventory",
        )  # fmt: skip
    leases = [_lease(drill, request, endpoint, ports.now()) for endpoint in chosen]
    for lease in leases:
        await ports.leases.intend(lease)
    try:
        injected = await asyncio.gather(*(_inject_one(ports, ports.driver, lease) for lease in leases))
    except FaultError:
        await heal(ports, drill.id)
        raise
    return tuple(await asyncio.gather(*(_prove_one(ports, ports.driver, lease) for lease in injected)))


def _lease(drill: Drill, request: FaultRequest, endpoint: Endpoint, now: datetime) -> Lease:
    return Lease(
        id=f"{drill.id}-{endpoint.name}-{uuid4().hex[:6]}",
        drill_id=drill.id,
        kind=request.kind,
        endpoint=endpoint,
        deadline=now + request.lasts,
        state=LeaseState.INTENDED,
        intended_at=now,
        parameters=request.parameters,
    )


async def _inject_one(ports: DrillPorts, driver: FaultDriver, lease: Lease) -> Lease:
    """Break one endpoint. The moment before the harm counts as the fault's: what follows cannot be older than it."""
    at = ports.now()
    text = await driver.apply(lease)
    log.info("injected", lease=lease.id, what=text)
    return await ports.leases.move(lease.id, LeaseState.INJECTED, at, text)


async def _prove_one(ports: DrillPorts, driver: FaultDriver, lease: Lease) -> Lease:
    proof = await driver.prove(lease)
    return await ports.leases.move(lease.id, LeaseState.PROVEN, ports.now(), proof) if proof else lease


async def heal(ports: DrillPorts, drill_id: str) -> tuple[str, ...]:
    """End every fault of a drill now; what is over stays over. A lease is closed when nothing of it is left."""
    done = []
    for lease in await ports.leases.of_drill(drill_id):
        if lease.open and ports.driver:
            try:
                done.append(f"{lease.endpoint.name}: {await ports.driver.revert(lease)}")
            except FaultError as error:
                log.error("not healed", lease=lease.id, why=error.what)
                done.append(f"{lease.endpoint.name}: not healed: {error.what}")
    return tuple(done)


async def _close_as_they_end(ports: DrillPorts, drill_id: str) -> None:
    """Close each lease in the moment its fault is over, so that `healed` is when it happened."""
    while True:
        await asyncio.sleep(POLL_S)
        leases = await ports.leases.of_drill(drill_id)
        await _close(ports, tuple(lease for lease in leases if lease.injected_at and lease.deadline <= ports.now()))


async def _close(ports: DrillPorts, leases: tuple[Lease, ...]) -> tuple[str, ...]:
    """Close the open leases that left nothing behind; return what the others left."""
    residues = []
    for lease in leases:
        if not lease.open or ports.driver is None:
            continue
        left = await ports.driver.residue(lease)
        if left:
            residues.append(left)
        else:
            await ports.leases.move(lease.id, LeaseState.HEALED, ports.now(), "nothing left")
    return tuple(residues)


async def _wait_until_healed(ports: DrillPorts, drill_id: str) -> tuple[str, ...]:
    """Wait until every lease of a drill is closed; return what is left when the time is over."""
    deadline = ports.now() + timedelta(seconds=HEAL_WITHIN_S)
    residues = await _close(ports, await ports.leases.of_drill(drill_id))
    while residues and ports.now() < deadline:
        await asyncio.sleep(POLL_S)
        residues = await _close(ports, await ports.leases.of_drill(drill_id))
    return residues
