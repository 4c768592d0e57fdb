"""The last minutes of every signal, kept in memory, so that an incident can be replayed once it is over."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.degradation.matrix import Alerts, AtLeast
from controlplane.signals.recording import ALERT, Point
from controlplane.slo.verdict import Verdict

KEPT = timedelta(minutes=30)
MAX_POINTS = 300_000
"""About 60 MB; the oldest go first."""
AGAIN_AFTER = timedelta(seconds=2)
"""A value that has not changed is written again after so long: a recording that is silent means unknown."""


class Recorder:
    """Keeps what was judged."""

    def __init__(self, now: Callable[[], datetime], alerts: Callable[[], Alerts]) -> None:
        """Take the clock, and what fires."""
        self._now = now
        self._alerts = alerts
        self._points: deque[Point] = deque()
        self._newest: dict[tuple[str, str], Point] = {}
        self._firing: frozenset[str] = frozenset()
        self._begun: dict[str, Point] = {}
        """What fired when the oldest point that is kept was written: the points that said so are gone."""

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
        firing = self._fires()
        for name in firing ^ self._firing:
            self._points.append(Point(now, ALERT, name, float(name in firing)))
        self._firing = firing
        while self._points and (now - self._points[0].at > KEPT or len(self._points) > MAX_POINTS):
            self._let_go(self._points.popleft())

    def _fires(self) -> frozenset[str]:
        """Return what fires; as long as nobody can tell what does, nothing has ended."""
        alerts = self._alerts()
        if alerts is None or isinstance(alerts, AtLeast):
            return self._firing.union(alerts or ())
        return frozenset(alerts)

    def _let_go(self, point: Point) -> None:
        if point.pool == ALERT and point.value:
            self._begun[point.signal] = point
        elif point.pool == ALERT:
            self._begun.pop(point.signal, None)

    def points(self, lasts: timedelta) -> tuple[Point, ...]:
        """Return what was recorded in the last so many minutes, oldest first."""
        since = self._now() - lasts
        before = (point for point in self._points if point.pool == ALERT and point.at < since)
        firing = {**self._begun, **{point.signal: point for point in before}}
        begun = (replace(point, at=max(point.at, since)) for point in firing.values() if point.value)
        return (*sorted(begun, key=lambda p: p.at), *(point for point in self._points if point.at >= since))


def _old(point: Point, now: datetime) -> bool:
    return now - point.at >= AGAIN_AFTER
