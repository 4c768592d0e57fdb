"""Logging in with an identity provider: the browser is sent there and comes back with a code. Called by `app`.

What must be remembered in between travels in a cookie of its own, sealed, so that any control plane behind one address
can finish what another began. That cookie is `SameSite=Lax`: the way back begins on the provider's page. The session's
own stays `Strict`, which is why the login ends on a page of ours that goes on by itself.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from controlplane.errors import ControlplaneError
from controlplane.security.tokens import Principal, same_text
from controlplane.web.auth import Doorkeeper
from controlplane.web.doors import login_html, onward_html
from controlplane.web.sessions import cookie_name, let_in, local_path

PENDING = "controlplane-login"
PENDING_S = 600
"""So long a person has for logging in over there, in seconds."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that was begun."""

    state: str
    """Comes back with the code; ties the answer to the browser that asked."""
    nonce: str
    """Comes back inside the signed token; ties the token to this login."""
    verifier: str
    """Proves to the provider that who brings the code is who asked for it (PKCE)."""
    onward: str
    """The page of ours that comes after it."""
    until_s: float
    """Unix seconds."""


class IdentityProvider(Protocol):
    """Whoever vouches for people."""

    @property
    def name(self) -> str:
        """What it is called on the login page."""

    @property
    def seal_key(self) -> bytes:
        """Seals what travels with the browser; the same for every control plane of one client."""

    async def begin(self, redirect: str, onward: str) -> tuple[str, Begun]:
        """Return where the browser goes to, and what must be remembered until it is back."""

    async def finish(self, code: str, redirect: str, begun: Begun) -> Principal:
        """Exchange the code for who it is; raises `ControlplaneError` for one who may not come in."""


@dataclass(frozen=True, slots=True)
class OidcPorts:
    """What logging in with a provider needs."""

    provider: IdentityProvider
    redirect: str
    """The address of `/oidc/callback` as the provider knows it."""
    unix_s: Callable[[], float]
    """The time, in Unix seconds."""


def add_oidc(app: FastAPI, keeper: Doorkeeper, ports: OidcPorts, *, secure: bool) -> None:
    """Add the routes.

    Args:
        app: the application.
        keeper: keeps the sessions.
        ports: the provider, and how it reaches us.
        secure: whether we are reached by TLS.
    """
    provider = ports.provider

    @app.get("/oidc/start", include_in_schema=False)
    async def start(request: Request) -> Response:
        try:
            there, begun = await provider.begin(ports.redirect, local_path(request.query_params.get("next", "/")))
        except ControlplaneError as error:
            return HTMLResponse(login_html("/", f"{error.what}: {error.why}", provider.name), 503)
        answer = RedirectResponse(there, 303)
        answer.set_cookie(
            PENDING, sealed(begun, provider.seal_key), max_age=PENDING_S, path="/oidc", secure=secure, httponly=True,
            samesite="lax",
        )  # fmt: skip
        return answer

    @app.get("/oidc/callback", include_in_schema=False)
    async def callback(request: Request) -> Response:
        asked = request.query_params
        begun = opened(request.cookies.get(PENDING, ""), provider.seal_key)
        if begun is None or ports.unix_s() > begun.until_s or not same_text(asked.get("state", ""), begun.state):
            return _refused(401, "This login was not begun here, or took too long. Begin anew.", provider)
        if "code" not in asked:
            why = asked.get("error", "no reason given")
            return _refused(401, f"{provider.name} did not let you in: {why}", provider)
        try:
            principal = await provider.finish(asked["code"], ports.redirect, begun)
        except ControlplaneError as error:
            return _refused(403, f"{error.what}: {error.why}", provider)
        request.state.logged_in = principal
        answer = HTMLResponse(onward_html(begun.onward))
        old = request.cookies.get(cookie_name(secure=secure), "")
        let_in(answer, await keeper.open_session(principal, old), secure=secure)
        answer.delete_cookie(PENDING, path="/oidc", secure=secure, httponly=True, samesite="lax")
        return answer


def _refused(status: int, said: str, provider: IdentityProvider) -> Response:
    answer = HTMLResponse(login_html("/", said, provider.name), status)
    answer.delete_cookie(PENDING, path="/oidc")
    return answer


def sealed(begun: Begun, key: bytes) -> str:
    """Write what must be remembered so that nobody can change it unnoticed."""
    text = base64.urlsafe_b64encode(json.dumps(asdict(begun)).encode()).decode()
    return f"{text}.{hmac.new(key, text.encode(), 'sha256').hexdigest()}"


def opened(text: str, key: bytes) -> Begun | None:
    """Read it again; None where it is not as it was written."""
    body, _, seal = text.partition(".")
    if not same_text(seal, hmac.new(key, body.encode(), "sha256").hexdigest()):
        return None
    try:
        return Begun(**json.loads(base64.urlsafe_b64decode(body)))
    except (ValueError, TypeError, binascii.Error):
        return None
