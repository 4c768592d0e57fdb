"""One keep-alive HTTP/1.1 connection: at most one exchange at a time, no pipelining.

Used by `probes/wire` alone. httptools parses; nothing here waits or starts anything.
"""

import asyncio
import ssl
import zlib
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, cast

import httptools

from controlplane.probes.exchange import Answer, Exchange
from controlplane.probes.probe import Failure

MAX_BODY_BYTES = 16 * 1024 * 1024
"""A page larger than this is not read: it costs one endpoint one look, and nothing else."""

_GZIP = 47
"""zlib's `wbits` for gzip or zlib, told apart by the header."""
_USUAL_BYTES = 1024
"""Answers up to this size are recognised; pages of metrics are larger and never the same."""
_USUAL_KEPT = 4096
_DATE = b"\r\ndate: "
_DATE_BYTES = 29
"""`Sat, 21 Nov 2026 12:00:00 GMT` (RFC 9110, 5.6.7)."""


class Usual(NamedTuple):
    """An answer that came whole in one piece, to be recognised when it comes again: then nothing needs to be parsed.

    Only the value of its `Date` may differ. Parsing costs a third of a look, and a healthy endpoint gives the same
    answer all day.
    """

    size: int
    head: bytes
    """All of it up to the value of its `Date`, or the whole answer when it has none."""
    tail: bytes
    status: int
    body: bytes
    served_by: str


class UsualAnswers:
    """The usual answers of a fleet, each kept once: ten thousand equal endpoints give the same one."""

    def __init__(self) -> None:
        self._kept: dict[Usual, Usual] = {}

    def keep(self, usual: Usual) -> Usual:
        """Return the one that is kept."""
        if len(self._kept) >= _USUAL_KEPT:
            self._kept.clear()
        return self._kept.setdefault(usual, usual)


class Connection(asyncio.Protocol):
    """A connection that is used again and again."""

    __slots__ = (
        "_ask", "_body", "_first_at", "_gzip", "_headed", "_lost", "_parser", "_rest", "_served_by", "_size", "_sized",
        "_transport", "_uses", "_usual", "_usual_answers", "_usual_to", "certificate_ends", "ended", "exchange",
        "made_at",
    )  # fmt: skip

    def __init__(
        self,
        rest: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
        ask: Callable[[Exchange], None],
        usual: UsualAnswers,
    ) -> None:
        """Take what is called back.

        Args:
            rest: the exchange is over and the connection can be used again.
            lost: the connection has ended.
            ask: an exchange has to be sent again, elsewhere: it was sent as the server was closing this connection.
            usual: the answers that are recognised.
        """
        self._rest = rest
        self._lost = lost
        self._ask = ask
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._uses = 0
        self._usual_answers = usual
        self._usual: Usual | None = None
        self._usual_to = b""
        """The request that was answered with it."""
        self._body: list[bytes] = []
        self._begin()
        self.ended = False
        """No request can be sent on it any more."""
        self.exchange: Exchange | None = None
        self.certificate_ends: float | None = None
        self.made_at = 0.0

    def _begin(self) -> None:
        """Have read nothing of the next answer yet."""
        self._headed = self._sized = self._gzip = False
        self._size = 0
        self._first_at = 0.0
        self._served_by = ""

    def send(self, exchange: Exchange) -> None:
        """Send a request; its answer ends the exchange."""
        self.exchange = exchange
        exchange.connection = self
        exchange.sent = True
        self._uses += 1
        if self._transport:
            self._transport.write(exchange.request)

    def abort(self) -> None:
        """End the connection at once."""
        self.ended = True
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
        """Recognise the usual answer, or parse what came."""
        exchange = self.exchange
        if exchange is None:
            self.abort()  # Nobody asked; what follows could be taken for the next answer.
            return
        usual = self._usual
        if (
            usual is not None
            and len(data) == usual.size
            and self._usual_to == exchange.request
            and data.startswith(usual.head)
            and data.endswith(usual.tail)
            and not self._headed
        ):
            now = monotonic()
            took_s = now - exchange.asked_at
            self._end(exchange, Answer(now, took_s, None, "", usual.status, usual.body, usual.served_by,
                                       took_s if usual.body else None, self.certificate_ends))  # fmt: skip
            return
        fresh = not self._headed
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.exchange:
                self.exchange.fail(Failure.ANSWER, f"not HTTP: {error}")
            else:
                self.abort()
            return
        if self.exchange is None:
            if fresh and len(data) <= _USUAL_BYTES:
                self._learn(exchange.request, data)
            self._body = []

    def _learn(self, request: bytes, data: bytes) -> None:
        """Keep an answer that came in one piece and is nothing but a head and a body of the size it tells."""
        body = self._body[0] if self._body else b""
        if self.ended or self._gzip or data.find(b"\r\n\r\n") + 4 + len(body) != len(data):
            return
        head, tail = data, b""
        dated = data.lower().find(_DATE)
        if dated >= 0:
            dated += len(_DATE)
            head, tail = data[:dated], data[dated + _DATE_BYTES :]
        status = self._parser.get_status_code()
        self._usual_to = request
        self._usual = self._usual_answers.keep(Usual(len(data), head, tail, status, body, self._served_by))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that it broke, unless the end was how the server said that the answer is whole."""
        self.ended = True
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

    def on_message_begin(self) -> None:
        """Begin to read an answer."""
        self._begin()
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter."""
        size = len(name)
        if size == 11 and name.lower() == b"x-served-by":
            self._served_by = value.decode("latin-1")
        elif size == 16 and name.lower() == b"content-encoding":
            self._gzip = value.strip().lower() in (b"gzip", b"x-gzip", b"deflate")
        elif (size == 14 and name.lower() == b"content-length") or (
            size == 17 and name.lower() == b"transfer-encoding"
        ):
            self._sized = True

    def on_headers_complete(self) -> None:
        """Note that the answer has begun."""
        self._headed = True

    def on_body(self, chunk: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if self.exchange is None:
            return
        if not self._first_at:
            self._first_at = monotonic()
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            self.exchange.fail(Failure.ANSWER, f"more than {MAX_BODY_BYTES} bytes")
            return
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        """Give the answer, and the connection back."""
        exchange, status = self.exchange, self._parser.get_status_code()
        if exchange is None or status < 200:  # 1xx announces the answer to come.
            return
        if not self._parser.should_keep_alive():
            self.ended = True
        self._headed = self._sized = False
        if len(self._body) > 1:
            self._body = [b"".join(self._body)]
        now, body = monotonic(), self._body[0] if self._body else b""
        first_s = self._first_at - exchange.asked_at if body else None
        answer = Answer(now, now - exchange.asked_at, None, "", status, body, self._served_by, first_s,
                        self.certificate_ends)  # fmt: skip
        if self._gzip:
            _unpack(answer)
        self._end(exchange, answer)

    def _end(self, exchange: Exchange, answer: Answer) -> None:
        """Give the connection back, then the answer: whoever gets it may ask on."""
        self.exchange = exchange.connection = None
        if self.ended:
            self.abort()
        else:
            self._rest(self)
        exchange.end(answer)


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
