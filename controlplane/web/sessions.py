"""Logging in to the console and out again, without a script.

A token is exchanged for a cookie that scripts cannot read and other sites cannot send (`HttpOnly`, `SameSite=Strict`),
under a name made anew at each login. Called by `app`; `guard` has looked at each request before.
"""

from collections.abc import Callable
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from controlplane.security.limits import Limiter
from controlplane.security.roles import Need, may
from controlplane.security.tokens import SESSION_LASTS, Principal
from controlplane.web.auth import Doorkeeper, Visitor
from controlplane.web.doors import login_html


def cookie_name(*, secure: bool) -> str:
    """Return the session cookie's name; under TLS one that browsers take from this very host only (`__Host-`)."""
    return "__Host-controlplane" if secure else "controlplane"


def local_path(text: str) -> str:
    """Return a path of ours to go on to after the login; the front page where the text is no such path."""
    usable = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if usable else "/"


def let_in(response: Response, cookie: str, *, secure: bool) -> None:
    """Put a session's cookie on an answer."""
    response.set_cookie(
        cookie_name(secure=secure), cookie, max_age=int(SESSION_LASTS.total_seconds()), path="/", secure=secure,
        httponly=True, samesite="strict",
    )  # fmt: skip


def add_sessions(
    app: FastAPI,
    keeper: Doorkeeper,
    failures: Limiter,
    clock_s: Callable[[], float],
    *,
    secure: bool,
    provider: str = "",
) -> None:
    """Add the routes.

    Args:
        app: the application.
        keeper: tells whose a token is, and keeps the sessions.
        failures: the attempts an address has left.
        clock_s: a clock that never goes back, in seconds.
        secure: whether we are reached by TLS.
        provider: the identity provider's name on the login page; empty without one.
    """
    name = cookie_name(secure=secure)

    def page(status: int, onward: str, said: str = "") -> HTMLResponse:
        return HTMLResponse(login_html(onward, said, provider), status)

    @app.get("/login", response_class=HTMLResponse, include_in_schema=False)
    async def form(request: Request) -> HTMLResponse:
        return page(200, local_path(request.query_params.get("next", "/")))

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        onward, source = local_path(fields.get("next", ["/"])[0]), request.state.source
        wait_s = failures.wait_s(source, clock_s())
        if wait_s:
            answer = page(429, onward, f"Too many wrong tokens from here. Try again in {int(wait_s) + 1} s.")
            answer.headers["retry-after"] = str(int(wait_s) + 1)
            return answer
        principal = await keeper.of_token(fields.get("token", [""])[0].strip())
        if principal is None or not may(principal.role, Need.VIEWER):
            failures.take(source, clock_s())
            return page(401, onward, "This token opens nothing here.")
        request.state.logged_in = principal
        inside = RedirectResponse(onward, 303)
        let_in(inside, await keeper.open_session(principal, request.cookies.get(name, "")), secure=secure)
        return inside

    _add_logout(app, keeper, secure=secure)


def _add_logout(app: FastAPI, keeper: Doorkeeper, *, secure: bool) -> None:
    @app.post("/logout", include_in_schema=False)
    async def logout(request: Request) -> Response:
        visitor: Visitor = request.state.visitor
        if visitor.cookie:
            request.state.logged_in = visitor.principal
            await keeper.close_session(visitor.cookie)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    @app.get("/api/v1/whoami", tags=["security"])
    async def whoami(request: Request) -> Principal | None:
        """Say who the credential of this request is, and what it may do."""
        visitor: Visitor = request.state.visitor
        return visitor.principal
