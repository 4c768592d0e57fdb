"""Carrying out the actions of one receipt in the page's order, proving them, and undoing them the other way round.

Used by the journeys that move levers (`switch`, `recover`, `rollout`); it decides nothing and stores nothing itself.
A row's splits are one step: the gateway takes one plan.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import structlog

from controlplane.degradation.action import SPLITS, Action, Errand, spell_actions
from controlplane.degradation.actuator import (
    Actuator,
    Hand,
    Observed,
    Progress,
    Receipt,
    RoutePlan,
    Step,
    configured_as,
    shows,
)
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError, FencedError, StoreError

VERIFY_WITHIN_S = 10.0
"""A lever that the gateway does not show after this long has failed."""
ANSWER_WITHIN_S = 60.0
"""A gateway that shows the plan, and gets no answers from where the traffic goes now, has failed after this long: that
pool may be short of breath for a moment, and what traffic would be sent back to is ill."""
VERIFY_EVERY_S = 0.01
ERRAND_EVERY_S = 0.25
SAMPLE_REQUESTS = 3
"""Real requests that must all be answered as the plan says."""
UNDO_TRIES = 3
UNDO_AGAIN_S = 0.5

log = structlog.get_logger("carry")


@dataclass(frozen=True, slots=True)
class Levers:
    """What moves: the gateway, and a hand for each kind of errand."""

    actuator: Actuator
    hands: Mapping[type[Errand], Hand] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a split is handed over: a rollout looks at the rows and moves the lever in one go."""

    def hand(self, errand: Errand) -> Hand:
        """Return who can carry an errand out.

        Raises:
            ActuatorError: when nobody can.
        """
        found = self.hands.get(type(errand))
        if found is None:
            what = spell_actions((errand,))
            raise ActuatorError(f"nobody can {what}", "this control plane has no hand for it", "take it off the page")
        return found


@dataclass(slots=True)
class InHand:
    """What this process sees to at the moment, so that recovery leaves it alone."""

    receipts: dict[str, Receipt] = field(default_factory=dict)
    """By key: actions that are being carried out, or are in force."""
    moving: int = 0
    """How many journeys are moving a lever right now."""
    plan: RoutePlan | None = None
    """The split that the gateway is to show; None until one was proven, or is to be put right."""

    def let_go(self, before: RoutePlan) -> bool:
        """Want the split from before a rollout; False when a row of the matrix has the lever: its split has a level."""
        if self.plan and self.plan.level is not Level.NONE:
            return False
        self.plan = before
        return True


@dataclass(frozen=True, slots=True)
class Ready:
    """What every lever said before one of them was moved."""

    refusals: tuple[str, ...]
    steps: tuple[Step, ...]


async def preflight(levers: Levers, do: tuple[Action, ...], plan: RoutePlan) -> Ready:
    """Ask every lever whether it could be moved, all at once; the steps keep what undoing needs to know."""
    steps = steps_of(do, plan)
    return_values = await asyncio.gather(*(_ask(levers, step, plan) for step in steps))
    refusals = tuple(refusal for refusal, _ in return_values if refusal)
    return Ready(refusals, tuple(step for _, step in return_values))


def steps_of(do: tuple[Action, ...], plan: RoutePlan) -> tuple[Step, ...]:
    """Put actions into steps: errands where they stand, all splits at the place of the first one."""
    splits = tuple(action for action in do if isinstance(action, SPLITS))
    steps: list[Step] = []
    for action in do:
        if not isinstance(action, SPLITS):
            steps.append(Step(spell_actions((action,)), action))
        elif action is splits[0]:
            steps.append(Step(spell_actions(splits)))
    if not splits:  # The answers must carry the level all the same.
        steps.insert(0, Step(f"mark answers {plan.level}"))
    return tuple(steps)


async def _ask(levers: Levers, step: Step, plan: RoutePlan) -> tuple[str, Step]:
    try:
        if step.errand is None:
            said = await levers.actuator.preflight(plan)
        else:
            said = await levers.hand(step.errand).preflight(step.errand)
    except ActuatorError as error:
        return f"{step.action}: {error.what}: {error.why}", step
    refusal = f"{step.action}: {said.refusal}" if said.refusal else ""
    return refusal, replace(step, before=said.before)


Noted = Callable[[tuple[Step, ...]], Awaitable[None]]
"""Stores how far the steps are."""


async def carry_out(levers: Levers, receipt: Receipt, noted: Noted) -> tuple[tuple[Step, ...], str]:
    """Carry out what is not done yet, in order; stop at the first step that fails.

    Returns:
        How far the steps are, and why the last one failed; an empty string when all are done.

    Raises:
        FencedError: when another control plane has taken over; it will see to the receipt.
    """
    steps = receipt.steps
    for i, step in enumerate(steps):
        if step.progress is Progress.DONE:
            continue
        try:
            if step.errand is None:
                async with levers.lock:
                    await levers.actuator.apply(receipt.after, step_key(receipt, i))
                detail = ""
            else:
                detail = await levers.hand(step.errand).apply(step.errand, step_key(receipt, i))
        except ActuatorError as error:
            return steps, f"{step.action}: {error.what}: {error.why}"
        steps = _with(steps, i, Progress.DONE, detail)
        if i + 1 < len(steps):
            await _note(noted, receipt, steps)
    return steps, ""


async def undo(levers: Levers, receipt: Receipt, noted: Noted, plan: RoutePlan | None = None) -> tuple[Step, ...]:
    """Undo what is or may be done, the last one first.

    Args:
        levers: what moves.
        receipt: whose steps.
        noted: stores how far they are.
        plan: the split to go back to; None when the traffic is back already.

    Returns:
        The steps; one that could not be undone is `stuck`, with the reason.
    """
    steps = receipt.steps
    begun = next((i for i, step in enumerate(steps) if step.progress is Progress.WAITING), len(steps))
    for i in reversed(range(min(begun + 1, len(steps)))):
        step = steps[i]
        if step.progress is Progress.UNDONE or (step.errand is None and plan is None):
            continue
        steps = await _undo_one(levers, receipt, steps, i, plan)
        await _note(noted, receipt, steps)
    return steps


async def _undo_one(
    levers: Levers, receipt: Receipt, steps: tuple[Step, ...], i: int, plan: RoutePlan | None
) -> tuple[Step, ...]:
    step, why = steps[i], ""
    for turn in range(UNDO_TRIES):
        try:
            if step.errand is not None:
                done = await levers.hand(step.errand).revert(step.errand, step_key(receipt, i), step.before)
                return _with(steps, i, Progress.UNDONE, done)
            if plan is not None:
                await levers.actuator.apply(plan, f"{step_key(receipt, i)}/undo")
            return _with(steps, i, Progress.UNDONE, "")
        except ActuatorError as error:
            why = f"{error.what}: {error.why}"
            log.error("not undone", receipt=receipt.id, step=step.action, why=why)
            if turn + 1 < UNDO_TRIES:
                await asyncio.sleep(UNDO_AGAIN_S)
    return _with(steps, i, Progress.STUCK, why)


def stuck(steps: Sequence[Step]) -> str:
    """Say what people have to undo, or return an empty string."""
    return "; ".join(f"{step.action} ({step.detail})" for step in steps if step.progress is Progress.STUCK)


def step_key(receipt: Receipt, i: int) -> str:
    """Return the idempotency key of one step: the same whoever carries it out, and after a crash."""
    return f"{receipt.id}/{i}"


def _with(steps: tuple[Step, ...], i: int, progress: Progress, detail: str) -> tuple[Step, ...]:
    changed = replace(steps[i], progress=progress, detail=detail)
    return (*steps[:i], changed, *steps[i + 1 :])


async def _note(noted: Noted, receipt: Receipt, steps: tuple[Step, ...]) -> None:
    """Store how far it is; a database that fails now must not stop an action whose intent it has."""
    try:
        await noted(steps)
    except FencedError:
        raise
    except StoreError as error:
        log.error("not recorded", receipt=receipt.id, what=error.what, why=error.why, fix=error.fix)


# -- proving -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether the outside shows what was done, and what it shows."""

    ok: bool
    detail: str


async def prove(levers: Levers, receipt: Receipt) -> Proof:
    """Wait until the gateway shows the plan and every errand is seen to be in force."""
    split, errands = await asyncio.gather(
        verify(levers.actuator, receipt.after, answer_within_s=ANSWER_WITHIN_S), prove_errands(levers, receipt)
    )
    proofs = (split, errands)
    failed = [proof for proof in proofs if not proof.ok]
    return Proof(not failed, "; ".join(proof.detail for proof in failed or proofs if proof.detail))


async def prove_errands(levers: Levers, receipt: Receipt) -> Proof:
    """Wait until every errand is seen to be in force."""
    looks = [
        _seen(levers, step.errand, step_key(receipt, i), step.detail if step.progress is Progress.DONE else "")
        for i, step in enumerate(receipt.steps)
        if step.errand is not None
    ]
    proofs = await asyncio.gather(*looks)
    failed = [proof for proof in proofs if not proof.ok]
    return Proof(not failed, "; ".join(proof.detail for proof in failed or proofs))


async def _seen(levers: Levers, errand: Errand, key: str, done: str) -> Proof:
    looked_at = monotonic()
    deadline = looked_at + VERIFY_WITHIN_S
    what, why = spell_actions((errand,)), "it is not in force"
    while looked_at < deadline:
        looked_at = monotonic()  # Before the look: after a stall that outlasts the wait, one more is taken.
        try:
            proof = await levers.hand(errand).observe(errand, key, done)
        except ActuatorError as error:
            why = f"{error.what}: {error.why}"
        else:
            if proof:
                return Proof(ok=True, detail=f"{what}: {proof}")
        await asyncio.sleep(ERRAND_EVERY_S)
    return Proof(ok=False, detail=f"{what} was not seen within {VERIFY_WITHIN_S:g} s: {why}")


async def verify(
    actuator: Actuator, plan: RoutePlan, within_s: float = VERIFY_WITHIN_S, answer_within_s: float | None = None
) -> Proof:
    """Wait until the gateway's live configuration and a sample of real answers both show a plan.

    Args:
        actuator: the lever.
        plan: what it was told.
        within_s: how long the gateway has to show it.
        answer_within_s: how long real answers have to come once it is shown; as long as `within_s` by default.
    """
    began = monotonic()
    deadline = began + within_s
    seen = "the gateway was never readable"
    looked_at = began
    while looked_at < deadline:
        looked_at = monotonic()  # Before the look: after a stall that outlasts the wait, one more is taken.
        try:
            observed = await actuator.configured()
            if configured_as(observed, plan):
                deadline = began + (answer_within_s or within_s)
                observed = await actuator.sample(SAMPLE_REQUESTS)
        except ActuatorError as error:
            seen = f"{error.what}: {error.why}"
        else:
            seen = _describe(observed)
            if shows(observed, plan):
                return Proof(ok=True, detail=seen)
            if observed.rejected:  # It keeps what it had, however long one waits.
                return Proof(ok=False, detail=f"the gateway refused the plan: {observed.rejected}; {seen}")
        await asyncio.sleep(VERIFY_EVERY_S)
    return Proof(ok=False, detail=f"not seen at the gateway within {deadline - began:g} s; last seen: {seen}")


def _describe(observed: Observed) -> str:
    if observed.rehearsed is not None:
        return "rehearsed; nothing was moved"
    split = ", ".join(f"{pool} {weight} %" for pool, weight in sorted(observed.weights.items()))
    answered = ", ".join(sorted({by or "nobody" for by in observed.answered_by})) or "not asked"
    shed = f"; shed to {observed.shed.rate:g}/s" if observed.shed else ""
    cordoned = f"; cordoned {', '.join(observed.cordoned)}" if observed.cordoned else ""
    return f"weights {split}; level {observed.level or 'unset'}{shed}{cordoned}; answered by {answered}"
