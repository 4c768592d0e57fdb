"""Keeping what the signals showed around incidents and drills while the recorder still has it in memory."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.chaos.drill import Drill
from controlplane.degradation.matrix import signals_of
from controlplane.errors import StoreError
from controlplane.incidents.history import AFTER, BEFORE, Event, History, HistoryBook, compact, merge
from controlplane.incidents.incident import Entry, Incident
from controlplane.policy.model import Policy
from controlplane.signals.recording import Point

KEEP_HISTORY_EVERY = timedelta(seconds=10)
LOOKED_AT = 8
"""How many of the newest drills, and of the newest incidents beside the open ones, may have just ended."""
GROWING_AT_MOST = 50
"""Histories that are kept at a time: each is written anew, and strangers' alerts may open any number of incidents."""
USERS_FEEL = ("availability", "error_rate", "latency_p99", "request_rate", "endpoints_down", "queue_depth")
"""Signals that every history has, whatever the rows look at."""

OpenFirst = Callable[[str, int], Awaitable[tuple[tuple[Incident, tuple[Entry, ...]], ...]]]
"""Gives every open incident of a service, then so many of the newest others."""


def signals_kept(policy: Policy) -> tuple[str, ...]:
    """Return the signals that a history keeps: what users feel, what rows trip by, what has a threshold."""
    tripped = (name for row in policy.degradation.rows.values() for name in signals_of(row.when))
    return tuple(dict.fromkeys((*USERS_FEEL, *tripped, *policy.thresholds)))


@dataclass(frozen=True, slots=True)
class Histories:
    """What the signals showed: kept, and not kept yet."""

    service: str
    signals: tuple[str, ...]
    book: HistoryBook
    recorded: Callable[[timedelta], tuple[Point, ...]]
    """What was recorded in the last so many minutes, oldest first."""
    incidents: OpenFirst
    drills: Callable[[int], Awaitable[tuple[Drill, ...]]]
    acting: Callable[[], bool]
    now: Callable[[], datetime]

    async def tick(self) -> None:
        """Keep the histories of what goes on, or has just ended; only the control plane in charge writes.

        Raises:
            StoreError: when the database refuses; a history that cannot be read now is not written over.
        """
        if not self.acting():
            return
        now = self.now()
        found = [of_drill(drill) for drill in await self.drills(LOOKED_AT)]
        found += [of_incident(i) for i, _ in await self.incidents(self.service, LOOKED_AT)]
        for event in [event for event in found if event.wanted(now)][:GROWING_AT_MOST]:
            kept = await self.book.history(event.about)
            await self.book.keep(event.about, now, self._grown(kept, event))

    async def of(self, event: Event) -> History:
        """Return the history of an incident or a drill: what is kept of it, and what was recorded since."""
        try:
            kept = await self.book.history(event.about)
        except StoreError:
            kept = ()
        return kept if kept and not event.wanted(self.now()) else self._grown(kept, event)

    def _grown(self, kept: History, event: Event) -> History:
        """Return a history with what was recorded since it was kept."""
        lasts = self.now() - event.begun_at + BEFORE + AFTER
        return merge(kept, compact(self.recorded(lasts), event, self.signals))


def of_incident(incident: Incident) -> Event:
    """Return an incident as something that a history is kept of."""
    return Event(incident.id, incident.detected_at, incident.resolved_at)


def of_drill(drill: Drill) -> Event:
    """Return a drill as something that a history is kept of."""
    return Event(drill.id, drill.started_at, drill.ended_at)
