"""Which of several control planes on one database is in charge: takes the lease, renews it, and knows when it is lost.

The one in charge acts; the others observe and serve their pages, and the next one takes over when the lease runs out. A
process that was stopped for longer than the lease finds out at its next step: by its own clock first, and by the token
(`store.leader.guard`) whenever it writes.
"""

import asyncio
import os
import socket
from pathlib import Path
from time import monotonic
from typing import Protocol

import structlog

from controlplane.degradation.fencing import Term
from controlplane.errors import FencedError, StoreError
from controlplane.telemetry import Metrics

TTL_S = 4.0
"""How long a lease holds; a dead control plane is replaced after this and one turn."""
TURN_EVERY_S = 1.0

log = structlog.get_logger("leader")


class TermBook(Protocol):
    """Where the lease is kept."""

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | None:
        """Take the lease if it is free; None when somebody else is in charge."""

    async def renew(self, term: Term, ttl_s: float) -> bool:
        """Hold on to the lease; False when it is somebody else's."""

    async def resign(self, term: Term) -> None:
        """Let go of the lease."""

    async def confirm(self, term: Term) -> None:
        """Raise `FencedError` unless the term is the newest."""


class Leadership:
    """One control plane's share in the lease of a service."""

    def __init__(self, book: TermBook, service: str, holder: str, metrics: Metrics, ttl_s: float = TTL_S) -> None:
        """Take what it works with.

        Args:
            book: where the lease is kept.
            service: whose levers it is about.
            holder: who we are; the same after a restart, so that we need not wait for ourselves.
            metrics: where it is shown.
            ttl_s: how long a lease holds, in seconds.
        """
        self._book = book
        self._service = service
        self._holder = holder
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._held: Term | None = None
        self._until = 0.0
        self._settled = 0

    @property
    def acting(self) -> bool:
        """Whether we may decide: we are in charge, and what the one before us left half done has been settled."""
        term = self.term
        return term is not None and term.token == self._settled

    def settled(self, term: Term) -> None:
        """Note that what was left half done before a term has been settled."""
        self._settled = term.token

    @property
    def term(self) -> Term | None:
        """Our term while we are in charge; by our own clock it ends no later than by the database's."""
        return self._held if monotonic() < self._until else None

    async def turn(self) -> None:
        """Renew the lease, or try to take it."""
        before, asked_at = self.term, monotonic()
        try:
            if self._held and not await self._book.renew(self._held, self._ttl_s):
                self._held = None
            if self._held is None:
                self._held = await self._book.take(self._service, self._holder, self._ttl_s)
            if self._held:
                self._until = asked_at + self._ttl_s
        except StoreError as error:
            log.error("no lease", what=error.what, why=error.why, fix=error.fix)
        self._show(before)

    async def keep(self) -> None:
        """Take turns for ever."""
        while True:
            await asyncio.sleep(TURN_EVERY_S)
            await self.turn()

    async def confirm(self) -> None:
        """Make sure that we are in charge right now; asked before each move of a lever.

        Raises:
            FencedError: when we are not.
        """
        term = self.term
        if term:
            await self._book.confirm(term)
        # Asked again: whoever was stopped while the database answered is told of a time that is long over.
        if term is None or self.term != term:
            raise FencedError("not in charge", f"the lease of {self._service} is not ours", "ask the one in charge")

    async def resign(self) -> None:
        """Let go, so that another one need not wait."""
        held, self._held, self._until = self._held, None, 0.0
        if held:
            try:
                await self._book.resign(held)
            except StoreError as error:
                log.warning("lease not given back", what=error.what, why=error.why)

    def _show(self, before: Term | None) -> None:
        now, metrics = self.term, self._metrics
        metrics.leader.labels(self._service).set(now is not None)
        metrics.leader_term.labels(self._service).set(now.token if now else 0)
        if (now and now.token) != (before and before.token):
            log.info("in charge" if now else "not in charge", service=self._service, token=now.token if now else None)


def holder_name(state_dir: Path) -> str:
    """Name this control plane: its machine and its state directory, which only one process can hold at a time."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}:{state_dir.absolute()}"[:255]
