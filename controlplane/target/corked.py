"""A transport that sends what is written in one turn of the event loop with one system call.

uvicorn writes an answer's head and body one after the other, uvloop sends each at once, and in between lies a moment in
which a killed process leaves a client with a head that promises a body: an answer that has begun cannot be tried again
elsewhere. Sent as one, either all of a small answer leaves or nothing, and the gateway can save the request.
"""

import asyncio
from typing import Any

AT_ONCE_BYTES = 64 * 1024
"""Beyond this, what is written leaves at once."""


class Corked:
    """Wraps a transport; everything but writing passes through."""

    __slots__ = ("_inner", "_loop", "_parts", "_size")

    def __init__(self, inner: asyncio.Transport) -> None:
        """Wrap ``inner``."""
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        """Send with whatever else is written in this turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._inner.is_closing():
            self._inner.write(b"".join(parts))

    def close(self) -> None:
        """Send what waits, then close."""
        self.flush()
        self._inner.close()
