"""`POST /hooks/alertmanager`: what Alertmanager and Grafana post, written down before it is acknowledged.

It speaks ASGI itself and stands before the application: thousands of alerts a second come this way, and a framework's
request handling would cost five times what reading and storing one costs. What could be right later is answered 503
with `Retry-After`, since Alertmanager drops what it is told 4xx for; 4xx is for what never can be.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec
from prometheus_client import Counter

from controlplane.errors import StoreError
from controlplane.flows.intake import Busy
from controlplane.incidents.alert import Unreadable, Webhook, read_webhook
from controlplane.security.roles import Need, may
from controlplane.security.tokens import Principal, digest, same
from controlplane.web.auth import secret_of

PATH = "/hooks/alertmanager"
BODY_AT_MOST = 5_000_000
"""Bytes of one webhook. Alertmanager puts a whole group of alerts into one: five thousand of 1 kB. What is larger would
keep this process busy for a tenth of a second or more; `max_alerts` of the receiver cuts it, and what it leaves out is
asked for at Alertmanager's API."""
HELD_AT_MOST = 64_000_000
"""Bytes of all the bodies that are being received or stored."""
BODY_WITHIN_S = 10.0
"""How long a body may take to arrive."""
SWEEPS = 10
"""How many times in that time it is looked whether one is overdue."""
RETRY_AFTER_S = 5

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_TAKEN_START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_TAKEN_BODY: Message = {"type": "http.response.body", "body": b""}


@dataclass(frozen=True, slots=True)
class DoorPorts:
    """What the door asks of those behind it."""

    take: Callable[[Webhook], Awaitable[Busy | None]]
    """Writes a webhook down; None when it is on disk."""
    put: Callable[[Webhook, Callable[[Busy | None], None]], None]
    """The same for who does not wait: told once, at once or later, on the event loop."""
    allowed: "WebhookCheck"
    """Whether the value of an `Authorization` header lets one in; raises `StoreError` when that cannot be known."""
    refused: Counter
    """Counts what was not taken, by the label `reason`."""


@dataclass(frozen=True, slots=True)
class No:
    """An answer that is not 200."""

    status: int
    reason: str
    """For the metric: one of a few words."""
    title: str
    detail: str
    fix: str


_GONE = No(0, "gone", "the client went away", "", "")
_TOO_LARGE = No(
    413, "size", "the webhook is too large", f"no more than {BODY_AT_MOST} bytes are read",
    "set `max_alerts` of the receiver; what is left out is asked for at Alertmanager's API",
)  # fmt: skip
_UNKNOWN = No(
    401, "token", "a valid webhook token is needed", "the Authorization header names none",
    "have the receiver send the token of the file that `controlplane serve` names at its start",
)  # fmt: skip
_SLOW = No(503, "slow", "the body took too long", f"it was not whole within {BODY_WITHIN_S:g} s", "send it again")
_FULL = No(503, "overload", "too much is under way", f"{HELD_AT_MOST} bytes wait to be stored", "send it again")
_METHOD = No(405, "method", "webhooks are posted", "this address takes POST and nothing else", "send a POST")


class WebhookCheck:
    """A check of `Authorization` headers: a token as bearer, or as the password of anybody."""

    def __init__(self, token: str, of_token: Callable[[str], Awaitable[Principal | None]]) -> None:
        """Take what lets in.

        Args:
            token: the one of the webhook's file, for which the store is not asked: it holds while the database is down.
            of_token: whose any other token is; asked of what looks like one, and remembered there.
        """
        self._as_bearer, self._hashed = b"Bearer " + token.encode(), digest(token)
        self._of_token = of_token

    def of_file(self, given: bytes) -> bool:
        """Tell whether the file's token lets one in."""
        return hmac.compare_digest(given, self._as_bearer) or same(secret_of(given.decode("latin-1")), self._hashed)

    async def __call__(self, given: bytes) -> bool:
        """Tell whether any token lets one in; raises `StoreError` when that cannot be known."""
        if self.of_file(given):
            return True
        principal = await self._of_token(secret_of(given.decode("latin-1")))
        return principal is not None and may(principal.role, Need.WEBHOOK)


class IntakeDoor:
    """The application with the webhook's address before it."""

    def __init__(self, app: AsgiApp, ports: DoorPorts, body_within_s: float = BODY_WITHIN_S) -> None:
        self._app = app
        self.ports = self._ports = ports
        self._within_s = body_within_s
        self._held = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Whose bodies are under way, and by when they must be there. One timer for all: one each would cost as much as
        reading an alert."""
        self._sweeping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        answer = await self._hook(scope, receive)
        if answer is None:
            await send(_TAKEN_START)
            await send(_TAKEN_BODY)
            return
        self._ports.refused.labels(answer.reason).inc()
        if answer is not _GONE:
            await _refuse(answer, send)

    async def _hook(self, scope: Scope, receive: Receive) -> No | None:
        """Take one webhook; None when it is on disk."""
        if scope["method"] != "POST":
            return _METHOD
        authorization, length = b"", 0
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = int(value) if value.isdigit() else 0
        try:
            if not await self._ports.allowed(authorization):
                return _UNKNOWN
        except StoreError as error:
            return No(503, "store", "whose token this is cannot be looked up", error.why, error.fix)
        if length > BODY_AT_MOST:
            return _TOO_LARGE
        if self._held + length > HELD_AT_MOST:
            return _FULL
        body = bytearray()
        try:
            wrong = await self._read(receive, body)
            return wrong or await self._store(bytes(body))
        finally:
            self._held -= len(body)

    async def _read(self, receive: Receive, body: bytearray) -> No | None:
        """Gather a body; None when it is whole."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered by a task")
        self._reading[task] = deadline = loop.time() + self._within_s
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._within_s / SWEEPS, self._sweep, loop)
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return _GONE
                piece = message.get("body", b"")
                self._held += len(piece)
                body += piece
                if len(body) > BODY_AT_MOST:
                    return _TOO_LARGE
                if self._held > HELD_AT_MOST:
                    return _FULL
                if not message.get("more_body", False):
                    return None
        except asyncio.CancelledError:
            if loop.time() < deadline:
                raise
            task.uncancel()
            return _SLOW
        finally:
            del self._reading[task]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call off whatever is overdue; as long as anything is read."""
        now = loop.time()
        for task, deadline in list(self._reading.items()):
            if now >= deadline:
                task.cancel()
        self._sweeping = bool(self._reading)
        if self._sweeping:
            loop.call_later(self._within_s / SWEEPS, self._sweep, loop)

    async def _store(self, body: bytes) -> No | None:
        webhook = read_webhook(body)
        if isinstance(webhook, Unreadable):
            return unreadable(webhook)
        busy = await self._ports.take(webhook)
        return None if busy is None else not_now(busy)

    def hold(self, length: int) -> bool:
        """Count a body that somebody else received as held until `let_go`; False where that would be too much."""
        if self._held + length > HELD_AT_MOST:
            return False
        self._held += length
        return True

    def let_go(self, length: int) -> None:
        """Count a body as held no longer."""
        self._held -= length


def unreadable(webhook: Unreadable) -> No:
    """Say that a body can never be read."""
    return No(400, "unreadable", "this is no webhook of Alertmanager or Grafana", webhook.why, "see its format")


def not_now(busy: Busy) -> No:
    """Say that a webhook can be taken later."""
    return No(503, busy.reason, "not now", busy.why, "send it again")


def spell(answer: No) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Write a refusal as a problem of RFC 9457; return its headers and its body."""
    problem = {
        "type": "about:blank", "title": answer.title, "status": answer.status, "detail": answer.detail,
        "fix": answer.fix,
    }  # fmt: skip
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if answer.status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    elif answer.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    elif answer.status == 405:
        headers.append((b"allow", b"POST"))
    if answer in (_TOO_LARGE, _SLOW, _FULL, _UNKNOWN):  # The rest of its body is not waited for.
        headers.append((b"connection", b"close"))
    return headers, body


async def _refuse(answer: No, send: Send) -> None:
    headers, body = spell(answer)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
