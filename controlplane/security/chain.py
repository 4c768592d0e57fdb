"""The audit log's chain: every row carries the hash of the one before, so that no row can change unnoticed.

A row's hash is SHA-256 over its number, the hash before it, and everything it says, written as one JSON array (which
reads back in one way only, so that no two rows share a text). Whoever can write the whole database can forge a whole
new chain; that shows against a head that was noted elsewhere, which is why the server logs every new one.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

NOTHING = "0" * 64
"""Stands before the first row."""
LONGEST = 1000
"""Characters of one field; what is longer is cut before it is sealed."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was asked for, answered or refused."""

    at: datetime
    """Aware."""
    who: str
    role: str
    credential: str
    source: str
    """The address it came from."""
    action: str
    """Such as `POST /api/v1/pins/P1`."""
    why: str
    outcome: str
    """`asked`, `done 201`, `refused 403`, `failed 500`."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the log."""

    number: int
    """1, 2, 3 ... without gaps."""
    deed: Deed
    before: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends."""

    number: int = 0
    hash: str = NOTHING


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the chain does not hold."""

    number: int
    """The row it shows at."""
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of the log found."""

    rows: int
    head: Head
    breaks: tuple[Break, ...]


class AuditBook(Protocol):
    """Where the log is kept."""

    async def append(self, deed: Deed) -> Link:
        """Add a row behind the last one; several control planes on one database make one chain."""

    async def recent(self, limit: int, before: int | None) -> tuple[Link, ...]:
        """Return the newest rows first, those below a number where one is given."""

    async def check(self, noted: Head | None) -> Checked:
        """Follow the whole chain, and hold it against a head that was noted elsewhere."""


def clean(text: str) -> str:
    """Make a text that people or machines sent fit for any database: no NUL, no half characters, not endless."""
    return text[:LONGEST].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def seal(number: int, deed: Deed, before: str) -> str:
    """Return the hash of a row: 64 hex digits."""
    said = (deed.who, deed.role, deed.credential, deed.source, deed.action, deed.why, deed.outcome, deed.detail)
    at = deed.at.astimezone(UTC).isoformat(timespec="microseconds")
    text = json.dumps([number, before, at, *said], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def extend(head: Head, deed: Deed) -> Link:
    """Make the row that comes behind a head."""
    number = head.number + 1
    return Link(number, deed, head.hash, seal(number, deed, head.hash))


def follow(head: Head, links: Iterable[Link]) -> tuple[Head, tuple[Break, ...]]:
    """Follow some rows from where the chain was left off.

    Args:
        head: the last row that was looked at.
        links: the rows behind it, by their numbers.

    Returns:
        The last row now, and every place where the chain does not hold. A row that was changed is named itself; one
        that was taken away or put in another's place is named by the row behind it.
    """
    breaks: list[Break] = []
    for link in links:
        if link.number != head.number + 1:
            breaks.append(Break(link.number, _gap(head.number + 1, link.number - 1)))
        elif link.before != head.hash:
            breaks.append(Break(link.number, f"row {head.number} is not the one that row {link.number} was put behind"))
        if seal(link.number, link.deed, link.before) != link.hash:
            breaks.append(Break(link.number, f"row {link.number} was changed after it was written"))
        head = Head(link.number, link.hash)
    return head, tuple(breaks)


def against(head: Head, kept: Head, noted: Head | None, at_noted: str | None) -> tuple[Break, ...]:
    """Hold the chain's end against the head that is kept beside it, and against one that was noted elsewhere.

    Args:
        head: the last row there is.
        kept: the head the store keeps.
        noted: one that somebody wrote down or found in the server's log.
        at_noted: the hash of the row with the noted number; None when there is none.
    """
    breaks: list[Break] = []
    if kept.number > head.number:
        breaks.append(Break(head.number, _gap(head.number + 1, kept.number)))
    elif kept != head:
        breaks.append(Break(head.number, f"the log ends at row {head.number}, its head says {kept.number}"))
    if noted and noted.number and at_noted != noted.hash:
        gone = at_noted is None
        what = f"row {noted.number} was noted elsewhere and is {'missing' if gone else 'another one now'}"
        breaks.append(Break(noted.number, what))
    return tuple(breaks)


def _gap(first: int, last: int) -> str:
    if first > last:
        return "rows stand out of order"
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
