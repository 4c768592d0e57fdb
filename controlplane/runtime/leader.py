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

from controlplane.degradation.fencing import Held, Term
from controlplane.errors import ControlplaneError, FencedError
from controlplane.telemetry import Metrics

TTL_S = 4.0
"""How long a lease holds; a dead control plane is replaced in the moment that it runs out."""
TURN_EVERY_S = 1.0
"""How often whoever is in charge renews; and how often the others look whether the lease was given back."""
SOONEST_S = 0.05
"""Between two turns at least, in the moment that the lease may be free."""

log = structlog.get_logger("leader")


class TermBook(Protocol):
    """Where the lease is kept."""

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | Held:
        """Take the lease if it is free; else say who is in charge, and for how long at least."""

    async def renew(self, term: Term, ttl_s: float) -> bool:
        """Hold on to the lease; False when it is somebody else's."""

    async def resign(self, term: Term) -> None:
        """Let go of the lease."""

    async def confirm(self, term: Term) -> None:
        """Raise `FencedError` unless the term is the newest."""


class Leadership:
    """One control plane's share in the lease of a service."""

    def __init__(
        self,
        book: TermBook,
        service: str,
        holder: str,
        metrics: Metrics,
        ttl_s: float = TTL_S,
        look_every_s: float = TURN_EVERY_S,
    ) -> None:
        """Take what it works with.

        Args:
            book: where the lease is kept.
            service: whose levers it is about.
            holder: who we are; the same after a restart, so that we need not wait for ourselves.
            metrics: where it is shown.
            ttl_s: how long a lease holds, in seconds.
            look_every_s: how often one that is not in charge looks who is, in seconds.
        """
        self._look_every_s = look_every_s
        self._other = ""
        self._look_at = 0.0
        self.gained = asyncio.Event()
        """Set whenever a term of ours begins: what was left half done is to be settled now."""
        self._book = book
        self._service = service
        self._holder = holder
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._held: Term | None = None
        self._until = 0.0
        self._settled = 0
        self._turning = asyncio.Lock()
        self._last_turn: asyncio.Future[None] | None = None

    @property
    def leader(self) -> str:
        """Who is in charge as far as we know, by the name that people find it by; empty when nobody is known to be."""
        return self._holder if self.term else self._other

    @property
    def role(self) -> str:
        """What we are: `leader`, `follower`, or `taking over` while what was left half done is being settled."""
        return "leader" if self.acting else "taking over" if self.term else "follower"

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

    @property
    def held(self) -> Term | None:
        """The term that is ours by all that we know, whatever our clock says; the database judges it as it writes."""
        return self._held

    @property
    def lapsed(self) -> bool:
        """Whether our lease ran out by our own clock, and nobody is known to have taken it: it may be ours still."""
        return self._held is not None and self.term is None

    async def still_acting(self) -> bool:
        """Tell whether we may decide; a lease that ran out while this machine stood still is asked for first.

        For what is not looked at again once the answer is no.
        """
        if self.lapsed:
            await self.turn()
        return self.acting

    async def turn(self) -> None:
        """Renew the lease, or try to take it; one turn at a time, and each to its end, whoever is called off."""
        self._last_turn = asyncio.ensure_future(self._turn())
        await asyncio.shield(self._last_turn)

    async def _turn(self) -> None:
        async with self._turning:
            await self._renew_or_take()

    async def _renew_or_take(self) -> None:
        before, asked_at = self.term, monotonic()
        self._look_at = asked_at + self._look_every_s
        try:
            if self._held and not await self._book.renew(self._held, self._ttl_s):
                self._held = None
            if self._held is None:
                self._take_in(await self._book.take(self._service, self._holder, self._ttl_s))
            if self._held:
                self._until = asked_at + self._ttl_s
        except ControlplaneError as error:
            log.error("no lease", what=error.what, why=error.why, fix=error.fix)
        self._show(before)

    def _take_in(self, taken: Term | Held) -> None:
        if isinstance(taken, Term):
            self._held, self._other = taken, ""
            return
        self._other = taken.holder or self._other
        self._look_at = min(self._look_at, monotonic() + max(SOONEST_S, taken.left_s))

    async def keep(self) -> None:
        """Take turns for ever; one that is not in charge is there in the moment that the lease runs out."""
        while True:
            pause_s = TURN_EVERY_S if self._held else max(SOONEST_S, self._look_at - monotonic())
            await asyncio.sleep(pause_s)
            await self.turn()

    async def confirm(self) -> None:
        """Make sure that we are in charge right now; asked before each move of a lever.

        Raises:
            FencedError: when we are not.
        """
        held = self._held
        if self.lapsed:
            await self.turn()
        term = self.term if self._held == held else None
        if term:
            await self._book.confirm(term)
        # Asked again: whoever was stopped while the database answered is told of a time that is long over.
        if term is None or self.term != term:
            raise FencedError("not in charge", f"the lease of {self._service} is not ours", "ask the one in charge")

    async def resign(self) -> None:
        """Let go, so that another one need not wait; a turn under way is waited for: what it takes is given back."""
        async with self._turning:
            held, self._held, self._until = self._held, None, 0.0
            if held:
                try:
                    await self._book.resign(held)
                except ControlplaneError as error:
                    log.warning("lease not given back", what=error.what, why=error.why)

    def _show(self, before: Term | None) -> None:
        now, metrics = self.term, self._metrics
        metrics.leader.labels(self._service).set(now is not None)
        metrics.leader_term.labels(self._service).set(now.token if now else 0)
        if (now and now.token) != (before and before.token):
            log.info("in charge" if now else "not in charge", service=self._service, token=now.token if now else None)
            if now:
                self.gained.set()


def holder_name(state_dir: Path) -> str:
    """Name this control plane: its machine and its state directory, which only one process can hold at a time."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}:{state_dir.absolute()}"[:255]
