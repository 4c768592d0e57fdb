"""The journey after a crash, and every few seconds: finish or undo what is half done, end faults that are overdue.

Nothing here trusts memory: it compares what is stored with what the gateway and the substrate show.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from controlplane.chaos.drill import DrillBook, Outcome
from controlplane.chaos.fault import FaultDriver, Lease, LeaseBook, LeaseState
from controlplane.degradation.actuator import (
    Actuator,
    Pull,
    Receipt,
    ReceiptBook,
    ReceiptState,
    RoutePlan,
    route,
)
from controlplane.degradation.matrix import Level, Row
from controlplane.errors import ActuatorError, FaultError

log = structlog.get_logger("recover")


@dataclass(frozen=True, slots=True)
class RecoverPorts:
    """What this journey touches."""

    service: str
    receipts: ReceiptBook
    leases: LeaseBook
    drills: DrillBook
    actuator: Actuator | None
    driver: FaultDriver | None
    verified: Callable[[RoutePlan], Awaitable[str]]
    """Waits until the gateway shows a plan and returns the proof; an empty string when it does not."""
    now: Callable[[], datetime]
    rows: Mapping[Level, Row] = field(default_factory=dict)
    """The matrix, for the split that open receipts ask for."""
    hands_off: bool = False
    """Mode `observe`: people move the lever; a split that is not ours is left as it is."""


async def settle_receipts(ports: RecoverPorts) -> tuple[Receipt, ...]:
    """Finish or undo every action that a crash left half done; called once, before anything is decided.

    An action whose lever had moved is finished; one whose lever had not is recorded as failed: its trigger, if it
    still holds, will begin a new one. One that was being undone is fully engaged again, and undone by steps anew.

    Returns:
        The receipts whose rows are engaged, oldest first.
    """
    if ports.actuator is None:
        return ()
    engaged: list[Receipt] = []
    for receipt in await ports.receipts.open_receipts(ports.service):
        why_not = await _why_not_engaged(ports, ports.actuator, receipt)
        if why_not:
            await ports.receipts.move(receipt.id, ReceiptState.FAILED, ports.now(), why_not)
            log.info("not engaged", receipt=receipt.id, why=why_not)
        else:
            engaged.append(receipt)
    if engaged:
        return await _finish(ports, ports.actuator, engaged)
    if not ports.hands_off:
        await _normal(ports, ports.actuator)
    return ()


async def _why_not_engaged(ports: RecoverPorts, actuator: Actuator, receipt: Receipt) -> str:
    """Return why an open receipt's row is not engaged, or an empty string when it is, or may be."""
    if receipt.level not in ports.rows:
        return f"row {receipt.level} is no longer on the page"
    if receipt.state is ReceiptState.INTENDED and not await _moved(actuator, receipt):
        return "the control plane stopped before the lever moved"
    return ""


async def _moved(actuator: Actuator, receipt: Receipt) -> bool:
    """Tell whether the gateway shows the action; one that cannot be read counts as moved, and is then proven."""
    try:
        live = await actuator.configured()
    except ActuatorError:
        return True
    return dict(live.weights) == {pool: weight for pool, weight in receipt.after.weights.items() if weight}


def _plan(ports: RecoverPorts, receipts: Sequence[Receipt]) -> RoutePlan:
    """Return the split of these rows, all fully engaged."""
    return route([Pull(receipt.level, ports.rows[receipt.level].do) for receipt in receipts])


async def _finish(ports: RecoverPorts, actuator: Actuator, engaged: Sequence[Receipt]) -> tuple[Receipt, ...]:
    """Put the lever where the engaged rows want it, and prove it.

    An action that had been proven before stays in force even when the gateway cannot be read now: giving traffic back
    needs evidence. One that never was proven is undone.
    """
    proof = await _prove(ports, actuator, _plan(ports, engaged))
    kept = []
    for receipt in engaged:
        settled = await _settle(ports, receipt, proof)
        log.info("settled", receipt=receipt.id, state=settled.state, proof=proof)
        if settled.state is not ReceiptState.FAILED:
            kept.append(settled)
    if len(kept) < len(engaged):
        await _prove(ports, actuator, _plan(ports, kept))
    return tuple(kept)


async def _prove(ports: RecoverPorts, actuator: Actuator, plan: RoutePlan) -> str:
    """Apply a split and return the gateway's proof of it; an empty string when there is none."""
    try:
        await actuator.apply(plan, _key(ports))
        return await ports.verified(plan)
    except ActuatorError as error:
        log.error("lever stuck", what=error.what, why=error.why)
        return ""


def _key(ports: RecoverPorts) -> str:
    """Return an idempotency key of one settlement."""
    return f"{ports.service}/recover/{ports.now().isoformat(timespec='microseconds')}"


async def _settle(ports: RecoverPorts, receipt: Receipt, proof: str) -> Receipt:
    """Record what became of one action."""
    if receipt.state not in (ReceiptState.INTENDED, ReceiptState.APPLIED):
        return receipt
    now = ports.now()
    if not proof:
        why = "could not be proven after a restart; undone"
        return await ports.receipts.move(receipt.id, ReceiptState.FAILED, now, why)
    if receipt.state is ReceiptState.INTENDED:
        await ports.receipts.move(receipt.id, ReceiptState.APPLIED, now)
    return await ports.receipts.move(receipt.id, ReceiptState.VERIFIED, now, f"after a restart: {proof}")


async def _normal(ports: RecoverPorts, actuator: Actuator) -> None:
    """With no row engaged the gateway must show the normal split; a leftover of another life is put right."""
    normal = route(())
    try:
        live = await actuator.configured()
        if dict(live.weights) != dict(normal.weights) or live.level != normal.level:
            log.warning("drift", found=dict(live.weights), level=live.level)
            await actuator.apply(normal, _key(ports))
    except ActuatorError as error:
        log.error("gateway unreadable", why=error.what)


async def settle_drills(ports: RecoverPorts) -> None:
    """Call off the drills that were running when the control plane stopped, and end their faults; called once."""
    for drill in await ports.drills.recent(limit=20):
        if drill.outcome is Outcome.RUNNING:
            reason = "the control plane stopped while the drill ran"
            await ports.drills.end(replace(drill, outcome=Outcome.ABORTED, reasons=(reason,), ended_at=ports.now()))
            log.warning("called off", drill=drill.id)
    await heal_all(ports)


async def heal_expired(ports: RecoverPorts) -> tuple[str, ...]:
    """End every fault whose deadline is past, and close the leases of faults that left nothing behind."""
    return await _heal(ports, lambda lease: lease.deadline <= ports.now())


async def heal_all(ports: RecoverPorts) -> tuple[str, ...]:
    """End every fault there is, now.

    Returns:
        What was done, one line a fault.
    """
    return await _heal(ports, lambda _: True)


async def _heal(ports: RecoverPorts, wanted: Callable[[Lease], bool]) -> tuple[str, ...]:
    done = []
    for lease in await ports.leases.open_leases():
        if wanted(lease):
            done.append(f"{lease.kind} on {lease.endpoint.name}: {await _heal_one(ports, lease)}")
    return tuple(done)


async def _heal_one(ports: RecoverPorts, lease: Lease) -> str:
    """End one fault; its lease is closed once nothing of it is left."""
    if ports.driver is None:
        return "cannot be healed: the page names no `fleet.substrate`"
    try:
        text = await ports.driver.revert(lease)
        left = await ports.driver.residue(lease)
    except FaultError as error:
        log.error("not healed", lease=lease.id, why=error.what)
        return f"not healed: {error.what} ({error.why})"
    if left:
        return f"{text}; waiting: {left}"
    await ports.leases.move(lease.id, LeaseState.HEALED, ports.now(), text)
    log.info("healed", lease=lease.id, endpoint=lease.endpoint.name)
    return f"{text}; healed"
