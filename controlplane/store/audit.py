"""The audit log in the database: `security.chain.AuditBook`.

Whoever appends holds the head's row (SQLite: the database's write lock), reads where the chain ends and writes behind
it, all in one transaction: two control planes on one database make one chain.
"""

from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, String, insert, select, type_coerce, update

from controlplane.security.chain import Break, Checked, Deed, Head, Link, against, extend, follow
from controlplane.store.database import Database
from controlplane.store.schema import audit, audit_head

PAGE = 1000
"""Rows that are checked in one go: nothing else waits for the store for longer than these take."""

_ROWS = select(*(c for c in audit.c if c.name != "at"), type_coerce(audit.c.at, String).label("at"))
"""The rows with their times as they stand: one that was tampered with need not be a time at all."""

log = structlog.get_logger("audit")


class StoredAudit:
    """Every write and every refusal, in a chain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, deed: Deed) -> Link:
        """Add a row behind the last one, and log its hash: a head that lies where the database's owner cannot reach."""
        link = await self._database.change(lambda c: _append(c, deed))
        log.info("audit", number=link.number, hash=link.hash)
        return link

    def append_now(self, deed: Deed) -> Link:
        """Add a row in this thread; for the command line, where no loop runs."""
        return self._database.change_now(lambda c: _append(c, deed))

    async def recent(self, limit: int, before: int | None) -> tuple[Link, ...]:
        """Return the newest rows first, those below a number where one is given."""
        query = _ROWS.order_by(audit.c.number.desc()).limit(limit)
        query = query.where(audit.c.number < before) if before is not None else query
        return await self._database.run(lambda c: tuple(_link(r) for r in c.execute(query)))

    async def check(self, noted: Head | None) -> Checked:
        """Follow the whole chain page by page, and hold it against a head that was noted elsewhere."""
        # The end is read first: rows that come while we look do not make it look cut off.
        kept = await self._database.run(_head)
        head, rows, at_noted = Head(), 0, None
        breaks: list[Break] = []
        while head.number < kept.number:
            page = await self._database.run(lambda c, after=head.number: _page(c, after, kept.number))  # type: ignore[misc]
            if not page:
                break
            head, found = follow(head, page)
            rows += len(page)
            breaks += found
            at_noted = next((link.hash for link in page if noted and link.number == noted.number), at_noted)
        breaks += await self._database.run(_strangers)
        breaks += against(head, kept, noted, at_noted)
        return Checked(rows, head, tuple(breaks))


def _append(connection: Connection, deed: Deed) -> Link:
    link = extend(_head(connection, lock=True), deed)
    said = {name: getattr(deed, name) for name in Deed.__slots__}
    connection.execute(insert(audit).values(number=link.number, before=link.before, hash=link.hash, **said))
    connection.execute(update(audit_head).values(number=link.number, hash=link.hash))
    return link


def _head(connection: Connection, *, lock: bool = False) -> Head:
    query = select(audit_head.c.number, audit_head.c.hash)
    row = connection.execute(query.with_for_update() if lock else query).one()
    return Head(row.number, row.hash)


def _page(connection: Connection, after: int, last: int) -> tuple[Link, ...]:
    query = _ROWS.where(audit.c.number > after, audit.c.number <= last).order_by(audit.c.number).limit(PAGE)
    return tuple(_link(row) for row in connection.execute(query))


def _strangers(connection: Connection) -> tuple[Break, ...]:
    """Tell of rows with a number that was never given.

    In one statement with the head: between two of them, PostgreSQL lets in what another control plane adds.
    """
    last = select(audit_head.c.number).scalar_subquery()
    query = select(audit.c.number, last).where((audit.c.number < 1) | (audit.c.number > last))
    said = "is not of the chain, which ends at row"
    return tuple(Break(number, f"row {number} {said} {end}") for number, end in connection.execute(query))


def _link(row: Any) -> Link:
    try:
        at = datetime.fromisoformat(row.at).astimezone(UTC)
    except ValueError:  # Never written by us: the seal will not hold.
        at = datetime.min.replace(tzinfo=UTC)
    deed = Deed(at, row.who, row.role, row.credential, row.source, row.action, row.why, row.outcome, row.detail)
    return Link(row.number, deed, row.before, row.hash)
