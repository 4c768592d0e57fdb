"""Keys of writes on a real file: kept over a restart, forgotten after a day, and one answer for each."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.security.replays import KEPT, Answer, Known, Sent
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.replays import StoredReplays

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
SENT = Sent("k" * 64, "c" * 64, NOW)
ANSWER = Answer(202, {"content-type": "application/json"}, b'{"id": "\xc3\xa9"}')


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(sqlite_url(tmp_path / "state.db"))) as opened:
        yield opened


async def test_an_answer_outlives_the_process(tmp_path: Path) -> None:
    for known in (None, Known(SENT.content, ANSWER)):
        with closing(open_database(sqlite_url(tmp_path / "state.db"))) as opened:
            book = StoredReplays(opened)
            assert await book.begin(SENT) == known
            await book.end(SENT.key, ANSWER)


async def test_a_key_that_has_no_answer_yet_is_under_way(database: Database) -> None:
    book = StoredReplays(database)
    assert await book.begin(SENT) is None
    assert await book.begin(Sent(SENT.key, "other", NOW)) == Known(SENT.content, None)
    await book.forget(SENT.key)
    assert await book.begin(SENT) is None


async def test_of_many_at_once_one_is_the_first(database: Database) -> None:
    book = StoredReplays(database)
    found = await asyncio.gather(*(book.begin(SENT) for _ in range(10)))
    assert found.count(None) == 1


async def test_keys_are_forgotten_after_a_day(database: Database) -> None:
    book = StoredReplays(database)
    await book.begin(SENT)
    assert await book.begin(Sent("other", SENT.content, NOW + KEPT)) is None
    assert await book.begin(Sent(SENT.key, SENT.content, NOW + KEPT)) is not None
    assert await book.begin(Sent(SENT.key, SENT.content, NOW + KEPT + timedelta(seconds=1))) is None
