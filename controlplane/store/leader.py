"""Who is in charge, in the database: a lease with a fencing token (`runtime.leader` takes and renews it).

Times are the database's own: the clocks of two machines never meet.
"""

from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from controlplane.degradation.fencing import Term
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

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | None:
        """Take the lease where nobody holds it, or its holder let it run out, or is ourselves in an earlier life.

        Returns:
            The new term, with a larger token than any before; None while somebody else is in charge.
        """

        def work(connection: Connection) -> Term | None:
            now = _now(connection)
            mine = leadership.c.name == service
            held = connection.execute(select(leadership).where(mine).with_for_update()).one_or_none()
            if held is None:
                row = {"name": service, "holder": holder, "token": 1, "expires": now + ttl_s}
                try:
                    connection.execute(insert(leadership).values(row))
                except IntegrityError:  # Another one was a moment earlier.
                    connection.rollback()
                    return None
                return Term(service, holder, 1)
            if held.holder != holder and held.expires > now:
                return None
            token = held.token + 1
            connection.execute(update(leadership).where(mine).values(holder=holder, token=token, expires=now + ttl_s))
            return Term(service, holder, token)

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

    async def holder(self, service: str) -> str:
        """Return who is, or was last, in charge; an empty string when nobody ever was."""
        query = select(leadership.c.holder).where(leadership.c.name == service)
        return await self._database.run(lambda c: str(c.execute(query).scalar() or ""))


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


def _now(connection: Connection) -> float:
    return float(connection.execute(text(_NOW[connection.dialect.name])).scalar_one())


def _set_expiry(connection: Connection, term: Term, expires: float) -> bool:
    mine = (leadership.c.name == term.service) & (leadership.c.token == term.token)
    return connection.execute(update(leadership).where(mine).values(expires=expires)).rowcount == 1
