"""Asks the fleet what the cache does not know: under a cap, one request for many who ask the same at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from controlplane.target.cache_key import Question
from controlplane.target.cache_replay import Collector

PASSED_ON = ("authorization", "traceparent", "tracestate", "x-request-id", "x-request-timeout-ms")
"""Request headers that the fleet gets too."""
PASSED_BACK = ("content-type", "retry-after")
"""Headers of the fleet's answer that the client gets too."""
EXPECTED_HEADER = "x-envoy-expected-rq-timeout-ms"
"""How long the gateway will wait for us; the fleet gets no longer."""
TIMEOUT_HEADER = "x-envoy-upstream-rq-timeout-ms"


class FullError(Exception):
    """Too many requests wait for the fleet."""


class LostError(Exception):
    """The fleet gave no whole answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the fleet answered."""

    status: int
    headers: Mapping[str, str]
    served_by: str
    body: bytes

    def answer(self) -> dict[str, Any] | None:
        """Return the whole answer, when there is one to store."""
        if self.status != 200:
            return None
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found if isinstance(found, dict) and found.get("choices") else None


@dataclass(slots=True)
class Fleet:
    """The fleet behind the cache."""

    session: aiohttp.ClientSession
    most: int
    """Requests that may be under way at once."""
    outcome: Callable[[str], None]
    """Told ``ok``, ``error`` or ``lost`` of each request."""
    under_way: int = 0
    _shared: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    async def ask(self, asked: Question, headers: Mapping[str, str]) -> tuple[Reply, bool]:
        """Ask for a whole answer; who asks the same meanwhile shares the reply.

        Returns:
            The reply, and whether another request had asked for it.

        Raises:
            FullError: beyond the cap.
            LostError: when no whole answer came.
        """
        if asked.storable and (waiting := self._shared.get(asked.key)):
            return await asyncio.shield(waiting), True
        if not asked.storable:
            return await self._whole(asked, headers), False
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._shared[asked.key] = future
        try:
            reply = await self._whole(asked, headers)
            future.set_result(reply)
        except (FullError, LostError) as error:
            future.set_exception(error)
            raise
        finally:
            self._shared.pop(asked.key, None)
            future.cancel()
        return reply, False

    async def _whole(self, asked: Question, headers: Mapping[str, str]) -> Reply:
        async with self._send(asked, headers) as answer:
            body = await answer.read()
            found = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
            self.outcome("ok" if answer.status == 200 else "error")
            return Reply(answer.status, found, answer.headers.get("x-served-by", ""), body)

    @asynccontextmanager
    async def stream(
        self, asked: Question, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Collector]]:
        """Ask for a streamed answer, to be passed on as it comes and collected by the caller.

        Raises:
            FullError: beyond the cap.
            LostError: when no answer came, or not all of it.
        """
        async with self._send(asked, headers) as answer:
            collector = Collector()
            yield answer, collector
            self.outcome("ok" if collector.whole() else "error")

    @asynccontextmanager
    async def _send(self, asked: Question, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        if self.under_way >= self.most:
            raise FullError
        sent = {name: headers[name] for name in PASSED_ON if name in headers}
        if EXPECTED_HEADER in headers:
            sent[TIMEOUT_HEADER] = headers[EXPECTED_HEADER]
        self.under_way += 1
        try:
            async with self.session.post(asked.path, json=dict(asked.body), headers=sent) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.outcome("lost")
            raise LostError(f"{type(error).__name__}: {error}") from error
        finally:
            self.under_way -= 1


def _seen(future: asyncio.Future[Reply]) -> None:
    """Take note of an error that nobody else waits for."""
    if not future.cancelled():
        future.exception()
