"""Telling every open page and every listening program that something changed: the events behind `/events`.

Two kinds go out. `change`, with a running number, says that anything at all may look different now; an open page
fetches itself anew on it. The others say what happened (`level`, `row`, `endpoint`, `drill`, `incident`, `halt`), each
with an id, and are kept for a while: a listener that comes back names the last one it had, and misses none.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

HEARTBEAT_S = 10.0
"""A comment is sent when nothing changed for so long, so that a dead connection is noticed."""
PACE_S = 0.25
"""Changes that come faster than this are told once."""
RETRY_MS = 2000
"""How soon a listener comes back when its connection breaks."""
KEPT = 1000
"""Happenings that a listener can catch up on."""
MOST_LISTENERS = 64
"""Open pages and programs at once; each holds a connection."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened."""

    kind: str
    """`level`, `row`, `endpoint`, `drill`, `incident` or `halt`."""
    what: Mapping[str, Any] = field(default_factory=dict)


class Changes:
    """Wakes everyone who listens."""

    def __init__(self) -> None:
        self._version = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._begun = secrets.token_hex(4)
        """Tells the ids of this process from those of the one before."""
        self._number = 0
        self._kept: deque[tuple[int, Happening]] = deque(maxlen=KEPT)
        self._listeners = 0

    @property
    def version(self) -> int:
        """How often something has changed."""
        return self._version

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._listeners

    def tell(self) -> None:
        """Say that something changed."""
        self._version += 1
        self._wake_all()

    def happened(self, happenings: tuple[Happening, ...]) -> None:
        """Say what happened, in this order."""
        for happening in happenings:
            self._number += 1
            self._kept.append((self._number, happening))
        if happenings:
            self._wake_all()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        self._wake.set()

    def _wake_all(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def wait(self, within_s: float) -> bool:
        """Wait until something changes; False when nothing did for so long."""
        if self._closed:
            return False
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def stream(self, last_id: str = "") -> AsyncGenerator[str, None]:
        """Give server-sent events, and comments while nothing happens.

        Args:
            last_id: the id of the last event that the listener had (`Last-Event-ID`); without one, or with one that
                is too old, it begins with now. The `change` that comes first has it look at everything anyway.
        """
        self._listeners += 1
        try:
            yield f"retry: {RETRY_MS}\n\n"
            seen, told = -1, self._from(last_id)
            while not self._closed:
                happened = [(number, one) for number, one in self._kept if number > told]
                if seen == self._version and not happened:
                    if not await self.wait(HEARTBEAT_S):
                        yield ": still here\n\n"
                    continue
                for number, one in happened:
                    told = number
                    yield f"id: {self._begun}-{number}\nevent: {one.kind}\ndata: {json.dumps(one.what)}\n\n"
                if seen != self._version:
                    seen = self._version
                    yield f"event: change\ndata: {seen}\n\n"
                await asyncio.sleep(PACE_S)
        finally:
            self._listeners -= 1

    def _from(self, last_id: str) -> int:
        """Return behind which number a listener goes on."""
        begun, _, number = last_id.partition("-")
        is_ours = begun == self._begun and number.isascii() and number.isdigit() and len(number) < 19
        return min(int(number), self._number) if is_ours else self._number
