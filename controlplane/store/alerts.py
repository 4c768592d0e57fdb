"""What alerting told us, in the database: `incidents.firing.AlertBook`, one row an alert.

Thousands of alerts a second go through `keep`, so it speaks SQL itself: some rows a statement, in sizes that repeat, so
that the database has to read each statement once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, select, update

from controlplane.incidents.alert import INSTANTS_KNOWN, Alert, Source, Status
from controlplane.incidents.firing import Change, Kind
from controlplane.store.database import Database, Execute
from controlplane.store.pages import Mark, newest
from controlplane.store.schema import alerts

ROWS_AT_MOST = {"sqlite": 64, "postgresql": 256}
"""Rows of one statement: PostgreSQL is far away, and SQLite keeps a copy of every page that a statement changes."""
ROWS_STEP = 16
"""What is left of a group comes in multiples of this, and the rest in one more: so statements repeat, and the database
reads each once."""
FORGOTTEN_AT_ONCE = 5_000
"""Rows that one transaction deletes at most: others wait for the database meanwhile."""
ENDED_AT_ONCE = 500

_COLUMNS = (
    "fingerprint", "starts_at", "status", "was", "name", "service", "ends_at", "source", "labels", "annotations",
    "generator", "at",
)  # fmt: skip
_TAKEN = ("status", "ends_at", "source", "labels", "annotations", "generator", "at")
# The same rule as `incidents.alert.supersedes`; a property holds the two together.
_SUPERSEDES = """
    excluded.starts_at > alerts.starts_at OR (excluded.status = 'resolved' AND alerts.status = 'firing'
    AND (excluded.starts_at = alerts.starts_at OR excluded.ends_at >= alerts.starts_at))
"""
_REVIVED = "excluded.status = 'firing' AND alerts.status = 'resolved' AND alerts.{column} < {mark}"
"""What Alertmanager lists, asked at a moment, of an alert whose end we knew before it."""
_SOURCE = {source.value: source for source in Source}
_STATUS = {status.value: status for status in Status}
_encode = msgspec.json.Encoder().encode
_MARKS = {"sqlite": "?", "postgresql": "%s"}


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Some of what fires."""

    alerts: tuple[Alert, ...]
    after: tuple[datetime, str] | None
    """When the last one changed, and its fingerprint, where there are more: what to ask for next."""


class StoredAlerts:
    """Every alert that fires, and those that ended lately."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, told: tuple[Alert, ...], at: datetime, asked_at: datetime | None = None) -> tuple[Change, ...]:
        """Write tellings down, all or none; on disk when this returns.

        Raises:
            StoreError: when nothing was written.
        """
        dialect = self._database.dialect
        return await self._database.bulk(lambda execute: _keep(execute, dialect, told, at, asked_at)) if told else ()

    async def keep_next(self, gather: Callable[[], tuple[tuple[Alert, ...], datetime]]) -> tuple[Change, ...]:
        """Write down, as `keep` does, what is gathered when the turn has come, on the store's thread.

        Raises:
            StoreError: when nothing was written.
        """
        dialect = self._database.dialect

        def work(execute: Execute) -> tuple[Change, ...]:
            return _keep(execute, dialect, *gather())

        return await self._database.bulk(work)

    async def tally(self) -> Mapping[Kind, int]:
        """Return how many fire of each kind."""
        kind = (alerts.c.name, alerts.c.service, alerts.c.source)
        query = select(*kind, func.count()).where(alerts.c.status == Status.FIRING.value).group_by(*kind)
        return await self._database.run(
            lambda c: {(name, service, Source(source)): count for name, service, source, count in c.execute(query)}
        )

    async def firing(self, source: Source) -> Mapping[str, datetime]:
        """Return when each alert of a source that fires changed last, by fingerprint."""
        query = select(alerts.c.fingerprint, alerts.c.at).where(
            alerts.c.status == Status.FIRING.value, alerts.c.source == source.value
        )
        return await self._database.run(lambda c: {row.fingerprint: row.at for row in c.execute(query)})

    async def heard_at(self, name: str) -> Mapping[Source, datetime]:
        """Return when alerts of a name changed last, by who told of them."""
        query = select(alerts.c.source, func.max(alerts.c.at)).where(alerts.c.name == name).group_by(alerts.c.source)
        return await self._database.run(lambda c: {Source(source): at for source, at in c.execute(query)})

    async def end(self, fingerprints: tuple[str, ...], at: datetime, asked_at: datetime) -> tuple[Change, ...]:
        """Write down that alerts fire no longer; one that was told of after `asked_at` is left alone."""
        ended = (
            update(alerts)
            .where(alerts.c.status == Status.FIRING.value, alerts.c.at < asked_at)
            .values(status=Status.RESOLVED.value, was=Status.FIRING.value, ends_at=asked_at, at=at)
            .returning(
                alerts.c.fingerprint, alerts.c.name, alerts.c.service, alerts.c.source, alerts.c.was, alerts.c.status
            )
        )

        def work(connection: Connection) -> tuple[Change, ...]:
            changed: list[Change] = []
            for start in range(0, len(fingerprints), ENDED_AT_ONCE):
                mine = alerts.c.fingerprint.in_(fingerprints[start : start + ENDED_AT_ONCE])
                changed += map(_change, connection.execute(ended.where(mine)).fetchall())
            return tuple(changed)

        return await self._database.run(work) if fingerprints else ()

    async def forget(self, before: datetime, at_most: int) -> int:
        """Drop what ended before a moment, and the oldest of what ended beyond a number; return how many went."""
        resolved = alerts.c.status == Status.RESOLVED.value
        old = alerts.c.at < before

        def some(connection: Connection) -> int:
            ended = connection.execute(select(func.count()).where(resolved).select_from(alerts)).scalar_one()
            chosen = select(alerts.c.fingerprint).where(resolved).order_by(alerts.c.at)
            too_many = min(ended - at_most, FORGOTTEN_AT_ONCE)
            chosen = chosen.limit(too_many) if too_many > 0 else chosen.where(old).limit(FORGOTTEN_AT_ONCE)
            return connection.execute(delete(alerts).where(resolved, alerts.c.fingerprint.in_(chosen))).rowcount

        gone = 0
        while now_gone := await self._database.change(some):
            gone += now_gone
        return gone

    async def page(self, limit: int, after: Mark | None = None) -> AlertPage:
        """Return what fires, what changed last first, from behind a change and a fingerprint on."""
        firing = select(alerts).where(alerts.c.status == Status.FIRING.value)
        query = newest(firing, alerts.c.at, alerts.c.fingerprint, limit + 1, after)
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        shown = rows[:limit]
        last = (shown[-1].at, shown[-1].fingerprint) if len(rows) > limit else None
        return AlertPage(tuple(map(_from_row, shown)), last)

    async def told_since(self, since: datetime, after: str, limit: int) -> tuple[tuple[datetime, Alert], ...]:
        """Return what changed at a moment, behind a fingerprint, and since; the oldest change first, with its time."""
        later = (alerts.c.at > since) | ((alerts.c.at == since) & (alerts.c.fingerprint > after))

        def work(connection: Connection) -> tuple[tuple[datetime, Alert], ...]:
            rows: list[Row[Any]] = []
            for status in Status:  # Each by the index, which begins with the status.
                mine = (alerts.c.status == status.value) & (alerts.c.at >= since) & later
                query = select(alerts).where(mine).order_by(alerts.c.at, alerts.c.fingerprint).limit(limit)
                rows += connection.execute(query).fetchall()
            rows.sort(key=lambda row: (row.at, row.fingerprint))
            return tuple((row.at, _from_row(row)) for row in rows[:limit])

        return await self._database.run(work)

    async def tellings(self, fingerprints: tuple[str, ...]) -> tuple[Alert, ...]:
        """Return what is known of some alerts; those that were forgotten are missing."""
        query = select(alerts).where(alerts.c.fingerprint.in_(fingerprints))
        return await self._database.run(lambda c: tuple(_from_row(row) for row in c.execute(query)))


def _keep(
    execute: Execute, dialect: str, told: tuple[Alert, ...], at: datetime, asked_at: datetime | None = None
) -> tuple[Change, ...]:
    now, mark = _text(at), _MARKS[dialect]
    changed: list[Change] = []
    for some in _pieces(told, ROWS_AT_MOST[dialect]):
        values: list[str | None] = []
        for alert in some:
            values += _values(alert, now)
        if asked_at is not None:
            values += [_text(asked_at)] * 3
        statement = _statement(mark, len(some), listed=asked_at is not None)
        changed += [_change(row) for row in execute(statement, values)]
    return tuple(changed)


@lru_cache
def _statement(mark: str, rows: int, *, listed: bool) -> str:
    """Write the statement; `listed`: its values end with the moment when Alertmanager was asked, three times.

    An alert that is listed after its end may have the start it had: Alertmanager was restarted, or cut off from
    Prometheus. It begins anew when it was asked, so that this is news to whoever knows of the end, and an older telling
    of either is none.
    """
    row = f"({', '.join([mark] * len(_COLUMNS))})"
    anew = f"WHEN {_REVIVED.format(column='starts_at', mark=mark)} THEN {mark} " if listed else ""
    or_listed = f" OR ({_REVIVED.format(column='at', mark=mark)})" if listed else ""
    return (
        f"INSERT INTO alerts ({', '.join(_COLUMNS)}) VALUES {', '.join([row] * rows)} "  # noqa: S608 - our own words
        "ON CONFLICT (fingerprint) DO UPDATE SET was = alerts.status, starts_at = CASE WHEN excluded.starts_at > "
        "alerts.starts_at THEN excluded.starts_at "
        f"{anew}ELSE alerts.starts_at END, {', '.join(f'{column} = excluded.{column}' for column in _TAKEN)} "
        f"WHERE {_SUPERSEDES}{or_listed} "
        "RETURNING fingerprint, name, service, source, was, status"
    )


def _pieces(told: Sequence[Alert], at_most: int) -> Iterator[Sequence[Alert]]:
    """Cut tellings into pieces of sizes that repeat: whole ones, the rest by sixteens, and what is left."""
    start = 0
    while start < len(told):
        left = len(told) - start
        size = at_most if left >= at_most else left - left % ROWS_STEP or left
        yield told[start : start + size]
        start += size


def _values(alert: Alert, now: str) -> tuple[str | None, ...]:
    return (
        alert.fingerprint,
        _text(alert.starts_at),
        alert.status.value,
        "",
        alert.name,
        alert.service,
        _text(alert.ends_at) if alert.ends_at else None,
        alert.source.value,
        str(_encode(alert.labels), "utf-8"),
        str(_encode(alert.annotations), "utf-8"),
        alert.generator,
        now,
    )


@lru_cache(INSTANTS_KNOWN)
def _text(at: datetime) -> str:
    """Write an aware UTC time as `schema.Instant` does."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="microseconds")


def _change(row: Any) -> Change:
    fingerprint, name, service, source, was, status = row
    return Change(fingerprint, name, service, _SOURCE[source], _STATUS.get(was), _STATUS[status])


def _from_row(row: Row[Any]) -> Alert:
    return Alert(
        fingerprint=row.fingerprint,
        starts_at=row.starts_at,
        status=Status(row.status),
        name=row.name,
        service=row.service,
        ends_at=row.ends_at,
        source=Source(row.source),
        labels=row.labels,
        annotations=row.annotations,
        generator=row.generator,
    )
