"""The journey of a halt: our drills are told to stop, it is stored, then every fault is ended, all at once.

Called through the API, the console and the command line. A halt holds for every control plane on the database and
survives a restart; nothing new starts until it is resumed.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import structlog

from controlplane.chaos.drill import DrillBook, Halt, HaltBook, Outcome
from controlplane.chaos.fault import FaultDriver, Lease, LeaseBook, LeaseState
from controlplane.errors import FaultError, StoreError
from controlplane.flows.faults import REVERT_WITHIN_S, OwnLeases, Stops

RECENT = 20

log = structlog.get_logger("halt")


@dataclass(frozen=True, slots=True)
class HaltPorts:
    """What this journey touches."""

    halts: HaltBook
    drills: DrillBook
    leases: LeaseBook
    driver: FaultDriver | None
    stops: Stops
    own: OwnLeases
    """What faults are ended by where the leases cannot be read."""
    walked: Collection[str]
    """Ids of the drills that this process walks."""
    now: Callable[[], datetime]


async def halt(ports: HaltPorts, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
    """Stop every drill, end every fault, and block new drills.

    A store that refuses does not keep the faults of this process from being ended; the error is raised after they are.

    Returns:
        The halt in force, and what was done, one line a fault.

    Raises:
        StoreError: when the halt could not be stored, or the leases could not be read: what this process has broken is
            ended, but new drills may not be blocked, and a fault of another control plane may be in force.
    """
    given, told, trouble = Halt(why, by, ports.now()), f"halted by {by}: {why}", None
    for drill_id in ports.walked:
        ports.stops.stop(drill_id, told)
    try:
        await ports.halts.halt(given)
        for drill in await ports.drills.recent(RECENT):
            if drill.outcome is Outcome.RUNNING:
                ports.stops.stop(drill.id, told)
                await ports.drills.call_off(drill.id, told)  # Whoever runs it may look only after the halt is over.
    except StoreError as error:
        trouble = error
    try:
        leases = await ports.leases.open_leases()
    except StoreError as error:
        leases, trouble = ports.own.all(), error
    log.warning("halted", why=why, by=by, faults=len(leases))
    done = tuple(await asyncio.gather(*(_end(ports, lease) for lease in leases)))
    if trouble:
        raise trouble
    return await ports.halts.current() or given, done


async def _end(ports: HaltPorts, lease: Lease) -> str:
    """End one fault; its lease is closed once nothing of it is left."""
    what = f"{lease.kind} on {lease.endpoint.name}"
    if ports.driver is None:
        return f"{what}: cannot be healed: the page names no `fleet.substrate`"
    try:
        async with asyncio.timeout(REVERT_WITHIN_S):
            text = await ports.driver.revert(lease)
            left = await ports.driver.residue(lease)
    except (FaultError, TimeoutError) as error:
        log.error("not healed", lease=lease.id, why=str(error))
        return f"{what}: not healed: {error}; it is tried again every few seconds"
    if left:
        return f"{what}: {text}; waiting: {left}"
    try:
        await ports.leases.move(lease.id, LeaseState.HEALED, ports.now(), text)
    except StoreError as error:
        log.error("not recorded", lease=lease.id, what=error.what, why=error.why)
        return f"{what}: {text}; ended, but not recorded: {error.why}"
    ports.own.close(lease.id)
    return f"{what}: {text}; healed"


async def resume(ports: HaltPorts, by: str) -> Halt | None:
    """Let drills start again.

    Returns:
        The halt that was in force, or None when there was none.
    """
    ended = await ports.halts.resume(by, ports.now())
    if ended:
        log.info("resumed", by=by, halted=ended.why)
    return ended
