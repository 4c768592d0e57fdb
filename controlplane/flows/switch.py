"""The journey of one action: gate -> intent stored -> levers moved -> proven from outside -> receipt; and back again.

`observe` decides and calls; nothing here decides whether to act. What is stored is stored before a lever moves, so
that `recover` can finish or undo whatever a crash leaves half done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from controlplane.degradation.action import Errand, SwitchPool, share_of, spell_actions
from controlplane.degradation.actuator import (
    Progress,
    Receipt,
    ReceiptBook,
    ReceiptState,
    RoutePlan,
    Step,
    traffic_is_back,
)
from controlplane.degradation.gate import Asked, Opinion, PoolFacts, judge_standby
from controlplane.degradation.matrix import LEVELS, Level, Row
from controlplane.errors import ActuatorError, FencedError, StoreError
from controlplane.fleet.model import PRIMARY, Endpoint
from controlplane.flows.carry import InHand, Levers, carry_out, preflight, prove, stuck, undo, verify
from controlplane.incidents.book import IncidentBook
from controlplane.incidents.correlate import row_is_back, row_moves
from controlplane.incidents.incident import Entry, IncidentState
from controlplane.probes.probe import Look

log = structlog.get_logger("switch")


async def _nobody(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class SwitchPorts:
    """What this journey touches."""

    levers: Levers
    receipts: ReceiptBook
    incidents: IncidentBook
    complete: Callable[[Endpoint], Awaitable[Look]]
    """Asks one endpoint for a real completion."""
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    """The endpoints of a pool, by its name."""
    now: Callable[[], datetime]
    facts: Callable[[str], PoolFacts] = lambda _: PoolFacts()
    """What is already known of a pool, by its name; it must not ask anybody."""
    why_not: Callable[[Level, str], None] = lambda _level, _why: None
    """Takes why a row could not be put in force, for whoever pages people about it."""
    page: Callable[[str], Awaitable[None]] = _nobody
    """Tells people what is left for them to undo."""
    in_hand: InHand = field(default_factory=InHand)
    """What this process sees to; recovery sees to the rest."""
    undoing: dict[str, asyncio.Lock] = field(default_factory=dict)
    """By row: held while its errands are undone, so that nobody carries them out again at that moment."""


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
    began_at: datetime | None = None
    """When that fault was injected."""
    hints: tuple[str, ...] = ()
    """Likely causes, the most telling first."""
    episode: int = 1
    """The how-manieth engagement of the row this is, as the book said when it was decided."""

    @property
    def key(self) -> str:
        """The idempotency key: one engagement of one row, the same for every control plane that sees the harm."""
        return f"{self.service}/{self.row.level}/{self.episode}"

    @property
    def action(self) -> str:
        """The action as a person would say it."""
        return spell_actions(self.row.do)


async def engage(ports: SwitchPorts, order: Order) -> Receipt | None:
    """Carry an engagement out and prove it.

    Returns:
        The receipt, `verified` or `failed`; None when it was refused, or somebody has dealt with this episode, and
        nothing was touched.

    Raises:
        FencedError: when another control plane has taken over; it sees to what is stored.
        StoreError: when the intent cannot be stored; nothing was touched.
    """
    with _moving(ports, order.key):
        return await _engage(ports, order)


async def _engage(ports: SwitchPorts, order: Order) -> Receipt | None:
    opinion, ready = await asyncio.gather(
        ask_gate(ports, order.row), preflight(ports.levers, order.row.do, order.after)
    )
    refusals = (opinion.refusal, *ready.refusals)
    if any(refusals):
        await _refused(ports, order, "; ".join(filter(None, refusals)))
        return None
    receipt = _receipt(order, ports.now(), ready.steps)
    if not await ports.receipts.intend(receipt):
        log.info("already begun", key=order.key)
        return None
    ports.in_hand.receipts[receipt.id] = receipt
    incident = await _incident(ports, order)
    receipt, why = await _carry_out(ports, receipt)
    if why:
        return await _give_up(ports, incident, receipt, why)
    receipt = await _moved(ports, receipt, ReceiptState.APPLIED)
    proof = await prove(ports.levers, receipt)
    if not proof.ok:
        return await _give_up(ports, incident, receipt, proof.detail)
    receipt = await _moved(ports, receipt, ReceiptState.VERIFIED, "; ".join((proof.detail, *opinion.notes)))
    ports.in_hand.receipts[receipt.id] = receipt
    ports.in_hand.plan = receipt.after
    await _mitigated(ports, incident, receipt, order.action)
    return receipt


@contextmanager
def _moving(ports: SwitchPorts, key: str) -> Iterator[None]:
    """Say that a lever is moving; a journey that breaks off leaves its receipt to the recovery."""
    ports.in_hand.moving += 1
    try:
        yield
    except BaseException:
        ports.in_hand.receipts.pop(key, None)
        raise
    finally:
        ports.in_hand.moving -= 1


def undone(ports: SwitchPorts, row: Row) -> asyncio.Lock:
    """Return what to hold while a row engages: it waits for its errands to be undone; one without any never waits."""
    errands = any(isinstance(action, Errand) for action in row.do)
    return ports.undoing.setdefault(row.level, asyncio.Lock()) if errands else asyncio.Lock()


async def _carry_out(ports: SwitchPorts, receipt: Receipt) -> tuple[Receipt, str]:
    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(receipt.id, steps)

    steps, why = await carry_out(ports.levers, receipt, noted)
    return replace(receipt, steps=steps), why


async def _moved(ports: SwitchPorts, receipt: Receipt, state: ReceiptState, detail: str = "") -> Receipt:
    """Record the next state of an action whose lever has moved.

    A database that fails at this moment must not turn users back to a pool that is ill: the intent is stored, the
    recovery finds it and finishes, and until then the action is carried on from memory.
    """
    at = ports.now()
    try:
        stored = await ports.receipts.move(receipt.id, state, at, detail, receipt.steps)
        return replace(stored, times={**receipt.times, **stored.times})
    except FencedError:
        raise
    except StoreError as error:
        log.error("not recorded", receipt=receipt.id, state=state, what=error.what, why=error.why, fix=error.fix)
        return replace(receipt, state=state, times={**receipt.times, state: at}, detail=detail or receipt.detail)


async def shift(ports: SwitchPorts, receipt: Receipt, plan: RoutePlan, what: str) -> bool:
    """Move the lever of an engaged row to another split (a step of the way back, or back to fully engaged)."""
    ports.in_hand.moving += 1
    try:
        for incident in await ports.incidents.open_incidents(receipt.service):
            if receipt.level in incident.rows:
                await _note(ports, incident.id, "lever", what)
        if receipt.state is not ReceiptState.REVERTING:
            stored = await ports.receipts.move(receipt.id, ReceiptState.REVERTING, ports.now())
            ports.in_hand.receipts[receipt.id] = stored
        # A driver that drops what it has seen must not drop the second of two moves to the same split.
        at = ports.now().isoformat(timespec="microseconds")
        await ports.levers.actuator.apply(plan, f"{receipt.id}/shift/{at}")
        proven = (await verify(ports.levers.actuator, plan)).ok
    except ActuatorError as error:
        log.error("lever stuck", what=what, why=error.what)
        return False
    finally:
        ports.in_hand.moving -= 1
    if proven:
        ports.in_hand.plan = plan
        if LEVELS.index(plan.level) < LEVELS.index(receipt.level):
            await _note_back(ports, ports.in_hand.receipts.get(receipt.id, receipt))
    return proven


async def _note_back(ports: SwitchPorts, receipt: Receipt) -> Receipt:
    """Record that the whole split is undone: the row may engage anew while its errands are still being undone.

    A database that fails at this moment must not have the traffic taken back again: closing tells it once more.
    """
    steps = tuple(s if s.errand else replace(s, progress=Progress.UNDONE) for s in receipt.steps)
    try:
        await ports.receipts.note_steps(receipt.id, steps)
    except FencedError:
        raise
    except StoreError as error:
        log.error("not recorded", receipt=receipt.id, what=error.what, why=error.why, fix=error.fix)
    ports.in_hand.receipts[receipt.id] = noted = replace(receipt, steps=steps)
    return noted


async def close(ports: SwitchPorts, receipt: Receipt) -> Receipt:
    """Undo the errands of a row whose traffic is back, and record that it is over; the receipt last: it ends the row.

    Called again after a failure, it goes on from there. What this process no longer has in hand is left as it is.

    Returns:
        The receipt, `reverted`, or `failed` when something is left that people have to undo.

    Raises:
        FencedError: when another control plane has taken over; it sees to what is stored.
        StoreError: when its end cannot be stored; nothing is then undone a second time.
    """
    mine = ports.in_hand.receipts.get(receipt.id)
    if mine is None:
        log.info("somebody else closes it", receipt=receipt.id)
        return receipt
    try:
        if not traffic_is_back(mine.steps):  # A worse row has the lever: the split that was shown did not tell.
            mine = await _note_back(ports, mine)
        return await _close(ports, mine)
    except FencedError:
        ports.in_hand.receipts.pop(receipt.id, None)  # Should the lease be ours again, the recovery closes it.
        raise


async def _close(ports: SwitchPorts, mine: Receipt) -> Receipt:
    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(mine.id, steps)

    had_left = stuck(mine.steps)
    async with ports.undoing.setdefault(mine.level, asyncio.Lock()):
        steps = mine.steps if _engaged_anew(ports, mine) else await undo(ports.levers, mine, noted)
    if ports.in_hand.receipts.get(mine.id) is not mine:
        return mine  # A term has begun meanwhile, and settles what is stored.
    ports.in_hand.receipts[mine.id] = replace(mine, steps=steps)
    left = stuck(steps)
    told = f"all traffic is back at the primary pool{f'; to be undone by hand: {left}' if left else ''}"
    if left and left != had_left:
        await ports.page(f"{mine.service} {mine.level}: {told}")
    if not _engaged_anew(ports, mine):
        await resolve(ports.incidents, ports.now, mine.service, mine.level, told)
    state = ReceiptState.FAILED if left else ReceiptState.REVERTED
    closed = await ports.receipts.move(mine.id, state, ports.now(), told if left else "", steps)
    ports.in_hand.receipts.pop(mine.id, None)
    return closed


def _engaged_anew(ports: SwitchPorts, mine: Receipt) -> bool:
    """Tell whether another receipt of the row is in force: its errands stay done, and its incident goes on."""
    return any(other.level is mine.level and other.id != mine.id for other in ports.in_hand.receipts.values())


async def resolve(book: IncidentBook, now: Callable[[], datetime], service: str, level: str, text: str) -> None:
    """Say that a row is over: its incident, if it has one, ends with it unless something else of it goes on."""
    at = now()
    await book.take(service, (row_is_back(service, level, at, Entry(at, "lever", text)),), at)


async def ask_gate(ports: SwitchPorts, row: Row) -> Opinion:
    """Ask a pool that is about to take traffic for real completions, and judge it by all that is known."""
    if row.move is None:
        return Opinion()
    looks = await asyncio.gather(*(ports.complete(endpoint) for endpoint in ports.endpoints(row.target)))
    asked = tuple(
        Asked(look.endpoint.name, None if look.says_nothing else look.ok, f"{look.failure} {look.detail}".strip())
        for look in looks
    )
    return judge_standby(
        row.target, asked, ports.facts(row.target), ports.facts(PRIMARY), share_of(row.move),
        same_model=isinstance(row.move, SwitchPool),
    )  # fmt: skip


def _receipt(order: Order, now: datetime, steps: tuple[Step, ...]) -> Receipt:
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
        episode=order.episode,
        steps=steps,
    )


# -- what people read of it --------------------------------------------------------------------------------------------


async def _refused(ports: SwitchPorts, order: Order, why: str) -> None:
    log.warning("refused", level=order.row.level, why=why)
    incident = await _incident(ports, order)
    if incident:
        await _note(ports, incident, "gate", f"{order.row.level} refused: {why}")
    ports.why_not(order.row.level, f"{order.action} was refused: {why}")


async def _incident(ports: SwitchPorts, order: Order) -> str:
    """Join the open incident of this harm, or open one; an empty string where it is not stored: that stops no lever."""
    level, because = order.row.level, "; ".join(order.because)
    entries = (
        Entry(order.detected_at, "detected", because),
        *(Entry(order.decided_at, "hint", hint) for hint in order.hints),
        Entry(order.decided_at, "decided", f"{level}: {order.action}"),
    )
    moves = row_moves(
        order.service, level, because, order.decided_at, order.detected_at, entries, order.drill_id, order.began_at
    )
    try:
        return (await ports.incidents.take(order.service, (moves,), ports.now())).incident_of(moves.key)
    except StoreError as error:
        log.error("not recorded", incident=order.key, what=error.what, why=error.why, fix=error.fix)
        return ""


async def _mitigated(ports: SwitchPorts, incident: str, receipt: Receipt, action: str) -> None:
    if not incident:
        return
    applied, verified = receipt.times[ReceiptState.APPLIED], receipt.times[ReceiptState.VERIFIED]
    try:
        await ports.incidents.note(incident, Entry(applied, "lever", f"{action}: applied"))
        await ports.incidents.note(incident, Entry(verified, "receipt", f"{receipt.level} verified: {receipt.detail}"))
        await ports.incidents.move(incident, IncidentState.MITIGATED, verified)
    except StoreError as error:
        log.error("not recorded", incident=incident, what=error.what, why=error.why, fix=error.fix)


async def _give_up(ports: SwitchPorts, incident: str, receipt: Receipt, why: str) -> Receipt:
    """Undo what was done, the last step first, and say that the row failed."""
    log.error("failed", level=receipt.level, why=why)

    async def noted(steps: tuple[Step, ...]) -> None:
        await ports.receipts.note_steps(receipt.id, steps)

    steps = await undo(ports.levers, receipt, noted, receipt.before)
    left = stuck(steps)
    if left:
        why = f"{why}; undoing failed too: {left}"
    ports.in_hand.receipts.pop(receipt.id, None)
    failed = await ports.receipts.move(receipt.id, ReceiptState.FAILED, ports.now(), why, steps)
    if incident:
        await _note(ports, incident, "receipt", f"{receipt.level} failed: {why}")
    ports.why_not(receipt.level, f"{receipt.action} failed: {why}")
    return failed


async def _note(ports: SwitchPorts, incident: str, kind: str, text: str) -> None:
    await ports.incidents.note(incident, Entry(ports.now(), kind, text))
