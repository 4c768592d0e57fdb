"""Tokens and sessions in the database: `security.tokens`' books."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from controlplane.security.roles import Role
from controlplane.security.tokens import Session, Token
from controlplane.store.database import Database
from controlplane.store.schema import sessions, tokens

KEPT_AFTER_END = timedelta(days=30)
"""Sessions that are over are forgotten after this; the audit log still knows of them."""


class StoredTokens:
    """Every token that was ever handed out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, token: Token) -> None:
        """Keep a new one."""
        row = {name: getattr(token, name) for name in Token.__slots__} | {"role": token.role.value}
        await self._database.run(lambda c: c.execute(insert(tokens).values(row)))

    async def find(self, token_id: str) -> Token | None:
        """Return one by its id."""

        def work(connection: Connection) -> Token | None:
            row = connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
            return _token(row) if row else None

        return await self._database.run(work)

    async def every(self) -> tuple[Token, ...]:
        """Return all of them, the newest first."""
        query = select(tokens).order_by(tokens.c.created_at.desc())
        return await self._database.run(lambda c: tuple(_token(r) for r in c.execute(query)))

    async def revoke(self, token_id: str, at: datetime, by: str) -> bool:
        """End one and every session it opened; False when there is none that still holds."""
        theirs = tokens.c.id == token_id, tokens.c.revoked_at.is_(None)
        opened = sessions.c.credential == token_id, sessions.c.ended_at.is_(None)

        def work(connection: Connection) -> bool:
            done = connection.execute(update(tokens).where(*theirs).values(revoked_at=at, revoked_by=by)).rowcount
            connection.execute(update(sessions).where(*opened).values(ended_at=at))
            return done == 1

        return await self._database.run(work)

    async def used(self, token_id: str, at: datetime) -> None:
        """Record that a token was used."""
        await self._database.run(
            lambda c: c.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))
        )


class StoredSessions:
    """Every session of the console that is not long over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, session: Session) -> None:
        """Keep a new one, and forget those that are long over."""
        row = {name: getattr(session, name) for name in Session.__slots__} | {"role": session.role.value}
        old = delete(sessions).where(sessions.c.expires_at < session.created_at - KEPT_AFTER_END)

        def work(connection: Connection) -> None:
            connection.execute(old)
            connection.execute(insert(sessions).values(row))

        await self._database.run(work)

    async def find(self, hashed: str) -> Session | None:
        """Return one by its cookie's hash."""

        def work(connection: Connection) -> Session | None:
            row = connection.execute(select(sessions).where(sessions.c.hashed == hashed)).one_or_none()
            return _session(row) if row else None

        return await self._database.run(work)

    async def seen(self, hashed: str, at: datetime) -> None:
        """Record that it was used."""
        await self._database.run(
            lambda c: c.execute(update(sessions).where(sessions.c.hashed == hashed).values(seen_at=at))
        )

    async def end(self, hashed: str, at: datetime) -> None:
        """End one; one that has ended stays as it is."""
        open_one = sessions.c.hashed == hashed, sessions.c.ended_at.is_(None)
        await self._database.run(lambda c: c.execute(update(sessions).where(*open_one).values(ended_at=at)))


def _token(row: Row[Any]) -> Token:
    return Token(
        row.id, row.name, Role(row.role), row.hashed, row.created_at, row.created_by, row.expires_at,
        row.last_used_at, row.revoked_at, row.revoked_by,
    )  # fmt: skip


def _session(row: Row[Any]) -> Session:
    return Session(
        row.hashed, row.name, Role(row.role), row.credential, row.created_at, row.seen_at, row.expires_at, row.ended_at
    )
