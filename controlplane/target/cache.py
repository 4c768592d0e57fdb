"""The response cache itself: answers in memory, tiers behind it, and how long each answer is kept.

``cache_server`` puts it behind HTTP. What counts as the same question is ``cache_key``'s business.
"""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from cachetools import TLRUCache

from controlplane.target.cache_key import Question
from controlplane.target.cache_tiers import Guarded

MOST_WAITING_WRITES = 1_000
"""Answers that may wait to be written to the tiers; beyond it the write is dropped and counted."""
MOST_ASKED = 5_000
"""Questions whose asks are counted."""
ASKED_KEY = "asked"
"""Under which the tiers keep the counted questions."""
ASKED_TTL_S = 30 * 24 * 3600.0


@dataclass(slots=True)
class Entry:
    """One stored answer; hits and expiry change in place, because every hit passes here."""

    key: str
    path: str
    body: dict[str, Any]
    """The request that was answered."""
    answer: dict[str, Any]
    """The whole answer, as it would be without streaming."""
    family: str
    text: str
    """The normalised prompt."""
    stored_at: float
    """Unix seconds."""
    expires_at: float
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An answer and where it was."""

    entry: Entry
    tier: str
    ratio: float = 1.0
    """Similarity of its prompt to the one asked; 1 is the same."""


class Near(Protocol):
    """Finds the stored prompt that is nearly another."""

    def add(self, key: str, family: str, text: str) -> None:
        """Remember a prompt."""

    def discard(self, key: str) -> None:
        """Forget a prompt."""

    def nearest(self, family: str, text: str) -> tuple[str, float] | None:
        """Return (key, similarity) of the most similar prompt."""


def ttl_s(hits: int, first_s: float, longest_s: float) -> float:
    """Return how long an answer is kept after its last lengthening: doubled with each doubling of its hits."""
    doublings: int = math.ceil(math.log2(hits + 1))
    return float(min(first_s * 2**doublings, longest_s))


class ResponseCache:
    """Answers by question."""

    def __init__(
        self,
        tiers: Sequence[Guarded],
        *,
        entries: int,
        first_ttl_s: float,
        longest_ttl_s: float,
        near: Near | None,
        now: Callable[[], float],
        dropped: Callable[[], None],
    ) -> None:
        """Make an empty cache.

        Args:
            tiers: where to look after memory, in order.
            entries: answers held in memory.
            first_ttl_s: life of an answer that nobody asks for.
            longest_ttl_s: the longest life.
            near: finds nearly equal prompts; None matches none.
            now: unix seconds.
            dropped: told of each write to the tiers that had no room to wait.
        """
        self._tiers = tiers
        self._ttl = (first_ttl_s, longest_ttl_s)
        self._near = near
        self._now = now
        self._dropped = dropped
        self._memory: TLRUCache[str, Entry] = _Memory(entries, now, near)
        self._writes: asyncio.Queue[Entry] = asyncio.Queue(MOST_WAITING_WRITES)
        self._carried: Entry | None = None
        self._asked: dict[str, tuple[int, str, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._memory)

    async def find(self, asked: Question) -> Found | None:
        """Return the stored answer to a question: from memory, a tier, or of a nearly equal prompt."""
        found = await self._find_key(asked.key)
        if found is None and self._near is not None and asked.near:
            nearest = self._near.nearest(asked.family, asked.text)
            similar = await self._find_key(nearest[0]) if nearest else None
            if nearest and similar:
                found = replace(similar, ratio=nearest[1])
        return self._hit(found) if found else None

    def store(self, asked: Question, answer: Mapping[str, Any]) -> None:
        """Keep an answer: in memory now, in the tiers in the background."""
        now = self._now()
        old = self._memory.get(asked.key)
        hits = old.hits if old else 0
        entry = Entry(
            key=asked.key,
            path=asked.path,
            body={**asked.body, "stream": False},
            answer=dict(answer),
            family=asked.family,
            text=asked.text,
            stored_at=now,
            expires_at=now + ttl_s(hits, *self._ttl),
            hits=hits,
        )
        self._remember(entry)
        self._write_later(entry)

    def note(self, asked: Question) -> None:
        """Count that a question was asked."""
        count = self._asked.get(asked.key, (0, "", {}))[0]
        self._asked[asked.key] = (count + 1, asked.path, {**asked.body, "stream": False})
        if len(self._asked) > 2 * MOST_ASKED:
            self._asked = dict(sorted(self._asked.items(), key=_count, reverse=True)[:MOST_ASKED])

    def most_asked(self, top: int) -> list[tuple[str, dict[str, Any]]]:
        """Return (path, body) of the questions asked most often."""
        ranked = sorted(self._asked.items(), key=_count, reverse=True)[:top]
        return [(path, body) for _, (_, path, body) in ranked]

    async def write_behind(self) -> None:
        """Carry answers to the tiers, for ever."""
        while True:
            await self._carry(await self._writes.get())

    async def save_asked(self) -> None:
        """Have the tiers keep the counted questions, so that the next process knows them."""
        ranked = dict(sorted(self._asked.items(), key=_count, reverse=True)[:MOST_ASKED])
        if ranked:
            await self._write(ASKED_KEY, ranked, ASKED_TTL_S)

    async def load(self) -> int:
        """Take the counted questions from the tiers, and the answers to the most asked into memory.

        Returns:
            The number of answers taken.
        """
        for tier in self._tiers:
            try:
                asked = json.loads(await tier.get(ASKED_KEY) or b"{}")
                found = {key: (int(count), str(path), dict(body)) for key, (count, path, body) in asked.items()}
            except (ValueError, TypeError, AttributeError):
                continue
            if found:
                self._asked = found
                break
        ranked = sorted(self._asked.items(), key=_count, reverse=True)[: int(self._memory.maxsize)]
        for key, _ in reversed(ranked):
            await self._find_key(key)
        return len(self._memory)

    async def close(self) -> None:
        """Write what still waits and what was on its way, and close the tiers; nobody writes behind any more."""
        if self._carried is not None:
            await self._carry(self._carried)
        while not self._writes.empty():
            await self._carry(self._writes.get_nowait())
        await self.save_asked()
        for tier in self._tiers:
            await tier.close()

    async def _find_key(self, key: str) -> Found | None:
        entry = self._memory.get(key)
        if entry is not None:
            return Found(entry, "memory")
        for tier in self._tiers:
            entry = _decoded(await tier.get(key))
            if entry is not None and entry.expires_at > self._now():
                self._remember(entry)
                return Found(entry, tier.name)
        return None

    def _hit(self, found: Found) -> Found:
        """Count a hit. Each doubling of the hits makes the answer live longer, in the tiers too."""
        entry = found.entry
        entry.hits += 1
        if entry.hits & (entry.hits - 1) == 0:
            entry.expires_at = self._now() + ttl_s(entry.hits, *self._ttl)
            self._remember(entry)
            self._write_later(entry)
        return found

    def _remember(self, entry: Entry) -> None:
        self._memory[entry.key] = entry
        if self._near is not None:
            self._near.add(entry.key, entry.family, entry.text)

    def _write_later(self, entry: Entry) -> None:
        try:
            self._writes.put_nowait(entry)
        except asyncio.QueueFull:
            self._dropped()

    async def _carry(self, entry: Entry) -> None:
        """Write an answer to the tiers; who is stopped on the way leaves it noted as carried."""
        self._carried = entry
        await self._write(entry.key, asdict(entry), max(entry.expires_at - self._now(), 1.0))
        self._carried = None

    async def _write(self, key: str, content: Mapping[str, Any], ttl: float) -> None:
        raw = json.dumps(content, separators=(",", ":")).encode()
        for tier in self._tiers:
            await tier.put(key, raw, ttl)


class _Memory(TLRUCache[str, Entry]):
    """The newest answers: the least recently used leaves first, an expired one at its time."""

    def __init__(self, entries: int, now: Callable[[], float], near: Near | None) -> None:
        super().__init__(entries, ttu=lambda _key, entry, _now: entry.expires_at, timer=now)
        self._near = near

    def popitem(self) -> tuple[str, Entry]:
        """Drop the least recently used answer."""
        key, entry = super().popitem()
        if self._near is not None:
            self._near.discard(key)
        return key, entry

    def expire(self, time: float | None = None) -> list[tuple[str, Entry]]:
        """Drop the answers whose time is over."""
        gone = super().expire(time)
        if self._near is not None:
            for key, _ in gone:
                self._near.discard(key)
        return gone


def _count(item: tuple[str, tuple[int, str, dict[str, Any]]]) -> int:
    return item[1][0]


def _decoded(raw: bytes | None) -> Entry | None:
    """Read what a tier gave; what cannot be read, or has another form, is as good as nothing."""
    if raw is None:
        return None
    try:
        return Entry(**json.loads(raw))
    except (ValueError, TypeError):
        return None
