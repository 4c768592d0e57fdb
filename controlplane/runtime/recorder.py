"""The last minutes of every signal, kept in memory, so that an incident can be replayed once it is over."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.degradation.matrix import Alerts
from controlplane.signals.recording import ALERT, Point
from controlplane.slo.verdict import Verdict

KEPT = timedelta(minutes=30)
MAX_POINTS = 300_000
"""About 60 MB; the oldest go first."""
AGAIN_AFTER = timedelta(seconds=2)
"""A value that has not changed is written again after so long: a recording that is silent means unknown."""


class Recorder:
    """Keeps what was judged."""

    def __init__(self, now: Callable[[], datetime], alerts: Callable[[], Alerts] = frozenset) -> None:
        self._now = now
        self._alerts = alerts
        self._points: deque[Point] = deque(maxlen=MAX_POINTS)
        self._newest: dict[tuple[str, str], Point] = {}
        self._firing: frozenset[str] = frozenset()

    def judged(self, verdicts: Mapping[str, Verdict]) -> None:
        """Take one evaluation in: what changed, and what has not been written for a while."""
        now = self._now()
        for pool, verdict in verdicts.items():
            for seen in verdict.evidence:
                point = Point(now, pool, seen.signal, seen.value, seen.samples)
                last = self._newest.get((pool, seen.signal))
                if last is None and seen.value is None:
                    continue
                if last is None or last.value != point.value or (seen.value is not None and _old(last, now)):
                    self._newest[pool, seen.signal] = point
                    self._points.append(point)
        firing = frozenset(self._alerts() or ())
        for name in firing ^ self._firing:
            self._points.append(Point(now, ALERT, name, float(name in firing)))
        self._firing = firing
        while self._points and now - self._points[0].at > KEPT:
            self._points.popleft()

    def points(self, lasts: timedelta) -> tuple[Point, ...]:
        """Return what was recorded in the last so many minutes, oldest first."""
        since = self._now() - lasts
        before = [point for point in self._points if point.pool == ALERT and point.at < since]
        firing = {point.signal: point for point in before}
        begun = tuple(replace(point, at=since) for point in firing.values() if point.value)
        return (*begun, *(point for point in self._points if point.at >= since))


def _old(point: Point, now: datetime) -> bool:
    return now - point.at >= AGAIN_AFTER
