"""`/events`: tells whoever listens what happened (server-sent events). Called by `app`.

A listener holds a connection for hours, so there are so many at most; one that does not read is let go of, and comes
back by itself with the id of the last event it had.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controlplane.telemetry import Requests
from controlplane.web.answers import problem
from controlplane.web.changes import MOST_LISTENERS, Changes

SEND_WITHIN_S = 20.0
"""A listener that takes nothing for so long, although its buffers are full, does not read."""


def add_events(app: FastAPI, changes: Changes, requests: Requests) -> None:
    """Add the route."""
    requests.listeners.set_function(lambda: changes.listeners)

    @app.get("/events", include_in_schema=False)
    async def events(request: Request) -> Response:
        if changes.listeners >= MOST_LISTENERS:
            requests.listeners_dropped.labels("too_many").inc()
            answer = problem(503, "too many listen already", f"{MOST_LISTENERS} at once", "look again later, or poll")
            answer.headers["retry-after"] = "5"
            return answer
        last = request.headers.get("last-event-id", "")
        return EventStream(changes.stream(last), requests.listeners_dropped.labels("slow").inc)


class EventStream(Response):
    """An answer that does not end; each part of it must be taken in time."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[str, None], too_slow: Callable[[], None]) -> None:
        """Take what is sent.

        Args:
            parts: the events.
            too_slow: told when the listener did not read.
        """
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts
        self._too_slow = too_slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's own form
        """Send the events until the listener goes, or they end."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        try:
            async for part in self._parts:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            self._too_slow()  # Without its end, the answer is cut off: the listener knows that it must come back.
        finally:
            await self._parts.aclose()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
