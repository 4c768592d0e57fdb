"""A webhook is acknowledged when it is on disk, and turned away with what can be tried again when it cannot be."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest
from msgspec import structs

from controlplane.errors import StoreError
from controlplane.flows import intake
from controlplane.flows.intake import Busy
from controlplane.incidents.alert import Alert, Webhook
from controlplane.incidents.firing import EVALUATED_AT, Change, Kind
from tests.support.webhooks import Desk, alert, desk, later


@dataclass
class Slow:
    """A store that commits when it is let."""

    groups: list[int] = field(default_factory=list)
    let: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    called_off: bool = False
    """Whether the database calls each first try off, when it is let."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep_next(self, gather: Callable[[], tuple[tuple[Alert, ...], datetime]]) -> tuple[Change, ...]:
        async with self.turn:
            if self.called_off and gather()[0]:
                self.groups.append(0)
                await self.let.wait()
            told, _ = gather()
            if told:
                self.groups.append(len(told))
                await self.let.wait()
                if self.error:
                    raise self.error
        return tuple(Change(a.fingerprint, a.name, a.service, a.source, None, a.status) for a in told)

    async def keep(self, told: tuple[Alert, ...], at: datetime, asked_at: datetime | None = None) -> tuple[Change, ...]:
        return await self.keep_next(lambda: (told, at))

    async def tally(self) -> dict[Kind, int]:
        return {}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as opened:
        yield opened


def posted(*names: str) -> Webhook:
    return Webhook(tuple(alert(name) for name in names))


async def settled(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)


async def test_what_was_acknowledged_is_on_disk_and_told_and_counted(at: Desk, tmp_path: Path) -> None:
    assert await at.take(posted("A", "B")) is None
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as other:
        assert other.execute("SELECT count(*) FROM alerts WHERE status = 'firing'").fetchone() == (2,)
    assert sorted(change.name for change in at.changes) == ["A", "B"]
    assert at.count("controlplane_alerts_received_total") == 2
    assert at.count("controlplane_intake_commit_seconds_count") == 1


async def test_a_duplicate_is_acknowledged_counted_and_told_nobody(at: Desk) -> None:
    for _ in range(3):
        assert await at.take(posted("A", "A")) is None
    assert len(at.changes) == 1
    assert at.count("controlplane_alerts_received_total") == 6
    assert at.count("controlplane_alerts_duplicate_total") == 5


async def test_what_comes_while_a_commit_is_under_way_is_one_group(tmp_path: Path) -> None:
    slow = Slow()
    async with desk(tmp_path, slow) as at:
        first = asyncio.create_task(at.take(posted("first")))
        await settled(lambda: slow.groups == [1])
        others = [asyncio.create_task(at.take(posted(f"a{i}"))) for i in range(50)]
        await settled(lambda: at.count("controlplane_intake_waiting") == 50)
        slow.let.set()
        assert await asyncio.gather(first, *others) == [None] * 51
        assert slow.groups == [1, 50]


async def test_more_than_may_wait_is_asked_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WAITING_AT_MOST", 3)
    slow = Slow()
    async with desk(tmp_path, slow) as at:
        first = asyncio.create_task(at.take(posted("first")))
        await settled(lambda: slow.groups == [1])
        second = asyncio.create_task(at.take(posted("a", "b", "c", "d")))  # One alone is always taken.
        await settled(lambda: at.count("controlplane_intake_waiting") == 4)
        refused = await at.take(posted("e"))
        assert refused
        assert refused.reason == "overload"
        slow.let.set()
        assert [await first, await second] == [None, None]
        assert await at.take(posted("e")) is None


async def test_a_store_that_refuses_turns_the_group_away_and_the_next_one_is_tried(tmp_path: Path) -> None:
    slow = Slow(error=StoreError("the database refuses", "locked", "stop the other"))
    slow.let.set()
    async with desk(tmp_path, slow) as at:
        assert await at.take(posted("A")) == Busy("store", "the database refuses")
        slow.error = None
        assert await at.take(posted("A")) is None
        assert at.count("controlplane_alerts_received_total") == 1


async def test_a_commit_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ACK_WITHIN_S", 0.05)
    async with desk(tmp_path, Slow()) as at:
        refused = await at.take(posted("A"))
        assert refused
        assert refused.reason == "slow"


async def test_what_is_stored_too_late_to_be_acknowledged_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ACK_WITHIN_S", 0.05)
    slow = Slow()
    async with desk(tmp_path, slow) as at:
        for name in ("written", "waits behind it"):
            refused = await at.take(posted(name))
            assert refused
            assert refused.reason == "slow"
        assert at.changes == []
        slow.let.set()
        await settled(lambda: at.count("controlplane_alerts_received_total") == 1)
        assert [change.name for change in at.changes] == ["written"]
        monkeypatch.setattr(intake, "ACK_WITHIN_S", 30.0)
        assert await at.take(posted("waits behind it")) is None
        assert slow.groups == [1, 1], "what nobody waited for any more was not written"


async def test_a_transaction_that_is_done_anew_writes_the_group_that_it_had(tmp_path: Path) -> None:
    slow = Slow(called_off=True)
    async with desk(tmp_path, slow) as at:
        first = asyncio.create_task(at.take(posted("a", "b")))
        await settled(lambda: slow.groups == [0])
        second = asyncio.create_task(at.take(posted("c")))
        await settled(lambda: at.count("controlplane_intake_waiting") == 1)
        slow.let.set()
        async with asyncio.timeout(30):
            assert [await first, await second] == [None, None]
        assert slow.groups == [0, 2, 0, 1]
        assert sorted(change.name for change in at.changes) == ["a", "b", "c"]


async def test_whoever_waits_at_a_stop_is_asked_to_come_again(tmp_path: Path) -> None:
    slow = Slow()
    async with desk(tmp_path, slow) as at:
        waiting = [asyncio.create_task(at.take(posted(f"a{i}"))) for i in range(3)]
        await settled(lambda: slow.groups == [3])
        waiting.append(asyncio.create_task(at.take(posted("late"))))
        await settled(lambda: at.count("controlplane_intake_waiting") == 1)
    answers = await asyncio.gather(*waiting)
    assert [answer.reason for answer in answers if answer] == ["stopping"] * 4
    after = await at.take(posted("after"))
    assert after
    assert after.reason == "stopping"


async def test_alerts_that_were_left_out_are_said_to_be(at: Desk) -> None:
    assert await at.take(replace(posted("A"), truncated=5)) is None
    assert await at.take(Webhook(())) is None
    assert at.truncated == [None]


async def test_a_watchdog_is_timed_each_time_it_is_heard(at: Desk) -> None:
    dog = structs.replace(alert("Watchdog"), annotations={EVALUATED_AT: str(later(0).timestamp())})
    for _ in range(2):
        assert await at.take(Webhook((dog,))) is None
    assert at.count("controlplane_watchdog_seconds_count", source="alertmanager") == 2
    assert at.count("controlplane_watchdog_last_heard_timestamp_seconds", source="alertmanager") > 1e9
