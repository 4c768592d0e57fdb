"""Signal histories come back as they were kept, and the oldest make room."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.incidents.history import Trace
from controlplane.incidents.incident import Entry, Incident, IncidentState
from controlplane.store import histories
from controlplane.store.database import Database
from controlplane.store.histories import StoredHistories
from controlplane.store.incidents import StoredIncidents
from tests.support.incident_books import write

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
TRACES = (Trace("primary", "error_rate", ((1.5, 0.25), (2.5, None))), Trace("ü", "availability", ()))


async def test_a_history_comes_back_as_it_was_kept_last(database: Database) -> None:
    book = StoredHistories(database)
    assert await book.history("i") == ()
    await book.keep("i", T0, TRACES[1:])
    await book.keep("i", T0, TRACES)
    assert await book.history("i") == TRACES


async def test_the_oldest_make_room(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "KEPT", 3)
    book = StoredHistories(database)
    for n in range(5):
        await book.keep(f"i{n}", T0 + timedelta(seconds=n), TRACES)
    assert [bool(await book.history(f"i{n}")) for n in range(5)] == [False, False, True, True, True]


async def test_one_incident_comes_with_its_timeline(database: Database) -> None:
    book = StoredIncidents(database)
    one = Incident("chat/P0/2026-03-03T10:00:00.000000+00:00", "chat", "P0", "gone", IncidentState.OPEN, T0)
    write(database, one)
    await book.note(one.id, Entry(T0, "detected", "endpoints_down"))
    assert await book.get(one.id) == (one, (Entry(T0, "detected", "endpoints_down"),))
    assert await book.get("chat/P0/other") is None
