"""HTTP connections that cannot be held for ever: uvicorn's protocol with deadlines for slow and silent clients.

uvicorn closes idle connections between requests, but waits without end for a first request, for the rest of a
request's head, and for a client that does not read its answer.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controlplane.target.corked import Corked

HEAD_TIMEOUT_S = 30.0
"""Longest wait for a whole request head, on a new connection or after its first byte."""
READ_TIMEOUT_S = 30.0
"""Longest time that a client may leave its answer unread once every buffer on the way is full."""


class Connection(HttpToolsProtocol):
    """One client's connection."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request soon."""
        super().connection_made(Corked(transport))  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget every deadline."""
        self._stop_waiting_for_head()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of the head soon."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Leave the rest to the application, which has a deadline for the body."""
        self._stop_waiting_for_head()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Expect the client to read soon."""
        super().pause_writing()
        self._stop_waiting_for_reader()
        self._unread = self.loop.call_later(READ_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Be content."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def _expect_head(self) -> None:
        self._stop_waiting_for_head()
        self._head = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _stop_waiting_for_head(self) -> None:
        if self._head is not None:
            self._head.cancel()

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
