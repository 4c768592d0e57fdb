"""Asking once although one sends twice: what is kept of a write whose sender gave it an `Idempotency-Key`; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

KEPT = timedelta(hours=24)
"""How long a key is known."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One write as its sender marked it."""

    key: str
    """Of this sender alone: the hash of who it is and of the key that was given."""
    content: str
    """Hash of what is asked for: method, path and body."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What a write was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept under a key."""

    content: str
    answer: Answer | None
    """None while the write goes on, or when the process ended in the middle of it."""


class ReplayBook(Protocol):
    """Where keys are kept."""

    async def begin(self, sent: Sent) -> Known | None:
        """Keep a new key; what is kept under it already is returned instead. Keys that are too old are forgotten."""

    async def end(self, key: str, answer: Answer) -> None:
        """Keep what the write was answered."""

    async def forget(self, key: str) -> None:
        """Forget a key: its write failed, and may be sent again."""
