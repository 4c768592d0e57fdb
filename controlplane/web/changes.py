"""Telling every open page that something changed: the event stream behind the console."""

import asyncio
from collections.abc import AsyncIterator

HEARTBEAT_S = 10.0
"""A comment is sent when nothing changed for so long, so that a dead connection is noticed."""
PACE_S = 0.25
"""Changes that come faster than this are told once."""


class Changes:
    """Wakes everyone who listens."""

    def __init__(self) -> None:
        self._version = 0
        self._wake = asyncio.Event()
        self._closed = False

    def tell(self) -> None:
        """Say that something changed."""
        self._version += 1
        self._wake.set()
        self._wake = asyncio.Event()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        self._wake.set()

    async def stream(self) -> AsyncIterator[str]:
        """Give server-sent events: `change` with a running number, and comments while nothing happens."""
        seen = -1
        while not self._closed:
            if seen != self._version:
                seen = self._version
                yield f"event: change\ndata: {seen}\n\n"
                await asyncio.sleep(PACE_S)
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                yield ": still here\n\n"
