"""Which version of its schema a database has, and the way back to an older one: what a rollback of the software needs.

Going up is `database.open_database`, at each start. Called by the command line, with no control plane running.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from controlplane.errors import StoreError
from controlplane.store.database import alembic_config, alone, begin
from controlplane.store.schema import leadership

_NOW = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}
"""Unix seconds by the database's clock, by which leases run."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The schema of a database, and what this version of the software knows."""

    revision: str
    """Of the database; empty for one that was never used."""
    known: tuple[str, ...]
    """Every revision that this version knows, oldest first; it migrates to the last one when it starts."""

    @property
    def from_the_future(self) -> bool:
        """Whether a newer version has made it: this one refuses it."""
        return bool(self.revision) and self.revision not in self.known


def standing(url: str) -> Standing:
    """Look at a database and change nothing.

    Raises:
        StoreError: when it cannot be read.
    """
    engine = _existing(url)
    try:
        with engine.connect() as connection:
            return _standing(connection)
    except SQLAlchemyError as error:
        raise _unreadable(engine, error) from error
    finally:
        engine.dispose()


def downgrade(url: str, to: str) -> tuple[str, ...]:
    """Take a schema back, so that an older version of the software can use the database.

    What only newer schemas keep is lost; the tables that go are named. A file is copied first, beside itself.

    Args:
        url: of the database; no control plane may run on it.
        to: the revision, one that `Standing.known` names before the database's own.

    Returns:
        What was done, one line each.

    Raises:
        StoreError: when a control plane is in charge of it, the revision is none to go back to, or it refuses.
    """
    engine = _existing(url)
    try:
        # All of it in one transaction: a control plane that starts now waits, and goes up again when this is done.
        with engine.execution_options(exclusive=True).begin() as connection:
            alone(connection)
            found = _standing(connection)
            _check(connection, found, to)
            copy = _copied(engine, found.revision)
            before = set(inspect(connection).get_table_names())
            command.downgrade(alembic_config(connection), to)
            gone = sorted(before - set(inspect(connection).get_table_names()))
    except (SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
        raise _unreadable(engine, error) from error
    finally:
        engine.dispose()
    return (
        *([f"copied to {copy} first"] if copy else []),
        f"schema {found.revision} -> {to}",
        *(f"table {name} is gone" for name in gone),
    )


def _existing(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        if not Path(engine.url.database or "").is_file():
            raise StoreError(
                "there is no database", f"{engine.url.database} is not there",
                "name its place with --state-dir or --database",
            )  # fmt: skip
        # The driver's own transactions leave out schema changes: a downgrade is to be whole, or not done.
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine, "begin", begin)
    return engine


def _standing(connection: Connection) -> Standing:
    script = ScriptDirectory.from_config(alembic_config(connection))
    known = tuple(reversed([revision.revision for revision in script.walk_revisions()]))
    return Standing(MigrationContext.configure(connection).get_current_revision() or "", known)


def _check(connection: Connection, found: Standing, to: str) -> None:
    if found.from_the_future:
        raise StoreError(
            f"schema {found.revision} is newer than this version of controlplane", f"it knows up to {found.known[-1]}",
            "take it back with the version that made it",
        )  # fmt: skip
    older = found.known[: found.known.index(found.revision)] if found.revision else ()
    if to not in older:
        raise StoreError(
            f"no schema {to} to go back to", f"the database has {found.revision or 'none'}",
            f"name one of {', '.join(older)}" if older else "there is none before it",
        )  # fmt: skip
    if not inspect(connection).has_table(leadership.name):
        return
    now = float(connection.execute(text(_NOW[connection.dialect.name])).scalar_one())
    for holder in connection.execute(select(leadership.c.holder).where(leadership.c.expires > now)).scalars():
        raise StoreError(
            "a control plane runs on this database", f"{holder} is in charge", "stop every control plane on it first"
        )


def _copied(engine: Engine, revision: str) -> Path | None:
    """Copy an SQLite file beside itself; a server's database is copied by its own tools."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    source = Path(engine.url.database)
    copy = source.with_name(f"{source.name}.schema-{revision}")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    copy.chmod(source.stat().st_mode & 0o777)
    return copy


def _unreadable(engine: Engine, error: Exception) -> StoreError:
    return StoreError(f"the database {engine.url.render_as_string()} refuses", str(error), "see the reason")
