"""Incidents and timelines in the database: `incidents.incident.IncidentBook`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from controlplane.incidents.incident import Entry, Incident, IncidentState
from controlplane.store.database import Database
from controlplane.store.pages import Mark, newest
from controlplane.store.schema import incidents, timeline


class StoredIncidents:
    """Every incident, with what happened in it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, incident: Incident, entries: tuple[Entry, ...] = ()) -> None:
        """Store a new incident with the beginning of its timeline, both or neither."""
        row = {
            "id": incident.id,
            "service": incident.service,
            "level": incident.level,
            "title": incident.title,
            "state": incident.state.value,
            "drill_id": incident.drill_id,
            "detected_at": incident.detected_at,
        }
        notes = [{"incident_id": incident.id, "at": e.at, "kind": e.kind, "text": e.text} for e in entries]

        def work(connection: Connection) -> None:
            connection.execute(insert(incidents).values(row))
            if notes:
                connection.execute(insert(timeline), notes)

        await self._database.run(work)

    async def move(self, incident_id: str, state: IncidentState, at: datetime) -> None:
        """Record an incident's next state."""
        values: dict[str, Any] = {"state": state.value}
        if state is not IncidentState.OPEN:
            values[f"{state.value}_at"] = at
        await self._database.run(
            lambda c: c.execute(update(incidents).where(incidents.c.id == incident_id).values(values))
        )

    async def note(self, incident_id: str, entry: Entry) -> None:
        """Add to an incident's timeline."""
        row = {"incident_id": incident_id, "at": entry.at, "kind": entry.kind, "text": entry.text}
        await self._database.run(lambda c: c.execute(insert(timeline).values(row)))

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
            return (_from_row(row), _timeline(connection, row.id)) if row else None

        return await self._database.run(work)

    async def recent(
        self, service: str, limit: int, after: Mark | None = None
    ) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
        """Return the newest incidents first, each with its timeline, oldest entry first."""
        mine = select(incidents).where(incidents.c.service == service)
        query = newest(mine, incidents.c.detected_at, incidents.c.id, limit, after)

        def work(connection: Connection) -> tuple[tuple[Incident, tuple[Entry, ...]], ...]:
            found = [_from_row(r) for r in connection.execute(query)]
            return tuple((incident, _timeline(connection, incident.id)) for incident in found)

        return await self._database.run(work)


def _timeline(connection: Connection, incident_id: str) -> tuple[Entry, ...]:
    query: Select[Any] = select(timeline).where(timeline.c.incident_id == incident_id).order_by(timeline.c.id)
    return tuple(Entry(row.at, row.kind, row.text) for row in connection.execute(query))


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
    )
