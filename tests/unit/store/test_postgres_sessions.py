"""What PostgreSQL alone can do to a control plane: deadlocks, sleepers that hold rows, a server that goes and comes."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, text

from controlplane.degradation.fencing import Term
from controlplane.errors import StoreError
from controlplane.store.database import Database, migrate, open_database
from controlplane.store.leader import StoredTerms, guard
from tests.support.postgres import TEMPLATE, Server

pytestmark = [pytest.mark.journey, pytest.mark.debian("postgresql")]


@pytest.fixture
def url(postgres_server: Server) -> Iterator[str]:
    made = postgres_server.fresh(TEMPLATE)
    yield made
    postgres_server.drop(made)


async def test_of_two_that_wait_for_each_other_one_begins_anew_and_both_come_through(
    database: Database, other: Database
) -> None:
    tries, held = list[str](), list[int]()
    database.run_now(lambda c: c.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")))
    database.run_now(lambda c: c.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))

    def add(first: int, second: int, connection: Connection) -> None:
        tries.append(f"{first}{second}")
        for row in (first, second):
            connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": row})
            held.append(row)
            deadline = time.monotonic() + 5
            while len(held) < 2 and time.monotonic() < deadline:  # From here on both hold their first row.
                time.sleep(0.01)

    await asyncio.gather(database.run(lambda c: add(1, 2, c)), other.run(lambda c: add(2, 1, c)))
    assert database.run_now(lambda c: [row.n for row in c.execute(text("SELECT n FROM t"))]) == [2, 2]
    assert len(tries) >= 3, "one of them was called off, and came again"


async def test_somebody_who_sleeps_inside_a_transaction_keeps_nobody_from_taking_over(
    url: str, other: Database
) -> None:
    with closing(open_database(url)) as sleeper:
        old = await StoredTerms(sleeper).take("chat", "sleeper", 0.0)
        assert isinstance(old, Term)
        engine = sleeper._engine  # The very sessions that the sleeper has.
        new: object = None
        with engine.connect() as asleep, suppress(Exception), asleep.begin():
            guard(asleep, old)
            held_since = time.monotonic()
            while not isinstance(new, Term) and time.monotonic() - held_since < 30:
                with suppress(StoreError):
                    new = await StoredTerms(other).take("chat", "next", 60.0)
            asleep.execute(text("INSERT INTO halts (why, by, at) VALUES ('x', 'y', 'z')"))
        assert new == Term("chat", "next", 2)
    assert other.run_now(lambda c: c.execute(text("SELECT count(*) FROM halts")).scalar()) == 0, "he woke too late"


async def test_a_server_that_was_restarted_is_found_again_by_the_first_call(url: str, postgres_server: Server) -> None:
    with closing(open_database(url)) as database:
        assert await StoredTerms(database).take("chat", "a", 60.0) == Term("chat", "a", 1)
        postgres_server.stop()
        with pytest.raises(StoreError):
            await StoredTerms(database).newest("chat")
        postgres_server.start()
        assert await StoredTerms(database).newest("chat") == Term("chat", "a", 1)


def parameters(url: str) -> dict[str, str]:
    """Return what libpq was told of a connection."""
    with closing(open_database(url)) as database, closing(database._engine.raw_connection()) as pooled:
        driver: Any = pooled.driver_connection
        return dict(driver.info.get_parameters())


def test_a_server_that_is_gone_without_a_word_is_noticed_in_seconds(url: str) -> None:
    told = parameters(url)
    assert told["keepalives"] == "1"
    idle, interval, count = (int(told[f"keepalives_{part}"]) for part in ("idle", "interval", "count"))
    assert idle + interval * count == 5, "seconds, where an answer is waited for"
    assert told["tcp_user_timeout"] == "5000", "milliseconds, where what was sent is not acknowledged"


def test_what_a_url_says_of_its_connections_holds(url: str) -> None:
    told = parameters(f"{url}&tcp_user_timeout=9000&connect_timeout=7")
    assert (told["tcp_user_timeout"], told["connect_timeout"], told["keepalives_idle"]) == ("9000", "7", "2")


def test_what_a_url_says_of_its_sessions_holds_beside_what_we_say(url: str) -> None:
    with closing(
        open_database(f"{url}&options=-c%20application_name%3Dours%20-c%20statement_timeout%3D7s")
    ) as database:
        shown = [
            database.run_now(lambda c, n=name: c.execute(text(f"SHOW {n}")).scalar())  # type: ignore[misc]
            for name in ("application_name", "statement_timeout", "idle_in_transaction_session_timeout")
        ]
    assert shown == ["ours", "7s", "2s"]


def test_a_migration_that_stands_still_for_longer_than_a_transaction_may_is_not_ended(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(connection: Connection) -> None:
        time.sleep(1.0)
        migrate(connection)

    monkeypatch.setattr("controlplane.store.database.migrate", slow)
    with closing(open_database(f"{url}&options=-c%20idle_in_transaction_session_timeout%3D500ms")) as database:
        limit = database.run_now(lambda c: c.execute(text("SHOW idle_in_transaction_session_timeout")).scalar())
    assert limit == "500ms", "for the migration alone"
