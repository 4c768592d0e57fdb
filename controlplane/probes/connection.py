"""One keep-alive HTTP/1.1 connection and the exchange on it; at most one at a time, no pipelining.

Used by `probes/wire` alone. httptools parses; nothing here waits or starts anything.
"""

import asyncio
import ssl
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import httptools

from controlplane.probes.probe import Failure

MAX_BODY_BYTES = 16 * 1024 * 1024
"""A page larger than this is not read: it costs one endpoint one look, and nothing else."""

_GZIP = 47
"""zlib's `wbits` for gzip or zlib, told apart by the header."""


@dataclass(slots=True)
class Answer:
    """How an exchange ended."""

    at: float
    """Monotonic seconds."""
    took_s: float
    failure: Failure | None = None
    detail: str = ""
    status: int = 0
    body: bytes = b""
    served_by: str = ""
    first_s: float | None = None
    """Seconds until the first byte of the body; None without one."""
    certificate_ends: float | None = None
    """Unix seconds; None without TLS."""


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "asked_at", "body", "connection", "done", "expired", "first_at", "gzip", "over", "request", "retried", "sent",
        "served_by", "size", "within_s",
    )  # fmt: skip

    def __init__(
        self,
        request: bytes,
        asked_at: float,
        within_s: float,
        done: Callable[[Answer], None],
        expired: Callable[["Exchange", float], None],
    ) -> None:
        self.request = request
        self.asked_at = asked_at
        self.within_s = within_s
        self.done = done
        self.expired = expired
        self.over = self.sent = self.retried = self.gzip = False
        self.connection: Connection | None = None
        self.body: list[bytes] = []
        self.size = 0
        self.first_at = 0.0
        self.served_by = ""

    def due(self, now: float) -> None:
        """Tell that the deadline has passed."""
        self.expired(self, now)

    def fail(self, failure: Failure, detail: str) -> None:
        """End without an answer; the connection, if there is one, is of no more use."""
        if self.over:
            return
        self.over = True
        if self.connection:
            self.connection.exchange = None
            self.connection.abort()
        now = monotonic()
        self.done(Answer(now, now - self.asked_at, failure, detail))


class Connection(asyncio.Protocol):
    """A connection that is used again and again."""

    __slots__ = ("_ask", "_ended", "_headed", "_lost", "_parser", "_rest", "_sized", "_transport", "_uses",
                 "certificate_ends", "exchange", "made_at")  # fmt: skip

    def __init__(
        self,
        rest: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
        ask: Callable[[Exchange], None],
    ) -> None:
        """Take what is called back.

        Args:
            rest: the exchange is over and the connection can be used again.
            lost: the connection has ended.
            ask: an exchange has to be sent again, elsewhere: it was sent as the server was closing this connection.
        """
        self._rest = rest
        self._lost = lost
        self._ask = ask
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._uses = 0
        self._ended = self._headed = self._sized = False
        self.exchange: Exchange | None = None
        self.certificate_ends: float | None = None
        self.made_at = 0.0

    @property
    def usable(self) -> bool:
        """Tell whether a request can be sent on it."""
        return not self._ended and self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        """Send a request; its answer ends the exchange."""
        self.exchange = exchange
        exchange.connection = self
        exchange.sent = True
        self._uses += 1
        self._headed = self._sized = False
        if self._transport:
            self._transport.write(exchange.request)

    def abort(self) -> None:
        """End the connection at once."""
        self._ended = True
        if self._transport:
            self._transport.abort()

    # -- asyncio calls these ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not of asyncio's classes.
        self.made_at = monotonic()
        certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
        if certificate and "notAfter" in certificate:
            self.certificate_ends = ssl.cert_time_to_seconds(certificate["notAfter"])

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self.exchange is None:
            self.abort()  # Nobody asked; what follows could be taken for the next answer.
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.exchange:
                self.exchange.fail(Failure.ANSWER, f"not HTTP: {error}")
            else:
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that it broke, unless the end was how the server said that the answer is whole."""
        self._ended = True
        exchange = self.exchange
        if exchange and exc is None and self._headed and not self._sized:
            self.on_message_complete()
        elif exchange and not self._headed and self._uses > 1 and not exchange.retried:
            self.exchange = exchange.connection = None
            exchange.retried = True
            exchange.sent = False
            self._lost(self)
            self._ask(exchange)
            return
        elif exchange:
            exchange.fail(Failure.RESET, "the connection broke before the answer was whole")
        self._lost(self)

    # -- httptools calls these -------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter."""
        size = len(name)
        exchange = self.exchange
        if size == 11 and exchange and name.lower() == b"x-served-by":
            exchange.served_by = value.decode("latin-1")
        elif size == 16 and exchange and name.lower() == b"content-encoding":
            exchange.gzip = value.strip().lower() in (b"gzip", b"x-gzip", b"deflate")
        elif (size == 14 and name.lower() == b"content-length") or (
            size == 17 and name.lower() == b"transfer-encoding"
        ):
            self._sized = True

    def on_headers_complete(self) -> None:
        """Note that the answer has begun."""
        self._headed = True

    def on_body(self, chunk: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        exchange = self.exchange
        if exchange is None:
            return
        if not exchange.first_at:
            exchange.first_at = monotonic()
        exchange.size += len(chunk)
        if exchange.size > MAX_BODY_BYTES:
            exchange.fail(Failure.ANSWER, f"more than {MAX_BODY_BYTES} bytes")
            return
        exchange.body.append(chunk)

    def on_message_complete(self) -> None:
        """Give the answer, and the connection back."""
        exchange, status = self.exchange, self._parser.get_status_code()
        if exchange is None or status < 200:  # 1xx announces the answer to come.
            return
        self.exchange = exchange.connection = None
        exchange.over = True
        now = monotonic()
        answer = Answer(now, now - exchange.asked_at, status=status, served_by=exchange.served_by,
                        certificate_ends=self.certificate_ends)  # fmt: skip
        if exchange.first_at:
            answer.first_s = exchange.first_at - exchange.asked_at
            answer.body = exchange.body[0] if len(exchange.body) == 1 else b"".join(exchange.body)
            exchange.body = []  # The wheel keeps the exchange until its deadline comes by.
        if exchange.gzip:
            _unpack(answer)
        if self._ended or not self._parser.should_keep_alive():
            self.abort()
        else:
            self._rest(self)
        exchange.done(answer)


def _unpack(answer: Answer) -> None:
    """Unpack a compressed body, bounded: a small answer may hold a very large one."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        body = unpacker.decompress(answer.body, MAX_BODY_BYTES)
    except zlib.error as error:
        answer.failure, answer.detail = Failure.ANSWER, f"broken compression: {error}"
        return
    if unpacker.unconsumed_tail:
        answer.failure, answer.detail = Failure.ANSWER, f"more than {MAX_BODY_BYTES} bytes"
    elif not unpacker.eof:
        answer.failure, answer.detail = Failure.ANSWER, "the compressed body breaks off"
    else:
        answer.body = body
