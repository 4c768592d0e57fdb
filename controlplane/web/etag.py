"""Saves what has not changed: an `ETag` on every answer under `/api/v1` that was read, and 304 to whoever has it.

An ASGI layer behind the guard. The tag is a hash of the body (strong): two bodies alike are the same answer.
"""

from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/api/v1/"
SECRET = ("/api/v1/tokens", "/api/v1/audit")
"""Lists that nobody keeps a copy of: they stay `no-store`."""
REVALIDATE = "private, no-cache"
"""Whoever keeps an answer asks each time whether it still holds."""
_NOT_WITHOUT_BODY = ("content-length", "content-type")


class EntityTags:
    """Stands before what answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tag an answer, or say that it is the one the asker has."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        held = _Held(scope, send)
        await self._app(scope, receive, held.send)


class _Held:
    """Holds an answer back until its body is whole."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._pass_on = send
        self._start: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._pass_on(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._answer(self._start, bytes(self._body))

    async def _answer(self, start: Message, body: bytes) -> None:
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        headers = MutableHeaders(scope=start)
        headers["etag"] = tag
        headers["vary"] = "Authorization, Cookie"
        if not self._scope["path"].startswith(SECRET):
            headers["cache-control"] = REVALIDATE
        if matches(Headers(scope=self._scope).get("if-none-match", ""), tag):
            start["status"], body = 304, b""
            for name in _NOT_WITHOUT_BODY:
                del headers[name]
        await self._pass_on(start)
        await self._pass_on({"type": "http.response.body", "body": body})


def matches(asked: str, tag: str) -> bool:
    """Tell whether an `If-None-Match` names a tag; weak comparison, as RFC 9110 (13.1.2) asks."""
    return asked.strip() == "*" or tag in {part.strip().removeprefix("W/") for part in asked.split(",")}
