"""Signal histories in the database: `incidents.history.HistoryBook`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from controlplane.incidents.history import History, Trace
from controlplane.store.database import Database
from controlplane.store.schema import signal_histories

KEPT = 200
"""Incidents and drills whose signals are kept; the oldest go, their timelines stay."""


class StoredHistories:
    """What the signals showed around the newest incidents and drills."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, about: str, at: datetime, history: History) -> None:
        """Store the history of an incident or a drill in the place of the one there is."""
        traces = [
            {"pool": t.pool, "signal": t.signal, "points": [[round(p, 3), value] for p, value in t.points]}
            for t in history
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(signal_histories).where(signal_histories.c.about == about))
            connection.execute(insert(signal_histories).values(about=about, at=at, traces=traces))
            newest = select(signal_histories.c.about).order_by(signal_histories.c.at.desc()).limit(KEPT)
            kept = [row.about for row in connection.execute(newest)]
            connection.execute(delete(signal_histories).where(signal_histories.c.about.not_in(kept)))

        await self._database.run(work)

    async def history(self, about: str) -> History:
        """Return it; empty when none is kept."""
        query = select(signal_histories.c.traces).where(signal_histories.c.about == about)
        found: Any = await self._database.run(lambda c: c.execute(query).scalar_one_or_none())
        return tuple(_trace(row) for row in found or ())


def _trace(row: Any) -> Trace:
    points = tuple((float(at), None if value is None else float(value)) for at, value in row["points"])
    return Trace(str(row["pool"]), str(row["signal"]), points)
