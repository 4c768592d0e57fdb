"""What people said is kept with who and why, and ends once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.degradation.instruction import Instruction, Kind
from controlplane.degradation.matrix import Level
from controlplane.store.database import Database
from controlplane.store.instructions import StoredInstructions

T0 = datetime(2026, 3, 3, 10, 0, 0, 123456, tzinfo=UTC)
PIN = Instruction("i1", "chat", Kind.PIN, Level.P1, "ann", "peak 'hours' ünïcode", T0, T0 + timedelta(minutes=30))
BRAKE = Instruction("i2", "chat", Kind.BRAKE, Level.NONE, "bob", "we measure", T0 + timedelta(seconds=1))
OTHER = replace(PIN, id="i3", service="other")


async def test_what_was_said_is_read_back_as_it_was(database: Database) -> None:
    book = StoredInstructions(database)
    for instruction in (PIN, BRAKE, OTHER):
        await book.begin(instruction)
    assert await book.in_force("chat") == (PIN, BRAKE)
    assert await book.recent("chat", 1) == (BRAKE,)


async def test_what_has_ended_stays_with_its_first_end(database: Database) -> None:
    book = StoredInstructions(database)
    await book.begin(PIN)
    await book.end(PIN.id, T0 + timedelta(minutes=1), "bob", "done")
    await book.end(PIN.id, T0 + timedelta(minutes=2), "", "its time is over")
    assert await book.in_force("chat") == ()
    ended = replace(PIN, ended_at=T0 + timedelta(minutes=1), ended_by="bob", ended_why="done")
    assert await book.recent("chat", 9) == (ended,)


def test_a_pin_holds_until_its_time_or_its_end() -> None:
    assert PIN.holds(T0)
    assert not PIN.holds(T0 + timedelta(minutes=30))
    assert not replace(PIN, ended_at=T0).holds(T0)
    assert BRAKE.holds(T0 + timedelta(days=300))
    assert PIN.words == "ann pinned P1 until 10:30 UTC: peak 'hours' ünïcode"
    assert BRAKE.words == "bob pulled the brake: we measure"
