"""An HTTP/1.1 client for looking at thousands of endpoints: protocol callbacks, held connections, one timing wheel.

Used by `probes/http` for every kind of look. No task and no future a request: an exchange is an object that a
connection calls back. Each endpoint has a connection that stays open between looks. The kernel tells us within
milliseconds when a process dies: an ended connection alone proves nothing (a server may close it), a reconnect that
is refused proves that nothing listens there. This is the only evidence that is acted on without any dwell.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from ipaddress import ip_address
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint
from controlplane.probes.connection import Connection, UsualAnswers
from controlplane.probes.exchange import Answer, Exchange
from controlplane.probes.probe import HELD, Failure, Look
from controlplane.probes.wheel import Lateness, Wheel

MAX_OPENING = 256
"""Connections that are being opened at once, over the whole fleet."""
MAX_PER_ORIGIN = 8
MAX_IDLE = 2
CONNECT_WITHIN_S = 1.0
RETRY_S = 0.1
"""How soon a connection is tried again while the endpoint is down; also the pause after one that was closed at once."""
RETRY_AT_MOST_S = 1.0
NAMES_FOR_S = 30.0
"""How long a resolved name is used again."""
TLS_FOR_S = 3600.0
"""How long a connection over TLS is used: a renewed certificate shows in a new handshake only."""
TLS_SPREAD_S = 900
"""Up to so much sooner, by address, so that a fleet does not shake hands all at once."""
RENEW_AFTER_S = 10.0
"""A connection whose certificate is too old is given up once it was open for so long: handshakes cost the endpoint."""
STOLEN_SHARE = 0.2
"""A time-out of which more than this share was stolen from the prober says nothing about the endpoint."""

_CANNOT_OPEN = (OSError, TimeoutError, ssl.SSLError, ValueError)
"""The last one is a host that no name can be, such as one with a label of 64 letters."""
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}

Spawn = Callable[[Coroutine[None, None, None]], "asyncio.Task[None]"]


def explain(error: BaseException) -> tuple[Failure, str]:
    """Tell how opening a connection failed: resolving, connecting, TLS, or something of our own."""
    if isinstance(error, socket.gaierror):
        return Failure.DNS, str(error)
    if isinstance(error, ConnectionRefusedError):
        return Failure.REFUSED, "connection refused"
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT, f"no connection in {CONNECT_WITHIN_S:g} s"
    if isinstance(error, ssl.SSLError):
        return Failure.TLS, str(error)
    if isinstance(error, OSError) and error.errno in _OURS:
        return Failure.PROBER, f"the prober cannot open a connection: {error}"
    return Failure.NETWORK, str(error) or type(error).__name__


class Address(NamedTuple):
    """Where a URL leads; a tuple, since it is looked up once a look."""

    host: str
    port: int
    tls: bool


def address(url: str) -> Address:
    """Return where a URL leads.

    Raises:
        ValueError: when it leads nowhere: it names no host, or its port is none.
    """
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if not parts.hostname:
        raise ValueError(f"`{url}` names no host")
    return Address(parts.hostname, parts.port or (443 if tls else 80), tls)


class Origin:
    """The connections to one address."""

    __slots__ = (
        "_idle", "_keeping", "_live", "_opening", "_tls_for_s", "_waiting", "_watchers", "_wire", "gone", "where",
    )  # fmt: skip

    def __init__(self, wire: "Wire", where: Address) -> None:
        self.where = where
        self._wire = wire
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._opening = 0
        self._waiting: list[Exchange] = []
        self._watchers: list[tuple[Endpoint, Callable[[Look], None]]] = []
        self._keeping = False
        self._tls_for_s = TLS_FOR_S - hash(where) % TLS_SPREAD_S
        self.gone = False
        """Nobody wants its connections any more: the endpoint left."""

    # -- exchanges -------------------------------------------------------------------------------------------------

    def ask(self, request: bytes, within_s: float, done: Callable[[Answer], None], times: int = 1) -> None:
        """Send a request and have its answer given to `done`, once, whatever happens.

        Args:
            request: the whole request, head and body.
            within_s: the time-out. The endpoint gets all of it as the prober lived it: time in which the prober
                itself did not run is given on top, up to as much again.
            done: called with the answer, or with how there was none.
            times: how many times to ask in that time while nothing is answered, each time on a connection of its own.
        """
        now = monotonic()
        exchange = Exchange(self, request, now, within_s, done, times)
        self._wire.wheel.put(now + within_s / times, exchange)
        idle = self._idle
        if idle and not idle[-1].ended:
            idle.pop().send(exchange)
        else:
            self.send(exchange)

    def send(self, exchange: Exchange) -> None:
        """Send a request on a connection that is free, or on a new one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.ended:
                connection.send(exchange)
                return
        if not self._send_apart(exchange):
            self._waiting.append(exchange)

    def _send_apart(self, exchange: Exchange) -> bool:
        """Send a request on a new connection; False when there are as many as there may be."""
        if len(self._live) + self._opening >= MAX_PER_ORIGIN:
            return False
        self._wire.spawn(self._open(exchange))
        return True

    def due(self, exchange: Exchange, now: float) -> None:
        """Ask again while the time is not out, and end the exchange when it is."""
        lateness, within_s = self._wire.lateness, exchange.within_s
        took_s = now - exchange.asked_at
        stolen_s = lateness.stolen_since(exchange.asked_at)
        lived_s = took_s - stolen_s
        if lived_s < within_s and took_s < 2 * within_s:
            step_s = within_s / exchange.times
            step = len(exchange.others) + 1
            if step < exchange.times and lived_s >= step * step_s:
                step += 1
                other = exchange.again(now)
                if not self._send_apart(other):
                    other.drop()
            self._wire.wheel.put(now + step * step_s - lived_s, exchange)
        elif self._wire.was_late(exchange.asked_at, now):
            exchange.fail(Failure.PROBER, f"the prober itself was late by {stolen_s:.2f} s of {took_s:.2f} s")
        else:
            what = "answer" if exchange.sent else "connection"
            exchange.fail(Failure.TIMEOUT, f"no {what} within {within_s:g} s")

    async def _open(self, exchange: Exchange) -> None:
        self._opening += 1
        started = monotonic()
        try:
            connection = await self._dial()
        except _CANNOT_OPEN as error:
            failure, detail = explain(error)
            if failure is Failure.TIMEOUT and self._wire.was_late(started, monotonic()):
                failure = Failure.PROBER
            if failure is Failure.REFUSED and not self._live:  # A server that drains refuses, and still serves.
                self._tell(exchange.asked_at, failure, detail)
            exchange.fail(failure, detail)
        else:
            if exchange.over:
                self._rest(connection)
            else:
                connection.send(exchange)
        finally:
            self._opening -= 1

    async def _dial(self) -> Connection:
        wire, where = self._wire, self.where
        async with wire.opening, asyncio.timeout(CONNECT_WITHIN_S):
            error: OSError | None = None
            for host in await wire.resolve(where):
                try:
                    _, connection = await asyncio.get_running_loop().create_connection(
                        partial(Connection, self._rest, self._lost, self.send, wire.usual), host, where.port,
                        ssl=wire.tls if where.tls else None, server_hostname=where.host if where.tls else None,
                    )  # fmt: skip
                except OSError as failed:
                    error = failed
                else:
                    self._live.add(connection)
                    return connection
        raise error or OSError(errno.EADDRNOTAVAIL, f"{where.host} has no address")

    def _rest(self, connection: Connection) -> None:
        """Take a connection back that has done its work."""
        while self._waiting:
            exchange = self._waiting.pop(0)
            if not exchange.over:
                connection.send(exchange)
                return
        worn = self.where.tls and monotonic() - connection.made_at > self._tls_for_s
        if len(self._idle) >= MAX_IDLE or self.gone or worn:
            connection.abort()
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        """A connection ended: when it was the last one, find out at once whether anything listens there any more."""
        self._live.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._watchers and not self._live and not self._keeping:
            self._keeping = True
            young = monotonic() - connection.made_at < RETRY_S
            self._wire.spawn(self._keep(RETRY_S if young else 0.0))

    # -- holding ---------------------------------------------------------------------------------------------------

    def watch(self, endpoint: Endpoint, report: Callable[[Look], None]) -> Callable[[], None]:
        """Keep a connection open and report when it comes and goes; returns what ends that."""
        watcher = (endpoint, report)
        self._watchers.append(watcher)
        if not self._keeping:
            self._keeping = True
            self._wire.spawn(self._keep(0.0))

        def release() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            if not self._watchers:
                self.gone = True
                self._wire.forget(self)
                self.close()

        return release

    async def _keep(self, pause_s: float) -> None:
        """Open a connection, and try again until there is one or nobody wants it any more."""
        retry_s = RETRY_S
        try:
            await asyncio.sleep(pause_s)
            while self._watchers:
                started = monotonic()
                if self._live:
                    self._tell(started, None, "")
                    return
                try:
                    connection = await self._dial()
                except _CANNOT_OPEN as error:
                    self._tell(started, *explain(error))
                    await asyncio.sleep(retry_s)
                    retry_s = min(retry_s * 1.5, RETRY_AT_MOST_S)
                else:
                    self._tell(started, None, "")
                    self._rest(connection)
                    return
        finally:
            self._keeping = False
            if not self._watchers:
                self.close()

    def _tell(self, started: float, failure: Failure | None, detail: str) -> None:
        now = monotonic()
        for endpoint, report in tuple(self._watchers):
            report(Look(endpoint, HELD, now, now - started, failure, detail))

    def end(self) -> None:
        """Let go of every connection, and keep none any more."""
        self.gone = True
        self._watchers.clear()
        for connection in tuple(self._live):
            connection.abort()

    def renew(self) -> None:
        """Let go of every connection that is doing nothing and is not new: the next one shows today's certificate."""
        old = monotonic() - RENEW_AFTER_S
        for connection in tuple(self._idle):
            if connection.made_at < old:
                connection.abort()

    def close(self) -> None:
        """Let go of every connection that is doing nothing."""
        for connection in tuple(self._idle):
            connection.abort()


async def awaited(start: Callable[[Endpoint, Callable[[Look], None]], None], endpoint: Endpoint) -> Look:
    """Wait for one look of a probe that calls back."""
    done: asyncio.Future[Look] = asyncio.get_running_loop().create_future()
    start(endpoint, lambda look: None if done.done() else done.set_result(look))
    return await done


async def _tell_nowhere(endpoint: Endpoint, report: Callable[[Look], None], why: str) -> None:
    """Report an endpoint whose address leads nowhere as often as one that cannot be reached; never ends by itself."""
    while True:
        report(Look(endpoint, HELD, monotonic(), 0.0, Failure.NETWORK, why))
        await asyncio.sleep(RETRY_AT_MOST_S)


class Wire:
    """Every connection of the prober."""

    def __init__(self, spawn: Spawn) -> None:
        """Take what starts tasks in the process's own task group: one a connection that is being opened."""
        self.spawn = spawn
        self.lateness = Lateness()
        self.wheel = Wheel(self.lateness)
        self.opening = asyncio.Semaphore(MAX_OPENING)
        self.tls = ssl.create_default_context()
        self.usual = UsualAnswers()
        self._origins: dict[Address, Origin] = {}
        self._names: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.wheel.start()

    def origin(self, where: Address) -> Origin:
        """Return the connections to an address."""
        origin = self._origins.get(where)
        if origin is None:
            origin = self._origins[where] = Origin(self, where)
        return origin

    def forget(self, origin: Origin) -> None:
        """Drop an address that is no longer looked at."""
        if self._origins.get(origin.where) is origin:
            del self._origins[origin.where]

    def was_late(self, since: float, now: float) -> bool:
        """Tell whether so much of some time was stolen from the prober that a time-out in it says nothing."""
        return self.lateness.stolen_since(since) > STOLEN_SHARE * (now - since)

    def hold(self, endpoint: Endpoint, report: Callable[[Look], None]) -> Callable[[], None]:
        """Hold a connection to an endpoint and report when it comes and goes; returns what lets go of it."""
        try:
            where = address(endpoint.url)
        except ValueError as error:
            telling = self.spawn(_tell_nowhere(endpoint, report, str(error)))

            def release() -> None:
                telling.cancel()

            return release
        return self.origin(where).watch(endpoint, report)

    async def resolve(self, where: Address) -> tuple[str, ...]:
        """Return the addresses of a host.

        Raises:
            socket.gaierror: when the name is not known.
        """
        found = self.known(where.host)
        if not found:
            loop = asyncio.get_running_loop()
            listed = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys(str(entry[4][0]) for entry in listed))
            self._names[where.host] = (monotonic(), found)
        return found

    def known(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a host that need no asking; none when its name has to be resolved."""
        known_at, found = self._names.get(host, (0.0, ()))
        if found and monotonic() - known_at < NAMES_FOR_S:
            return found
        try:
            found = (str(ip_address(host)),)
        except ValueError:
            return ()
        self._names[host] = (monotonic(), found)
        return found

    def close(self) -> None:
        """Let go of everything."""
        self.wheel.stop()
        for origin in tuple(self._origins.values()):
            origin.end()
        self._origins.clear()
