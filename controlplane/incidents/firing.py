"""What fires by our books: counted by name as it changes, and held against what Alertmanager lists; pure.

`flows/intake` and `flows/reconcile` keep the tally; `runtime/alerts` asks it for the matrix.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.incidents.alert import Alert, Source, Status

Kind = tuple[str, str, Source]
"""Name, service and source: what alerts of one kind have in common."""

WATCHDOG = "Watchdog"
"""The alert that always fires, so that its silence says that alerts no longer arrive."""
EVALUATED_AT = "evaluated_at"
"""Its annotation that says when it was last evaluated (Unix seconds): then every repetition is measured, not only the
first telling. `expr: vector(time())` with `evaluated_at: "{{ $value }}"` gives it."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What one telling changed in the books."""

    fingerprint: str
    name: str
    service: str
    source: Source
    was: Status | None
    """None for an alert that was never heard of."""
    status: Status

    @property
    def firing_by(self) -> int:
        """By how many more of its kind fire: 1, 0 or -1."""
        return (self.status is Status.FIRING) - (self.was is Status.FIRING)


class AlertInbox(Protocol):
    """Where alerts are written down before they are acknowledged."""

    async def keep(self, told: tuple[Alert, ...], at: datetime, asked_at: datetime | None = None) -> tuple[Change, ...]:
        """Write tellings down, all or none; on disk when this returns.

        Args:
            told: one telling an alert, in the order of the fingerprints (`alert.latest`).
            at: now.
            asked_at: when Alertmanager was asked what fires, where these are its answer: what it lists fires, even if
                its end was told before that moment; it then begins anew at that moment, unless it has a later start.

        Returns:
            What changed; a telling that says nothing new is not among it.

        Raises:
            StoreError: when nothing was written.
        """

    async def keep_next(self, gather: Callable[[], tuple[tuple[Alert, ...], datetime]]) -> tuple[Change, ...]:
        """Write down, as `keep` does, what is gathered when the turn has come.

        Args:
            gather: returns tellings, maybe none, and now. Called when nothing else is being written, maybe in another
                thread; again, for the same tellings, where the database has called the transaction off.
        """

    async def tally(self) -> Mapping[Kind, int]:
        """Return how many fire of each kind."""


class AlertBook(AlertInbox, Protocol):
    """Everything that is written down of alerts."""

    async def heard_at(self, name: str) -> Mapping[Source, datetime]:
        """Return when alerts of a name changed last, by who told of them."""

    async def firing(self, source: Source) -> Mapping[str, datetime]:
        """Return when each alert of a source that fires changed last, by fingerprint."""

    async def end(self, fingerprints: tuple[str, ...], at: datetime, asked_at: datetime) -> tuple[Change, ...]:
        """Write down that alerts fire no longer; one that was told of after `asked_at` is left alone."""

    async def forget(self, before: datetime, at_most: int) -> int:
        """Drop what ended before a moment, and the oldest of what ended beyond a number; return how many went."""


class Tally:
    """How many alerts of each kind fire; as large as there are kinds, however many fire."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._names: dict[tuple[str, tuple[Source, ...]], frozenset[str]] = {}

    def reset(self, counts: Mapping[Kind, int]) -> None:
        """Take over what the books say."""
        self._counts = {kind: count for kind, count in counts.items() if count > 0}
        self._names.clear()

    def take(self, changes: Iterable[Change]) -> bool:
        """Take changes in; tell whether a kind began or ceased to fire by them."""
        moved = False
        for change in changes:
            by = change.firing_by
            if not by:
                continue
            kind = (change.name, change.service, change.source)
            count = self._counts.get(kind, 0)
            if count + by > 0:
                self._counts[kind] = count + by
            else:
                self._counts.pop(kind, None)
            moved = moved or (count > 0) != (count + by > 0)
        if moved:
            self._names.clear()
        return moved

    def names(self, service: str, sources: tuple[Source, ...] = tuple(Source)) -> frozenset[str]:
        """Return the names of what fires for a service, or for no service, by whoever told of it."""
        key = (service, sources)
        if key not in self._names:
            self._names[key] = frozenset(
                name for name, of, source in self._counts if of in ("", service) and source in sources
            )
        return self._names[key]


@dataclass(frozen=True, slots=True)
class Differences:
    """Where the books and Alertmanager do not agree."""

    unheard: tuple[Alert, ...]
    """What fires there and not by our books, in the order of the fingerprints."""
    absent: frozenset[str]
    """Fingerprints of what fires by our books and not there."""


def compare(books: Mapping[str, datetime], listed: Iterable[Alert], asked_at: datetime) -> Differences:
    """Hold the books against a listing.

    Args:
        books: when each alert that fires by the books changed last, by fingerprint.
        listed: what fires in Alertmanager.
        asked_at: when it was asked; what was told of since is newer than its answer.
    """
    there = {alert.fingerprint: alert for alert in listed}
    unheard = tuple(there[fingerprint] for fingerprint in sorted(there.keys() - books.keys()))
    absent = frozenset(f for f, changed in books.items() if f not in there and changed < asked_at)
    return Differences(unheard, absent)


def way_s(alert: Alert, now: datetime, *, new: bool) -> float | None:
    """Return how long a watchdog was on its way from Prometheus to us, in seconds; None where it does not tell.

    Args:
        alert: a telling of it.
        now: aware UTC.
        new: whether it is the first of its episode; without the annotation only that one says when it was sent.
    """
    try:
        evaluated = float(alert.annotations[EVALUATED_AT])
    except (KeyError, ValueError):
        return (now - alert.starts_at).total_seconds() if new else None
    way = now.timestamp() - evaluated
    return way if way == way and abs(way) != float("inf") else None  # noqa: PLR0124 - NaN
