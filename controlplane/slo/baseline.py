"""What is usual for a signal at this hour of the week, learnt from the last days; pure, `now` is an argument.

A service that is busy on Monday mornings is not ill on Monday mornings. For each hour of the week the usual value is
the median of what that hour showed, and its spread the median absolute deviation (MAD): neither moves when one of the
weeks had an outage. A deviation is shown beside the fixed thresholds and trips nothing by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

HOUR_S = 3600
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WEEK_HOURS = 168
WEEKS_NEEDED = 3
"""Fewer weeks cannot tell a habit from a coincidence: the median of two has no middle."""

HOURS_NEEDED = 126
"""Of the 168 hours of a week, so many (three quarters) must be learnt before one of them is called the busiest: in the
third week the hours that have come round already would beat those that have not."""

MAD_TO_SIGMA = 1.4826
"""MAD of a normal distribution times this is its standard deviation (Rousseeuw and Croux, 1993)."""

SPREAD_FLOOR = 0.05
"""The least spread, as a share of the usual value: an hour that never varied would make any change endless."""


def hour_of_week(hour: int) -> int:
    """Return 0 (Monday 00:00 UTC) .. 167 for an hour counted from the epoch."""
    return (hour + 72) % WEEK_HOURS  # 1970-01-01 was a Thursday.


@dataclass(frozen=True, slots=True)
class Usual:
    """What an hour of the week is like."""

    median: float
    spread: float
    """Comparable to a standard deviation; never zero unless the median is."""
    weeks: int


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a value is from the usual one."""

    usual: Usual | None
    """None while it is not learnt yet."""
    score: float | None
    """Spreads above (positive) or below the usual value."""
    reason: str = ""

    @property
    def spelled(self) -> str:
        """The deviation as it stands beside a threshold."""
        if self.score is None:
            return self.reason
        side = "above" if self.score >= 0 else "below"
        return f"{abs(self.score):.1f} spreads {side} usual"


class Baseline:
    """One signal of one pool: a summary for each hour of the last days."""

    def __init__(self, days: int = 28) -> None:
        """Start empty.

        Args:
            days: how far back it learns; four weeks by default, so that one may be odd.
        """
        self.days = days
        self._hours: dict[int, float] = {}
        self._now: list[float] = []
        self._hour: int | None = None

    def add(self, at: datetime, value: float) -> None:
        """Take a value in; the hour it belongs to is summed up when the next one begins. Late values are left out."""
        hour = _hour(at)
        if self._hour is None or hour > self._hour:
            self._close()
            self._hour = hour
        if hour == self._hour:
            self._now.append(value)

    def _close(self) -> None:
        if self._hour is not None and self._now:
            self._hours[self._hour] = median(self._now)
            oldest = self._hour - self.days * 24
            self._hours = {hour: value for hour, value in self._hours.items() if hour > oldest}
        self._now = []

    def usual(self, now: datetime) -> Usual | None:
        """Return what this hour of the week is like; None while fewer than three weeks have shown it.

        The hour that is going on is not part of it: a fault would make itself usual.
        """
        hour = _hour(now)
        oldest = hour - self.days * 24
        seen = [
            value
            for past, value in self._hours.items()
            if oldest <= past < hour and hour_of_week(past) == hour_of_week(hour)
        ]
        if len(seen) < WEEKS_NEEDED:
            return None
        middle = median(seen)
        mad = median(abs(value - middle) for value in seen)
        return Usual(middle, max(mad * MAD_TO_SIGMA, SPREAD_FLOOR * abs(middle)), len(seen))

    def busiest(self, now: datetime) -> datetime | None:
        """Return when the hour of the week begins next that has usually shown the largest value.

        Args:
            now: aware UTC; an hour that has begun is a week away.

        Returns:
            Aware UTC; None while too little is learnt.
        """
        current = _hour(now)
        seen: dict[int, list[float]] = {}
        for past, value in self._hours.items():
            if current - self.days * 24 <= past < current:
                seen.setdefault(hour_of_week(past), []).append(value)
        usual = {hour: median(values) for hour, values in seen.items() if len(values) >= WEEKS_NEEDED}
        if len(usual) < HOURS_NEEDED:
            return None
        largest = max(sorted(usual), key=usual.__getitem__)
        ahead = (largest - hour_of_week(current) - 1) % WEEK_HOURS + 1
        return EPOCH + timedelta(hours=current + ahead)

    def deviation(self, now: datetime, value: float) -> Deviation:
        """Return how far a value is from what this hour is usually like."""
        usual = self.usual(now)
        if usual is None:
            return Deviation(None, None, "not learnt yet")
        if usual.spread == 0:
            same = value == usual.median
            return Deviation(usual, 0.0 if same else float("inf") if value > usual.median else float("-inf"))
        return Deviation(usual, (value - usual.median) / usual.spread)

    def dump(self) -> Mapping[str, float]:
        """Return what was learnt, to be kept over a restart."""
        return {str(hour): value for hour, value in self._hours.items()}

    def load(self, kept: Mapping[str, float]) -> None:
        """Take back what `dump` returned."""
        self._hours = {int(hour): float(value) for hour, value in kept.items()}


def _hour(at: datetime) -> int:
    return int((at - EPOCH) // timedelta(seconds=HOUR_S))
