"""The journey of one action: gate -> intent stored -> lever moved -> proven at the gateway -> receipt; and back again.

`observe` decides and calls; nothing here decides whether to act. What is stored is stored before the lever moves, so
that `recover` can finish or undo whatever a crash leaves half done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

import structlog

from controlplane.degradation.action import spell_actions
from controlplane.degradation.actuator import Actuator, Observed, Receipt, ReceiptBook, ReceiptState, RoutePlan
from controlplane.degradation.matrix import Row
from controlplane.errors import ActuatorError, ControlplaneError, StoreError
from controlplane.fleet.model import Endpoint
from controlplane.incidents.incident import Entry, Incident, IncidentBook, IncidentState
from controlplane.probes.probe import Look

VERIFY_WITHIN_S = 10.0
"""A lever that the gateway does not show after this long has failed."""
VERIFY_EVERY_S = 0.01
SAMPLE_REQUESTS = 3
"""Real requests that must all be answered as the plan says."""

log = structlog.get_logger("switch")


@dataclass(frozen=True, slots=True)
class SwitchPorts:
    """What this journey touches."""

    actuator: Actuator
    receipts: ReceiptBook
    incidents: IncidentBook
    complete: Callable[[Endpoint], Awaitable[Look]]
    """Asks one endpoint for a real completion."""
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    """The endpoints of a pool, by its name."""
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Order:
    """One engagement that has been decided."""

    service: str
    row: Row
    before: RoutePlan
    after: RoutePlan
    because: tuple[str, ...]
    detected_at: datetime
    decided_at: datetime
    drill_id: str = ""
    """The drill whose fault this is; empty for a real one."""
    hints: tuple[str, ...] = ()
    """Likely causes, the most telling first."""

    @property
    def key(self) -> str:
        """The idempotency key: one engagement of one row that was decided at one moment."""
        return f"{self.service}/{self.row.level}/{self.decided_at.isoformat(timespec='microseconds')}"

    @property
    def action(self) -> str:
        """The action as a person would say it."""
        return spell_actions(self.row.do)


async def engage(ports: SwitchPorts, order: Order) -> Receipt | None:
    """Carry an engagement out and prove it.

    Returns:
        The receipt, `verified` or `failed`; None when the gate refused and nothing was touched.
    """
    incident = await _incident(ports, order)
    refusal = await standby_refusal(ports, order.row.target)
    if refusal:
        await _note(ports, incident, "gate", f"{order.row.level} refused: {refusal}")
        log.warning("refused", level=order.row.level, why=refusal)
        return None
    receipt = _receipt(order, ports.now())
    if not await ports.receipts.intend(receipt):
        log.info("already begun", key=order.key)
        return None
    try:
        await ports.actuator.apply(order.after, order.key)
    except ActuatorError as error:
        return await _give_up(ports, incident, receipt, f"{error.what}: {error.why}")
    receipt = await _moved(ports, receipt, ReceiptState.APPLIED)
    proof = await verify(ports.actuator, order.after)
    if not proof.ok:
        return await _give_up(ports, incident, receipt, proof.detail)
    receipt = await _moved(ports, receipt, ReceiptState.VERIFIED, proof.detail)
    applied, verified = receipt.times[ReceiptState.APPLIED], receipt.times[ReceiptState.VERIFIED]
    try:
        await ports.incidents.note(incident.id, Entry(applied, "lever", f"{order.action}: applied"))
        await ports.incidents.note(incident.id, Entry(verified, "receipt", f"{receipt.level} verified: {proof.detail}"))
        await ports.incidents.move(incident.id, IncidentState.MITIGATED, verified)
    except StoreError as error:
        log.error("not recorded", incident=incident.id, what=error.what, why=error.why, fix=error.fix)
    return receipt


async def _moved(ports: SwitchPorts, receipt: Receipt, state: ReceiptState, detail: str = "") -> Receipt:
    """Record the next state of an action whose lever has moved.

    A database that fails at this moment must not turn users back to a pool that is ill: the intent is stored, the
    next start-up finds it and finishes, and until then the action is carried on from memory.
    """
    at = ports.now()
    try:
        stored = await ports.receipts.move(receipt.id, state, at, detail)
        return replace(stored, times={**receipt.times, **stored.times})
    except StoreError as error:
        log.error("not recorded", receipt=receipt.id, state=state, what=error.what, why=error.why, fix=error.fix)
        return replace(receipt, state=state, times={**receipt.times, state: at}, detail=detail or receipt.detail)


async def shift(ports: SwitchPorts, receipt: Receipt, plan: RoutePlan, what: str) -> bool:
    """Move the lever of an engaged row to another split (a step of the way back, or back to fully engaged)."""
    for incident in await ports.incidents.open_incidents(receipt.service):
        if incident.level == receipt.level:
            await _note(ports, incident, "lever", what)
    if receipt.state is not ReceiptState.REVERTING:
        await ports.receipts.move(receipt.id, ReceiptState.REVERTING, ports.now())
    try:
        await ports.actuator.apply(plan, receipt.id)
    except ActuatorError as error:
        log.error("lever stuck", what=what, why=error.what)
        return False
    return (await verify(ports.actuator, plan)).ok


async def close(ports: SwitchPorts, receipt: Receipt) -> Receipt:
    """Record that an action is fully undone and its incident over; the receipt last, since it ends the row."""
    await resolve(ports, receipt.service, receipt.level, "all traffic is back at the primary pool")
    return await ports.receipts.move(receipt.id, ReceiptState.REVERTED, ports.now())


async def resolve(ports: SwitchPorts, service: str, level: str, text: str) -> None:
    """End the open incident of a level, if there is one."""
    for incident in await ports.incidents.open_incidents(service):
        if incident.level == level:
            await _note(ports, incident, "lever", text)
            await ports.incidents.move(incident.id, IncidentState.RESOLVED, ports.now())


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether the gateway shows a plan, and what it shows."""

    ok: bool
    detail: str


async def verify(actuator: Actuator, plan: RoutePlan, within_s: float = VERIFY_WITHIN_S) -> Proof:
    """Wait until the gateway's live configuration and a sample of real answers both show a plan."""
    deadline = monotonic() + within_s
    seen = "the gateway was never readable"
    while monotonic() < deadline:
        try:
            observed = await actuator.configured()
            if dict(observed.weights) == {p: w for p, w in plan.weights.items() if w}:
                observed = await actuator.sample(SAMPLE_REQUESTS)
        except ActuatorError as error:
            seen = f"{error.what}: {error.why}"
        else:
            seen = _describe(observed)
            if shows(observed, plan):
                return Proof(ok=True, detail=seen)
        await asyncio.sleep(VERIFY_EVERY_S)
    return Proof(ok=False, detail=f"not seen at the gateway within {within_s:g} s; last seen: {seen}")


def shows(observed: Observed, plan: RoutePlan) -> bool:
    """Tell whether what a gateway shows is the plan: its weights, and every sampled answer's level."""
    wanted = {pool: weight for pool, weight in plan.weights.items() if weight}
    answered = observed.answered_by
    return (
        dict(observed.weights) == wanted
        and bool(answered)
        and all(answered)
        and all(level == plan.level for level in observed.answered_level)
    )


async def standby_refusal(ports: SwitchPorts, pool: str) -> str:
    """Ask a pool that is about to take traffic for real completions; return why not, or an empty string."""
    endpoints = ports.endpoints(pool)
    if not endpoints:
        return f"pool {pool} has no endpoints"
    looks = await asyncio.gather(*(ports.complete(endpoint) for endpoint in endpoints))
    if any(look.ok for look in looks):
        return ""
    return f"no endpoint of {pool} gives a completion: " + "; ".join(
        f"{look.endpoint.name}: {look.failure} {look.detail}".strip() for look in looks
    )


def _describe(observed: Observed) -> str:
    split = ", ".join(f"{pool} {weight} %" for pool, weight in sorted(observed.weights.items()))
    answered = ", ".join(sorted({by or "nobody" for by in observed.answered_by})) or "not asked"
    return f"weights {split}; level {observed.level or 'unset'}; answered by {answered}"


def _receipt(order: Order, now: datetime) -> Receipt:
    return Receipt(
        id=order.key,
        service=order.service,
        level=order.row.level,
        action=order.action,
        before=order.before,
        after=order.after,
        state=ReceiptState.INTENDED,
        because=order.because,
        detected_at=order.detected_at,
        decided_at=order.decided_at,
        times={ReceiptState.INTENDED: now},
    )


async def _incident(ports: SwitchPorts, order: Order) -> Incident:
    """Join the open incident of this level, or open one."""
    for incident in await ports.incidents.open_incidents(order.service):
        if incident.level == order.row.level:
            return incident
    incident = Incident(
        id=order.key,
        service=order.service,
        level=order.row.level,
        title=f"{order.service}: {'; '.join(order.because)}",
        state=IncidentState.OPEN,
        detected_at=order.detected_at,
        drill_id=order.drill_id,
    )
    await ports.incidents.begin(incident)
    await ports.incidents.note(incident.id, Entry(order.detected_at, "detected", "; ".join(order.because)))
    for hint in order.hints:
        await ports.incidents.note(incident.id, Entry(order.decided_at, "hint", hint))
    await ports.incidents.note(incident.id, Entry(order.decided_at, "decided", f"{order.row.level}: {order.action}"))
    return incident


async def _give_up(ports: SwitchPorts, incident: Incident, receipt: Receipt, why: str) -> Receipt:
    """Put the lever back where it was, and say that the row failed."""
    log.error("failed", level=receipt.level, why=why)
    try:
        await ports.actuator.apply(receipt.before, receipt.id)
    except ControlplaneError as error:
        why = f"{why}; putting the lever back failed too: {error.what}"
    failed = await ports.receipts.move(receipt.id, ReceiptState.FAILED, ports.now(), why)
    await _note(ports, incident, "receipt", f"{receipt.level} failed: {why}")
    return failed


async def _note(ports: SwitchPorts, incident: Incident, kind: str, text: str) -> None:
    await ports.incidents.note(incident.id, Entry(ports.now(), kind, text))
