"""The schema of a database is known, is taken back for an older version, and never grows in a way that breaks one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from controlplane.errors import StoreError
from controlplane.store import revisions
from controlplane.store.database import alembic_config, migrate, open_database, sqlite_url
from controlplane.store.revisions import downgrade, standing
from tests.support.processes import controlplane

FUTURE = "UPDATE alembic_version SET version_num = '9999'"
HELD = "INSERT INTO leadership (name, holder, token, expires) VALUES ('chat', 'plane-0', 1, 1e12)"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    with closing(open_database(url(tmp_path / "state"))):
        return tmp_path / "state"


def url(state: Path) -> str:
    return sqlite_url(state / "controlplane.db")


def run(state: Path, statement: str) -> None:
    with closing(open_database(url(state))) as database:
        database.run_now(lambda connection: connection.execute(text(statement)))


def known() -> tuple[str, ...]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
        found = tuple(reversed([revision.revision for revision in script.walk_revisions()]))
    engine.dispose()
    return found


def test_a_database_says_which_schema_it_has(state: Path) -> None:
    found = standing(url(state))
    assert (found.revision, found.known, found.from_the_future) == (known()[-1], known(), False)


def test_going_back_and_forth_keeps_what_both_schemas_know(state: Path) -> None:
    run(state, HELD.replace("1e12", "0"))
    told = downgrade(url(state), known()[-2])
    assert f"schema {known()[-1]} -> {known()[-2]}" in told
    assert standing(url(state)).revision == known()[-2]
    assert (state / f"controlplane.db.schema-{known()[-1]}").exists()
    with closing(open_database(url(state))) as database:
        holders = database.run_now(lambda c: c.execute(text("SELECT holder FROM leadership")).scalars().all())
    assert holders == ["plane-0"]
    assert standing(url(state)).revision == known()[-1]


def test_a_database_in_use_is_not_taken_back(state: Path) -> None:
    run(state, HELD)
    with pytest.raises(StoreError, match="a control plane runs on this database") as raised:
        downgrade(url(state), known()[-2])
    assert "plane-0 is in charge" in raised.value.why
    assert standing(url(state)).revision == known()[-1]


def test_nobody_takes_charge_of_a_database_while_it_is_taken_back(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def start_meanwhile(engine: Engine, revision: str) -> Path | None:
        with closing(sqlite3.connect(state / "controlplane.db", timeout=0)) as rival:
            try:
                rival.execute(HELD)
                rival.commit()
            except sqlite3.OperationalError as error:
                refused.append(str(error))
        return copied(engine, revision)

    copied = revisions._copied
    monkeypatch.setattr(revisions, "_copied", start_meanwhile)
    downgrade(url(state), known()[-2])
    assert refused == ["database is locked"]
    with closing(sqlite3.connect(state / f"controlplane.db.schema-{known()[-1]}")) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [(known()[-1],)]


@pytest.mark.parametrize("to", ["9999", "head", ""])
def test_there_is_no_way_back_to_what_is_not_older(state: Path, to: str) -> None:
    with pytest.raises(StoreError, match="to go back to"):
        downgrade(url(state), to)


def test_a_database_from_the_future_is_refused_with_the_way_out(state: Path) -> None:
    run(state, FUTURE)
    assert standing(url(state)).from_the_future
    with pytest.raises(StoreError, match="of another version") as raised:
        open_database(url(state))
    assert "controlplane database downgrade" in raised.value.fix
    with pytest.raises(StoreError, match="newer than this version"):
        downgrade(url(state), known()[0])


def test_no_file_is_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        standing(url(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_shows_and_takes_back(state: Path) -> None:
    shown = controlplane("database", "show", "--state-dir", state)
    assert (shown.status, shown.out) == (0, f"schema {known()[-1]}; this version knows 0001 to {known()[-1]}\n")
    done = controlplane("database", "downgrade", "--to", known()[-2], "--state-dir", state)
    assert (done.status, f"schema {known()[-1]} -> {known()[-2]}" in done.out) == (0, True), done.err
    refused = controlplane("database", "downgrade", "--to", "9999", "--state-dir", state)
    assert (refused.status, "name one of" in refused.err) == (1, True)


def steps() -> Iterator[tuple[str, str]]:
    revisions = known()
    yield from pairwise(revisions)


SHRANK: dict[str, str] = {}
"""Revisions that may take something away, and why: in a release after the one that stopped using it."""


@pytest.mark.parametrize(("before", "after"), list(steps()))
def test_an_older_version_goes_on_working_on_the_newer_schema(before: str, after: str) -> None:
    """While replicas are replaced one by one, old ones run on what a new one has migrated: schemas only grow."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrate(connection, before)
        old = columns(connection)
        migrate(connection, after)
        new = columns(connection)
    engine.dispose()
    if after in SHRANK:
        return
    assert [name for name in old if name not in new] == []
    demanded = [
        name for name, needed in new.items() if needed and name not in old and name[0] in {table for table, _ in old}
    ]
    assert demanded == []


def columns(connection: Connection) -> dict[tuple[str, str], bool]:
    """Return every column by its table, and whether an insert has to name it."""
    look = inspect(connection)
    return {
        (table, column["name"]): not column["nullable"] and column["default"] is None
        for table in look.get_table_names()
        for column in look.get_columns(table)
    }
