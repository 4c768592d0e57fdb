"""Opening, migrating and using the database: one writer thread, so that every change is whole and in order.

SQLite in WAL mode with `synchronous=FULL` is the embedded default: what a call has returned from is on disk.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from controlplane.errors import StoreError

T = TypeVar("T")


class Database:
    """A migrated database and the one thread that talks to it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._exclusive = engine.execution_options(exclusive=True)
        self.took: Callable[[str, float], None] = lambda _result, _seconds: None
        """Told of each transaction: how it ended (`ok`, `failed`) and how many seconds it took."""
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

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
            with engine.begin() as connection:
                return work(connection)
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
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _pragmas)
        event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            migrate(connection)
    except CommandError as error:
        engine.dispose()
        raise StoreError(
            f"the database {url} is of another version", str(error),
            "run the version that made it, or have that one take it back: controlplane database downgrade",
        ) from error  # fmt: skip
    except SQLAlchemyError as error:
        engine.dispose()
        raise _store_error(url, error) from error
    return Database(engine)


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


_PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON",
    "cache_size=-32000",  # kB: the index of a hundred thousand alerts
    "wal_autocheckpoint=8000",  # pages of 4 kB: a storm would copy its pages into the file again and again
)  # fmt: skip


def _pragmas(connection: Any, _record: Any) -> None:
    """Set a new connection up; transactions are begun by us, since the driver's own way leaves out schema changes."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begin a transaction; one that reads before it writes takes the lock first.

    It could not be given the lock later: what it has read may be old by then, and SQLite would refuse without waiting.
    """
    exclusive = connection.get_execution_options().get("exclusive")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")


_WAYS_OUT = {
    "readonly": "make the directory and its files writable for this user",
    "unable to open": "make sure the directory exists and is writable for this user",
    "disk I/O error": "free space on the disk that holds it, or replace the disk",
    "full": "free space on the disk that holds it",
    "locked": "stop the other process that holds it",
    "not a database": "move it away, or name another directory with --state-dir",
    "malformed": "move the damaged file away and restore a backup",
}


def _store_error(url: str, error: SQLAlchemyError) -> StoreError:
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    fix = next((way for sign, way in _WAYS_OUT.items() if sign in reason), "see the reason")
    return StoreError(f"the database {url} refuses", reason, fix)
