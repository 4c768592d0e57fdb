"""The fast lane: a webhook that comes in one piece, as Alertmanager sends it, answered without a task or an ASGI scope.

Uvicorn's own protocol, and in front of it what is the same in every webhook of one client: its head. A head that was
read before is known by its bytes, the body is read where it lies, and the answer is written when the commit is told.
Whatever is out of the ordinary - another address or method, another token, a body in pieces or of no known length,
`Expect`, an upgrade, HTTP/1.0, too large, too much at once - goes to uvicorn and through `IntakeDoor` as ever, so that
there is one place that refuses. The lane takes a connection only between two requests, and keeps their order.
"""

import asyncio
import http
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from controlplane.flows.intake import Busy
from controlplane.incidents.alert import Unreadable, read_webhook
from controlplane.web.intake import BODY_AT_MOST, PATH, IntakeDoor, No, not_now, spell, unreadable

HEADS_KNOWN = 1024
"""Heads that are remembered: a client's differ in the length of the body."""
HEAD_AT_MOST = 2048
"""Bytes of a head that is remembered."""

_LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
_END = b"\r\n\r\n"
_ODD = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"connection"})
"""Headers that a webhook of the lane does not have; `Connection: keep-alive` goes without saying."""


class _Head:
    """What a parser finds in a head."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.whole = True

    def on_body(self, _: bytes) -> None:  # It ended before its end.
        raise ValueError("a head has no body")


class Lane:
    """What all connections share: the door, the heads that are known and the answer that everybody gets."""

    def __init__(self, door: IntakeDoor) -> None:
        self.door = door
        self._heads: dict[bytes, int] = {}
        self._dated: list[tuple[bytes, bytes]] | None = None
        self._taken = b""

    def length(self, head: bytes) -> int:
        """Return the length of the body that follows a head; -1 where the lane is not for it."""
        found = self._heads.get(head)
        if found is not None:
            return found
        found = self._read(head)
        if found >= 0:
            if len(self._heads) >= HEADS_KNOWN:
                self._heads.clear()
            self._heads[head] = found
        return found

    def _read(self, head: bytes) -> int:
        """Read a head that was never seen. Only those with the file's token are remembered, so nobody else fills it."""
        seen = _Head()
        try:
            httptools.HttpRequestParser(seen).feed_data(head)
        except (
            httptools.HttpParserError,
            httptools.HttpParserUpgrade,
        ):  # The first one also for what a callback raises.
            return -1
        lengths = [value for name, value in seen.headers if name == b"content-length"]
        tokens = [value for name, value in seen.headers if name == b"authorization"]
        plain = seen.whole and len(head) <= HEAD_AT_MOST and not any(name in _ODD for name, _ in seen.headers)
        if not plain or len(lengths) != 1 or len(tokens) != 1 or not self.door.ports.allowed.of_file(tokens[0]):
            return -1
        return int(lengths[0]) if lengths[0].isdigit() and 0 < int(lengths[0]) <= BODY_AT_MOST else -1

    def taken(self, dated: list[tuple[bytes, bytes]]) -> bytes:
        """Return the answer to a webhook that is on disk, with uvicorn's own headers, which change each second."""
        if dated is not self._dated:
            self._dated, self._taken = dated, _answer(200, [*dated, (b"content-length", b"0")], b"")
        return self._taken


def _answer(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    line = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n".encode()
    return b"".join([line, *(part for name, value in headers for part in (name, b": ", value, b"\r\n")), b"\r\n", body])


class LaneProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with the lane before it.

    A connection is in one of two hands: the lane's while `_own` is set, from a webhook's first byte to the answer, and
    uvicorn's otherwise. What arrives in the first state waits in `_behind`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        lane: Lane,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane = lane
        self._own = 0
        """Bytes of the body that is being stored; 0 while the connection is uvicorn's."""
        self._behind = bytearray()
        self._within = False
        """Uvicorn's parser is within a request."""
        self._closed_to_lane = False
        self._last = False
        """The answer under way is the last one: the server stops."""
        self._idle_since = 0.0

    # -- uvicorn's side ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request of uvicorn's begins."""
        self._within = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leave the lane for good where something else than HTTP is asked for."""
        if self.parser.should_upgrade():  # What follows is no HTTP of ours.
            self._closed_to_lane = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request of uvicorn's is whole, though not answered."""
        self._within = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Hand what arrives to whose turn it is."""
        if self._own or self._behind:
            self._behind += data
            if len(self._behind) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        elif not data.startswith(_LINE) or not self._idle() or not self._take(data):
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what waits; a webhook that is being stored is stored."""
        self._behind.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer what is being stored, and close."""
        if self._own:
            self._last = True
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close what has been idle; looked at when it would be the earliest, not set anew with every webhook."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._own or left > 0:
            self._watch(left if left > 0 else self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    # -- the lane ------------------------------------------------------------------------------------------------------

    def _idle(self) -> bool:
        """Tell whether uvicorn is between two requests and the client reads its answers."""
        return not (
            self._within
            or self._closed_to_lane
            or self.pipeline
            or (self.cycle is not None and not (self.cycle.response_complete and self.cycle.keep_alive))
            or self.flow.write_paused
            or self.transport.is_closing()
        )

    def _take(self, data: bytes) -> bool:
        """Take a webhook that is whole; False for what uvicorn shall have."""
        start = data.find(_END) + len(_END)
        length = self._lane.length(data[:start]) if start >= len(_END) else -1
        end = start + length
        if length < 0 or len(data) < end or not self._lane.door.hold(length):
            return False
        self._own = length
        if len(data) > end:
            self._behind += data[end:]
        webhook = read_webhook(data[start:end])
        if isinstance(webhook, Unreadable):
            self._told(unreadable(webhook))
        else:
            self._lane.door.ports.put(webhook, self._stored)
        return True

    def _stored(self, busy: Busy | None) -> None:
        self._told(None if busy is None else not_now(busy))

    def _told(self, refusal: No | None) -> None:
        """Answer, and hand the connection back."""
        self._lane.door.let_go(self._own)
        self._own = 0
        dated = self.server_state.default_headers
        usual = refusal is None and not self._last
        answer = self._lane.taken(dated) if usual else self._unusual(refusal, dated)
        if self.transport.is_closing():
            return
        self.server_state.total_requests += 1
        self.transport.write(answer)
        if self._last:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch(self.timeout_keep_alive)
        if self._behind:
            self.loop.call_soon(self._go_on)

    def _unusual(self, refusal: No | None, dated: list[tuple[bytes, bytes]]) -> bytes:
        status, (headers, body) = 200, ([(b"content-length", b"0")], b"")
        if refusal is not None:
            self._lane.door.ports.refused.labels(refusal.reason).inc()
            status, (headers, body) = refusal.status, spell(refusal)
        return _answer(status, [*dated, *headers, *([(b"connection", b"close")] if self._last else [])], body)

    def _go_on(self) -> None:
        """Take in what came meanwhile."""
        if self._own or not self._behind or self.transport.is_closing():
            return
        data = bytes(self._behind)
        self._behind.clear()
        self.flow.resume_reading()
        self.data_received(data)

    def _watch(self, within_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(within_s, self.timeout_keep_alive_handler)
