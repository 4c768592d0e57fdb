"""Histories grow for as long as what they are about goes on, and nothing that is kept is lost."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.chaos.drill import Drill
from controlplane.errors import StoreError
from controlplane.incidents.history import History, Trace
from controlplane.incidents.incident import Incident, IncidentState
from controlplane.runtime.histories import LOOKED_AT, Histories, of_incident
from controlplane.signals.recording import Point
from controlplane.store.database import Database
from controlplane.store.incidents import StoredIncidents
from tests.support.incident_books import write

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@dataclass
class Book:
    """Histories in memory; a broken one answers nothing."""

    kept: dict[str, History] = field(default_factory=dict)
    broken: bool = False

    async def keep(self, about: str, at: datetime, history: History) -> None:
        self.kept[about] = history

    async def history(self, about: str) -> History:
        if self.broken:
            raise StoreError("the database refuses", "locked", "stop the other process")
        return self.kept.get(about, ())


def histories(database: Database, book: Book) -> Histories:
    async def drills(_: int) -> tuple[Drill, ...]:
        return ()

    return Histories(
        "chat", ("error_rate",), book, lambda _: (Point(ago(1), "primary", "error_rate", 0.5),),
        StoredIncidents(database).open_first, drills, lambda: True, lambda: NOW,
    )  # fmt: skip


async def test_an_old_incident_that_is_open_grows_however_many_came_after_it(database: Database) -> None:
    write(database, Incident("old", "chat", "P0", "gone", IncidentState.OPEN, ago(7200)))
    for n in range(LOOKED_AT + 1):
        over = Incident(f"n{n}", "chat", "P0", "gone", IncidentState.RESOLVED, ago(600 - n), resolved_at=ago(500))
        write(database, over)
    book = Book()
    await histories(database, book).tick()
    assert set(book.kept) == {"old"}


async def test_a_database_that_does_not_answer_for_a_moment_shortens_no_history(database: Database) -> None:
    one = Incident("one", "chat", "P0", "gone", IncidentState.OPEN, ago(60))
    write(database, one)
    long = (Trace("primary", "error_rate", ((ago(50).timestamp(), 0.1), (ago(40).timestamp(), 0.2))),)
    book = Book({"one": long}, broken=True)
    keeping = histories(database, book)
    with pytest.raises(StoreError):
        await keeping.tick()
    assert book.kept == {"one": long}
    assert await keeping.of(of_incident(one)), "what is in memory is shown meanwhile"
    book.broken = False
    await keeping.tick()
    assert [len(trace.points) for trace in book.kept["one"]] == [3]
