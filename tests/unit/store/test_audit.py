"""The audit log on disk: two control planes make one chain, the database refuses changes, and a forger is found."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.event import listen

from controlplane.errors import StoreError
from controlplane.security.chain import Deed, Head
from controlplane.store import audit as stored
from controlplane.store.audit import StoredAudit
from controlplane.store.database import Database

NOW = datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)


COPIED = (
    "INSERT INTO audit SELECT 9, at, who, role, credential, source, action, why, outcome, detail, before, hash"
    " FROM audit WHERE number = 5"
)


def deed(why: str = "because") -> Deed:
    return Deed(NOW, "ann", "operator", "0123456789ab", "127.0.0.1", "POST /api/v1/brake", why, "done 201")


TRIGGERS_OFF = {
    "sqlite": ("DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"),
    "postgresql": ("DROP TRIGGER audit_append_only ON audit",),
}


async def fill(audit: StoredAudit, rows: int) -> None:
    for number in range(rows):
        await audit.append(deed(f"reason {number}"))


def forge(database: Database, *statements: str) -> None:
    """Do what somebody with the database in their hands would: switch the triggers off first."""

    def work(connection: Connection) -> None:
        for statement in (*TRIGGERS_OFF[connection.dialect.name], *statements):
            connection.execute(text(statement))

    database.run_now(work)


async def found(audit: StoredAudit, noted: Head | None = None) -> list[str]:
    return [broken.what for broken in (await audit.check(noted)).breaks]


async def test_what_was_written_is_read_back_and_holds(database: Database) -> None:
    audit = StoredAudit(database)
    assert (await audit.check(None)).head == Head()
    await fill(audit, 3)
    newest, older, _ = await audit.recent(10, None)
    assert (newest.number, newest.deed, newest.before) == (3, deed("reason 2"), older.hash)
    assert [link.number for link in await audit.recent(1, 3)] == [2]
    checked = await audit.check(Head(2, older.hash))
    assert (checked.rows, checked.head, checked.breaks) == (3, Head(3, newest.hash), ())


@pytest.mark.parametrize("statement", ["UPDATE audit SET why = 'x' WHERE number = 2", "DELETE FROM audit"])
async def test_the_database_itself_refuses_to_change_or_remove_a_row(database: Database, statement: str) -> None:
    audit = StoredAudit(database)
    await fill(audit, 3)
    with pytest.raises(StoreError) as refused:
        database.run_now(lambda c: c.execute(text(statement)))
    assert "append-only" in refused.value.why
    assert await found(audit) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET why = 'x' WHERE number = 2", ["row 2 was changed after it was written"]),
        ("UPDATE audit SET at = 'yesterday' WHERE number = 2", ["row 2 was changed after it was written"]),
        ("DELETE FROM audit WHERE number = 2", ["row 2 is missing"]),
        ("DELETE FROM audit WHERE number > 2", ["rows 3 to 5 are missing"]),
        ("DELETE FROM audit", ["rows 1 to 5 are missing"]),
        ("UPDATE audit SET number = 6 WHERE number = 2",
         ["row 2 is missing", "row 6 is not of the chain, which ends at row 5"]),
        (COPIED, ["row 9 is not of the chain, which ends at row 5"]),
        ("UPDATE audit_head SET number = 7", ["rows 6 to 7 are missing"]),
        ("UPDATE audit_head SET hash = 'x'", ["the log ends at row 5, its head says 5"]),
    ],
)  # fmt: skip
async def test_a_forger_is_found_and_so_is_the_row(database: Database, statement: str, said: list[str]) -> None:
    audit = StoredAudit(database)
    await fill(audit, 5)
    forge(database, statement)
    assert await found(audit) == said


async def test_rows_that_changed_places_are_found(database: Database) -> None:
    audit = StoredAudit(database)
    await fill(audit, 4)
    step = "UPDATE audit SET number = {} WHERE number = {}"
    forge(database, step.format(99, 2), step.format(2, 3), step.format(3, 99))
    numbers = {broken.number for broken in (await audit.check(None)).breaks}
    assert {2, 3} <= numbers


async def test_a_cut_off_end_with_a_forged_head_shows_against_a_noted_one(database: Database) -> None:
    audit = StoredAudit(database)
    await fill(audit, 3)
    before = await audit.check(None)
    second = (await audit.recent(1, 3))[0]
    head = f"UPDATE audit_head SET number = 2, hash = '{second.hash}'"  # noqa: S608 - 64 hex digits
    forge(database, "DELETE FROM audit WHERE number = 3", head)
    assert await found(audit) == []
    assert await found(audit, before.head) == ["row 3 was noted elsewhere and is missing"]


async def test_a_long_log_is_followed_page_by_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PAGE", 2)
    audit = StoredAudit(database)
    await fill(audit, 5)
    assert (await audit.check(None)).rows == 5
    forge(database, "UPDATE audit SET who = 'x' WHERE number = 3")
    assert await found(audit) == ["row 3 was changed after it was written"]


async def test_two_control_planes_on_one_database_keep_one_chain(database: Database, other: Database) -> None:
    books = (StoredAudit(database), StoredAudit(other))
    await asyncio.gather(*(books[i % 2].append(deed(str(i))) for i in range(40)))
    checked = await books[0].check(None)
    assert (checked.rows, checked.breaks) == (40, ())


async def test_rows_that_another_control_plane_adds_during_a_check_are_no_strangers(
    database: Database, other: Database
) -> None:
    audit, theirs = StoredAudit(database), StoredAudit(other)
    await fill(audit, 3)
    listen(database._engine, "after_cursor_execute", lambda *_: theirs.append_now(deed("meanwhile")))
    assert await found(audit) == []
    assert (await theirs.recent(1, None))[0].number > 5, "it wrote after each statement of the check"
