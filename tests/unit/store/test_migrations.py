"""Every version of the schema can be reached from every other, up and down, on both databases; rows come through."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, insert, inspect, select
from sqlalchemy.types import JSON, Boolean, Float, Integer, LargeBinary

from controlplane.store.database import alembic_config, migrate, open_database
from controlplane.store.schema import metadata

Shape = dict[str, tuple[Any, ...]]
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def engine(bare_url: str) -> Iterator[Engine]:
    made = create_engine(bare_url)
    yield made
    made.dispose()


def versions() -> list[str]:
    """Return every version, the first one first."""
    with create_engine("sqlite://").connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
        return [revision.revision for revision in script.walk_revisions()][::-1]


def shape(connection: Connection) -> Shape:
    """Describe every table there is: columns, keys and indexes."""
    seen, found = inspect(connection), {}
    for table in sorted(seen.get_table_names()):
        columns = sorted((c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(table))
        keys = sorted(tuple(k["constrained_columns"]) for k in seen.get_foreign_keys(table))
        indexes = sorted((i["name"] or "", tuple(i["column_names"]), i["unique"]) for i in seen.get_indexes(table))
        unique = sorted(tuple(u["column_names"]) for u in seen.get_unique_constraints(table))
        found[table] = (columns, seen.get_pk_constraint(table)["constrained_columns"], keys, indexes, unique)
    found.pop("alembic_version", None)
    return found


def fill(connection: Connection) -> Rows:
    """Put a row into every table that has none, whatever it is called and made of; return what is there then."""
    known = MetaData()
    known.reflect(connection)
    for table in known.sorted_tables:
        if table.name != "alembic_version" and connection.execute(select(table)).first() is None:
            connection.execute(insert(table).values({column.name: _value(column) for column in table.columns}))
    return rows(connection)


def _value(column: Any) -> Any:
    if column.foreign_keys:
        return _value(next(iter(column.foreign_keys)).column)
    if isinstance(column.type, JSON):
        return {}
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, Integer | Float):
        return 1
    if isinstance(column.type, LargeBinary):
        return b"\0\xff"
    return f"{column.table.name} {column.name}"[: getattr(column.type, "length", None) or 200]


def rows(connection: Connection) -> Rows:
    """Return the first row of every table."""
    known = MetaData()
    known.reflect(connection)
    tables = [table for table in known.sorted_tables if table.name != "alembic_version"]
    return {table.name: dict(_first(connection, table)) for table in tables}


def _first(connection: Connection, table: Table) -> Any:
    return connection.execute(select(table).order_by(*table.primary_key.columns)).mappings().one()


def kept(before: Rows, after: Rows) -> None:
    """Make sure that of every table and column that both have the row is the same."""
    for table in before.keys() & after.keys():
        columns = before[table].keys() & after[table].keys()
        assert {c: after[table][c] for c in columns} == {c: before[table][c] for c in columns}, table


def test_the_versions_are_one_line_and_lead_to_the_schema(engine: Engine) -> None:
    assert len(versions()) == len(set(versions())) >= 7
    with engine.begin() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
        assert script.get_heads() == [versions()[-1]]
        migrate(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert shape(connection).keys() == set(metadata.tables)


def test_each_step_down_leads_back_to_where_its_step_up_began(engine: Engine) -> None:
    with engine.begin() as connection:
        for version in versions():
            before = shape(connection)
            migrate(connection, version)
            after = shape(connection)
            assert after != before, version
            command.downgrade(alembic_config(connection), "-1")
            assert shape(connection) == before, version
            migrate(connection, version)
            assert shape(connection) == after, version


def test_what_an_older_version_stored_is_there_after_the_upgrade_and_after_the_way_back(engine: Engine) -> None:
    for version in versions():
        with engine.begin() as connection:
            migrate(connection, version)
            before = fill(connection)
            migrate(connection)
            at_head = fill(connection)
            kept(before, at_head)
        with engine.begin() as connection:
            command.downgrade(alembic_config(connection), version)
            kept(at_head, rows(connection))
            kept(before, rows(connection))
            command.downgrade(alembic_config(connection), "base")
            assert shape(connection) == {}


def test_migrating_twice_is_migrating_once(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
        once = shape(connection)
    with engine.begin() as connection:
        migrate(connection)
        assert shape(connection) == once


def test_replicas_that_start_at_once_on_an_empty_database_make_one_schema(bare_url: str) -> None:
    failed: list[BaseException] = []

    def start() -> None:
        try:
            with closing(open_database(bare_url)) as database:
                assert database.run_now(shape).keys() == set(metadata.tables)
        except BaseException as error:  # noqa: BLE001 - it is told below
            failed.append(error)

    replicas = [threading.Thread(target=start) for _ in range(4)]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join(60)
    assert failed == []
