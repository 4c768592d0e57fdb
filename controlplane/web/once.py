"""A write that is sent twice is done once: `Idempotency-Key` on a POST under `/api/v1`.

Called by `guard` when it is settled that a request may, and before the audit log hears of it: a replay is an answer
given again, not a second deed. Whoever sends another body under the same key has mixed something up, and is told so.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Scope, Send

from controlplane.errors import StoreError
from controlplane.security.replays import Answer, Known, ReplayBook, Sent
from controlplane.web.answers import problem

HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
PREFIX = "/api/v1/"
ONCE_SHOWN = ("/api/v1/tokens",)
"""Answers that hold a secret: that they were given is kept, what they said is not."""
KEPT_HEADERS = ("content-type", "location", "link")
_KEY = re.compile(r'[\x21\x23-\x7e]{1,255}|"[\x20-\x21\x23-\x7e]{1,253}"')
"""Visible ASCII; the quotes of a structured field (RFC 8941) may stand around it."""

log = structlog.get_logger("once")


def _utcnow() -> datetime:
    return datetime.now(UTC)


class Once:
    """Answers again what was answered before."""

    def __init__(self, book: ReplayBook | None = None, now: Callable[[], datetime] = _utcnow) -> None:
        """Take what it works with.

        Args:
            book: where keys are kept; without one, every write is done.
            now: aware UTC time.
        """
        self._book = book
        self._now = now

    async def serve(
        self, scope: Scope, who: str, body: bytes, send: Send, deed: Callable[[Send], Awaitable[None]]
    ) -> None:
        """Do a write, or answer it as it was answered before.

        Args:
            scope: the request.
            who: the credential that sends it; keys of others are strangers.
            body: what it sends.
            send: takes the answer.
            deed: does it.
        """
        given = Headers(scope=scope).get(HEADER)
        if given is None or self._book is None or not scope["path"].startswith(PREFIX):
            await deed(send)
            return
        if not _KEY.fullmatch(given):
            await _answer(
                problem(400, "the Idempotency-Key is none", "", "send 1 to 255 visible characters"), scope, send
            )
            return
        sent = Sent(
            _hash(who, given.strip('"')), _hash(scope["method"], scope["path"], _query(scope), body), self._now()
        )
        try:
            known = await self._book.begin(sent)
        except StoreError as error:
            await _answer(
                problem(503, "nothing was done: the key could not be kept", error.why, error.fix), scope, send
            )
            return
        if known is not None:
            await _answer(_again(known, sent), scope, send)
            return
        await self._first(self._book, sent.key, scope, send, deed)

    async def _first(
        self, book: ReplayBook, key: str, scope: Scope, send: Send, deed: Callable[[Send], Awaitable[None]]
    ) -> None:
        """Do it, and keep the answer before it is given: whoever has it may rely on it."""
        heard = _Heard()
        try:
            await deed(heard.send)
        finally:
            # A failure may be sent again; whether it was done is not known, and the next answer says it.
            await _keep(book, key, heard.answer(shown=scope["path"] not in ONCE_SHOWN))
        for message in heard.messages:
            await send(message)


async def _keep(book: ReplayBook, key: str, answer: Answer) -> None:
    try:
        if answer.status >= 500:
            await book.forget(key)
        else:
            await book.end(key, answer)
    except StoreError as error:  # The deed is done: its answer counts. Sent again, it is said to be under way.
        log.error("answer not kept", status=answer.status, why=error.why)


def _again(known: Known, sent: Sent) -> Response:
    """Answer a key that is known."""
    if known.content != sent.content:
        return problem(
            422, "this Idempotency-Key came with another request before", "a key stands for one request",
            "send a new key with a new request",
        )  # fmt: skip
    if known.answer is None:
        said = problem(
            409, "the same request is under way", "or a control plane ended in the middle of it",
            "wait and send it again; where that stays so, look whether it was done, and send a new key",
        )  # fmt: skip
        said.headers["retry-after"] = "1"
        return said
    if not known.answer.body and known.answer.status < 300:
        return problem(
            409, "this was done, and its secret was shown then", "a secret is kept nowhere",
            "revoke what was handed out, and ask for a new one with a new key",
        )  # fmt: skip
    headers = {**known.answer.headers, REPLAYED: "true"}
    return Response(known.answer.body, known.answer.status, headers)


class _Heard:
    """Keeps an answer back until it is known whole."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    def answer(self, *, shown: bool) -> Answer:
        """Return it; a failure when there is none."""
        start = next((m for m in self.messages if m["type"] == "http.response.start"), None)
        if start is None:
            return Answer(500, {}, b"")
        headers: Mapping[str, str] = Headers(raw=start["headers"])
        kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
        body = b"".join(m.get("body", b"") for m in self.messages if m["type"] == "http.response.body")
        return Answer(start["status"], kept, body if shown or start["status"] >= 300 else b"")


async def _answer(answer: Response, scope: Scope, send: Send) -> None:
    await answer(scope, _nothing_more, send)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


def _query(scope: Scope) -> bytes:
    query: bytes = scope.get("query_string", b"")
    return query


def _hash(*parts: str | bytes) -> str:
    """Return one hash of several texts, none of which can pass for two others."""
    mixed = sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        mixed.update(len(data).to_bytes(8, "big") + data)
    return mixed.hexdigest()
