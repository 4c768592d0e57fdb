"""Where rollouts are asked for and called off: one at a time, in the background of the process that is in charge."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import structlog

from controlplane.degradation.actuator import Receipt, ReceiptState
from controlplane.degradation.matrix import Level
from controlplane.errors import ControlplaneError
from controlplane.flows import rollout
from controlplane.flows.rollout import Refused, Rollout, RolloutPorts
from controlplane.runtime.leader import Leadership

log = structlog.get_logger("rollouts")


class Receipts(Protocol):
    """The book of receipts, as far as rollouts read it."""

    async def next_episode(self, service: str, level: str) -> int:
        """Return the number that the next one has."""

    async def open_receipts(self, service: str) -> tuple[Receipt, ...]:
        """Return those that are not over."""

    async def recent(self, service: str, limit: int) -> tuple[Receipt, ...]:
        """Return the newest first."""


class RolloutDesk:
    """Starts rollouts and calls them off."""

    def __init__(
        self,
        service: str,
        ports: RolloutPorts,
        receipts: Receipts,
        leadership: Leadership,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        """Take what it works with; `receipts` is the book that `ports` writes to."""
        self._service = service
        self._ports = ports
        self._receipts = receipts
        self._leadership = leadership
        self._spawn = spawn
        self._running: Rollout | None = None

    async def start(
        self, service: str, pool: str, steps: tuple[float, ...], hold: timedelta, asked_by: str
    ) -> Receipt | Refused:
        """Begin a rollout; it goes on in the background.

        Args:
            service: whose traffic; ours, or it is refused.
            pool: where it goes.
            steps: shares (0..1), ascending, the last one 1.
            hold: how long each step is held and judged.
            asked_by: who wants it.
        """
        if service != self._service:
            return Refused(f"this control plane is in charge of {self._service}")
        if not self._leadership.acting:
            return self._not_ours()
        if not steps or steps[-1] != 1.0 or any(b <= a for a, b in zip((0.0, *steps), steps, strict=False)):
            return Refused("the steps must rise to 100%")
        episode = await self._receipts.next_episode(service, Level.NONE)
        asked = Rollout(service, pool, asked_by, episode, steps, hold)
        receipt = await rollout.begin(self._ports, asked)
        if isinstance(receipt, Receipt):
            self._running = asked
            self._spawn(self._walk(asked, receipt))
        return receipt

    async def abort(self, asked_by: str) -> Receipt | Refused:
        """Call the rollout off, or take back one that was seen through.

        Returns:
            Its receipt as it is now: the traffic of one that is under way is back a moment later.
        """
        found = next((r for r in await self._receipts.open_receipts(self._service) if r.level is Level.NONE), None)
        if found is None:
            return Refused("no rollout is under way")
        if not self._leadership.acting:
            return self._not_ours()
        if self._running and found.state is not ReceiptState.VERIFIED:
            self._running.stop.set()
            return replace(found, detail=f"called off by {asked_by}")
        return await rollout.roll_back(self._ports, found, f"called off by {asked_by}")

    def _not_ours(self) -> Refused:
        who = self._leadership.leader
        return Refused(f"this control plane is not in charge: ask {who or 'the one that is'}")

    async def newest(self) -> Receipt | None:
        """Return the receipt of the newest rollout."""
        recent = await self._receipts.recent(self._service, 100)
        return next((receipt for receipt in recent if receipt.level is Level.NONE), None)

    async def _walk(self, asked: Rollout, receipt: Receipt) -> None:
        try:
            await rollout.carry_on(self._ports, asked, receipt)
        except ControlplaneError as error:  # The recovery sees to it.
            log.error("rollout broke off", receipt=receipt.id, what=error.what, why=error.why, fix=error.fix)
        finally:
            if self._running is asked:  # Another one may begin while people are told how this one ended.
                self._running = None
