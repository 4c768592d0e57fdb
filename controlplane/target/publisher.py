"""Tells the response cache what an endpoint has answered, in the background: a switch to the cache finds it warm.

It never holds up an answer: what has no room to wait is dropped, a cache that does not answer is left alone for a
while, and both are counted.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from controlplane.target.cache_key import deterministic
from controlplane.target.spec import EndpointSpec

MOST_WAITING = 512
"""Answers that may wait to be sent."""
BATCH = 32
"""Answers in one request."""
TIMEOUT_S = 1.0
PAUSE_S = 1.0
"""How long a cache that failed is left alone."""
OUTCOMES = ("sent", "dropped", "failed")


@dataclass(frozen=True, slots=True)
class Finished:
    """One whole answer and what it answers."""

    path: str
    """/v1/completions or /v1/chat/completions."""
    body: Mapping[str, Any]
    """The decoded request."""
    allow: str
    """The request's ``x-cache-allow`` header."""
    answer: bytes
    """The whole answer, as JSON."""


class Publisher:
    """Sends finished answers to one cache."""

    def __init__(self, session: aiohttp.ClientSession, registry: CollectorRegistry) -> None:
        """Publish over ``session``, whose base URL and headers are the cache's; count in ``registry``."""
        self._session = session
        self._waiting: asyncio.Queue[Finished] = asyncio.Queue(MOST_WAITING)
        published = Counter(
            "response_cache_publications", "Finished answers for the response cache", ("outcome",), registry=registry
        )
        self._counts = {outcome: published.labels(outcome) for outcome in OUTCOMES}

    def offer(self, finished: Finished) -> None:
        """Take an answer along, when it may be stored and there is room."""
        if not wanted(finished.body, finished.allow):
            return
        try:
            self._waiting.put_nowait(finished)
        except asyncio.QueueFull:
            self._counts["dropped"].inc()

    async def run(self) -> None:
        """Send what waits, for ever."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            if await self._sent(batch):
                self._counts["sent"].inc(len(batch))
            else:
                self._counts["failed"].inc(len(batch))
                await asyncio.sleep(PAUSE_S)

    async def _sent(self, batch: list[Finished]) -> bool:
        content = b'{"answers":[%b]}' % b",".join(map(_item, batch))
        try:
            async with self._session.post("/cache/answers", data=content) as answer:
                await answer.read()
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def wanted(body: Mapping[str, Any], allow: str) -> bool:
    """Tell whether the cache would store the answer to a request, without working out its key."""
    return deterministic(body) or "store" in allow


def _item(finished: Finished) -> bytes:
    asked = {"path": finished.path, "request": finished.body, "allow": finished.allow}
    return b'%b,"answer":%b}' % (json.dumps(asked, separators=(",", ":")).encode()[:-1], finished.answer)


@asynccontextmanager
async def publisher_for(spec: EndpointSpec, registry: CollectorRegistry) -> AsyncIterator[Publisher | None]:
    """Run the publisher of an endpoint, if it has a cache to publish to."""
    if spec.publish_url is None:
        yield None
        return
    headers = {"authorization": f"Bearer {spec.publish_token}", "content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(spec.publish_url, headers=headers, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        publisher = Publisher(session, registry)
        task = group.create_task(publisher.run())
        try:
            yield publisher
        finally:
            task.cancel()
