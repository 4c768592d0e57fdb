"""Doors for applications under test: the real doorkeeper and guard on books in memory, with a clock that tests turn."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from controlplane.security.chain import Break, Checked, Deed, Head, Link, against, extend, follow
from controlplane.security.limits import Limiter
from controlplane.security.replays import KEPT, Answer, Known, Sent
from controlplane.security.roles import Role, Scraping
from controlplane.security.tokens import Session, Token, digest, spell
from controlplane.web.api.admin import AdminPorts
from controlplane.web.auth import Keeper
from controlplane.web.guard import GuardPorts
from controlplane.web.once import Once
from controlplane.web.sessions import cookie_name

FILE_TOKEN = "a-token-of-the-operator"
NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def text_of(role: Role, number: int = 0) -> str:
    """Return the text of the token that `Doors` has for a role."""
    return spell(f"{list(Role).index(role):06x}{number:06x}", role.value.ljust(43, "x"))


@dataclass(slots=True)
class MemoryTokens:
    """Tokens in memory."""

    kept: dict[str, Token] = field(default_factory=dict)
    sessions: "MemorySessions | None" = None
    looked_up: int = 0

    async def add(self, token: Token) -> None:
        self.kept[token.id] = token

    async def find(self, token_id: str) -> Token | None:
        self.looked_up += 1
        return self.kept.get(token_id)

    async def every(self) -> tuple[Token, ...]:
        return tuple(self.kept.values())

    async def revoke(self, token_id: str, at: datetime, by: str) -> bool:
        token = self.kept.get(token_id)
        if token is None or token.revoked_at:
            return False
        self.kept[token_id] = replace(token, revoked_at=at, revoked_by=by)
        return True

    async def used(self, token_id: str, at: datetime) -> None:
        self.kept[token_id] = replace(self.kept[token_id], last_used_at=at)


@dataclass(slots=True)
class MemorySessions:
    """Sessions in memory."""

    kept: dict[str, Session] = field(default_factory=dict)

    async def begin(self, session: Session) -> None:
        self.kept[session.hashed] = session

    async def find(self, hashed: str) -> Session | None:
        return self.kept.get(hashed)

    async def seen(self, hashed: str, at: datetime) -> None:
        self.kept[hashed] = replace(self.kept[hashed], seen_at=at)

    async def end(self, hashed: str, at: datetime) -> None:
        if hashed in self.kept and self.kept[hashed].ended_at is None:
            self.kept[hashed] = replace(self.kept[hashed], ended_at=at)


@dataclass(slots=True)
class MemoryAudit:
    """An audit log in memory; `broken` raises instead of keeping anything."""

    links: list[Link] = field(default_factory=list)
    broken: Exception | None = None

    async def append(self, deed: Deed) -> Link:
        if self.broken:
            raise self.broken
        head = Head(self.links[-1].number, self.links[-1].hash) if self.links else Head()
        self.links.append(extend(head, deed))
        return self.links[-1]

    async def recent(self, limit: int, before: int | None) -> tuple[Link, ...]:
        return tuple([link for link in reversed(self.links) if before is None or link.number < before][:limit])

    async def check(self, noted: Head | None) -> Checked:
        head, breaks = follow(Head(), self.links)
        at_noted = next((link.hash for link in self.links if noted and link.number == noted.number), None)
        more: tuple[Break, ...] = against(head, head, noted, at_noted)
        return Checked(len(self.links), head, (*breaks, *more))

    @property
    def outcomes(self) -> list[tuple[str, str, str]]:
        """Who, what, and how it ended, oldest first."""
        return [(link.deed.who, link.deed.action, link.deed.outcome) for link in self.links]


@dataclass(slots=True)
class MemoryReplays:
    """Keys of writes in memory; `broken` raises instead of keeping any."""

    kept: dict[str, tuple[Sent, Answer | None]] = field(default_factory=dict)
    broken: Exception | None = None

    async def begin(self, sent: Sent) -> Known | None:
        if self.broken:
            raise self.broken
        self.kept = {key: one for key, one in self.kept.items() if one[0].at >= sent.at - KEPT}
        if sent.key in self.kept:
            before, answer = self.kept[sent.key]
            return Known(before.content, answer)
        self.kept[sent.key] = sent, None
        return None

    async def end(self, key: str, answer: Answer) -> None:
        self.kept[key] = self.kept[key][0], answer

    async def forget(self, key: str) -> None:
        self.kept.pop(key, None)


@dataclass(slots=True)
class Doors:
    """Everything that says who may come in."""

    now: datetime = NOW
    tokens: MemoryTokens = field(default_factory=MemoryTokens)
    sessions: MemorySessions = field(default_factory=MemorySessions)
    replays: MemoryReplays = field(default_factory=MemoryReplays)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    refused: list[int] = field(default_factory=list)
    secure: bool = False
    scraping: Scraping = Scraping.LOOPBACK
    writes: Limiter = field(default_factory=lambda: Limiter(per_s=20, burst=100))

    def __post_init__(self) -> None:
        """Hand out one token a role."""
        for role in Role:
            text = text_of(role)
            token = Token(text[4:16], f"the {role}", role, digest(text), self.now, "tests")
            self.tokens.kept[token.id] = token

    def pass_time(self, by: timedelta) -> None:
        """Turn the clock on."""
        self.now += by

    def clock_s(self) -> float:
        """Return the same clock as seconds."""
        return self.now.timestamp()

    def ports(self) -> tuple[GuardPorts, AdminPorts]:
        """Join them as `runtime.doors` does."""
        keeper = Keeper(
            self.tokens, self.sessions, FILE_TOKEN, cookie_name(secure=self.secure), lambda: self.now, self.clock_s
        )
        guard = GuardPorts(
            keeper, self.audit, lambda: self.now, self.clock_s, scraping=self.scraping, secure=self.secure,
            refused=self.refused.append, writes=self.writes,
            once=Once(self.replays, lambda: self.now),
        )  # fmt: skip
        return guard, AdminPorts(self.tokens, self.audit, keeper.forget, lambda: self.now)
