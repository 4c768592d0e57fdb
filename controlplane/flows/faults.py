"""The part of a drill that touches the fleet: leases stored first, then the harm, its proof, and its end.

Called by the drill's journey and, through the API, by the experiment's steps. Nothing here trusts whoever asks: every
request is held against the halt, the drill's own stop, the longest lease and the blast radius.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import uuid4

import structlog

from controlplane.chaos.drill import Drill, DrillLog, Event, HaltBook, Outcome
from controlplane.chaos.fault import MAX_LEASE, FaultDriver, FaultKind, Lease, LeaseBook, LeaseState, Setting
from controlplane.chaos.redundancy import BlastRadius, chosen
from controlplane.errors import ControlplaneError, FaultError, StoreError, UsageError
from controlplane.fleet.model import CONTROLPLANE_POOL, Endpoint

REVERT_WITHIN_S = 5.0
"""A driver that takes longer to end one fault is given up for now; the next round asks it again."""
HEAL_WITHIN_S = 60.0
"""How long the fleet has to come back after the last lease ended."""
POLL_S = 0.1

T = TypeVar("T")

log = structlog.get_logger("drill")


class Stops:
    """Which drills of this process have been told to stop, and why; the first reason stays."""

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def stop(self, drill_id: str, why: str) -> None:
        """Tell a drill to stop; from now on it injects nothing."""
        self._why.setdefault(drill_id, why)

    def why(self, drill_id: str) -> str:
        """Return why a drill was told to stop, or an empty string."""
        return self._why.get(drill_id, "")

    def forget(self, drill_id: str) -> None:
        """Forget a drill that has ended: what is stored says so from now on."""
        self._why.pop(drill_id, None)


class OwnLeases:
    """The leases of this process's drills that nobody has closed, as far as it knows.

    What is stored counts; this is what faults are ended by while the database cannot be read.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Lease] = {}

    def keep(self, lease: Lease) -> None:
        """Remember a lease that has been stored; nothing is touched yet."""
        self._kept[lease.id] = lease

    def close(self, lease_id: str) -> None:
        """Forget a lease whose fault left nothing behind."""
        self._kept.pop(lease_id, None)

    def forget(self, drill_id: str) -> None:
        """Forget a drill that this process walks no more: what it left is ended by whoever recovers."""
        self._kept = {key: lease for key, lease in self._kept.items() if lease.drill_id != drill_id}

    def all(self) -> tuple[Lease, ...]:
        """Return every lease, oldest first."""
        return tuple(self._kept.values())

    def of_drill(self, drill_id: str) -> tuple[Lease, ...]:
        """Return the leases of one drill, oldest first."""
        return tuple(lease for lease in self._kept.values() if lease.drill_id == drill_id)


@dataclass(frozen=True, slots=True)
class FaultPorts:
    """What injecting and healing touch."""

    leases: LeaseBook
    log: DrillLog
    halts: HaltBook
    driver: FaultDriver | None
    """None when the page names no substrate: nothing can be broken."""
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    """The endpoints of a pool, by its name."""
    fleet: Callable[[], int]
    """How many endpoints the fleet has."""
    radius: Callable[[str], BlastRadius]
    """How much an experiment may take away, by its name."""
    now: Callable[[], datetime]
    stops: Stops = field(default_factory=Stops)
    own: OwnLeases = field(default_factory=OwnLeases)


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


async def inject(ports: FaultPorts, drill: Drill, request: FaultRequest) -> tuple[Lease, ...]:
    """Inject one kind of fault into a share of a pool: leases stored first, then the harm, then the proof.

    Returns:
        The leases; one that is `injected` and not `proven` could not be proven from outside.

    Raises:
        UsageError: when the request is not allowed, or there is nothing to break.
        FaultError: when an injection failed, or the drill was stopped meanwhile; what had been injected is healed.
        StoreError: when the database refused; what had been injected is healed.
    """
    driver, targets = await _allowed(ports, drill, request)
    leases = [_lease(drill, request, endpoint, ports.now()) for endpoint in targets]
    for lease in leases:
        await ports.leases.intend(lease)
        ports.own.keep(lease)
    try:
        injected = await _each(_inject_one(ports, driver, lease) for lease in leases)
        why = await _stopped(ports, drill)
        if why:
            raise FaultError("the drill was stopped while it injected", why, "what it had broken is healed")
        return await _each(_prove_one(ports, driver, lease) for lease in injected)
    except ControlplaneError:
        await heal(ports, drill.id)
        raise


async def _each(work: Iterable[Awaitable[T]]) -> tuple[T, ...]:
    """Do several things at once, each to its end: an injection that is broken off midway may still do its harm.

    Raises:
        ControlplaneError: the first of them, once nothing is under way any more.
    """
    done = await asyncio.gather(*work, return_exceptions=True)
    failed = next((one for one in done if isinstance(one, BaseException)), None)
    if failed:
        raise failed
    return tuple(one for one in done if not isinstance(one, BaseException))


async def _allowed(ports: FaultPorts, drill: Drill, request: FaultRequest) -> tuple[FaultDriver, tuple[Endpoint, ...]]:
    """Return what to break with and what to break, or refuse."""
    if drill.outcome is not Outcome.RUNNING:
        raise UsageError(f"drill {drill.id} has ended", f"it ended as {drill.outcome}", "start a new one")
    why = await _stopped(ports, drill)
    if why:
        raise UsageError(f"drill {drill.id} is being stopped", why, "start a new one when the reason is gone")
    if not timedelta(0) < request.lasts <= MAX_LEASE:
        raise UsageError(
            f"a fault may not last {request.lasts}", f"the longest lease is {MAX_LEASE}", "ask for a shorter one"
        )
    endpoints = ports.endpoints(request.pool)
    targets = endpoints[: chosen([e.name for e in endpoints], request.share)]
    if request.only:
        targets = tuple(endpoint for endpoint in endpoints if endpoint.name in request.only)
    gone = sorted(set(request.only) - {endpoint.name for endpoint in targets})
    if not targets or gone or ports.driver is None:
        raise UsageError(
            f"nothing to break in pool {request.pool}", f"it has no {', '.join(gone) or 'endpoints'}",
            "check `fleet.pools` and its inventory",
        )  # fmt: skip
    hit = (*(lease.endpoint for lease in await ports.leases.open_leases()), *targets)
    broken = {endpoint.name for endpoint in hit if endpoint.pool != CONTROLPLANE_POOL}
    if request.kind is FaultKind.NODE_KILL:  # Whatever else stands on a node goes with it.
        nodes = {endpoint.node for endpoint in targets if endpoint.node}
        broken |= {endpoint.name for endpoint in endpoints if endpoint.node in nodes}
    radius, total = ports.radius(drill.experiment), ports.fleet()
    if total and len(broken) / total > radius.endpoints:
        raise UsageError(
            f"{len(broken)} of {total} endpoints would be broken at once",
            f"the blast radius is {radius.endpoints:.0%} of the endpoints",
            "break fewer, or raise `blast_radius: { endpoints: ... }` of the plan",
        )
    return ports.driver, targets


async def _stopped(ports: FaultPorts, drill: Drill) -> str:
    """Return why a drill may break nothing any more, or an empty string."""
    if drill.called_off:  # At another control plane; the watch sees it a moment later.
        ports.stops.stop(drill.id, drill.called_off)
    halt = await ports.halts.current()
    if halt:  # It may be resumed before the watch looks: the drill has been refused a step all the same.
        ports.stops.stop(drill.id, f"halted by {halt.by}: {halt.why}")
    return ports.stops.why(drill.id)


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


async def _inject_one(ports: FaultPorts, driver: FaultDriver, lease: Lease) -> Lease:
    """Break one endpoint. The moment before the harm counts as the fault's: what follows cannot be older than it.

    Raises:
        FaultError: when it failed, or a halt closed the lease before there was anything to end: whoever ends faults
            goes by open leases, so that nobody else would look at this one again.
    """
    at = ports.now()
    text = await driver.apply(lease)
    log.info("injected", lease=lease.id, what=text)
    await ports.log.note(lease.drill_id, Event(at, "fault", f"{lease.kind} on {lease.endpoint.name}: {text}"))
    stored = await ports.leases.move(lease.id, LeaseState.INJECTED, at, text)
    if not stored.open:
        what = f"{lease.kind} on {lease.endpoint.name} was called off while it was injected"
        raise FaultError(what, "its lease was closed meanwhile", await _heal_one(driver, lease))
    return stored


async def _prove_one(ports: FaultPorts, driver: FaultDriver, lease: Lease) -> Lease:
    proof = await driver.prove(lease)
    return await ports.leases.move(lease.id, LeaseState.PROVEN, ports.now(), proof) if proof else lease


async def heal(ports: FaultPorts, drill_id: str) -> tuple[str, ...]:
    """End every fault of a drill now, all at once; what is over stays over.

    Returns:
        What was done, one line a fault. A lease is closed only when nothing of its fault is left.
    """
    try:
        leases = tuple(lease for lease in await ports.leases.of_drill(drill_id) if lease.open)
    except StoreError as error:  # What this process has broken itself it knows without being told.
        log.error("leases unknown", drill=drill_id, what=error.what, why=error.why, fix=error.fix)
        leases = ports.own.of_drill(drill_id)
    if ports.driver is None:
        return tuple(f"{lease.endpoint.name}: cannot be healed: no substrate" for lease in leases)
    return await _each(_heal_one(ports.driver, lease) for lease in leases)


async def _heal_one(driver: FaultDriver, lease: Lease) -> str:
    try:
        async with asyncio.timeout(REVERT_WITHIN_S):
            return f"{lease.endpoint.name}: {await driver.revert(lease)}"
    except (FaultError, TimeoutError) as error:
        what = error.what if isinstance(error, FaultError) else f"no end within {REVERT_WITHIN_S:g} s"
        log.error("not healed", lease=lease.id, why=what)
        return f"{lease.endpoint.name}: not healed: {what}"


async def close_as_they_end(ports: FaultPorts, drill_id: str) -> None:
    """Close each lease in the moment its fault is over, so that `healed` is when it happened."""
    while True:
        await asyncio.sleep(POLL_S)
        leases = await ports.leases.of_drill(drill_id)
        await _close(ports, tuple(lease for lease in leases if lease.injected_at and lease.deadline <= ports.now()))


async def until_healed(ports: FaultPorts, drill_id: str, within_s: float = HEAL_WITHIN_S) -> tuple[str, ...]:
    """End a drill's faults until every lease of it is closed.

    A step that was under way when the drill ended may still break something: it is healed as the rest.

    Returns:
        What is left of them when the time is over, one text a fault.
    """
    deadline = ports.now() + timedelta(seconds=within_s)
    residues: tuple[str, ...] = ("not looked at",)
    while residues:
        await heal(ports, drill_id)
        residues = await _close(ports, await ports.leases.of_drill(drill_id))
        if ports.now() >= deadline:
            break
        if residues:
            await asyncio.sleep(POLL_S)
    return residues


async def _close(ports: FaultPorts, leases: tuple[Lease, ...]) -> tuple[str, ...]:
    """Close the open leases that left nothing behind; return what the others left."""
    found = await _each(_close_one(ports, lease) for lease in leases if lease.open)
    return tuple(left for left in found if left)


async def _close_one(ports: FaultPorts, lease: Lease) -> str:
    if ports.driver is None:
        return f"{lease.endpoint.name}: no substrate to ask"
    try:
        async with asyncio.timeout(REVERT_WITHIN_S):
            left = await ports.driver.residue(lease)
    except (FaultError, TimeoutError) as error:
        return f"{lease.endpoint.name}: cannot be asked: {error}"
    if not left:
        closed = await ports.leases.move(lease.id, LeaseState.HEALED, ports.now(), "nothing left")
        ports.own.close(lease.id)
        await ports.log.note(
            lease.drill_id,
            Event(closed.healed_at or ports.now(), "heal", f"{lease.kind} on {lease.endpoint.name}: nothing left"),
        )
    return left


def open_by_kind(leases: tuple[Lease, ...]) -> Mapping[FaultKind, int]:
    """Count leases by their kind; every kind is there."""
    return {kind: sum(1 for lease in leases if lease.kind is kind) for kind in FaultKind}
