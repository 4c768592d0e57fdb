"""Versions are asked when an endpoint comes, and not all the time."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

from controlplane.fleet.model import Endpoint
from controlplane.incidents.cause import Cause, hints
from controlplane.incidents.clues import ClueBook
from controlplane.probes.probe import Failure, Fetched, Look
from controlplane.runtime import versions
from controlplane.runtime.versions import Versions, read_models, read_version

ENDPOINT = Endpoint("e", "primary", "http://10.0.0.1:8000")


class Engine:
    version = b'{"version": "0.31.0"}'
    asked = 0

    async def __call__(self, url: str, within: timedelta) -> Fetched:
        self.asked += 1
        return Fetched(self.version) if url.endswith("/version") else Fetched(None, Failure.STATUS, "HTTP 404")


def came(at: float = 0.0) -> Look:
    return Look(ENDPOINT, "held", at, 0.001)


async def test_a_new_version_with_wrong_answers_behind_it_becomes_a_hint() -> None:
    engine, clues, tasks = Engine(), ClueBook(), list[asyncio.Task[None]]()

    def spawn(work: Coroutine[None, None, None]) -> None:
        tasks.append(asyncio.create_task(work))

    asking = Versions(engine, clues, spawn)
    clues.take(came())
    for version in (b'{"version": "0.31.0"}', b'{"version": "0.32.0"}'):
        engine.version = version
        asking._asked.clear()
        asking.noticed(came())
        asking.noticed(came())
        await asyncio.gather(*tasks)
    assert engine.asked == 4, "its version and its models, each time it came to stand"
    for i in range(3):
        clues.take(Look(ENDPOINT, "inference", float(i), 0.1, Failure.STATUS, "HTTP 422: no such field"))
    assert Cause.VERSION in {hint.cause for hint in hints(clues.clues("primary", 10.0))}


def test_only_connections_that_came_to_stand_are_asked() -> None:
    asking = Versions(Engine(), ClueBook(), lambda work: work.close())
    for look in (Look(ENDPOINT, "http", 0.0, 0.0), Look(ENDPOINT, "held", 0.0, 0.0, Failure.REFUSED)):
        asking.noticed(look)
    assert asking._asked == {}
    assert versions.ASK_AT_MOST_EVERY_S >= 10


def test_what_is_no_version_is_none() -> None:
    for content in (b"", b"[]", b"{}", b'{"version": 3}', b"\xff", b"0.32"):
        assert read_version(content) == ""


def test_the_models_an_endpoint_lists_go_by_their_own_names() -> None:
    listed = b'{"data": [{"id": "chat", "root": "deepseek-v3"}, {"id": "chat-2", "root": null}, {"id": "qwen"}]}'
    assert read_models(listed) == {"deepseek-v3", "chat-2", "qwen"}
    for content in (None, b"", b"[]", b"{}", b'{"data": [{}]}', b'{"data": 3}', b'{"data": ["x"]}', b"\xff"):
        assert read_models(content) == frozenset()
