"""Doing what is ours to do: settling what was left half done when we come to be in charge, and tending it from then on.

Called every two seconds by `server`, and at once when a term of ours begins. One that is not in charge shows what the
other one has engaged, and touches nothing.
"""

import asyncio

import structlog

from controlplane.degradation.actuator import Receipt
from controlplane.errors import FencedError, StoreError
from controlplane.flows import recover
from controlplane.flows.decide import Decider
from controlplane.flows.recover import RecoverPorts
from controlplane.runtime.books import Books
from controlplane.runtime.hearing import Hearing
from controlplane.runtime.leader import Leadership

log = structlog.get_logger("charge")


class Charge:
    """One control plane's part in its service."""

    def __init__(
        self,
        service: str,
        leadership: Leadership,
        books: Books,
        decider: Decider,
        hearing: Hearing,
        recovering: RecoverPorts,
    ) -> None:
        """Take whom it works with."""
        self._service = service
        self._leadership = leadership
        self._books = books
        self._decider = decider
        self._hearing = hearing
        self._recovering = recovering
        self._busy = asyncio.Lock()
        self.unable = ""
        """Why our part could not be done the last time: what the database said; empty when it could."""

    async def tick(self) -> None:
        """Do our part once; not twice at a time.

        Raises:
            StoreError: when the database refuses, or we are in charge no longer.
        """
        async with self._busy:
            try:
                await self._take_part()
            except StoreError as error:
                self.unable = "" if isinstance(error, FencedError) else f"{error.what}: {error.why}"
                raise
            self.unable = ""

    async def keep(self) -> None:
        """Settle what was left half done in the moment that a term of ours begins, until called off."""
        gained = self._leadership.gained
        while True:
            await gained.wait()
            gained.clear()
            try:
                await self.tick()
            except Exception:  # The next tick tries it again.
                log.exception("not settled")

    async def _take_part(self) -> None:
        await self._leadership.still_acting()
        ports, term = self._recovering, self._leadership.term
        if term is None:
            engaged = await self._books.receipts.open_receipts(self._service)
            said = await self._books.instructions.in_force(self._service)
            if self._leadership.lapsed or self._leadership.term:
                return  # Ours by all that is known: what is in hand may be ours to put back.
            ports.in_hand.receipts.clear()
            self._decider.follow(engaged, said)
            self._hearing.resumed(said)
        elif self._leadership.acting:
            await recover.tend_receipts(ports)
            await recover.end_abandoned(ports)
            await recover.heal_expired(ports)
        elif not ports.in_hand.moving:
            await self._resume(await recover.settle_receipts(ports))
            await recover.settle_drills(ports)
            self._leadership.settled(term)

    async def _resume(self, engaged: tuple[Receipt, ...]) -> None:
        said = await self._books.instructions.in_force(self._service)
        left_open = await self._books.incidents.rows(self._service)
        await recover.settle_rows(self._recovering, left_open)
        self._decider.resume(engaged, said, left_open)
        self._hearing.resumed(said)
