"""The guard before the application: who, may they, how often, how much, and a record of it.

An ASGI layer, so that nothing of the application runs, and no body is parsed, before the answer is yes. A write is
recorded as asked before it begins and with its outcome when it has ended; when the log cannot be written, the write
does not happen. Refusals are recorded, alike ones once a minute with their number.
"""

import asyncio
import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.errors import StoreError
from controlplane.security.chain import AuditBook, Deed, clean
from controlplane.security.limits import Limiter, Repeats
from controlplane.security.roles import Need, Role, Scraping, may
from controlplane.security.tokens import Principal, csrf_of, same_text
from controlplane.web.access import asked
from controlplane.web.answers import problem
from controlplane.web.auth import Doorkeeper, Visitor
from controlplane.web.console import CONTENT_SECURITY_POLICY
from controlplane.web.once import Once

MAX_BODY_BYTES = 1 << 20
"""No request of ours has a body near this; alerts come in by a door of their own."""
BODY_WITHIN_S = 15.0
"""Whoever sends a body drop by drop holds a place that others could have."""
SAFE = ("GET", "HEAD", "OPTIONS")
BY_ITSELF = ("/fragment", "/events")
"""How the paths end that an open page fetches without anybody doing anything."""
COMES_BACK = "/oidc/callback"
"""Begins a session though it is read: it is recorded like a login by form."""
MAX_FIELDS = 100
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
FORM = "application/x-www-form-urlencoded"

SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # With none at all, our own forms would name their origin `null`.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS = "max-age=31536000"

log = structlog.get_logger("guard")


def _failures() -> Limiter:
    return Limiter(per_s=10 / 60, burst=10)


def _writes() -> Limiter:
    return Limiter(per_s=20, burst=100)


@dataclass(frozen=True, slots=True)
class GuardPorts:
    """What the guard asks, and what it is told."""

    keeper: Doorkeeper
    audit: AuditBook
    now: Callable[[], datetime]
    clock_s: Callable[[], float]
    """A clock that never goes back, in seconds."""
    scraping: Scraping = Scraping.LOOPBACK
    secure: bool = False
    """Whether we are reached by TLS."""
    refused: Callable[[int], None] = lambda _: None
    """Counts a refusal by its status."""
    failures: Limiter = field(default_factory=_failures)
    """By address: ten wrong credentials at once, then one every six seconds."""
    writes: Limiter = field(default_factory=_writes)
    """By credential: a hundred at once, then twenty a second."""
    once: Once = field(default_factory=Once)
    """Answers a write that is sent again, without doing it again."""
    repeats: Repeats = field(default_factory=lambda: Repeats(60))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, as far as the guard looks."""

    scope: Scope
    headers: Headers
    path: str
    """As the route names it."""
    need: Need
    source: str
    visitor: Visitor

    @property
    def writes(self) -> bool:
        return self.scope["method"] not in SAFE

    @property
    def action(self) -> str:
        given = self.scope["path"] if self.path.startswith("/") else self.path
        return clean(f"{self.scope['method']} {given}")


class Guard:
    """Stands before the application."""

    def __init__(self, app: ASGIApp, routes: Callable[[], Iterable[BaseRoute]], ports: GuardPorts) -> None:
        self._app = app
        self._routes = routes
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._dressed(scope, send)
        headers = Headers(scope=scope)
        path, need = asked(self._routes(), scope)
        scope.setdefault("state", {})["route"] = path
        try:
            visitor = await self._ports.keeper.visitor(headers, active=not path.endswith(BY_ITSELF))
        except StoreError as error:
            answer = problem(503, "who you are cannot be looked up", error.why, error.fix)
            answer.headers["retry-after"] = "2"
            await answer(scope, receive, send)
            return
        source = scope["client"][0] if scope.get("client") else ""
        request = _Asked(scope, headers, path, need, source, visitor)
        scope["state"].update(visitor=visitor, near=is_near(source, headers), source=source)
        refusal = await self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif request.writes:
            await self._write(request, receive, send)
        elif path == COMES_BACK:
            heard = _Heard(send)
            try:
                await self._app(scope, receive, heard.send)
            finally:
                await self._outcome(request, "", "", heard.status)
        else:
            await self._app(scope, receive, send)

    # -- may they ------------------------------------------------------------------------------------------------------

    async def _refusal(self, request: _Asked) -> Response | None:
        """Return the answer to whom may not; None to let them through."""
        if request.writes and not same_origin(request.headers):
            return await self._refuse(request, 403, "the request comes from another site's page")
        if self._opens(request):
            who = request.visitor.principal
            wait_s = self._ports.writes.take(_key(who), self._ports.clock_s()) if who and request.writes else 0.0
            return await self._refuse(request, 429, "too many writes", wait_s) if wait_s else None
        if request.visitor.principal:
            role = request.visitor.principal.role
            return await self._refuse(
                request, 403, f"this needs {_article(request.need)}; the credential is {_article(role)}'s"
            )
        if request.visitor.presented and "authorization" in request.headers:
            wait_s = self._ports.failures.take(request.source, self._ports.clock_s())
            if wait_s:
                return await self._refuse(request, 429, "too many wrong credentials from this address", wait_s)
        if not request.writes and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"/login?next={quote(_place(request.scope), safe='/')}", 303)
        return await self._refuse(request, 401, "a valid token is needed")

    def _opens(self, request: _Asked) -> bool:
        if request.need is Need.SCRAPER and not request.visitor.presented:
            scraping = self._ports.scraping
            near = scraping is Scraping.LOOPBACK and is_near(request.source, request.headers)
            return near or scraping is Scraping.ANYONE
        principal = request.visitor.principal
        return may(principal.role if principal else None, request.need)

    async def _refuse(self, request: _Asked, status: int, what: str, wait_s: float = 0.0) -> Response:
        self._ports.refused(status)
        answer = problem(status, what, *_WAYS_OUT.get(status, ("", "")))
        if status == 401:
            answer.headers["www-authenticate"] = "Bearer"
        if wait_s:
            answer.headers["retry-after"] = str(int(wait_s) + 1)
        key = f"{request.source} {_key(request.visitor.principal)} {request.scope['method']} {request.path} {status}"
        held_back = self._ports.repeats.tell(key, self._ports.clock_s())
        if held_back is not None:
            more = f"; {held_back} more like it since the last" if held_back else ""
            try:
                await self._ports.audit.append(self._deed(request, "", f"refused {status}", what + more))
            except StoreError as error:
                log.error("refusal not recorded", status=status, why=error.why)
        return answer

    # -- writes --------------------------------------------------------------------------------------------------------

    async def _write(self, request: _Asked, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                body = await _read(request.headers, receive)
        except TimeoutError:
            refusal = await self._refuse(request, 408, f"a body has {BODY_WITHIN_S:g} s to come")
            await refusal(request.scope, receive, send)
            return
        if body is None:
            refusal = await self._refuse(request, 413, f"a body may have {MAX_BODY_BYTES} bytes")
            await refusal(request.scope, receive, send)
            return
        # A login can be sent once more by one who is in; that it comes from our own page, the browser has said.
        if request.visitor.cookie and request.path != "/login" and not _knows(request, body):
            refusal = await self._refuse(request, 403, "the form is not of this session's pages")
            await refusal(request.scope, receive, send)
            return

        async def deed(send: Send) -> None:
            await self._recorded(request, body, receive, send)

        visitor = request.visitor.principal
        await self._ports.once.serve(request.scope, _key(visitor), body, send, deed)

    async def _recorded(self, request: _Asked, body: bytes, receive: Receive, send: Send) -> None:
        """Have a write done, and put into the log that it was asked for and how it ended."""
        why, detail = _said(request.headers, body) if request.need is not Need.ANYONE else ("", "")
        heard = _Heard(send)
        try:
            if request.need is not Need.ANYONE:  # Logging in or out moves nothing; it is recorded when it is over.
                await self._ports.audit.append(self._deed(request, why, "asked", detail))
        except StoreError as error:
            answer = problem(503, "nothing was done: it could not be recorded", error.why, error.fix)
            await answer(request.scope, receive, send)
            return
        try:
            await self._app(request.scope, _replay(body, receive), heard.send)
        finally:
            await self._outcome(request, why, detail, heard.status)

    async def _outcome(self, request: _Asked, why: str, detail: str, status: int) -> None:
        """Record how a write ended; one whose answer is known keeps it, whatever becomes of the record."""
        word = "done" if status < 400 else "refused" if status < 500 else "failed"
        who = request.scope["state"].get("logged_in")
        if request.need is Need.ANYONE and not who:
            key = f"{request.source} {request.path} {status}"
            held_back = self._ports.repeats.tell(key, self._ports.clock_s())
            if held_back is None:
                return
            detail += f"{held_back} more like it since the last" if held_back else ""
        try:
            await self._ports.audit.append(self._deed(request, why, f"{word} {status}", detail, who))
        except StoreError as error:
            log.error("outcome not recorded", action=request.action, status=status, why=error.why)

    def _deed(self, request: _Asked, why: str, outcome: str, detail: str, who: Principal | None = None) -> Deed:
        who = who or request.visitor.principal
        name, role, credential = (who.name, who.role.value, who.credential) if who else ("anonymous", "", "")
        return Deed(
            self._ports.now(), clean(name), role, credential, clean(request.source), request.action, clean(why),
            outcome, clean(detail),
        )  # fmt: skip

    def _dressed(self, scope: Scope, send: Send) -> Send:
        """Have every answer carry the security headers."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("cache-control", "no-store")
                if self._ports.secure:
                    headers.setdefault("strict-transport-security", _HSTS)
            await send(message)

        return dressed


_WAYS_OUT = {
    401: ("reading needs a viewer's token, levers an operator's", "send `Authorization: Bearer TOKEN`, or log in"),
    403: ("", "ask an admin for a token that opens this: `controlplane token create`"),
    408: ("", "send it in one go"),
    413: ("", "send less"),
    429: ("", "wait as long as Retry-After says"),
}


class _Heard:
    """Passes an answer on and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def is_near(source: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request was made on this machine, for this machine.

    One that a proxy passed on is not, nor one under a foreign name: a page of another site whose name was made to
    lead here (DNS rebinding) has that site's name in its Host header.
    """
    if "forwarded" in headers or "x-forwarded-for" in headers:
        return False
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    return _is_loopback(source) and (host == "localhost" or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_origin(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser says that a request comes from a page of ours; what is no browser says nothing."""
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin", "")
    if site not in ("", "same-origin", "none"):
        return False
    return not origin or urlsplit(origin).netloc == headers.get("host", "")


def _knows(request: _Asked, body: bytes) -> bool:
    """Tell whether a request by cookie brings what only our own page could tell it."""
    brought = request.headers.get(CSRF_HEADER, "")
    if not brought and request.headers.get("content-type", "").startswith(FORM):
        try:
            brought = _fields(body).get(CSRF_FIELD, "")
        except ValueError:
            return False
    return same_text(brought, csrf_of(request.visitor.cookie))


def _fields(body: bytes) -> dict[str, str]:
    """Read a form.

    Raises:
        ValueError: when it has more fields than any form of ours.
    """
    found = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MAX_FIELDS)
    return {name: values[0] for name, values in found.items()}


async def _read(headers: Mapping[str, str], receive: Receive) -> bytes | None:
    """Read a body whole; None when it is too large, as soon as that shows."""
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return None
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the application the body that was read."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _said(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return why somebody asks, and what else they say that tells nothing secret: on whose behalf, and about what."""
    try:
        said = _fields(body) if headers.get("content-type", "").startswith(FORM) else json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return "", "the body cannot be read"
    if not isinstance(said, dict):
        return "", ""
    parts = [f"{name} {said[name]}" for name in _TOLD if isinstance(said.get(name), str | int | float)]
    return str(said.get("why", "")), "; ".join(parts)


_TOLD = ("who", "by", "requested_by", "experiment", "kind", "pool", "endpoints", "down_for", "for", "service", "to",
         "hold", "name", "role", "expires_in")  # fmt: skip
"""What the log keeps of a body: never all of it, so that no secret slips in."""


def _place(scope: Scope) -> str:
    """Return the path and the query that were asked for, as they came: a `+` that is decoded twice is a space."""
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _key(principal: Principal | None) -> str:
    return f"{principal.credential} {principal.name}" if principal else "anonymous"


def _article(who: Need | Role) -> str:
    return f"an {who}" if who.value[0] in "ao" else f"a {who}"
