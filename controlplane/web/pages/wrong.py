"""Problems as pages: whoever asks with a browser is told in words, not in JSON.

An ASGI layer in front of the guard, so that its refusals become pages, too. The API's own paths answer machines, and
stay as they are.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import controlplane
from controlplane.clock import utcnow
from controlplane.web.frame import Frame, Sheet, frame_of

PROBLEM = "application/problem+json"
FOR_MACHINES = ("/api/", "/hooks/", "/metrics", "/sd", "/openapi.json", "/events", "/healthz", "/readyz")


@dataclass(frozen=True, slots=True)
class ProblemView:
    """What is wrong, why, and the way out."""

    now: datetime
    version: str
    status: int
    what: str
    why: str
    fix: str
    reasons: tuple[str, ...]


def problem_page(scope: Scope, told: bytes) -> str:
    """Draw the page of a problem document."""
    said = json.loads(told)
    reasons = tuple(f"{wrong.get('where', '')}: {wrong.get('what', '')}" for wrong in said.get("errors", ()))
    view = ProblemView(
        utcnow(), controlplane.__version__, said["status"], said["title"], said.get("detail", ""), said.get("fix", ""),
        reasons,
    )  # fmt: skip
    frame = frame_of(Request(scope)) if "visitor" in scope.get("state", {}) else Frame()
    return Sheet("_problem.html", f"{view.status}: {view.what} · controlplane", view, moves=False).page(frame)


def reads_pages(scope: Scope) -> bool:
    """Tell whether a request is a browser's, for a page."""
    wants = "text/html" in Headers(scope=scope).get("accept", "")
    return wants and not scope["path"].startswith(FOR_MACHINES) and not scope["path"].endswith("/fragment")


class InWords:
    """Stands in front of everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; turn a problem for a browser into a page."""
        if scope["type"] == "http" and reads_pages(scope):
            send = _Turned(scope, send).send
        await self._app(scope, receive, send)


class _Turned:
    """Holds a problem document back until it is whole, and sends its page instead."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        """Pass a message on, or keep it."""
        if message["type"] == "http.response.start":
            if Headers(raw=message["headers"]).get("content-type", "").startswith(PROBLEM):
                self._start = message
                return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            page = problem_page(self._scope, self._body).encode()
            headers = MutableHeaders(raw=list(self._start["headers"]))
            headers["content-type"], headers["content-length"] = "text/html; charset=utf-8", str(len(page))
            await self._send({**self._start, "headers": headers.raw})
            self._start = None
            await self._send({"type": "http.response.body", "body": page})
            return
        await self._send(message)
