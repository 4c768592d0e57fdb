"""Tokens, sessions, and what a request proves by them; the store keeps hashes only.

A token reads `cpt_<id>_<secret>`: the id finds its row, the secret's hash is compared in constant time. The secret has
256 random bits, so a plain SHA-256 is enough: stretching guards words that people choose, and would only slow every
request here.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.security.roles import Role

SHAPE = re.compile(r"cpt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
"""Id: 6 random bytes; secret: 32, in URL-safe Base64."""
FILE = "file"
"""Stands for the token's id where the credential is the token file of this machine's state directory."""
OIDC = "oidc"
"""Stands for it where an identity provider vouched."""

SESSION_LASTS = timedelta(hours=12)
"""A session ends after this, whatever happens: one shift."""
SESSION_IDLE = timedelta(hours=1)
"""It ends earlier when nobody opens a page or does anything for so long; what a page fetches by itself counts not."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request, as far as it is proven."""

    name: str
    role: Role
    credential: str
    """A token's id, `file` or `oidc:<subject>`; `session of ...` in a browser."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept: without its secret."""

    id: str
    name: str
    role: Role
    hashed: str
    """SHA-256 of the whole text, in hex."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""
    revoked_at: datetime | None = None
    revoked_by: str = ""

    def holds(self, now: datetime) -> bool:
        """Tell whether it still opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Session:
    """A person's visit to the console, as it is kept."""

    hashed: str
    """SHA-256 of the cookie, in hex."""
    name: str
    role: Role
    credential: str
    """What opened it: a token's id, `file-...` or `oidc:...`. A token that is revoked ends its sessions."""
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether it is neither over, idle for too long, nor ended by anybody."""
        return self.ended_at is None and now < self.expires_at and now - self.seen_at < SESSION_IDLE


class TokenBook(Protocol):
    """Where tokens are handed out and taken back."""

    async def add(self, token: Token) -> None:
        """Keep a new one."""

    async def every(self) -> tuple[Token, ...]:
        """Return all of them, the newest first."""

    async def revoke(self, token_id: str, at: datetime, by: str) -> bool:
        """End one and every session it opened; False when there is none that still holds."""


class TokenRing(Protocol):
    """Where a token that somebody shows is looked up."""

    async def find(self, token_id: str) -> Token | None:
        """Return one by its id."""

    async def used(self, token_id: str, at: datetime) -> None:
        """Record that a token was used."""


class SessionBook(Protocol):
    """Where sessions are kept."""

    async def begin(self, session: Session) -> None:
        """Keep a new one."""

    async def find(self, hashed: str) -> Session | None:
        """Return one by its cookie's hash."""

    async def seen(self, hashed: str, at: datetime) -> None:
        """Record that it was used."""

    async def end(self, hashed: str, at: datetime) -> None:
        """End one; one that has ended stays as it is."""


def spell(token_id: str, secret: str) -> str:
    """Write a token: what its owner keeps, shown once."""
    return f"cpt_{token_id}_{secret}"


def id_of(text: str) -> str | None:
    """Return the id in a token's text; None when it is no token of ours."""
    found = SHAPE.fullmatch(text)
    return found[1] if found else None


def digest(text: str) -> str:
    """Hash a secret for keeping and comparing: SHA-256 in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def same(presented: str, hashed: str) -> bool:
    """Tell whether a presented secret is the one of a hash; takes as long for a near miss as for a far one."""
    return hmac.compare_digest(digest(presented), hashed)


def csrf_of(cookie: str) -> str:
    """Return what a page of a session sends back with what it asks for; nobody without the cookie can know it."""
    return hmac.new(cookie.encode("utf-8", "surrogateescape"), b"controlplane console form", "sha256").hexdigest()


def same_text(presented: str, expected: str) -> bool:
    """Tell whether two texts are the same; takes as long for a near miss as for a far one."""
    return hmac.compare_digest(presented.encode("utf-8", "replace"), expected.encode())
