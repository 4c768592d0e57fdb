"""The connections that pass a link: each a pair of flows, which the link's fault may hold back, slow or cut."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from controlplane.target.link_fault import Fault

MOST_HELD_BYTES = 1024 * 1024
"""Bytes of one direction that may wait for their delay; then the sender is slowed."""
CUT = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


class Line(Protocol):
    """What a connection must know of its link."""

    loop: asyncio.AbstractEventLoop
    fault: Fault
    pairs: "set[Pair]"

    def doubt(self, then: Callable[[], None]) -> None:
        """Do something about a connection that the endpoint ended, once it is known whether it is gone too."""


class Flow:
    """One direction of one connection: what comes in at one side leaves at the other, now or later."""

    __slots__ = ("_blocked", "_downward", "_ended", "_held", "_held_bytes", "_link", "_timer", "sink", "source")

    def __init__(self, link: Line, *, downward: bool) -> None:
        """Make a flow that holds everything until both sides are there; ``downward`` leads to the client."""
        self._link = link
        self._downward = downward
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self._held: deque[tuple[float, bytes | None]] = deque()
        self._held_bytes = 0
        self._blocked = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _lost(self) -> bool:
        """Whether everything that flows this way is lost now."""
        return self._link.fault.loses(downward=self._downward)

    def feed(self, data: bytes | None) -> None:
        """Take bytes, or None for the end."""
        delay_s = self._link.fault.holds_s(downward=self._downward)
        if self.sink is not None and data is not None and not self._held and not delay_s and not self._lost:
            self.sink.write(data)
            return
        self._held.append((self._link.loop.time() + delay_s, data))
        self._held_bytes += len(data or b"")
        self.pump()

    def pump(self) -> None:
        """Send on what is due, and read on where there is room."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._link.loop.time()
        while self._held and self.sink is not None and not self._lost:
            due, data = self._held[0]
            if self._link.fault.holds_s(downward=self._downward) and due > now:
                self._timer = self._link.loop.call_later(due - now, self.pump)
                break
            self._held.popleft()
            if data is None:
                self._end()
            else:
                self._held_bytes -= len(data)
                self.sink.write(data)
        self._gate()

    def block(self, *, blocked: bool) -> None:
        """Note that the sink is full, or no longer is."""
        self._blocked = blocked
        self._gate()

    def _end(self) -> None:
        """Pass the end on. A client may end its half and still read; when the endpoint has ended, all is over."""
        if self.sink is None or self._ended or self.sink.is_closing():
            return
        self._ended = True
        if self._downward:
            self.sink.close()
            return
        with suppress(OSError, RuntimeError):
            self.sink.write_eof()

    def _gate(self) -> None:
        if self.source is None or self.source.is_closing():
            return
        wanted = not (self._blocked or self._lost or self._held_bytes > MOST_HELD_BYTES)
        if wanted and not self.source.is_reading():
            self.source.resume_reading()
        elif not wanted and self.source.is_reading():
            self.source.pause_reading()


class Side(asyncio.Protocol):
    """One end of a relayed connection."""

    __slots__ = ("_inward", "_link", "_outward", "_pair", "_to_backend")

    def __init__(self, link: Line, pair: "Pair", inward: Flow, outward: Flow, *, to_backend: bool) -> None:
        """Feed ``inward`` with what this end receives; ``outward`` ends here."""
        self._link = link
        self._pair = pair
        self._inward = inward
        self._outward = outward
        self._to_backend = to_backend

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the two flows to this end."""
        found = cast("asyncio.Transport", transport)
        self._inward.source = self._outward.sink = found
        self._outward.pump()
        self._inward.pump()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._inward.feed(data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction stays open."""
        if self._to_backend:
            self._link.doubt(lambda: self._inward.feed(None))
        else:
            self._inward.feed(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end too, as hard as this one was."""
        hard = exc is not None
        if self._to_backend:
            self._link.doubt(lambda: self._pair.lost(self._inward, hard=hard))
        else:
            self._pair.lost(self._inward, hard=hard)

    def pause_writing(self) -> None:
        """Slow the sender."""
        self._outward.block(blocked=True)

    def resume_writing(self) -> None:
        """Let the sender go on."""
        self._outward.block(blocked=False)


class Pair:
    """A client's connection and the one to the endpoint."""

    __slots__ = ("_link", "client", "down", "server", "up")

    def __init__(self, link: Line) -> None:
        """Make both directions and both ends."""
        self._link = link
        self.up, self.down = Flow(link, downward=False), Flow(link, downward=True)
        self.client = Side(link, self, self.up, self.down, to_backend=False)
        self.server = Side(link, self, self.down, self.up, to_backend=True)

    def pump(self) -> None:
        """Let both directions see that the link's state has changed."""
        self.up.pump()
        self.down.pump()

    def lost(self, flow: Flow, *, hard: bool) -> None:
        """Close the end that ``flow`` leads to; held bytes that still wait are lost with it only when it was cut."""
        self._link.pairs.discard(self)
        if flow.sink is None or flow.sink.is_closing():
            return
        if hard:
            cut(flow.sink)
        else:
            flow.sink.close()

    def cut(self) -> None:
        """Send RST both ways."""
        for transport in (self.up.source, self.up.sink):
            if transport is not None and not transport.is_closing():
                cut(transport)


def cut(transport: asyncio.Transport) -> None:
    """Close a connection with RST."""
    sock = transport.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT)
    transport.abort()
