"""The lever of one service while the control plane runs: which rows hold it, and every move of it, one at a time.

`decide` says what is to be done and is told how it ended; what is done is told by `switch`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from controlplane.degradation.actuator import Pull, Receipt, ReceiptState, RoutePlan, route
from controlplane.degradation.matrix import Level, Row
from controlplane.errors import ControlplaneError, FencedError
from controlplane.fleet.model import PRIMARY
from controlplane.telemetry import Metrics

CLOSE_AGAIN_S = 1.0
ASK_AGAIN_S = 1.0

OUTCOMES = ("verified", "failed", "refused")
"""How an engagement may end, as it is counted."""
PHASES = ("decided", "intended", "acted", "verified")
"""Moments of an engagement that are timed from its detection."""

log = structlog.get_logger("lever")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row is told to do, with everything the journey of an action needs."""

    row: Row
    before: RoutePlan
    after: RoutePlan
    because: tuple[str, ...]
    detected_at: datetime
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Levers:
    """The journeys of an action, as `switch` tells them; wiring joins the two."""

    engage: Callable[[Decision], Awaitable[Receipt | None]]
    shift: Callable[[Receipt, RoutePlan, str], Awaitable[bool]]
    close: Callable[[Receipt], Awaitable[Receipt]]
    resolve: Callable[[Level, str], Awaitable[None]]
    """Ends the incident of a row that never got as far as a receipt: (level, why)."""
    ask: Callable[[Decision, str], Awaitable[None]]
    """Opens the incident of a row that may not engage without a person, and says so on it."""
    undone: Callable[[Row], AbstractAsyncContextManager[object]]
    """Held while a row engages: waits until nothing of its engagement before is left to be undone."""
    page: Callable[[str], Awaitable[None]]
    """Reaches people who look at no console."""


@dataclass(slots=True)
class End:
    """How an effect ended."""

    ok: bool = False
    touched: bool = True
    """The lever was moved; a gate that refuses leaves it as it is."""


@dataclass(slots=True)
class _Held:
    """What a row holds the lever with."""

    receipt: Receipt | None = None
    closing: Receipt | None = None
    """All traffic is back, and this one does not say so yet."""
    begun: int = 0
    """How many engagements the row has begun."""


class Lever:
    """The lever of one service."""

    def __init__(
        self,
        service: str,
        rows: Mapping[Level, Row],
        levers: Levers,
        metrics: Metrics,
        given_back: Callable[[Level], float],
        ended: Callable[[Level, End], None],
        asks: Callable[[Level], bool],
    ) -> None:
        """Begin with nothing engaged.

        Args:
            service: whose lever it is.
            rows: the matrix.
            levers: the journeys of an action.
            metrics: where moves are counted and timed.
            given_back: the share (0..1) that a row in force has given back to the primary.
            ended: told how each effect ended, but for closings and questions.
            asks: whether a row waits for a person who has not answered yet.
        """
        self._service = service
        self._rows = rows
        self._levers = levers
        self.metrics = metrics
        self._given_back = given_back
        self._tell_end = ended
        self._asks = asks
        self._held = {level: _Held() for level in rows}
        self._moving = asyncio.Lock()
        for level in rows:  # Counters that were born with their first event would not be seen to grow.
            for outcome in OUTCOMES:
                metrics.switches.labels(service, level, outcome)
            for phase in PHASES:
                metrics.switch_seconds.labels(service, level, phase)
        self.plan = RoutePlan({PRIMARY: 100})
        """The split that it was last told."""

    def closing(self, level: Level) -> bool:
        """Tell whether a row has given everything back and its receipt does not say so yet."""
        return self._held[level].closing is not None

    def holds(self, level: Level) -> str:
        """Return the receipt that a row holds the lever with; an empty string when it does not."""
        receipt = self._held[level].receipt
        return receipt.id if receipt else ""

    def let_go(self, level: Level) -> None:
        """Forget a row whose receipt somebody else has closed."""
        self._held[level] = _Held()
        self.plan = self._plan_with(level, 0.0)

    def take_over(self, receipt: Receipt) -> None:
        """Hold the lever for a row that was engaged when the control plane last ran."""
        held = self._held[receipt.level]
        held.receipt, held.closing = receipt, None
        self.plan = self._plan_with(receipt.level, 1.0)

    async def engage(self, level: Level, because: tuple[str, ...], detected_at: datetime, decided_at: datetime) -> None:
        """Put a row in force, as `switch` does it, and say how it ended."""
        result, held = "failed", self._held[level]
        held.begun, held.closing = held.begun + 1, None
        with self._outcome_of(level) as end:
            # In this order: what a row has to wait for alone keeps no other from the lever.
            async with self._levers.undone(self._rows[level]), self._moving:
                decision = self._decision(level, because, detected_at, decided_at)
                receipt = await self._levers.engage(decision)
                end.ok = receipt is not None and receipt.state is ReceiptState.VERIFIED
                end.touched = receipt is not None
                result = "verified" if end.ok else "failed" if receipt else "refused"
                if end.ok and receipt:
                    self._held[level].receipt, self.plan = receipt, decision.after
                    self._time_phases(receipt)
        self.metrics.switches.labels(self._service, level, result).inc()

    async def page(self, level: Level, text: str) -> None:
        """Page people that a row waits for one of them, if it still does."""
        if self._asks(level):
            await self._levers.page(text)

    async def ask(
        self, level: Level, because: tuple[str, ...], detected_at: datetime, decided_at: datetime, text: str
    ) -> None:
        """Try to write down that a row waits for a person, for as long as it does."""
        decision = self._decision(level, because, detected_at, decided_at)
        while self._asks(level):
            try:
                await self._levers.ask(decision, text)
                break
            except ControlplaneError as error:
                log.error("not written down", row=level, what=error.what, why=error.why, fix=error.fix)
                await asyncio.sleep(ASK_AGAIN_S)

    async def shift(self, level: Level, given_back: float, worse: str = "") -> None:
        """Give a share (0..1) of a row's traffic back to the primary; 0 takes all of it back.

        Args:
            level: the row.
            given_back: the share that the primary has from now on.
            worse: why the primary gets less than it had although the row's trigger does not hold; empty otherwise.
        """
        what = f"{given_back:.0%} of the traffic goes back to the primary pool" if given_back else "fully engaged again"
        if worse:
            had = self._given_back(level)
            what = f"one step back, from {had:.0%} to {given_back:.0%} of the traffic at the primary pool: {worse}"
        held = self._held[level]
        with self._outcome_of(level) as end:
            async with self._moving:
                plan = self._plan_with(level, 1.0 - given_back)
                end.ok = held.receipt is not None and await self._levers.shift(held.receipt, plan, what)
                if end.ok and held.receipt:
                    held.receipt, self.plan = replace(held.receipt, state=ReceiptState.REVERTING), plan

    def close(self, level: Level) -> Coroutine[None, None, None]:
        """Record the end of a row; it counts as closing from now on, until what is returned has been awaited."""
        held = self._held[level]
        held.closing, held.receipt = held.receipt, None
        return self._close(level, held.closing, held.begun)

    async def _close(self, level: Level, receipt: Receipt | None, begun: int) -> None:
        """Try until it is stored, since a receipt that stays open would engage the row again.

        Whoever takes over closes what is stored; what is in force again is not over.
        """
        while not self._in_force_again(level, receipt, begun):
            try:
                if receipt:
                    await self._levers.close(receipt)
                else:
                    await self._levers.resolve(level, "cleared without the lever")
                break
            except FencedError as error:
                log.warning("not ours to close", row=level, what=error.what, why=error.why, fix=error.fix)
                break
            except ControlplaneError as error:
                log.error("not closed", row=level, what=error.what, why=error.why, fix=error.fix)
                await asyncio.sleep(CLOSE_AGAIN_S)
        held = self._held[level]
        if held.closing is receipt:
            held.closing = None

    def _in_force_again(self, level: Level, receipt: Receipt | None, begun: int) -> bool:
        """Tell whether a row has engaged, or its receipt was taken over, since it began to be closed.

        A receipt of the engagement before is closed all the same: it is not the one in force.
        """
        held = self._held[level]
        if receipt:
            return held.receipt is not None and held.receipt.id == receipt.id
        return held.receipt is not None or held.begun != begun

    @contextmanager
    def _outcome_of(self, level: Level) -> Iterator[End]:
        """Say how an effect ended, whatever happened: a row that is never told would stay busy for ever."""
        end = End()
        try:
            yield end
        except ControlplaneError as error:
            log.error("not moved", row=level, what=error.what, why=error.why, fix=error.fix)
        except asyncio.CancelledError:
            raise  # The process stops; the next one settles what is stored.
        except BaseException:
            self._tell_end(level, End())
            raise
        self._tell_end(level, end)

    def _decision(
        self, level: Level, because: tuple[str, ...], detected_at: datetime, decided_at: datetime
    ) -> Decision:
        return Decision(self._rows[level], self.plan, self._plan_with(level, 1.0), because, detected_at, decided_at)

    def _plan_with(self, level: Level, strength: float) -> RoutePlan:
        """Return the split with one row at a strength and every other row as it is."""
        pulls = [Pull(level, self._rows[level].do, strength)]
        for other, held in self._held.items():
            if other is not level and held.receipt:
                pulls.append(Pull(other, self._rows[other].do, 1.0 - self._given_back(other)))
        return route(pulls)

    def _time_phases(self, receipt: Receipt) -> None:
        seconds = self.metrics.switch_seconds
        moments = (
            receipt.decided_at,
            *(receipt.times[s] for s in (ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED)),
        )
        for phase, at in zip(PHASES, moments, strict=True):
            seconds.labels(self._service, receipt.level, phase).observe((at - receipt.detected_at).total_seconds())
