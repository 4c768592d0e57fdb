"""What PostgreSQL alone can do to a control plane: deadlocks, sleepers that hold rows, a server that goes and comes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, text

from controlplane.degradation.fencing import Term
from controlplane.errors import StoreError
from controlplane.store.database import Database, alone, migrate, open_database
from controlplane.store.leader import StoredTerms, guard
from controlplane.store.revisions import downgrade, standing
from tests.support.postgres import TEMPLATE, Server, name_of

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


def until_somebody_waits(connection: Connection) -> None:
    """Wait until a session waits for a lock."""
    waiting, deadline = text("SELECT count(*) FROM pg_locks WHERE NOT granted"), time.monotonic() + 30
    while not connection.execute(waiting).scalar_one():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_migration_that_is_called_off_for_the_sake_of_a_running_replica_begins_anew(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, opened, holds = list[str](), list[Database](), threading.Event()

    def crosswise(connection: Connection) -> None:
        tries.append("incidents, then timeline")
        connection.execute(text("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE"))
        if len(tries) == 1:
            holds.set()
            until_somebody_waits(connection)
        connection.execute(text("LOCK TABLE timeline IN ACCESS EXCLUSIVE MODE"))
        migrate(connection)

    def note(connection: Connection) -> None:
        # Whoever waits for longer than his own time is called off: that is to be the other one.
        for limit in ("deadlock_timeout = '1min'", "lock_timeout = 0", "idle_in_transaction_session_timeout = 0"):
            connection.execute(text(f"SET LOCAL {limit}"))
        connection.execute(text("LOCK TABLE timeline IN ROW EXCLUSIVE MODE"))
        migrating.start()
        assert holds.wait(30)
        connection.execute(text("LOCK TABLE incidents IN ROW SHARE MODE"))

    monkeypatch.setattr("controlplane.store.database.migrate", crosswise)
    migrating = threading.Thread(target=lambda: opened.append(open_database(url)))
    database.run_now(note)
    migrating.join(60)
    assert (len(opened), len(tries)) == (1, 2)
    opened[0].close()


def test_taking_a_schema_back_waits_for_whoever_migrates(url: str, database: Database) -> None:
    known, told = standing(url).known, list[tuple[str, ...]]()
    going = threading.Thread(target=lambda: told.append(downgrade(url, known[-2])))

    def migrate_slowly(connection: Connection) -> None:
        alone(connection)
        going.start()
        until_somebody_waits(connection)
        assert standing(url).revision == known[-1]

    database.run_now(migrate_slowly)
    going.join(60)
    assert told == [(f"schema {known[-1]} -> {known[-2]}",)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_replicas_start_at_once_on_a_server_that_isolates_transactions_more(
    level: str, postgres_server: Server
) -> None:
    bare = postgres_server.fresh()
    postgres_server.ask(f"ALTER DATABASE {name_of(bare)} SET default_transaction_isolation = '{level}'")
    try:
        with ThreadPoolExecutor(3) as replicas:
            opened = list(replicas.map(lambda _: open_database(bare), range(3)))
        for database in opened:
            database.close()
    finally:
        postgres_server.drop(bare)
