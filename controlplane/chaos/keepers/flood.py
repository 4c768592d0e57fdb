"""Asking an endpoint for more than it queues: real completions, so many at once, again and again."""

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from controlplane.chaos.keepers.keeper import KeeperError

DIAL_S = 2.0
"""Longest wait for a connection."""
ANSWER_S = 60.0
"""Longest wait for an answer; then it is asked again."""
REFUSED_S = 0.1
"""Wait after a refusal: a storm that does not wait only measures its own client."""
FIRST_S = 10.0
"""How long the storm may take to begin."""


@dataclass(slots=True)
class Flood:
    """One storm of requests."""

    url: str
    model: str
    requests: int
    max_tokens: int
    _stop: threading.Event = field(default_factory=threading.Event)
    _begun: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _connected: int = 0

    @classmethod
    def read(cls, settings: Mapping[str, float | str]) -> Self:
        """Read the settings of an order."""
        return cls(str(settings["url"]), str(settings["model"]), int(settings["requests"]), int(settings["max_tokens"]))

    def begin(self) -> None:
        """Begin; return once the first answers, or refusals, are awaited.

        Raises:
            KeeperError: when the endpoint cannot be reached.
        """
        self._thread = threading.Thread(target=lambda: asyncio.run(self._storm()), daemon=True)
        self._thread.start()
        if not self._begun.wait(FIRST_S):
            raise KeeperError(f"{self.url} takes no connections")

    def tick(self) -> str:
        """End when the storm has died."""
        return "" if self._thread and self._thread.is_alive() else "the storm has died"

    def end(self) -> None:
        """Hang up on everything: an engine drops what nobody waits for."""
        self._stop.set()
        if self._thread:
            self._thread.join(5.0)

    async def _storm(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(number)) for number in range(self.requests)]
            while not self._stop.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()

    async def _one(self, number: int) -> None:
        """Ask, wait, and ask again, for ever. Prompts differ, or a cache of prefixes would answer."""
        address = urlsplit(self.url)
        asked = 0
        while True:
            asked += 1
            body = json.dumps(
                {"model": self.model, "prompt": f"storm {number}.{asked}: why", "max_tokens": self.max_tokens}
            ).encode()
            head = (
                f"POST /v1/completions HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            served = False
            with suppress(OSError, TimeoutError):
                served = await self._ask(address.hostname or "", address.port or 80, head.encode() + body)
            if not served:
                await asyncio.sleep(REFUSED_S)

    async def _ask(self, host: str, port: int, request: bytes) -> bool:
        """Send one request on a connection of its own; tell whether it was served."""
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request)
            await writer.drain()
            self._begun.set()
            async with asyncio.timeout(ANSWER_S):
                answer = await reader.read()
            return b" 200 " in answer[:16]
        finally:
            writer.transport.abort()
