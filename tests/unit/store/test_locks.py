"""Whoever reads before it writes is not refused because another control plane writes in between."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.event import listen

from controlplane.chaos.drill import Halt, Slot, SlotState
from controlplane.store.database import Database
from controlplane.store.drills import StoredDrills, StoredHalts

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "work",
    [
        lambda database: StoredHalts(database).halt(Halt("smoke", "ann", T0)),
        lambda database: StoredHalts(database).resume("ann", T0),
        lambda database: StoredDrills(database).plan_slot(Slot("x", "monthly/x", T0, SlotState.PLANNED, (), T0)),
    ],
    ids=["halt", "resume", "plan"],
)
async def test_what_is_written_between_reading_and_writing_refuses_neither(
    database: Database, other: Database, work: Callable[[Database], Awaitable[object]]
) -> None:
    writing: list[Future[object]] = []

    def write() -> object:
        return other.run_now(lambda connection: connection.execute(text("UPDATE audit_head SET hash = 'x'")))

    def after(*executed: Any) -> None:
        if executed[2].startswith("SELECT") and not writing:
            writing.append(thread.submit(write))
            wait(writing, 0.3)  # Time to be through with it, where nobody keeps it waiting.

    listen(database._engine, "after_cursor_execute", after)
    with ThreadPoolExecutor(1) as thread:
        await work(database)
    (written,) = writing
    written.result()
