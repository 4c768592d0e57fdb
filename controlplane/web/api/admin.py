"""Handing out tokens and reading the audit log: for admins. Called by `app`."""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.errors import UsageError
from controlplane.policy import quantity
from controlplane.security.chain import NOTHING, AuditBook, Checked, Head, Link
from controlplane.security.roles import Role
from controlplane.security.tokens import Principal, Token, TokenBook, digest, spell
from controlplane.web.answers import json_answer
from controlplane.web.paging import After, Limit, page_of, read_key, sliced, spell_key
from controlplane.web.shapes import gives, pages

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,127}$"
LAST = 2**31 - 1
NOTED = r"^[0-9]{1,18}:[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class AdminPorts:
    """What an admin may ask for."""

    tokens: TokenBook
    audit: AuditBook
    forget: Callable[[], None]
    """Has the doorkeeper look again: something was revoked."""
    now: Callable[[], datetime]


class CreateToken(BaseModel):
    """The body of a request to hand out a token."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    role: Role
    expires_in: str | None = None
    """A duration such as `90d`; none for a token that holds until it is revoked."""


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token without its secret."""

    id: str
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str


@dataclass(frozen=True, slots=True)
class Handed(TokenView):
    """A token that was just handed out."""

    token: str
    """Its secret, shown this once."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Which token was taken back."""

    revoked: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit log."""

    number: int
    at: datetime
    who: str
    role: str
    credential: str
    source: str
    action: str
    why: str
    outcome: str
    detail: str
    before: str
    """The hash of the row before."""
    hash: str


def add_admin(app: FastAPI, ports: AdminPorts) -> None:
    """Add the routes."""
    _tokens(app, ports)
    _audit(app, ports)


def _tokens(app: FastAPI, ports: AdminPorts) -> None:
    @app.post(
        "/api/v1/tokens",
        status_code=201,
        tags=["security"],
        responses=gives(Handed, 201, "Handed out; `token` is the secret."),
    )
    async def create(request: Request, body: CreateToken) -> JSONResponse:
        """Hand out a token; its secret is in this answer, and never shown again."""
        by, now = _principal(request), ports.now()
        lasts = _lasts(body.expires_in)
        token_id = secrets.token_hex(6)
        text = spell(token_id, secrets.token_urlsafe(32))
        token = Token(token_id, body.name, body.role, digest(text), now, by.name, now + lasts if lasts else None)
        await ports.tokens.add(token)
        return json_answer(Handed(token=text, **_shown(token)), 201)

    @app.get("/api/v1/tokens", tags=["security"], responses=pages(TokenView))
    async def tokens(request: Request, limit: Limit = 500, after: After = "") -> JSONResponse:
        """List every token that was handed out, without its secret; the newest first."""
        every = [TokenView(**_shown(token)) for token in await ports.tokens.every()]
        found = sliced(every, limit, after, lambda token: token.id)
        return page_of(request, found, limit, lambda token: spell_key(token.id))

    @app.post("/api/v1/tokens/{token_id}/revoke", tags=["security"], responses=gives(Revoked))
    async def revoke(request: Request, token_id: Annotated[str, UrlPath(pattern="^[0-9a-f]{12}$")]) -> JSONResponse:
        """End a token and every session that it opened, now."""
        done = await ports.tokens.revoke(token_id, ports.now(), _principal(request).name)
        ports.forget()
        if not done:
            raise HTTPException(404, f"no token {token_id} that still holds")
        return json_answer(Revoked(token_id))


def _lasts(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return quantity.duration(text)
    except ValueError as error:
        raise UsageError(f"`{text}` is no duration", f"expected {error}", "write one such as 90d") from error


def _principal(request: Request) -> Principal:
    found: Principal = request.state.visitor.principal
    return found


def _shown(token: Token) -> dict[str, Any]:
    return {name: getattr(token, name) for name in Token.__slots__ if name != "hashed"}


def _audit(app: FastAPI, ports: AdminPorts) -> None:
    @app.get("/api/v1/audit", tags=["security"], responses=pages(AuditRow))
    async def audit(
        request: Request,
        limit: Limit = 100,
        after: After = "",
        before: Annotated[int | None, Query(ge=1, le=LAST, description="Rows with a lower number than this.")] = None,
    ) -> JSONResponse:
        """List the newest rows of the audit log first."""
        found = await ports.audit.recent(limit + 1, _number(after) or before)
        rows = [AuditRow(**_row(link)) for link in found]
        return page_of(request, rows, limit, lambda row: spell_key(str(row.number)))

    @app.get("/api/v1/audit/check", tags=["security"], responses=gives(Mapping[str, object]))
    async def check(noted: Annotated[str, Query(max_length=100)] = "") -> JSONResponse:
        """Follow the log's chain and name every place where it breaks; `noted` is a head known from elsewhere."""
        return json_answer(spell_checked(await ports.audit.check(read_head(noted))))


def _number(after: str) -> int | None:
    """Read behind which row a page begins.

    Raises:
        UsageError: when it is not what an earlier page gave.
    """
    key = read_key(after)
    if key and not re.fullmatch(r"[1-9][0-9]{0,8}", key):
        raise UsageError("no such page", "`after` names no row", "follow the `Link` of each answer")
    return int(key) if key else None


def read_head(text: str) -> Head | None:
    """Read a head as `NUMBER:HASH`; None from an empty text.

    Raises:
        UsageError: when it is neither.
    """
    if not re.fullmatch(NOTED, text or f"0:{NOTHING}"):
        raise UsageError(f"`{text}` is no head", "it is a row's number and its hash", "write NUMBER:HASH")
    number, _, sealed = text.partition(":")
    return Head(int(number), sealed) if text else None


def spell_checked(checked: Checked) -> dict[str, Any]:
    """Write what a check found as the API answers it."""
    head = f"{checked.head.number}:{checked.head.hash}"
    breaks = [{"number": found.number, "what": found.what} for found in checked.breaks]
    return {"rows": checked.rows, "head": head, "holds": not breaks, "breaks": breaks}


def _row(link: Link) -> dict[str, Any]:
    said = {name: getattr(link.deed, name) for name in type(link.deed).__slots__}
    return {"number": link.number, **said, "before": link.before, "hash": link.hash}
