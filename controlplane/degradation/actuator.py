"""What a lever is asked for and what it proves: route plans, receipts, and the port every driver fulfils; pure.

The drivers (`envoy.py`) lie beside this file; only wiring names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from controlplane.degradation.action import MOVES, Action, Cordon, Errand, Shed, pool_of, share_of
from controlplane.degradation.matrix import LEVELS, Level
from controlplane.fleet.model import PRIMARY


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """How the gateway is to split a service's traffic."""

    weights: Mapping[str, int]
    """By pool, whole percent, together 100; a pool that is not named gets none."""
    level: Level = Level.NONE
    """Written on every response (`x-degradation-level`): no downgrade is silent."""
    shed: Shed | None = None
    """What is too much; None lets everything in that the gateway's own limits let in."""
    cordoned: tuple[str, ...] = ()
    """Endpoints that get no new requests, by name, sorted."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One engaged row's actions and how much of them is in force."""

    level: Level
    do: tuple[Action, ...]
    strength: float = 1.0
    """1 when fully engaged, falling to 0 as traffic is given back."""


def route(pulls: Sequence[Pull]) -> RoutePlan:
    """Combine the engaged rows into one split; milder rows first, so that P0 moves what is left at the primary."""
    shares = {PRIMARY: 1.0}
    in_force = [p for p in pulls if p.strength > 0]
    sheds: list[Shed] = []
    cordoned: set[str] = set()
    for pull in sorted(in_force, key=lambda p: LEVELS.index(p.level)):
        for action in pull.do:
            if isinstance(action, MOVES):
                moved = shares[PRIMARY] * share_of(action) * pull.strength
                shares[PRIMARY] -= moved
                shares[pool_of(action)] = shares.get(pool_of(action), 0.0) + moved
            elif isinstance(action, Shed):
                sheds.append(action)
            elif isinstance(action, Cordon):
                cordoned.add(action.endpoint)
    worst = max((p.level for p in in_force), key=LEVELS.index, default=Level.NONE)
    return RoutePlan(_whole_percent(shares), worst, _strictest(sheds), tuple(sorted(cordoned)))


def _strictest(sheds: Sequence[Shed]) -> Shed | None:
    """Let in what every one of them lets in."""
    if not sheds:
        return None
    floors = [shed.floor for shed in sheds if shed.floor is not None]
    tightest = min(sheds, key=lambda shed: shed.rate)
    return replace(tightest, floor=min(floors, default=None))


def _whole_percent(shares: Mapping[str, float]) -> dict[str, int]:
    """Round shares (0..1) to whole percents that add up to 100 (largest remainder)."""
    floors = {pool: int(share * 100 + 1e-9) for pool, share in shares.items()}
    by_remainder = sorted(shares, key=lambda pool: floors[pool] - shares[pool] * 100)
    for pool in by_remainder[: 100 - sum(floors.values())]:
        floors[pool] += 1
    return floors


@dataclass(frozen=True, slots=True)
class Observed:
    """What a gateway shows: its live configuration, and who answered real requests."""

    weights: Mapping[str, int]
    level: str
    answered_by: tuple[str, ...] = ()
    """The endpoints that answered the sample of requests, one element per request; empty text for no answer."""
    answered_level: tuple[str, ...] = ()
    """The level each of those answers carried; empty for a gateway that marks no answers."""
    shed: Shed | None = None
    """What is refused as too much."""
    cordoned: tuple[str, ...] = ()
    """The endpoints that are kept from new requests, sorted."""
    rehearsed: RoutePlan | None = None
    """The plan that a dry run took note of: nothing was moved, everything else here is how things really are."""
    rejected: str = ""
    """Why the gateway refused the newest configuration that was handed over; it goes on with the one before."""


def configured_as(observed: Observed, plan: RoutePlan) -> bool:
    """Tell whether a gateway's live configuration is the plan: weights, level, what is shed, who is cordoned."""
    if observed.rehearsed is not None:
        return observed.rehearsed == plan
    return (
        dict(observed.weights) == {pool: weight for pool, weight in plan.weights.items() if weight}
        and observed.level == plan.level
        and same_shed(observed.shed, plan.shed)
        and observed.cordoned == plan.cordoned
    )


def shows(observed: Observed, plan: RoutePlan) -> bool:
    """Tell whether a gateway shows the plan: its configuration, and every sampled answer with its level."""
    if observed.rehearsed is not None:
        return observed.rehearsed == plan
    answered = observed.answered_by
    return (
        configured_as(observed, plan)
        and bool(answered)
        and all(answered)
        and all(level == plan.level for level in observed.answered_level)
    )


def burst_of(shed: Shed) -> int:
    """Return how many requests may come at once: as asked, or one second's worth; always one at least."""
    return max(round(shed.burst or shed.rate), 1)


def same_shed(one: Shed | None, other: Shed | None) -> bool:
    """Tell whether two buckets let the same in; a gateway keeps its rate as a fraction, so 1 % apart is the same."""
    if one is None or other is None:
        return one is other
    return (
        abs(one.rate - other.rate) <= 0.01 * max(one.rate, other.rate)
        and burst_of(one) == burst_of(other)
        and one.floor == other.floor
    )


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a lever says before it is moved; nothing was touched."""

    refusal: str = ""
    """Why it could not be moved; an empty string when it could."""
    preview: str = ""
    """What would change, for people."""
    before: Mapping[str, str | int | None] = field(default_factory=dict)
    """What undoing needs to know of how things are now; stored with the intent. Splits need nothing here."""


class Actuator(Protocol):
    """The lever on a service's traffic. Applying twice is applying once; undoing is applying the plan from before."""

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask whether a plan could be applied now: every pool known, the gateway readable, no conflict of owners."""

    async def apply(self, plan: RoutePlan, key: str) -> None:
        """Move the lever; returns when the change is handed over, which proves nothing yet.

        Args:
            plan: the whole split, not a change of it.
            key: the idempotency key; drivers that speak to a service of somebody else's pass it on.

        Raises:
            ActuatorError: when the change could not be handed over; the lever is then where it was.
        """

    async def configured(self) -> Observed:
        """Read back what the gateway is configured to do now, from its live configuration.

        Raises:
            ActuatorError: when it cannot be read.
        """

    async def sample(self, requests: int) -> Observed:
        """Read the live configuration and send that many real requests through the gateway."""


class Hand(Protocol):
    """Carries out one kind of errand. Everything is idempotent by the key, after a crash too."""

    async def preflight(self, errand: Errand) -> Preflight:
        """Ask whether it could be done now, and what undoing will need to know."""

    async def apply(self, errand: Errand, key: str) -> str:
        """Do it; return what was done, for the record.

        Raises:
            ActuatorError: when it could not be done; nothing is then left half done.
        """

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
        """Undo it with what `preflight` had said; what is undone already is success."""

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        """Return the proof that it is in force, seen from outside; an empty string when it is not.

        Args:
            errand: what was done.
            key: under which key.
            done: what `apply` said, as it is stored: all the proof there is where nothing can be looked at.
        """


class ReceiptState(StrEnum):
    """How far an action is."""

    INTENDED = "intended"
    APPLIED = "applied"
    VERIFIED = "verified"
    REVERTING = "reverting"
    REVERTED = "reverted"
    FAILED = "failed"


OPEN_STATES = (ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED, ReceiptState.REVERTING)
"""The lever is, or may be, away from its normal place."""


BLOCKING_STATES = (ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED)
"""While a receipt of a row is in one of these, or is reverting and traffic is not back, the row is engaged already: no
other is begun."""


class Progress(StrEnum):
    """How far one action of a row is."""

    WAITING = "waiting"
    DONE = "done"
    UNDONE = "undone"
    STUCK = "stuck"
    """It could not be undone; people have to."""


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a receipt, in the order they are carried out."""

    action: str
    """As a person would say it."""
    errand: Errand | None = None
    """None for the split: all of a row's splits are one step, since they are one plan."""
    progress: Progress = Progress.WAITING
    before: Mapping[str, str | int | None] = field(default_factory=dict)
    """What undoing needs to know (`Preflight.before`)."""
    detail: str = ""
    """What was done, or why it could not be undone."""


def traffic_is_back(steps: Sequence[Step]) -> bool:
    """Tell whether the split of an action is undone: from then on its row may engage anew."""
    return any(step.errand is None and step.progress is Progress.UNDONE for step in steps)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The stored proof of one action."""

    id: str
    """The idempotency key, `service/row/episode`: an action with a key that is stored is never begun again."""
    service: str
    level: Level
    action: str
    """The action as a person would say it, such as `switch_pool to standby`."""
    before: RoutePlan
    after: RoutePlan
    state: ReceiptState
    because: tuple[str, ...]
    """The conditions that tripped the row."""
    detected_at: datetime
    """When the first evidence of the harm was seen."""
    decided_at: datetime
    times: Mapping[ReceiptState, datetime] = field(default_factory=dict)
    """When each state was reached."""
    detail: str = ""
    """Why it failed, or what proved it."""
    episode: int = 0
    """The how-manieth engagement of its row this is."""
    steps: tuple[Step, ...] = ()
    """The actions one by one, in the order they are carried out; undone in the opposite one."""
    token: int = 0
    """The fencing token of whoever wrote it last."""


class ReceiptBook(Protocol):
    """Where receipts are kept; every call returns only once the change is on disk.

    Every write is refused (`FencedError`) once another control plane has taken over.
    """

    async def intend(self, receipt: Receipt) -> bool:
        """Store a new receipt.

        Returns:
            False when nothing may be begun: its row is engaged already, or its episode is not the row's next one, so
            that somebody has dealt with it.
        """

    async def move(
        self, receipt_id: str, state: ReceiptState, at: datetime, detail: str = "", steps: tuple[Step, ...] = ()
    ) -> Receipt:
        """Record the next state of a receipt and, where they are given, how far its steps are.

        One that is over stays as it is.
        """

    async def note_steps(self, receipt_id: str, steps: tuple[Step, ...]) -> None:
        """Record how far the steps of a receipt are."""

    async def open_receipts(self, service: str) -> tuple[Receipt, ...]:
        """Return the receipts whose lever is, or may be, away from its normal place, oldest first."""
