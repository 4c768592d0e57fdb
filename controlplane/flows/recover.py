"""The journey after a crash, and every few seconds: finish or undo what is half done, end faults that are overdue.

Nothing here trusts memory: it compares what is stored with what the gateway and the substrate show.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from controlplane.chaos.drill import DrillBook, Outcome
from controlplane.chaos.fault import FaultDriver, Lease, LeaseBook, LeaseState
from controlplane.degradation.actuator import Actuator, Receipt, ReceiptBook, ReceiptState, RoutePlan
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
    hands_off: bool = False
    """Mode `observe`: people move the lever; a split that is not ours is left as it is."""


async def settle_receipts(ports: RecoverPorts) -> tuple[Receipt, ...]:
    """Finish or undo every action that a crash left half done; called once, before anything is decided.

    An action whose lever had moved is finished; one whose lever had not is recorded as failed: its trigger, if it
    still holds, will begin a new one. One that was being undone is fully engaged again, and undone by steps anew.

    Returns:
        The receipts whose rows are engaged, oldest first.
    """
    engaged: list[Receipt] = []
    if ports.actuator is None:
        return ()
    for receipt in await ports.receipts.open_receipts(ports.service):
        if receipt.state is ReceiptState.INTENDED and not await _moved(ports.actuator, receipt):
            detail = "the control plane stopped before the lever moved"
            await ports.receipts.move(receipt.id, ReceiptState.FAILED, ports.now(), detail)
            log.info("untouched", receipt=receipt.id)
            continue
        settled = await _finish(ports, ports.actuator, receipt)
        if settled:
            engaged.append(settled)
    if not engaged and not ports.hands_off:
        await _normal(ports.actuator)
    return tuple(engaged)


async def _moved(actuator: Actuator, receipt: Receipt) -> bool:
    """Tell whether the gateway shows the action; one that cannot be read counts as moved, and is then verified."""
    try:
        live = await actuator.configured()
    except ActuatorError:
        return True
    return dict(live.weights) == {pool: weight for pool, weight in receipt.after.weights.items() if weight}


async def _finish(ports: RecoverPorts, actuator: Actuator, receipt: Receipt) -> Receipt | None:
    """Put the lever where the receipt says, and prove it.

    An action that had been proven before stays in force even when the gateway cannot be read now: giving traffic back
    needs evidence. One that never was proven is undone.
    """
    proof = ""
    try:
        await actuator.apply(receipt.after)
        proof = await ports.verified(receipt.after)
    except ActuatorError as error:
        log.error("lever stuck", receipt=receipt.id, why=error.what)
    log.info("settled", receipt=receipt.id, proof=proof)
    if receipt.state not in (ReceiptState.INTENDED, ReceiptState.APPLIED):
        return receipt
    now = ports.now()
    if proof:
        if receipt.state is ReceiptState.INTENDED:
            await ports.receipts.move(receipt.id, ReceiptState.APPLIED, now)
        return await ports.receipts.move(receipt.id, ReceiptState.VERIFIED, now, f"after a restart: {proof}")
    with suppress(ActuatorError):  # Already logged above, for the same lever.
        await actuator.apply(receipt.before)
    await ports.receipts.move(receipt.id, ReceiptState.FAILED, now, "could not be proven after a restart; undone")
    return None


async def _normal(actuator: Actuator) -> None:
    """With no row engaged the gateway must show the normal split; a leftover of another life is put right."""
    normal = RoutePlan({"primary": 100})
    try:
        live = await actuator.configured()
        if dict(live.weights) != dict(normal.weights):
            log.warning("drift", found=dict(live.weights))
            await actuator.apply(normal)
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
