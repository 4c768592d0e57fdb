"""Who sends a request, as far as it proves it: the state directory's token, a stored token, or a session's cookie.

A positive answer is remembered for two seconds, so that a page of many requests asks the store once; what is revoked
here is forgotten at once, what another control plane revokes at most two seconds later.
"""

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from starlette.datastructures import Headers

from controlplane.security.roles import Role
from controlplane.security.tokens import (
    FILE,
    OIDC,
    SESSION_LASTS,
    Principal,
    Session,
    SessionBook,
    TokenRing,
    digest,
    id_of,
    same,
)

REMEMBERED_S = 2.0
MARKED_EVERY = timedelta(minutes=1)
"""How exactly it is kept when a token or a session was used last."""
MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Visitor:
    """What a request proves."""

    principal: Principal | None = None
    cookie: str = ""
    """The session's, where that is the proof: such a request can come from a page that the person did not mean."""
    presented: bool = False
    """Whether it tried to prove anything."""


class Doorkeeper(Protocol):
    """Whoever tells who somebody is."""

    async def visitor(self, headers: Headers, *, active: bool) -> Visitor:
        """Say who sends a request; `active` when a person did, and not a page by itself."""

    async def of_token(self, text: str) -> Principal | None:
        """Say whose a token is; None when it opens nothing."""

    async def open_session(self, principal: Principal, instead_of: str) -> str:
        """Begin a session and return its cookie; the one whose cookie came with the login ends."""

    async def close_session(self, cookie: str) -> None:
        """End a session."""


class Keeper:
    """The doorkeeper of one control plane."""

    def __init__(
        self,
        ring: TokenRing,
        sessions: SessionBook,
        file_token: str,
        cookie_name: str,
        now: Callable[[], datetime],
        clock_s: Callable[[], float],
    ) -> None:
        """Join the books.

        Args:
            ring: where tokens are looked up.
            sessions: where the console's sessions are kept.
            file_token: the token in the state directory; whoever can read it is an admin.
            cookie_name: under which name the session travels.
            now: aware UTC time.
            clock_s: a clock that never goes back, in seconds.
        """
        self._ring = ring
        self._sessions = sessions
        self._file = digest(file_token)
        self._file_name = f"{FILE}-{self._file[:12]}"
        self._cookie_name = cookie_name
        self._now = now
        self._clock_s = clock_s
        self._known: dict[str, tuple[Principal, float]] = {}
        self._marked: dict[str, datetime] = {}
        self._seen: dict[str, datetime] = {}
        """When the sessions that are remembered were marked last: a page that polls keeps its session remembered."""

    def forget(self) -> None:
        """Ask the store again about everybody: something was revoked.

        What is being looked up now may have been read before that: it is remembered among those of before.
        """
        self._known = {}

    async def visitor(self, headers: Headers, *, active: bool) -> Visitor:
        """Say who sends a request.

        Raises:
            StoreError: when the store does not answer; the state directory's own token needs no store.
        """
        given = headers.get("authorization", "")
        if given:
            return Visitor(await self.of_token(secret_of(given)), presented=True)
        cookie = self.cookie(headers)
        if not cookie:
            return Visitor()
        principal = await self._of_session(cookie, active=active)
        return Visitor(principal, cookie if principal else "", presented=True)

    def cookie(self, headers: Headers) -> str:
        """Return the session's cookie among those that came."""
        found = (part.strip().partition("=") for part in ";".join(headers.getlist("cookie")).split(";"))
        return next((value for name, _, value in found if name == self._cookie_name), "")

    async def of_token(self, text: str) -> Principal | None:
        """Say whose a token is; None when it opens nothing.

        Raises:
            StoreError: when the store does not answer.
        """
        hashed = digest(text)
        if secrets.compare_digest(hashed, self._file):
            return Principal("local", Role.ADMIN, FILE)
        token_id = id_of(text)
        if token_id is None:
            return None
        known = self._remembered(hashed)
        if known:
            return known
        among = self._known
        token, now = await self._ring.find(token_id), self._now()
        if token is None or not same(text, token.hashed) or not token.holds(now):
            return None
        marked = self._marked.get(token_id, token.last_used_at)
        if marked is None or now - marked > MARKED_EVERY:
            self._marked[token_id] = now
            await self._ring.used(token_id, now)
        return self._remember(among, hashed, Principal(token.name, token.role, token.id))

    async def _of_session(self, cookie: str, *, active: bool) -> Principal | None:
        hashed, now = digest(cookie), self._now()
        known = self._remembered(hashed)
        if known is None:
            among = self._known
            session = await self._sessions.find(hashed)
            if session is None or not session.holds(now) or not await self._still(session.credential, now):
                return None
            principal = Principal(session.name, session.role, f"session of {session.credential}")
            known = self._remember(among, hashed, principal)
            self._seen[hashed] = session.seen_at
        if active and now - self._seen.get(hashed, now) > MARKED_EVERY:
            await self._sessions.seen(hashed, now)
            self._seen[hashed] = now
        return known

    async def _still(self, credential: str, now: datetime) -> bool:
        """Tell whether what opened a session would still open one."""
        if credential.startswith(FILE):
            return credential == self._file_name
        if credential.startswith(f"{OIDC}:"):
            return True  # The provider is not asked again: the session's length is how long it vouches.
        token = await self._ring.find(credential)
        return token is not None and token.holds(now)

    async def open_session(self, principal: Principal, instead_of: str) -> str:
        """Begin a session under a name that nobody can have planted, and end the one that came with the login.

        Returns:
            The cookie.
        """
        if instead_of:
            await self.close_session(instead_of)
        cookie, now = secrets.token_urlsafe(32), self._now()
        credential = self._file_name if principal.credential == FILE else principal.credential
        await self._sessions.begin(
            Session(digest(cookie), principal.name, principal.role, credential, now, now, now + SESSION_LASTS)
        )
        return cookie

    async def close_session(self, cookie: str) -> None:
        """End a session."""
        await self._sessions.end(digest(cookie), self._now())
        self.forget()

    def _remembered(self, hashed: str) -> Principal | None:
        principal, until_s = self._known.get(hashed, (None, 0.0))
        return principal if self._clock_s() < until_s else None

    def _remember(self, among: dict[str, tuple[Principal, float]], hashed: str, principal: Principal) -> Principal:
        """Remember somebody among those who were known when the look-up began: in vain where that was forgotten."""
        if len(among) >= MOST_REMEMBERED:
            among.clear()
            self._seen.clear()
        among[hashed] = principal, self._clock_s() + REMEMBERED_S
        return principal


def secret_of(authorization: str) -> str:
    """Return the token in an Authorization header: a bearer, or basic's password whatever the user's name."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
