"""What the signals showed around an incident or a drill, small enough to be kept with it; pure.

A trace is one signal of one pool. It is thinned to the lowest and the highest value of each stretch of time, so that a
peak of a second is still there after hours; where a signal was unknown a gap stays a gap.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.signals.recording import ALERT, Point

MAX_POINTS = 160
"""Of one trace."""
MAX_TRACES = 40
"""Of one history: 40 x 160 values are about 150 kB."""
BEFORE = timedelta(minutes=2)
"""How much of the calm before is kept: what was usual is what the harm is seen against."""
AFTER = timedelta(minutes=1)

Trail = tuple[tuple[float, float | None], ...]
"""(Unix seconds, value in the signal's base unit or None while it was unknown), oldest first."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One signal of one pool over time."""

    pool: str
    signal: str
    points: Trail

    def at(self, moment: datetime) -> float | None:
        """Return the newest value at a moment; None where it was unknown, or nothing was recorded until then."""
        before = [value for at, value in self.points if at <= moment.timestamp()]
        return before[-1] if before else None

    @property
    def known(self) -> tuple[tuple[float, float], ...]:
        """The points that have a value."""
        return tuple((at, value) for at, value in self.points if value is not None)


History = tuple[Trace, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What a history is kept of."""

    about: str
    """The id of an incident or of a drill."""
    begun_at: datetime
    ended_at: datetime | None
    """None while it goes on."""

    def wanted(self, now: datetime) -> bool:
        """Tell whether its history still grows."""
        return self.ended_at is None or now <= self.ended_at + AFTER + timedelta(seconds=30)


class HistoryBook(Protocol):
    """Where histories are kept: the newest ones, and no more than it says."""

    async def keep(self, about: str, at: datetime, history: History) -> None:
        """Store the history of an incident or a drill in the place of the one there is."""

    async def history(self, about: str) -> History:
        """Return it; empty when none is kept."""


def compact(points: Iterable[Point], event: Event, signals: Iterable[str]) -> History:
    """Make a history of what was recorded.

    Args:
        points: oldest first, of any pool and signal.
        event: what it is about; points before and after its time are left out.
        signals: which are kept, the most telling first: with too many pools the last ones are left out.
    """
    since = (event.begun_at - BEFORE).timestamp()
    until = (event.ended_at + AFTER).timestamp() if event.ended_at else float("inf")
    rank = {name: place for place, name in enumerate(dict.fromkeys(signals))}
    found: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for point in points:
        at = point.at.timestamp()
        if point.pool != ALERT and point.signal in rank and since <= at <= until:
            found.setdefault((point.pool, point.signal), []).append((at, point.value))
    chosen = sorted(found, key=lambda key: (rank[key[1]], key[0]))[:MAX_TRACES]
    return tuple(Trace(pool, signal, thin(tuple(found[pool, signal]))) for pool, signal in chosen)


def merge(older: History, newer: History) -> History:
    """Put what was kept and what was recorded since together; where both have a time, the older has it."""
    traces: dict[tuple[str, str], Trace] = {(t.pool, t.signal): t for t in older}
    for trace in newer:
        kept = traces.get((trace.pool, trace.signal))
        last = kept.points[-1][0] if kept and kept.points else float("-inf")
        points = (*(kept.points if kept else ()), *(p for p in trace.points if p[0] > last))
        traces[trace.pool, trace.signal] = Trace(trace.pool, trace.signal, thin(points))
    return tuple(traces.values())[:MAX_TRACES]


def thin(points: Trail, limit: int = MAX_POINTS) -> Trail:
    """Thin a trail to so many points: of each stretch of time the lowest, the highest, and one gap if there was one."""
    if len(points) <= limit:
        return points
    first, last = points[0], points[-1]
    stretches = max(1, (limit - 2) // 3)
    width = (last[0] - first[0]) / stretches or 1.0
    kept: dict[int, list[tuple[float, float | None]]] = {}
    for point in points[1:-1]:
        kept.setdefault(min(int((point[0] - first[0]) / width), stretches - 1), []).append(point)
    thinned = [first]
    for _, stretch in sorted(kept.items()):
        known = [(at, value) for at, value in stretch if value is not None]
        ends: list[tuple[float, float | None]] = []
        if known:
            ends += {min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])}
        ends += [point for point in stretch if point[1] is None][:1]
        thinned += sorted(ends, key=lambda p: p[0])
    return (*thinned, last)


def pools_of(history: History, signal: str) -> Mapping[str, Trace]:
    """Return the traces of one signal by pool."""
    return {trace.pool: trace for trace in history if trace.signal == signal}
