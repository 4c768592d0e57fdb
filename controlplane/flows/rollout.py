"""The journey of a new model version: its pool is given traffic by steps, judged at each, and taken off when worse.

Kept like every other action, as a receipt; a row of the matrix that engages meanwhile takes the lever over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic

import structlog

from controlplane.degradation.actuator import Progress, Receipt, ReceiptBook, ReceiptState, RoutePlan, Step
from controlplane.degradation.canary import Canary, Health, judge_canary
from controlplane.degradation.gate import Asked, PoolFacts, judge_standby
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError, FencedError
from controlplane.fleet.model import PRIMARY, Endpoint
from controlplane.flows.carry import InHand, Levers, verify
from controlplane.probes.probe import Look

JUDGE_EVERY_S = 1.0
PATIENCE = 3.0
"""A step whose answers are too few is held so many times longer, and then taken back: unknown goes no further."""

log = structlog.get_logger("rollout")


@dataclass(frozen=True, slots=True)
class RolloutPorts:
    """What this journey touches."""

    levers: Levers
    receipts: ReceiptBook
    complete: Callable[[Endpoint], Awaitable[Look]]
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    facts: Callable[[str], PoolFacts]
    health: Callable[[str], Health]
    """What a pool answered lately, by its name."""
    busy: Callable[[], str]
    """The row of the matrix that is away from idle; an empty string while none is."""
    moved: Callable[[RoutePlan], None]
    """Told of each split that is proven, for whoever shows it."""
    tell: Callable[[str], Awaitable[None]]
    now: Callable[[], datetime]
    in_hand: InHand


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is asked for."""

    service: str
    pool: str
    asked_by: str
    episode: int
    steps: tuple[float, ...] = (0.1, 0.5, 1.0)
    """Shares (0..1) of the traffic, ascending, the last one 1."""
    hold: timedelta = timedelta(seconds=60)
    """How long each step is held and judged."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by whoever calls it off."""

    def plan(self, share: float) -> RoutePlan:
        """Return the split that gives the pool a share."""
        percent = round(share * 100)
        weights = {PRIMARY: 100 - percent, self.pool: percent}
        return RoutePlan({pool: weight for pool, weight in weights.items() if weight or pool == PRIMARY})


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a rollout may not begin; nothing was touched."""

    why: str


async def begin(ports: RolloutPorts, rollout: Rollout) -> Receipt | Refused:
    """Ask the gate and store the intent.

    Raises:
        StoreError: when the intent cannot be stored.
    """
    if ports.busy():
        return Refused(f"{ports.busy()} is not idle: a rollout waits until the matrix is")
    if rollout.pool == PRIMARY:
        return Refused(f"{PRIMARY} serves already")
    looks = await asyncio.gather(*(ports.complete(endpoint) for endpoint in ports.endpoints(rollout.pool)))
    asked = tuple(
        Asked(look.endpoint.name, None if look.says_nothing else look.ok, f"{look.failure} {look.detail}".strip())
        for look in looks
    )
    opinion = judge_standby(
        rollout.pool, asked, ports.facts(rollout.pool), ports.facts(PRIMARY), rollout.steps[0], same_model=False
    )
    said = await ports.levers.actuator.preflight(rollout.plan(1.0))
    why = opinion.refusal or said.refusal
    if why:
        return Refused(why)
    now = ports.now()
    receipt = Receipt(
        id=f"{rollout.service}/rollout/{rollout.episode}",
        service=rollout.service,
        level=Level.NONE,
        action=f"rollout to {rollout.pool}",
        before=RoutePlan({PRIMARY: 100}),
        after=rollout.plan(1.0),
        state=ReceiptState.INTENDED,
        because=(f"asked for by {rollout.asked_by}",),
        detected_at=now,
        decided_at=now,
        times={ReceiptState.INTENDED: now},
        episode=rollout.episode,
        steps=tuple(Step(f"{share:.0%} to {rollout.pool}") for share in rollout.steps),
    )
    if not await ports.receipts.intend(receipt):
        return Refused("a rollout is under way already: see it through, or abort it")
    ports.in_hand.receipts[receipt.id] = receipt
    return receipt


async def carry_on(ports: RolloutPorts, rollout: Rollout, receipt: Receipt) -> Receipt:
    """Walk the steps; hold and judge each.

    Returns:
        The receipt: `verified` when all traffic is at the pool, where it stays until the rollout is aborted; else
        `reverted`, with the reason, and the traffic is back at the primary pool.

    Raises:
        FencedError: when another control plane has taken over, or the recovery of this one; it puts the traffic back.
    """
    with _in_hand(ports, receipt):
        for i, share in enumerate(rollout.steps):
            why = await _move(ports, rollout, receipt, share)
            if not why:
                receipt = await _note(ports, receipt, i, Progress.DONE)
                why = await _hold(ports, rollout, receipt)
            if why:
                return await roll_back(ports, receipt, why)
        detail = f"all traffic is at {rollout.pool}; it stays until the rollout is aborted"
        receipt = await ports.receipts.move(receipt.id, ReceiptState.VERIFIED, ports.now(), detail, receipt.steps)
        _keep(ports, receipt)
        if rollout.stop.is_set():  # While that was being stored: whoever called it off was told that it is.
            return await roll_back(ports, receipt, "it was called off")
    log.info("rolled out", receipt=receipt.id)
    return receipt


@contextmanager
def _in_hand(ports: RolloutPorts, receipt: Receipt) -> Iterator[None]:
    """Leave the receipt to the recovery when the journey breaks off."""
    try:
        yield
    except BaseException:
        ports.in_hand.receipts.pop(receipt.id, None)
        raise


def _keep(ports: RolloutPorts, receipt: Receipt) -> None:
    """Keep in hand what is stored of a rollout now, if it still is in our hand."""
    _must_be_ours(ports, receipt)
    ports.in_hand.receipts[receipt.id] = receipt


def _must_be_ours(ports: RolloutPorts, receipt: Receipt) -> None:
    """Raise `FencedError` when the recovery has taken the rollout: we were not in charge for a moment."""
    if receipt.id not in ports.in_hand.receipts:
        raise FencedError("the rollout was called off", "we were not in charge for a moment", "begin it anew")


async def roll_back(ports: RolloutPorts, receipt: Receipt, why: str) -> Receipt:
    """Put all traffic back to the primary pool, unless a row of the matrix has taken the lever over."""
    log.warning("rolled back", receipt=receipt.id, why=why)
    await ports.receipts.move(receipt.id, ReceiptState.REVERTING, ports.now(), why)
    with _in_hand(ports, receipt):
        stuck = await _put_back(ports, receipt)
    state = ReceiptState.FAILED if stuck else ReceiptState.REVERTED
    took_over = f"{ports.busy()} has the lever" if ports.busy() else ""
    return await _close(ports, receipt, state, "; ".join(filter(None, (why, stuck or took_over))))


async def _close(ports: RolloutPorts, receipt: Receipt, state: ReceiptState, why: str) -> Receipt:
    """Record how a roll-back ended, and tell people, whatever the database says to it."""
    try:
        return await ports.receipts.move(receipt.id, state, ports.now(), why)
    finally:
        ports.in_hand.receipts.pop(receipt.id, None)  # Not before: what is open and in nobody's hand is called off.
        await ports.tell(f"{receipt.service}: {receipt.action} was rolled back: {why}")


async def _put_back(ports: RolloutPorts, receipt: Receipt) -> str:
    """Put the lever back and prove it; return why it could not be, or an empty string.

    The recovery goes on where this ends: with a lever that is stuck, or a row that has it and then does not move it.
    """
    ports.in_hand.let_go(receipt.before)
    ports.in_hand.moving += 1
    try:
        async with ports.levers.lock:
            if ports.busy():
                return ""
            await ports.levers.actuator.apply(receipt.before, f"{receipt.id}/back")
        proof = await verify(ports.levers.actuator, receipt.before)
    except ActuatorError as error:
        return f"the lever is stuck: {error.what}: {error.why}"
    finally:
        ports.in_hand.moving -= 1
    if proof.ok and not ports.busy():
        _shown(ports, receipt.before)
    return "" if proof.ok or ports.busy() else proof.detail


async def _move(ports: RolloutPorts, rollout: Rollout, receipt: Receipt, share: float) -> str:
    """Give the pool a share and prove it; return why it could not be, or an empty string."""
    plan = rollout.plan(share)
    ports.in_hand.moving += 1
    try:
        async with ports.levers.lock:
            _must_be_ours(ports, receipt)
            if ports.busy():
                return f"{ports.busy()} is not idle any more"
            await ports.levers.actuator.apply(plan, f"{receipt.id}/{plan.weights[rollout.pool]}")
        proof = await verify(ports.levers.actuator, plan)
    except ActuatorError as error:
        return f"{error.what}: {error.why}"
    finally:
        ports.in_hand.moving -= 1
    if not proof.ok:
        return proof.detail
    if ports.busy():  # It may have its own split in force by now.
        return f"{ports.busy()} is not idle any more"
    _shown(ports, plan)
    if receipt.state is ReceiptState.INTENDED:
        await ports.receipts.move(receipt.id, ReceiptState.APPLIED, ports.now(), proof.detail)
    return ""


def _shown(ports: RolloutPorts, plan: RoutePlan) -> None:
    ports.in_hand.plan = plan
    ports.moved(plan)


async def _note(ports: RolloutPorts, receipt: Receipt, i: int, progress: Progress) -> Receipt:
    done = replace(receipt.steps[i], progress=progress)
    steps = (*receipt.steps[:i], done, *receipt.steps[i + 1 :])
    await ports.receipts.note_steps(receipt.id, steps)
    receipt = replace(receipt, state=ReceiptState.APPLIED, steps=steps)
    _keep(ports, receipt)
    return receipt


async def _hold(ports: RolloutPorts, rollout: Rollout, receipt: Receipt) -> str:
    """Hold a step and judge it; return why it may not go on, or an empty string."""
    began, hold_s = monotonic(), rollout.hold.total_seconds()
    while True:
        _must_be_ours(ports, receipt)
        if ports.busy():
            return f"{ports.busy()} is not idle any more"
        if rollout.stop.is_set():
            return "it was called off"
        judgement = judge_canary(ports.health(rollout.pool), ports.health(PRIMARY))
        if judgement.canary is Canary.WORSE:
            return f"{rollout.pool} is worse: {judgement.why}"
        held_s = monotonic() - began
        if held_s >= hold_s and judgement.canary is Canary.BETTER:
            return ""
        if held_s >= hold_s * PATIENCE:
            return f"nothing is known of {rollout.pool} after {held_s:.0f} s: {judgement.why}"
        with suppress(TimeoutError):
            await asyncio.wait_for(rollout.stop.wait(), JUDGE_EVERY_S)
