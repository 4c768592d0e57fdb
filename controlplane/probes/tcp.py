"""Connecting and nothing more: for what speaks no HTTP on its health path, and for how long a connect takes.

Used by the page's `tcp` entries. A look is a socket of its own, without task and future: the loop tells when it can be
written, the wire's wheel when its time is over, by the same rule of the prober's own lateness as for requests. Each
connect that comes to stand leaves a port in TIME_WAIT for a minute; thousands of endpoints are asked over the held
connections of `http` instead.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Failure, Look, TcpSpec
from controlplane.probes.wire import Address, Wire, address, awaited, explain

MAX_CONNECTING = 1024
"""Connects under way at once, over the whole fleet: each holds a file descriptor."""

Report = Callable[[Look], None]


class TcpProbe:
    """Open a connection and close it again."""

    name = "tcp"

    def __init__(self, wire: Wire, spec: TcpSpec) -> None:
        self.wire = wire
        self.within_s = spec.timeout.total_seconds()
        self.every = spec.every
        self._connecting = 0
        self._waiting: deque[_Connect] = deque()
        self._resolving: dict[str, list[_Connect]] = {}

    def start(self, endpoint: Endpoint, report: Report) -> None:
        """Look once and report: that it stands, or how it failed."""
        now = monotonic()
        try:
            where = address(endpoint.url)
        except ValueError as error:
            report(Look(endpoint, self.name, now, 0.0, Failure.NETWORK, str(error)))
            return
        connect = _Connect(self, endpoint, where, report, now)
        self.wire.wheel.put(now + self.within_s, connect)
        found = self.wire.known(where.host)
        if found:
            self._begin(connect, found)
        elif where.host in self._resolving:
            self._resolving[where.host].append(connect)
        else:
            self._resolving[where.host] = [connect]
            self.wire.spawn(self._resolve(where))

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        return await awaited(self.start, endpoint)

    async def _resolve(self, where: Address) -> None:
        """Find a name's addresses, once for all looks that wait for them."""
        found: tuple[str, ...] = ()
        failure, detail = Failure.DNS, f"{where.host} has no address"
        try:
            found = await self.wire.resolve(where)
        except (OSError, ValueError) as error:
            failure, detail = explain(error)
        finally:
            waiting = self._resolving.pop(where.host)
        for connect in waiting:
            if found:
                self._begin(connect, found)
            else:
                connect.end(failure, detail)

    def _begin(self, connect: "_Connect", addresses: tuple[str, ...]) -> None:
        connect.addresses = addresses
        if self._connecting >= MAX_CONNECTING:
            self._waiting.append(connect)
        elif not connect.over:
            self._connecting += 1
            connect.begin()

    def ended(self) -> None:
        """A connect gave its place back: the next one that still has time gets it."""
        self._connecting -= 1
        while self._waiting and self._connecting < MAX_CONNECTING:
            connect = self._waiting.popleft()
            if not connect.over:
                self._connecting += 1
                connect.begin()


class _Connect:
    """One look: its addresses are tried one after another, all of them within one time-out."""

    __slots__ = (
        "_begun", "_endpoint", "_probe", "_report", "_sock", "_started", "_tried", "_where", "addresses", "over",
    )  # fmt: skip

    def __init__(self, probe: TcpProbe, endpoint: Endpoint, where: Address, report: Report, started: float) -> None:
        self._probe = probe
        self._endpoint = endpoint
        self._where = where
        self._report = report
        self._started = started
        self._begun = False
        self._tried = 0
        self._sock: socket.socket | None = None
        self.addresses: tuple[str, ...] = ()
        self.over = False

    def begin(self) -> None:
        """Try the first address."""
        self._begun = True
        self._try()

    def _try(self) -> None:
        """Connect to the next address; the last one's failure is the look's."""
        host = self.addresses[self._tried]
        self._tried += 1
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = self._sock.connect_ex((host, self._where.port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINPROGRESS and self._sock:
            asyncio.get_running_loop().add_writer(self._sock.fileno(), self._settled)
        else:
            self._judge(code)

    def _settled(self) -> None:
        if self._sock:
            self._judge(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _judge(self, code: int) -> None:
        if code == 0 and self._sock and self._sock.getsockname() == self._sock.getpeername():
            code = errno.ECONNREFUSED  # Nobody listens, and the kernel gave us the very port that was asked for.
        self._close()
        if code == 0:
            self.end(None, "")
        elif self._tried < len(self.addresses):
            self._try()
        else:
            self.end(*explain(OSError(code, os.strerror(code))))

    def due(self, now: float) -> None:
        """End it when its time is over as the prober lived it; what was stolen is given on top, up to as much again."""
        wire, within_s = self._probe.wire, self._probe.within_s
        took_s = now - self._started
        stolen_s = wire.lateness.stolen_since(self._started)
        if took_s - stolen_s < within_s and took_s < 2 * within_s:
            wire.wheel.put(now + within_s - (took_s - stolen_s), self)
        elif wire.was_late(self._started, now):
            self.end(Failure.PROBER, f"the prober itself was late by {stolen_s:.2f} s of {took_s:.2f} s")
        elif self._begun:
            self.end(Failure.TIMEOUT, f"no connection within {within_s:g} s")
        elif self.addresses:
            self.end(Failure.PROBER, f"no place within {within_s:g} s among {MAX_CONNECTING} connects")
        else:
            self.end(Failure.DNS, f"no address of {self._where.host} within {within_s:g} s")

    def end(self, failure: Failure | None, detail: str) -> None:
        """Report, once."""
        if self.over:
            return
        self.over = True
        self._close()
        if self._begun:
            self._probe.ended()
        now = monotonic()
        self._report(Look(self._endpoint, self._probe.name, now, now - self._started, failure, detail))

    def _close(self) -> None:
        if self._sock:
            asyncio.get_running_loop().remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None
