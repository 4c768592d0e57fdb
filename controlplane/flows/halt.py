"""The journey of a halt: stored first, then every drill is told to stop, then every fault is ended, all at once.

Called through the API, the console and the command line. A halt holds for every control plane on the database and
survives a restart; nothing new starts until it is resumed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from controlplane.chaos.drill import DrillBook, Halt, HaltBook, Outcome
from controlplane.chaos.fault import FaultDriver, Lease, LeaseBook, LeaseState
from controlplane.errors import FaultError, StoreError
from controlplane.flows.faults import REVERT_WITHIN_S, Stops

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
    now: Callable[[], datetime]


async def halt(ports: HaltPorts, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
    """Stop every drill, end every fault, and block new drills.

    A store that refuses does not keep the faults from being ended; the error is raised after they are.

    Returns:
        The halt in force, and what was done, one line a fault.

    Raises:
        StoreError: when the halt could not be stored: nothing is broken any more, but new drills are not blocked.
    """
    given, trouble = Halt(why, by, ports.now()), None
    try:
        await ports.halts.halt(given)
        for drill in await ports.drills.recent(RECENT):
            if drill.outcome is Outcome.RUNNING:
                ports.stops.stop(drill.id, f"halted by {by}: {why}")
    except StoreError as error:
        trouble = error
    leases = await ports.leases.open_leases()
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
    await ports.leases.move(lease.id, LeaseState.HEALED, ports.now(), text)
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
