"""Incidents and timelines in the database: `incidents.book`.

Notices are correlated inside the transaction that writes what comes of them, so that nobody else decides in between and
a crash leaves all of it or nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, literal, or_, select, update

from controlplane.degradation.fencing import Term
from controlplane.incidents.alert import Status
from controlplane.incidents.correlate import LATE, Case, Member, Notice, Ruling, correlate, row_key
from controlplane.incidents.incident import Entry, Incident, IncidentState, Severity, Wanted
from controlplane.incidents.response import Refused, Word, respond
from controlplane.store.database import Database
from controlplane.store.leader import guard
from controlplane.store.pages import Mark, newest
from controlplane.store.schema import drill_events, incident_members, incidents, timeline

KEYS_AT_ONCE = 500
OLD_CASES = 200
"""Incidents of long ago that a notice may be a member of; the newest."""


class StoredIncidents:
    """Every incident, with what happened in it."""

    def __init__(self, database: Database, term: Callable[[], Term | None] | None = None) -> None:
        """Take what it works with.

        Args:
            database: the opened store.
            term: gives our term while we are in charge; without it nobody is asked (a tool of one process).
        """
        self._database = database
        self._term = term

    # -- writing ---------------------------------------------------------------------------------------------------

    async def take(self, service: str, notices: tuple[Notice, ...], now: datetime) -> Ruling:
        """Correlate notices with what there is and store what comes of it, in one transaction; only while in charge."""
        keys = tuple(notice.key for notice in notices)

        def work(connection: Connection) -> Ruling:
            if self._term:
                guard(connection, self._term())
            cases = _cases(connection, service, keys, tuple(n.key for n in notices if not n.row), now)
            ruling = correlate(notices, cases, now)
            _store(connection, ruling, {case.incident.id for case in cases})
            return ruling

        return await self._database.change(work)

    async def respond(self, service: str, incident_id: str, word: Word) -> Incident | Refused:
        """Take what a person says, in one transaction with its entry in the timeline."""
        mine = (incidents.c.id == incident_id) & (incidents.c.service == service)

        def work(connection: Connection) -> Incident | Refused:
            row = connection.execute(select(incidents).where(mine).with_for_update()).one_or_none()
            if row is None:
                return Refused("there is no such incident", missing=True)
            heard = respond(_from_row(row), word, _engaged(connection, incident_id))
            if isinstance(heard, Refused):
                return heard
            connection.execute(update(incidents).where(mine).values(_values(heard.incident)))
            connection.execute(insert(timeline).values(_entry(incident_id, heard.entry)))
            return heard.incident

        return await self._database.change(work)

    async def move(self, incident_id: str, state: IncidentState, at: datetime) -> None:
        """Record an incident's next state; one that is resolved stays so, and what mitigated it first counts."""
        values: dict[str, Any] = {"state": state.value}
        if state is IncidentState.MITIGATED:
            values["mitigated_at"] = func.coalesce(incidents.c.mitigated_at, literal(at, incidents.c.mitigated_at.type))
        if state is IncidentState.RESOLVED:
            values["resolved_at"] = at
        mine = (incidents.c.id == incident_id) & (incidents.c.state != IncidentState.RESOLVED.value)
        await self._database.run(lambda c: c.execute(update(incidents).where(mine).values(values)))

    async def note(self, incident_id: str, entry: Entry) -> None:
        """Add to an incident's timeline."""
        await self._database.run(lambda c: c.execute(insert(timeline).values(_entry(incident_id, entry))))

    # -- reading ---------------------------------------------------------------------------------------------------

    async def open_incidents(self, service: str) -> tuple[Incident, ...]:
        """Return what is not resolved, oldest first."""
        query = (
            select(incidents)
            .where(incidents.c.service == service, incidents.c.state != IncidentState.RESOLVED.value)
            .order_by(incidents.c.detected_at)
        )
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))

    async def get(self, incident_id: str) -> tuple[Incident, tuple[Entry, ...]] | None:
        """Return one incident with its timeline, oldest entry first."""
        query = select(incidents).where(incidents.c.id == incident_id)

        def work(connection: Connection) -> tuple[Incident, tuple[Entry, ...]] | None:
            row = connection.execute(query).one_or_none()
            return (_from_row(row), _timeline(connection, row)) if row else None

        return await self._database.run(work)

    async def find(self, service: str, wanted: Wanted, limit: int) -> tuple[Incident, ...]:
        """Return the incidents that are asked for, newest first."""
        query = newest(_asked(service, wanted), incidents.c.detected_at, incidents.c.id, limit, None)
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))

    async def find_whole(
        self, service: str, wanted: Wanted, limit: int, after: Mark | None = None
    ) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
        """Return the incidents that are asked for, newest first, each with its timeline, oldest entry first."""
        query = newest(_asked(service, wanted), incidents.c.detected_at, incidents.c.id, limit, after)

        def work(connection: Connection) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
            return tuple((_from_row(row), _timeline(connection, row)) for row in connection.execute(query).fetchall())

        return await self._database.run(work)

    async def recent(self, service: str, limit: int) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
        """Return the newest incidents first, each with its timeline, oldest entry first."""
        return await self.find_whole(service, Wanted(), limit)

    async def open_first(self, service: str, limit: int) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
        """Return every incident that is open, then so many of the newest of the others; each part newest first.

        So many of the first come with their timeline, oldest entry first; the others without.
        """
        resolved = incidents.c.state == IncidentState.RESOLVED.value
        mine, by = select(incidents).where(incidents.c.service == service), (incidents.c.detected_at, incidents.c.id)
        still = mine.where(~resolved).order_by(*(column.desc() for column in by))
        others = newest(mine.where(resolved), *by, limit, None)

        def work(connection: Connection) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
            rows = (*connection.execute(still).fetchall(), *connection.execute(others).fetchall())
            return tuple((_from_row(r), _timeline(connection, r) if n < limit else ()) for n, r in enumerate(rows))

        return await self._database.run(work)

    async def members(self, incident_id: str, limit: int) -> tuple[Member, ...]:
        """Return what belongs to an incident: what still holds first, then the newest."""
        query = (
            select(incident_members)
            .where(incident_members.c.incident_id == incident_id)
            .order_by(incident_members.c.status, incident_members.c.starts_at.desc(), incident_members.c.key)
            .limit(limit)
        )
        return await self._database.run(lambda c: tuple(_member(r) for r in c.execute(query)))

    async def holding(self, service: str) -> tuple[str, ...]:
        """Return the fingerprints of the alerts that fire by the open incidents: what may have ended unnoticed."""
        query = _firing(service).where(incident_members.c.is_row.is_(False))
        return await self._database.run(lambda c: tuple(row.key for row in c.execute(query)))

    async def rows(self, service: str) -> frozenset[str]:
        """Return the rows of the matrix that are not over by the open incidents: what a term of ours has to end."""
        query = _firing(service).where(incident_members.c.is_row.is_(True))
        return await self._database.run(lambda c: frozenset(row.name for row in c.execute(query)))


def _firing(service: str) -> Select[Any]:
    """Select what fires by the open incidents."""
    return (
        select(incident_members.c.key, incident_members.c.name)
        .join(incidents, incidents.c.id == incident_members.c.incident_id)
        .where(
            incidents.c.service == service, incidents.c.state != IncidentState.RESOLVED.value,
            incident_members.c.status == Status.FIRING.value,
        )
    )  # fmt: skip


def _asked(service: str, wanted: Wanted) -> Select[Any]:
    query = select(incidents).where(incidents.c.service == service)
    if wanted.state:
        query = query.where(incidents.c.state == wanted.state)
    if wanted.level:
        query = query.where(incidents.c.level == wanted.level)
    if wanted.drill is not None:
        query = query.where((incidents.c.drill_id != "") if wanted.drill else (incidents.c.drill_id == ""))
    if wanted.pool:
        member = (incident_members.c.incident_id == incidents.c.id) & (incident_members.c.pool == wanted.pool)
        query = query.where(or_(incidents.c.pool == wanted.pool, exists().where(member)))
    return query.where(incidents.c.detected_at >= wanted.since) if wanted.since else query


# -- correlating -------------------------------------------------------------------------------------------------------


def _cases(
    connection: Connection, service: str, keys: Sequence[str], alerts: Sequence[str], now: datetime
) -> tuple[Case, ...]:
    """Read every incident that notices may belong to; nobody else changes them until the transaction ends."""
    still = or_(incidents.c.state != IncidentState.RESOLVED.value, incidents.c.resolved_at >= now - LATE)
    mine = incidents.c.service == service
    found = {
        row.id: _from_row(row) for row in connection.execute(select(incidents).where(mine, still).with_for_update())
    }
    for some in _chunks(alerts):
        of_these = select(incident_members.c.incident_id).where(incident_members.c.key.in_(some))
        older = select(incidents).where(mine, incidents.c.id.in_(of_these))
        newest_of_them = older.order_by(incidents.c.detected_at.desc()).limit(OLD_CASES)
        for row in connection.execute(newest_of_them.with_for_update()):
            found.setdefault(row.id, _from_row(row))
    members: dict[str, dict[str, Member]] = {incident_id: {} for incident_id in found}
    rows = {row_key(level) for incident in found.values() for level in incident.rows}
    for some in _chunks(tuple(rows.union(keys))):
        here = incident_members.c.key.in_(some) & incident_members.c.incident_id.in_(tuple(found))
        for row in connection.execute(select(incident_members).where(here)):
            members[row.incident_id][row.key] = _member(row)
    return tuple(_case(connection, incident, members[incident.id]) for incident in found.values())


def _case(connection: Connection, incident: Incident, members: dict[str, Member]) -> Case:
    if not incident.open:
        return Case(incident, members)
    mine = incident_members.c.incident_id == incident.id
    other = mine & (incident_members.c.status == Status.FIRING.value) & incident_members.c.key.not_in(tuple(members))
    # Not how many: an alert storm's incident has tens of thousands of members, and this is asked for each piece of it.
    if connection.execute(select(incident_members.c.key).where(other).limit(1)).first():
        return Case(incident, members, others_fire=True)
    ended_at = connection.execute(select(func.max(incident_members.c.ends_at)).where(mine)).scalar()
    return Case(incident, members, others_ended_at=ended_at)


def _store(connection: Connection, ruling: Ruling, known: set[str]) -> None:
    for case in ruling.cases:
        incident, members = case.incident, case.members
        if incident.id in known:
            connection.execute(update(incidents).where(incidents.c.id == incident.id).values(_values(incident)))
        else:
            connection.execute(insert(incidents).values(_values(incident)))
        for some in _chunks(tuple(members)):
            mine = (incident_members.c.incident_id == incident.id) & incident_members.c.key.in_(some)
            connection.execute(delete(incident_members).where(mine))
            rows = [{"incident_id": incident.id, **_member_values(members[key])} for key in some]
            connection.execute(insert(incident_members), rows)
    if ruling.entries:
        connection.execute(insert(timeline), [_entry(incident_id, entry) for incident_id, entry in ruling.entries])


def _engaged(connection: Connection, incident_id: str) -> tuple[str, ...]:
    query = select(incident_members.c.name).where(
        incident_members.c.incident_id == incident_id, incident_members.c.is_row.is_(True),
        incident_members.c.status == Status.FIRING.value,
    )  # fmt: skip
    return tuple(sorted(row.name for row in connection.execute(query)))


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


# -- rows and values ---------------------------------------------------------------------------------------------------


def _timeline(connection: Connection, incident: Row[Any]) -> tuple[Entry, ...]:
    """Read a timeline, with what happened in the drill that caused the incident; oldest first."""
    query: Select[Any] = select(timeline).where(timeline.c.incident_id == incident.id).order_by(timeline.c.id)
    entries = [Entry(row.at, row.kind, row.text, row.who) for row in connection.execute(query)]
    if incident.drill_id:
        events = select(drill_events).where(drill_events.c.drill_id == incident.drill_id).order_by(drill_events.c.id)
        entries += [Entry(row.at, "drill", f"{row.kind}: {row.text}") for row in connection.execute(events)]
    return tuple(sorted(entries, key=lambda entry: entry.at))


def _entry(incident_id: str, entry: Entry) -> dict[str, Any]:
    return {"incident_id": incident_id, "at": entry.at, "kind": entry.kind, "text": entry.text, "who": entry.who}


def _member(row: Row[Any]) -> Member:
    return Member(row.key, row.name, Status(row.status), row.starts_at, row.ends_at, row.is_row, row.pool)


def _member_values(member: Member) -> dict[str, Any]:
    return {
        "key": member.key,
        "name": member.name,
        "status": member.status.value,
        "starts_at": member.starts_at,
        "ends_at": member.ends_at,
        "is_row": member.row,
        "pool": member.pool,
    }


def _values(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "service": incident.service,
        "level": incident.level,
        "title": incident.title,
        "state": incident.state.value,
        "drill_id": incident.drill_id,
        "detected_at": incident.detected_at,
        "mitigated_at": incident.mitigated_at,
        "resolved_at": incident.resolved_at,
        "severity": incident.severity.value,
        "pool": incident.pool,
        "about": incident.about,
        "began_at": incident.began_at,
        "rows": list(incident.rows),
        "acknowledged_at": incident.acknowledged_at,
        "acknowledged_by": incident.acknowledged_by,
        "assignee": incident.assignee,
        "resolved_by": incident.resolved_by,
        "reopened_by": incident.reopened_by,
    }


def _from_row(row: Row[Any]) -> Incident:
    return Incident(
        id=row.id,
        service=row.service,
        level=row.level,
        title=row.title,
        state=IncidentState(row.state),
        detected_at=row.detected_at,
        drill_id=row.drill_id,
        mitigated_at=row.mitigated_at,
        resolved_at=row.resolved_at,
        severity=Severity(row.severity),
        pool=row.pool,
        about=row.about,
        began_at=row.began_at,
        rows=tuple(row.rows),
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        assignee=row.assignee,
        resolved_by=row.resolved_by,
        reopened_by=row.reopened_by,
    )
