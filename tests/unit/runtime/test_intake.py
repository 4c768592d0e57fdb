"""What webhooks left out is asked for: once for many, and once more for what comes during a look or right after it."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.flows.intake import Busy
from controlplane.incidents.alert import Webhook
from controlplane.runtime import intake
from controlplane.runtime.alerts import FiringAlerts
from controlplane.runtime.intake import AlertDesk
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import open_database, sqlite_url
from controlplane.telemetry import Metrics
from tests.support.webhooks import alert, told

LEFT_OUT = Webhook((), truncated=1)


@dataclass
class Room:
    """An Alertmanager that lists what it is told to when it is let, and the desk that asks it."""

    lists: tuple[str, ...] = ()
    looks: int = 0
    let: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    firing: FiringAlerts = field(default_factory=lambda: FiringAlerts(None, "chat"))

    async def listing(self) -> bytes:
        self.looks += 1
        answer = json.dumps([told(alert(name)) for name in self.lists]).encode()
        await self.let.wait()
        return answer

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    @asynccontextmanager
    async def desk(self, folder: Path) -> AsyncIterator[AlertDesk]:
        database = open_database(sqlite_url(folder / "a.db"))
        desk = AlertDesk(StoredAlerts(database), self.firing, self.listing, Metrics(), self.spawn)
        writing = asyncio.create_task(desk.write())
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(30):
                yield desk
        finally:
            for task in (writing, *self.tasks):
                task.cancel()
            await asyncio.gather(writing, *self.tasks, return_exceptions=True)
            database.close()

    async def asked(self) -> None:
        """Wait until nobody asks any more."""
        await asyncio.gather(*self.tasks)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ASKED_AGAIN_AFTER_S", 0.2)


async def test_what_is_left_out_right_after_a_look_is_asked_for_by_another_one(tmp_path: Path) -> None:
    room = Room()
    room.let.set()
    async with room.desk(tmp_path) as desk:
        await desk.reconcile()
        room.lists = ("Late",)
        assert await desk.take(LEFT_OUT) is None
        await room.asked()
        assert room.firing.names == {"Late"}
        assert room.looks == 2


async def test_what_is_left_out_during_a_look_is_asked_for_once_it_is_over(tmp_path: Path) -> None:
    room = Room()
    async with room.desk(tmp_path) as desk:
        looking = asyncio.create_task(desk.reconcile())
        while not room.looks:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        room.lists = ("Late",)
        assert await desk.take(LEFT_OUT) is None
        room.let.set()
        await looking
        await room.asked()
        assert room.firing.names == {"Late"}


async def test_what_many_webhooks_leave_out_is_asked_for_once(tmp_path: Path) -> None:
    room = Room(("Late",))
    room.let.set()
    async with room.desk(tmp_path) as desk:
        answers = list[Busy | None]()
        for _ in range(20):
            desk.put(LEFT_OUT, answers.append)
        await room.asked()
        assert answers == [None] * 20
        assert (room.looks, room.firing.names) == (1, {"Late"})


async def test_a_look_that_failed_keeps_nobody_from_asking_again(tmp_path: Path) -> None:
    room = Room(("Late",))
    async with room.desk(tmp_path) as desk:
        assert await desk.take(LEFT_OUT) is None
        while not room.looks:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        room.tasks[0].cancel()
        await asyncio.gather(room.tasks.pop(), return_exceptions=True)
        room.let.set()
        assert await desk.take(LEFT_OUT) is None
        await room.asked()
        assert room.firing.names == {"Late"}
