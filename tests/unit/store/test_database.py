"""A database is opened and brought up to date, or refused with the way out."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import quote

import pytest
from alembic import op
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from controlplane.errors import StoreError
from controlplane.store.database import BUSY_WITHIN_S, Database, open_database, sqlite_url
from controlplane.store.schema import metadata


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def test_a_name_with_signs_in_it_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a b#c%20d?e.db"
    with closing(open_database(sqlite_url(path))):
        assert path.exists()


def test_what_is_written_is_on_disk_and_foreign_keys_hold(tmp_path: Path) -> None:
    with closing(open_database(sqlite_url(tmp_path / "a.db"))) as database:
        seen = [
            database.run_now(lambda c, name=name: c.execute(text(f"PRAGMA {name}")).scalar())  # type: ignore[misc]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert seen == ["wal", 2, 1]


def test_work_that_fails_leaves_nothing_behind(database: Database) -> None:
    database.run_now(lambda c: c.execute(text("CREATE TABLE t (a INTEGER)")))

    def half(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise LookupError

    with pytest.raises(LookupError):
        database.run_now(half)
    assert database.run_now(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar()) == 0


def test_every_transaction_is_timed_by_how_it_ended(database: Database) -> None:
    told: list[tuple[str, float]] = []
    database.took = lambda result, seconds: told.append((result, seconds))
    database.run_now(lambda connection: connection.execute(text("select 1")).scalar())
    with pytest.raises(StoreError):
        database.change_now(lambda connection: connection.execute(text("select * from nothing")))
    assert [result for result, _ in told] == ["ok", "failed"]
    assert all(seconds > 0 for _, seconds in told)


def test_a_migration_that_is_interrupted_leaves_nothing_behind_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_url(tmp_path / "a.db")
    index = op.create_index

    def interrupted(name: str, *args: Any, **kwargs: Any) -> None:
        if name == "drills_by_time":
            raise OperationalError("CREATE INDEX", {}, sqlite3.OperationalError("database or disk is full"))
        index(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", interrupted)
        assert "free space" in refused(url).fix
    with closing(open_database(url)) as database:
        assert database.run_now(tables) == set(metadata.tables)


def refused(url: str) -> StoreError:
    with pytest.raises(StoreError) as error:
        open_database(url).close()
    assert error.value.why
    assert error.value.fix
    return error.value


def test_a_directory_that_does_not_exist_is_refused_with_the_way_out(tmp_path: Path) -> None:
    error = refused(sqlite_url(tmp_path / "absent" / "a.db"))
    assert "unable to open" in error.why
    assert "make sure the directory exists" in error.fix


def test_a_place_where_nobody_may_write_is_refused_with_the_way_out() -> None:
    assert "writable" in refused(sqlite_url(Path("/dev/null/a.db"))).fix


def test_a_database_that_is_read_only_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (a INTEGER)")
    error = refused(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
    assert "readonly" in error.why
    assert "writable" in error.fix


@pytest.mark.parametrize("content", [b"this is no database at all, but it is long enough to be one" * 20])
def test_a_file_that_is_no_database_is_refused_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    error = refused(sqlite_url(path))
    assert "not a database" in error.why
    assert "move" in error.fix
    assert path.read_bytes() == content


def test_a_damaged_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_database(sqlite_url(path)).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    assert "damaged" in refused(sqlite_url(path)).fix


def test_a_database_of_a_newer_version_is_refused_and_not_a_crash(url: str) -> None:
    with closing(open_database(url)) as database:
        database.run_now(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    assert "run the version that made it" in refused(url).fix


@pytest.mark.parametrize("url", ["nonsense", "mysql+nothing://x/y", "postgresql+nodriver://x/y"])
def test_a_url_that_leads_nowhere_is_refused_with_the_way_out(url: str) -> None:
    assert "write a URL such as" in refused(url).fix


def test_a_password_in_the_url_is_told_to_nobody() -> None:
    pytest.importorskip("psycopg")
    error = refused("postgresql+psycopg://ann:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in f"{error.what} {error.why} {error.fix}"
    assert "127.0.0.1:1/x" in error.what


def test_a_database_another_process_holds_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr("controlplane.store.database.MIGRATED_WITHIN_S", 0)
    monkeypatch.setattr("controlplane.store.database._pragmas", lambda *_: None)  # They wait five seconds for a lock.
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        error = refused(f"{sqlite_url(path)}?timeout=0")
    assert "locked" in error.why
    assert "stop the other process" in error.fix


@contextmanager
def held_for(path: Path, seconds: float) -> Iterator[None]:
    """Have another connection hold the file's one place to write for a while."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (a INTEGER)")
        other.execute("BEGIN IMMEDIATE")
        through = Timer(seconds, other.execute, ["COMMIT"])
        through.start()
        try:
            yield
        finally:
            through.join()


def test_a_new_file_that_another_one_is_setting_up_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    # Whoever would change the kind of journal now is refused by SQLite at once, patient or not.
    with held_for(path, 0.3), closing(open_database(sqlite_url(path))) as database:
        assert database.run_now(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"


def test_another_one_that_migrates_is_waited_for_longer_than_one_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    open_database(sqlite_url(path)).close()
    monkeypatch.setattr("controlplane.store.database._PRAGMAS", ("busy_timeout=50",))
    with held_for(path, 0.5), closing(open_database(sqlite_url(path))) as database:
        waits = database.run_now(lambda c: c.exec_driver_sql("PRAGMA busy_timeout").scalar_one())
    assert waits == BUSY_WITHIN_S * 1000, "afterwards as long as ever"
