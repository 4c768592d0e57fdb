"""Opening, migrating and using the database: one writer thread, so that every change is whole and in order.

SQLite in WAL mode with `synchronous=FULL` is the embedded default: what a call has returned from is on disk. PostgreSQL
is for several control planes on several machines; there the server itself ends what one of them left half done.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from random import random
from time import monotonic, perf_counter, sleep
from typing import Any, TypeVar, cast

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from controlplane.errors import StoreError

T = TypeVar("T")
Execute = Callable[[str, Sequence[Any]], Sequence[Any]]
"""Executes a statement of the driver's own with its values; returns the rows."""

TRIES = 3
"""How often work is done anew whose transaction PostgreSQL called off for the sake of another one."""
TRY_AGAIN_WITHIN_S = 0.1
CALLED_OFF = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock: nothing was done, and the same again may succeed."""
MIGRATING = 0x636F6E74726F6C
"""PostgreSQL's advisory lock of whoever migrates: replicas that start at once come one after the other."""
CONNECT_WITHIN_S = 3
_LIMITS = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
"""What does not hold for a migration: it may wait for another's, take long, and run where the CPU is short."""
_SESSION = {
    # Somebody who was put to sleep inside a transaction holds rows that the next leader needs: his session is ended
    # before the lease is, and nothing of it is committed.
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "3s",
    "statement_timeout": "10s",
    # A client that is gone without a word (its machine lost power) is noticed in seconds, not in hours.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
}
"""What PostgreSQL is told of each session of ours."""
_CONNECTION = {
    "connect_timeout": CONNECT_WITHIN_S,
    # Nor does a server that is gone without a word end anything: the one thread that talks to it would wait for as long
    # as TCP does, a quarter of an hour for what was sent and for ever for an answer. Milliseconds; the others seconds.
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}
"""How libpq connects, where the URL does not say otherwise:
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"""


class Database:
    """A migrated database and the one thread that talks to it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._exclusive = engine.execution_options(exclusive=True)
        self.took: Callable[[str, float], None] = lambda _result, _seconds: None
        """Told of each transaction: how it ended (`ok`, `failed`) and how many seconds it took."""
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work in one transaction, off the event loop; committed when this returns.

        Raises:
            StoreError: when the database refuses, with the way out.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.run_now, work)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """Do some work that reads before it writes; nobody else can write in between.

        Raises:
            StoreError: when the database refuses, with the way out.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.change_now, work)

    async def bulk(self, work: Callable[[Execute], T]) -> T:
        """Do some work in one transaction that nobody else can write in, off the event loop; on disk when this returns.

        It speaks to SQLite's own driver: SQLAlchemy takes as long for a transaction as SQLite for ten alerts. Elsewhere
        the network takes longer than either.

        Args:
            work: given what executes a statement and returns its rows.

        Raises:
            StoreError: when the database refuses, with the way out.
        """
        direct = self.dialect == "sqlite"
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, self._bulk_sqlite if direct else self._bulk, work
        )

    def _bulk(self, work: Callable[[Execute], T]) -> T:
        return self.run_now(lambda c: work(lambda sql, values: c.exec_driver_sql(sql, tuple(values)).fetchall()))

    def _bulk_sqlite(self, work: Callable[[Execute], T]) -> T:
        began, result = perf_counter(), "failed"
        try:
            pooled = self._engine.raw_connection()
            try:
                driver = cast("sqlite3.Connection", pooled.driver_connection)
                driver.execute("BEGIN IMMEDIATE")
                done = work(lambda sql, values: driver.execute(sql, values).fetchall())
                driver.execute("COMMIT")
            finally:
                pooled.close()  # Which rolls back what was not committed.
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _store_error(self._engine.url.render_as_string(), error) from error
        else:
            result = "ok"
            return done
        finally:
            self.took(result, perf_counter() - began)

    def run_now(self, work: Callable[[Connection], T]) -> T:
        """Do some work in one transaction in this thread; for the command line, where no loop runs.

        Raises:
            StoreError: when the database refuses, with the way out.
        """
        return self._in_transaction(self._engine, work)

    def change_now(self, work: Callable[[Connection], T]) -> T:
        """Do some work that reads before it writes in this thread.

        Raises:
            StoreError: when the database refuses, with the way out.
        """
        return self._in_transaction(self._exclusive, work)

    def _in_transaction(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        began, result = perf_counter(), "ok"
        try:
            return _whole(engine, work)
        except SQLAlchemyError as error:
            result = "failed"
            raise _store_error(self._engine.url.render_as_string(), error) from error
        finally:
            self.took(result, perf_counter() - began)

    def close(self) -> None:
        """Finish what is queued and let go of the file."""
        self._writer.shutdown(wait=True)
        self._engine.dispose()


def open_database(url: str) -> Database:
    """Open a database and bring its schema up to date.

    Args:
        url: an SQLAlchemy URL, such as `sqlite:////var/lib/controlplane/state.db`.

    Raises:
        StoreError: when it cannot be opened or migrated.
    """
    try:
        engine = _engine(url)
    except (ArgumentError, ImportError) as error:
        raise StoreError(
            "the database cannot be opened", f"{type(error).__name__}: {error}",
            "write a URL such as postgresql+psycopg://user@host/name, and install `controlplane[postgres]` for it",
        ) from error  # fmt: skip
    shown = engine.url.render_as_string()
    try:
        _whole(engine.execution_options(exclusive=True, patient=True), _bring_up_to_date)
    except CommandError as error:
        engine.dispose()
        raise StoreError(
            f"the database {shown} is of another version", str(error),
            "run the version that made it, or have that one take it back: controlplane database downgrade",
        ) from error  # fmt: skip
    except SQLAlchemyError as error:
        engine.dispose()
        raise _store_error(shown, error) from error
    return Database(engine)


def _whole(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do some work in one transaction, anew where PostgreSQL called it off for the sake of another one."""
    for left in reversed(range(TRIES)):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if not left or getattr(error.orig, "sqlstate", None) not in CALLED_OFF:
                raise
        sleep(random() * TRY_AGAIN_WITHIN_S)  # noqa: S311 - whoever won is to be through by then
    raise AssertionError("unreachable")  # pragma: no cover


def _bring_up_to_date(connection: Connection) -> None:
    alone(connection)
    migrate(connection)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_WITHIN_S * 1000}")


def alone(connection: Connection) -> None:
    """Keep everybody else from migrating until the transaction ends, which may take as long as it takes.

    SQLite's exclusive transactions do so by themselves.
    """
    if connection.dialect.name == "postgresql":
        for limit in _LIMITS:
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})


def _engine(url: str) -> Engine:
    """Make an engine; raises whatever SQLAlchemy has against the URL."""
    if make_url(url).get_backend_name() != "postgresql":
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _pragmas)
            event.listen(engine, "begin", begin)
        return engine
    told = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    asked = make_url(url).query
    given = asked.get("options", "")
    told = f"{told} {given if isinstance(given, str) else ' '.join(given)}".strip()
    # A connection is tried before it is used: after a restart of the server the first call would fail for nothing. And
    # whoever has waited for a lock sees what was done meanwhile, however the server isolates others.
    return create_engine(
        make_url(url).difference_update_query(["options"]), pool_pre_ping=True, isolation_level="READ COMMITTED",
        connect_args={**{k: v for k, v in _CONNECTION.items() if k not in asked}, "options": told},
    )  # fmt: skip


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to a revision on an open connection."""
    command.upgrade(alembic_config(connection), revision)


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration for our migrations on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("controlplane.store") / "migrations"))
    config.attributes["connection"] = connection
    return config


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


BUSY_WITHIN_S = 5
"""How long SQLite waits for another connection to be through with its change."""
MIGRATED_WITHIN_S = 30
"""The same for whoever opens the file: another one that does so may migrate a large one."""
_PRAGMAS = (
    f"busy_timeout={BUSY_WITHIN_S * 1000}", "synchronous=FULL", "foreign_keys=ON",
    "temp_store=MEMORY",  # else what a statement may have to take back makes a file each time
    "cache_size=-32000",  # kB: the index of a hundred thousand alerts
    "wal_autocheckpoint=8000",  # pages of 4 kB: a storm would copy its pages into the file again and again
)  # fmt: skip


def _pragmas(connection: Any, _record: Any) -> None:
    """Set a new connection up; transactions are begun by us, since the driver's own way leaves out schema changes."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    _journal_to_wal(cursor)
    cursor.close()


def _journal_to_wal(cursor: sqlite3.Cursor) -> None:
    """Have a file keep a write-ahead log; where it does so already, nothing happens.

    Of several that open a new file at once, SQLite refuses all but one and does not wait as it does for a transaction,
    since two that each hold a read lock would wait for each other: https://www.sqlite.org/rescode.html#busy
    """
    until = monotonic() + BUSY_WITHIN_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
        else:
            return
        sleep(random() * TRY_AGAIN_WITHIN_S)  # noqa: S311 - so that they do not meet again


def begin(connection: Connection) -> None:
    """Begin a transaction of SQLite's; one that reads before it writes takes the lock first.

    It could not be given the lock later: what it has read may be old by then, and SQLite would refuse without waiting.
    """
    options = connection.get_execution_options()
    if options.get("patient"):
        connection.exec_driver_sql(f"PRAGMA busy_timeout={MIGRATED_WITHIN_S * 1000}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("exclusive") else "BEGIN")


_WAYS_OUT = {
    "readonly": "make the directory and its files writable for this user",
    "unable to open": "make sure the directory exists and is writable for this user",
    "disk I/O error": "free space on the disk that holds it, or replace the disk",
    "full": "free space on the disk that holds it",
    "locked": "stop the other process that holds it",
    "not a database": "move it away, or name another directory with --state-dir",
    "malformed": "move the damaged file away and restore a backup",
}


def _store_error(url: str, error: SQLAlchemyError | sqlite3.Error) -> StoreError:
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    fix = next((way for sign, way in _WAYS_OUT.items() if sign in reason), "see the reason")
    return StoreError(f"the database {url} refuses", reason, fix)
