"""Who is in charge, in the database: a lease with a fencing token (`runtime.leader` takes and renews it).

Times are the database's own: the clocks of two machines never meet.
"""

from time import time

from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from controlplane.degradation.fencing import Held, Term
from controlplane.errors import FencedError
from controlplane.store.database import Database
from controlplane.store.schema import leadership

_NOW = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}
"""Unix seconds by the database's clock."""


class StoredTerms:
    """The lease of each service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, service: str, holder: str, ttl_s: float, token: int = 0) -> Term | Held:
        """Take the lease where nobody holds it, or its holder let it run out, or is ourselves in an earlier life.

        Args:
            service: whose lease.
            holder: who wants it.
            ttl_s: how long it holds, in seconds.
            token: the number that the term must have, where something else gives numbers; 0 takes the next one.

        Returns:
            The new term, with a larger token than any before; or who is in charge, and for how long at least.
        """
        # A look first: whoever waits for the lease does not hold up those who write.
        held = await self._database.run(lambda c: _held(c, service, holder))
        if held is not None:
            return held

        def work(connection: Connection) -> Term | Held:
            now = _now(connection)
            mine = leadership.c.name == service
            held = connection.execute(select(leadership).where(mine).with_for_update()).one_or_none()
            if held is None:
                term = Term(service, holder, token or 1)
                row = {"name": service, "holder": holder, "token": term.token, "expires": now + ttl_s}
                try:
                    connection.execute(insert(leadership).values(row))
                except IntegrityError:  # Another one was a moment earlier.
                    connection.rollback()
                    return Held("", 0.0)
                return term
            if held.holder != holder and held.expires > now:
                return Held(held.holder, held.expires - now)
            term = Term(service, holder, token or held.token + 1)
            if term.token <= held.token:  # Whoever gave this number did not know of ours.
                return Held(held.holder, 0.0)
            values = {"holder": holder, "token": term.token, "expires": now + ttl_s}
            connection.execute(update(leadership).where(mine).values(values))
            return term

        return await self._database.change(work)

    async def renew(self, term: Term, ttl_s: float) -> bool:
        """Hold on to the lease; False when it is somebody else's."""

        def work(connection: Connection) -> bool:
            return _set_expiry(connection, term, _now(connection) + ttl_s)

        return await self._database.change(work)

    async def resign(self, term: Term) -> None:
        """Let go of the lease, so that another one can take it at once."""
        await self._database.change(lambda c: _set_expiry(c, term, 0.0))

    async def confirm(self, term: Term) -> None:
        """Make sure that a term still is the newest.

        Raises:
            FencedError: when it is not.
        """
        await self._database.run(lambda c: guard(c, term))

    async def newest(self, service: str) -> Term:
        """Return the newest term there was, in force or not; one with token 0 when there never was any."""
        query = select(leadership).where(leadership.c.name == service)
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        return Term(service, row.holder, row.token) if row else Term(service, "", 0)

    async def clock_off_s(self) -> float:
        """Return by how many seconds the database's clock is ahead of this machine's.

        Raises:
            StoreError: when the database refuses.
        """

        def work(connection: Connection) -> float:
            began = time()
            theirs = _now(connection)
            return theirs - (began + time()) / 2

        return await self._database.run(work)


def guard(connection: Connection, term: Term | None) -> int:
    """Make sure, inside a transaction that writes, that a term still is the newest; the row is locked where it can be.

    Returns:
        Its token.

    Raises:
        FencedError: when it is not, or there is none.
    """
    if term is None:
        raise FencedError("not in charge", "this control plane holds no lease", "wait until it does, or ask the other")
    query = select(leadership).where(leadership.c.name == term.service).with_for_update(read=True)
    held = connection.execute(query).one_or_none()
    if held is None or held.token != term.token:
        by = held.holder if held else "nobody"
        raise FencedError(
            "not in charge any more", f"the newest term is {by}'s; ours was number {term.token}", "ask the other one"
        )
    return term.token


def _held(connection: Connection, service: str, holder: str) -> Held | None:
    """Return who else is in charge; None when nobody is."""
    held = connection.execute(select(leadership).where(leadership.c.name == service)).one_or_none()
    if held is None or held.holder == holder:
        return None
    left_s = held.expires - _now(connection)
    return Held(held.holder, left_s) if left_s > 0 else None


def _now(connection: Connection) -> float:
    return float(connection.execute(text(_NOW[connection.dialect.name])).scalar_one())


def _set_expiry(connection: Connection, term: Term, expires: float) -> bool:
    mine = (leadership.c.name == term.service) & (leadership.c.token == term.token)
    return connection.execute(update(leadership).where(mine).values(expires=expires)).rowcount == 1
