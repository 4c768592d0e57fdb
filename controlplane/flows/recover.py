"""The journey after a crash, and every few seconds: finish or undo what is half done, end faults that are overdue.

Nothing here trusts memory: it compares what is stored with what the gateway and the substrate show.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from controlplane.chaos.drill import Drill, DrillBook, Outcome
from controlplane.chaos.fault import FaultDriver, Lease, LeaseBook, LeaseState, Reaper
from controlplane.degradation.actuator import (
    Actuator,
    Progress,
    Pull,
    Receipt,
    ReceiptBook,
    ReceiptState,
    RoutePlan,
    Step,
    route,
    traffic_is_back,
)
from controlplane.degradation.matrix import Level, Row
from controlplane.errors import ActuatorError, FaultError
from controlplane.flows.carry import InHand, Levers, Proof, carry_out, prove_errands, stuck, undo, verify

BEGUN_WITHIN = timedelta(seconds=30)
"""A drill is stored before anybody walks it: one that is younger may be about to be walked."""

log = structlog.get_logger("recover")


async def _leave(_: Level, __: str) -> None:
    """Leave incidents as they are."""


@dataclass(frozen=True, slots=True)
class RecoverPorts:
    """What this journey touches."""

    service: str
    receipts: ReceiptBook
    leases: LeaseBook
    drills: DrillBook
    levers: Levers | None
    """None: the fleet has no gateway."""
    driver: FaultDriver | None
    now: Callable[[], datetime]
    rows: Mapping[Level, Row] = field(default_factory=dict)
    """The matrix, for the split that open receipts ask for."""
    hands_off: bool = False
    """Mode `observe`: people move the lever; a split that is not ours is left as it is."""
    in_hand: InHand = field(default_factory=InHand)
    """What the journeys of this process see to."""
    resolve: Callable[[Level, str], Awaitable[None]] = _leave
    """Ends the incident of a row: (level, why)."""
    moved: Callable[[RoutePlan], None] = lambda _: None
    """Told of each split that was put right, for whoever shows it."""
    reaper: Reaper | None = None
    """None: the substrate keeps no record of its own of what is broken."""
    walked: Collection[str] = ()
    """Ids of the drills that this process walks."""


async def settle_receipts(ports: RecoverPorts) -> tuple[Receipt, ...]:
    """Finish or undo every action that a crash left half done; called when this process comes to be in charge.

    An action whose lever had moved is finished; one whose lever had not is undone and recorded as failed: its trigger,
    if it still holds, will begin a new one. One whose traffic was all back is closed; one of which some was still away
    is fully engaged again, and undone by steps anew.

    Returns:
        The receipts whose rows are engaged, oldest first.
    """
    if ports.levers is None:
        return ()
    ports.in_hand.receipts.clear()  # A journey of an earlier term that still runs finds that it goes on without it.
    rolled_back = False
    engaged: dict[Level, Receipt] = {}
    for receipt in await ports.receipts.open_receipts(ports.service):
        if traffic_is_back(receipt.steps):
            await _close(ports, ports.levers, receipt)
            continue
        why_not = await _why_not_engaged(ports, ports.levers, receipt)
        if why_not:
            await _call_off(ports, ports.levers, receipt, why_not)
            rolled_back |= receipt.level is Level.NONE
            continue
        engaged[receipt.level] = receipt
    kept: tuple[Receipt, ...] = ()
    rolled_out = engaged.pop(Level.NONE, None)
    if rolled_out and engaged:
        await ports.receipts.move(rolled_out.id, ReceiptState.REVERTED, ports.now(), "a row took the lever over")
    if engaged:
        kept = await _finish(ports, ports.levers, tuple(engaged.values()))
    elif rolled_back or not ports.hands_off:  # What a rollout has moved is ours, whoever moves the lever otherwise.
        await _stands(ports, ports.levers.actuator, rolled_out.after if rolled_out else route(()))
    ports.in_hand.receipts = {receipt.id: receipt for receipt in kept}
    if rolled_out and not engaged:
        ports.in_hand.receipts[rolled_out.id] = rolled_out
    return kept


async def settle_rows(ports: RecoverPorts, left_open: Collection[str]) -> None:
    """End the incidents of rows that nobody can move any more; the matrix itself ends those of the others.

    Args:
        ports: what this journey touches.
        left_open: the rows that are not over by their incidents.
    """
    for name in sorted(left_open):
        if ports.levers is None:
            await ports.resolve(Level(name), "the fleet has no gateway any more")
        elif name not in ports.rows:
            await ports.resolve(Level(name), f"row {name} is no longer on the page")


async def tend_receipts(ports: RecoverPorts) -> None:
    """See to what the journeys of this process left behind; called every few seconds while it is in charge.

    A journey ends without its receipt where the database failed it: what had been done is undone, or what is in force
    is written down at last. A lever that was moved by somebody else is put back.
    """
    if ports.levers is None:
        return
    for receipt in await ports.receipts.open_receipts(ports.service):
        if not ports.in_hand.moving and await _tend(ports, ports.levers, receipt):
            break  # What was read is old by now: a journey may have ended. The others have their turn at the next call.
    if ports.in_hand.plan and not ports.in_hand.moving and not ports.hands_off:
        await _put_back(ports, ports.levers, ports.in_hand.plan)


async def _tend(ports: RecoverPorts, levers: Levers, receipt: Receipt) -> bool:
    """See to one open receipt; return whether there was anything to do."""
    mine = ports.in_hand.receipts.get(receipt.id)
    if mine is None and traffic_is_back(receipt.steps):
        await _close(ports, levers, receipt)
    elif mine is None:
        if receipt.level is Level.NONE and ports.in_hand.let_go(receipt.before):
            await _put_back(ports, levers, receipt.before)
        await _call_off(ports, levers, receipt, "its journey broke off; undone")
    elif mine.level is Level.NONE and mine.state is ReceiptState.VERIFIED and len(ports.in_hand.receipts) > 1:
        await ports.receipts.move(receipt.id, ReceiptState.REVERTED, ports.now(), "a row took the lever over")
        ports.in_hand.receipts.pop(receipt.id, None)
    elif _rank(mine.state) > _rank(receipt.state):
        await ports.receipts.move(receipt.id, mine.state, ports.now(), mine.detail, mine.steps)
    else:
        return False
    return True


def _rank(state: ReceiptState) -> int:
    return tuple(ReceiptState).index(state)


async def _put_back(ports: RecoverPorts, levers: Levers, plan: RoutePlan) -> None:
    """Put the lever back where this process left it, if it is not there any more."""
    try:
        live = await levers.actuator.configured()
        async with levers.lock:
            # A whole switch may have ended since the plan and the gateway were looked at: that is no drift.
            if ports.in_hand.moving or ports.in_hand.plan is not plan or _split(live.weights) == _split(plan.weights):
                return
            log.warning("drift", found=dict(live.weights), wanted=dict(plan.weights))
            await levers.actuator.apply(plan, _key(ports))
        ports.moved(plan)
    except ActuatorError as error:
        log.error("gateway unreadable", why=error.what)


async def _why_not_engaged(ports: RecoverPorts, levers: Levers, receipt: Receipt) -> str:
    """Return why an open receipt's row is not engaged, or an empty string when it is, or may be."""
    if receipt.level is Level.NONE:  # A rollout; one that was seen through stands.
        over = receipt.state is ReceiptState.VERIFIED
        return "" if over else "the control plane stopped while it was rolled out: traffic goes back"
    if receipt.level not in ports.rows:
        return f"row {receipt.level} is no longer on the page"
    if receipt.state is ReceiptState.INTENDED and not await _begun(levers.actuator, receipt):
        return "the control plane stopped before the lever moved"
    return ""


async def _begun(actuator: Actuator, receipt: Receipt) -> bool:
    """Tell whether the split of an intended action is in force.

    A gateway that cannot be read counts as moved, and is then proven; a step that is known to be done says by itself
    whether the split was before it.
    """
    for step in receipt.steps:
        if step.progress is Progress.WAITING and step.errand is not None:
            return False  # The split comes later: what was done before it is undone.
        if step.errand is None:
            break
    try:
        live = await actuator.configured()
    except ActuatorError:
        return True
    return _split(live.weights) == _split(receipt.after.weights)


def _split(weights: Mapping[str, int]) -> dict[str, int]:
    return {pool: weight for pool, weight in weights.items() if weight}


async def _close(ports: RecoverPorts, levers: Levers, receipt: Receipt) -> None:
    """Undo what errands are left of an action whose traffic is back, and record that it is over."""

    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(receipt.id, steps)

    steps = await undo(levers, receipt, noted)
    left = stuck(steps)
    state = ReceiptState.FAILED if left else ReceiptState.REVERTED
    why = f"to be undone by hand: {left}" if left else ""
    await ports.resolve(receipt.level, f"all traffic is back at the primary pool; {why}".rstrip("; "))
    await ports.receipts.move(receipt.id, state, ports.now(), why, steps)
    log.info("closed", receipt=receipt.id, state=state)


async def _call_off(ports: RecoverPorts, levers: Levers, receipt: Receipt, why: str) -> Receipt:
    """Undo the errands of an action and record that it failed; its split is put right with that of the others."""

    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(receipt.id, steps)

    steps = await undo(levers, receipt, noted)
    left = stuck(steps)
    why = f"{why}; to be undone by hand: {left}" if left else why
    log.warning("not engaged", receipt=receipt.id, why=why)
    return await ports.receipts.move(receipt.id, ReceiptState.FAILED, ports.now(), why, steps)


def _plan(ports: RecoverPorts, receipts: Sequence[Receipt]) -> RoutePlan:
    """Return the split of these rows, all fully engaged."""
    return route([Pull(receipt.level, ports.rows[receipt.level].do) for receipt in receipts])


async def _finish(ports: RecoverPorts, levers: Levers, engaged: Sequence[Receipt]) -> tuple[Receipt, ...]:
    """Put the levers where the engaged rows want them, and prove it.

    An action that had been proven before stays in force even when the gateway cannot be read now: giving traffic back
    needs evidence. One that never was proven is undone.
    """
    plan = _plan(ports, engaged)
    split = await _prove(ports, levers.actuator, plan)
    kept = []
    for receipt in engaged:
        settled = await _settle(ports, levers, receipt, split)
        log.info("settled", receipt=receipt.id, state=settled.state, proof=split)
        if settled.state is not ReceiptState.FAILED:
            kept.append(settled)
    if len(kept) < len(engaged):
        plan = _plan(ports, kept)
        await _prove(ports, levers.actuator, plan)
    ports.in_hand.plan = plan
    return tuple(kept)


async def _prove(ports: RecoverPorts, actuator: Actuator, plan: RoutePlan) -> str:
    """Apply a split and return the gateway's proof of it; an empty string when there is none."""
    try:
        await actuator.apply(plan, _key(ports))
    except ActuatorError as error:
        log.error("lever stuck", what=error.what, why=error.why)
        return ""
    proof = await verify(actuator, plan)
    return proof.detail if proof.ok else ""


def _key(ports: RecoverPorts) -> str:
    """Return an idempotency key of one settlement."""
    return f"{ports.service}/recover/{ports.now().isoformat(timespec='microseconds')}"


async def _settle(ports: RecoverPorts, levers: Levers, receipt: Receipt, split: str) -> Receipt:
    """Finish the errands of one action, and record what became of it."""
    if receipt.state not in (ReceiptState.INTENDED, ReceiptState.APPLIED):
        return receipt

    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(receipt.id, steps)

    why = "could not be proven after a restart; undone"
    if not split:
        return await _call_off(ports, levers, receipt, why)
    done = tuple(replace(s, progress=Progress.DONE) if s.errand is None else s for s in receipt.steps)
    steps, failure = await carry_out(levers, replace(receipt, steps=done), noted)
    receipt = replace(receipt, steps=steps)
    proof = Proof(ok=False, detail=failure) if failure else await prove_errands(levers, receipt)
    if not proof.ok:
        return await _call_off(ports, levers, receipt, f"{why}: {proof.detail}")
    if receipt.state is ReceiptState.INTENDED:
        await ports.receipts.move(receipt.id, ReceiptState.APPLIED, ports.now(), steps=steps)
    told = f"after a restart: {'; '.join(filter(None, (split, proof.detail)))}"
    return await ports.receipts.move(receipt.id, ReceiptState.VERIFIED, ports.now(), told, steps)


async def _stands(ports: RecoverPorts, actuator: Actuator, normal: RoutePlan) -> None:
    """With no row engaged the gateway must show the normal split; a leftover of another life is put right.

    Where the gateway cannot be read now, that is done once it can.
    """
    ports.in_hand.plan = normal
    ports.moved(normal)
    try:
        live = await actuator.configured()
        if _split(live.weights) != _split(normal.weights) or live.level != normal.level:
            log.warning("drift", found=dict(live.weights), level=live.level)
            await actuator.apply(normal, _key(ports))
    except ActuatorError as error:
        log.error("gateway unreadable", why=error.what)


async def settle_drills(ports: RecoverPorts) -> None:
    """Call off the drills that were running when the control plane stopped, and end their faults; called once."""
    for drill in await ports.drills.recent(limit=20):
        if drill.outcome is Outcome.RUNNING:
            await _end_drill(ports, drill, "the control plane stopped while the drill ran")
    # What others have broken in the same cluster is theirs to end.
    await _heal(ports, await ports.leases.open_leases())


async def end_abandoned(ports: RecoverPorts) -> None:
    """Call off a drill that runs in the books alone; called every few seconds while this process is in charge.

    Its journey broke off, or never began: nobody else would end it, and no other drill could start. What it has broken
    is the fault of a drill that is over, which `heal_expired` ends.
    """
    for drill in await ports.drills.recent(limit=20):
        old = ports.now() - drill.started_at > BEGUN_WITHIN
        if drill.outcome is Outcome.RUNNING and old and drill.id not in ports.walked:
            await _end_drill(ports, drill, "its journey broke off")


async def _end_drill(ports: RecoverPorts, drill: Drill, why: str) -> None:
    await ports.drills.end(replace(drill, outcome=Outcome.ABORTED, reasons=(why,), ended_at=ports.now()))
    log.warning("called off", drill=drill.id, why=why)


async def heal_expired(ports: RecoverPorts) -> tuple[str, ...]:
    """End every fault whose deadline is past or whose drill is over, and close the leases that left nothing behind.

    A drill that runs ends its own faults, and is running until it has done so.
    """
    leases = await ports.leases.open_leases()  # Before the drills: a drill is stored before its leases are.
    drills = [await ports.drills.get(drill_id) for drill_id in {lease.drill_id for lease in leases}]
    over = {drill.id for drill in drills if drill and drill.outcome is not Outcome.RUNNING}
    return await _heal(ports, [lease for lease in leases if lease.deadline <= ports.now() or lease.drill_id in over])


async def heal_all(ports: RecoverPorts) -> tuple[str, ...]:
    """End every fault there is, now: what is leased, and what the substrate itself knows of besides.

    Returns:
        What was done, one line a fault.
    """
    return (*await _heal(ports, await ports.leases.open_leases()), *await reap_all(ports.reaper))


async def reap(ports: RecoverPorts) -> tuple[str, ...]:
    """End the faults that the substrate itself knows to be overdue, whoever leads and whatever the database says.

    Returns:
        What was done, one line a fault.
    """
    return await _reap(ports.reaper, ports.now())


async def reap_all(reaper: Reaper | None) -> tuple[str, ...]:
    """End every fault that the substrate itself knows of, overdue or not; returns what was done."""
    return await _reap(reaper, None)


async def _reap(reaper: Reaper | None, now: datetime | None) -> tuple[str, ...]:
    if reaper is None:
        return ()
    try:
        done = await reaper.reap(now)
    except FaultError as error:
        log.error("not reaped", what=error.what, why=error.why, fix=error.fix)
        return (f"not reaped: {error.what} ({error.why})",) if now is None else ()
    for line in done:
        log.warning("reaped", what=line)
    return done


async def _heal(ports: RecoverPorts, leases: Sequence[Lease]) -> tuple[str, ...]:
    done = [f"{lease.kind} on {lease.endpoint.name}: {await _heal_one(ports, lease)}" for lease in leases]
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
