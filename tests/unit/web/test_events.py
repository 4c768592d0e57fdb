"""What listeners are told: what happened, with ids to come back by; so many at once; and nobody who does not read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message

from controlplane.telemetry import Requests
from controlplane.web import changes as events
from controlplane.web.api import events as route
from controlplane.web.app import build_app
from controlplane.web.changes import Changes, Happening
from tests.unit.web.test_api import TOKEN, Told, ports, serving

LEVEL = Happening("level", {"name": "chat", "level": "P0"})
ROW = Happening("row", {"name": "P0", "phase": "engaged"})


async def take(stream: AsyncIterator[str], number: int) -> list[dict[str, str]]:
    """Return so many events of a stream, each with its fields."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(30):
        async for part in stream:
            if part.startswith((":", "retry:")):
                continue
            found.append(dict(line.split(": ", 1) for line in part.strip().splitlines()))
            if len(found) == number:
                return found
    return found


async def test_what_happens_is_told_with_its_kind_and_an_id() -> None:
    changes = Changes()
    async with aclosing(changes.stream()) as stream:
        assert (await take(stream, 1))[0]["event"] == "change"
        changes.happened((LEVEL, ROW))
        level, row = await take(stream, 2)
    assert (level["event"], json.loads(level["data"])) == ("level", {"name": "chat", "level": "P0"})
    assert (row["event"], int(row["id"].rpartition("-")[2])) == ("row", int(level["id"].rpartition("-")[2]) + 1)


async def test_who_comes_back_misses_nothing_and_is_told_nothing_twice() -> None:
    changes = Changes()
    async with aclosing(changes.stream()) as stream:
        await take(stream, 1)
        changes.happened((LEVEL,))
        (level,) = await take(stream, 1)
    changes.happened((ROW, ROW))
    async with aclosing(changes.stream(level["id"])) as stream:
        assert [event["event"] for event in await take(stream, 3)] == ["row", "row", "change"]


@pytest.mark.parametrize("last", ["", "x", "00000000-5", "-1", "99", "½"])
async def test_who_names_no_event_of_ours_begins_with_now(last: str) -> None:
    changes = Changes()
    changes.happened((LEVEL,))
    async with aclosing(changes.stream(last)) as stream:
        assert [event["event"] for event in await take(stream, 1)] == ["change"]


async def test_an_id_from_the_future_does_not_silence_what_is_to_come() -> None:
    changes = Changes()
    async with aclosing(changes.stream()) as stream:
        await take(stream, 1)
        changes.happened((LEVEL,))
        (level,) = await take(stream, 1)
    async with aclosing(changes.stream(level["id"].partition("-")[0] + "-999999")) as stream:
        await take(stream, 1)
        changes.happened((ROW,))
        assert (await take(stream, 1))[0]["event"] == "row"


async def test_nothing_is_kept_for_ever() -> None:
    changes = Changes()
    for _ in range(events.KEPT + 10):
        changes.happened((ROW,))
    assert len(changes._kept) == events.KEPT


async def test_there_are_so_many_listeners_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MOST_LISTENERS", 2)
    registry = CollectorRegistry()
    changes = Changes()
    app = build_app(replace(ports(Told()), changes=changes, requests=Requests(registry)))
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with serving(app) as url, aiohttp.ClientSession(headers=bearer) as session:
        held = [await session.get(f"{url}/events") for _ in range(2)]
        for answer in held:
            await answer.content.readuntil(b"\n\n")
        assert registry.get_sample_value("controlplane_event_listeners") == 2
        async with session.get(f"{url}/events") as third:
            assert (third.status, third.headers["retry-after"]) == (503, "5")
        held.pop().close()
        async with asyncio.timeout(30):
            while changes.listeners == 2:  # noqa: ASYNC110 - the server's own side of a closed connection
                await asyncio.sleep(0.01)
        async with session.get(f"{url}/events") as third:
            assert third.status == 200
        held.pop().close()
        changes.close()
    assert registry.get_sample_value("controlplane_event_listeners_dropped_total", {"why": "too_many"}) == 1


async def test_a_listener_that_does_not_read_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SEND_WITHIN_S", 0.05)
    changes, slow = Changes(), list[None]()
    stream = route.EventStream(changes.stream(), lambda: slow.append(None))
    never = asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            await never.wait()

    async def receive() -> Any:
        await never.wait()

    async with asyncio.timeout(30):
        await stream({"type": "http"}, receive, send)
    assert slow == [None]
    assert changes.listeners == 0


async def test_a_listener_that_goes_is_forgotten() -> None:
    changes, sent = Changes(), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        while len(sent) < 3:  # noqa: ASYNC110 - the other side's doing
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async with asyncio.timeout(30):
        await route.EventStream(changes.stream(), lambda: None)({"type": "http"}, receive, send)
    assert changes.listeners == 0
