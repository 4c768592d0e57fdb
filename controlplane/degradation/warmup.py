"""Warm-ups by the clock: which pool is sent completions how long before a peak, and when the next one is due; pure.

The page says when the peak is, or leaves that to what was learnt; `runtime/prewarming` carries it out.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from controlplane.degradation.action import Prewarm

FORECAST = "forecast"
"""What stands on the page in the place of a peak that is to be learnt."""
MOST_BEFORE = timedelta(days=7)
"""Peaks come round every week; earlier than that is before the last one."""


class Weekday(StrEnum):
    """A day of the week; the order is the calendar's."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


@dataclass(frozen=True, slots=True)
class Peak:
    """When the most requests come, by the calendar."""

    hour: int
    minute: int = 0
    timezone: str = "UTC"
    """An IANA name, such as `Asia/Shanghai`."""
    days: tuple[Weekday, ...] = ()
    """Every day when it is empty."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """One line of `degradation.prewarm`."""

    pool: str
    at: Peak | None = None
    """None: at the hour of the week that has usually had the most requests, as soon as that is learnt."""
    before: timedelta = timedelta(hours=2)
    """How long before the peak: a pool that turns out to be cold leaves people that much time."""
    completions: int = 4
    """Sent to each endpoint, one after another."""

    @property
    def errand(self) -> Prewarm:
        """Return what has to be done."""
        return Prewarm(self.pool, self.completions)


@dataclass(frozen=True, slots=True)
class Due:
    """The next time of a warm-up."""

    at: datetime
    """When it is to begin."""
    peak: datetime
    """What it is for; from then on it is too late."""


def next_due(warm_up: WarmUp, now: datetime, forecast: datetime | None) -> Due | None:
    """Say when a warm-up is due for the next peak that has not begun.

    Args:
        warm_up: the line of the page.
        now: aware UTC.
        forecast: when the next peak begins by what was learnt, after `now`; None while it is not learnt.

    Returns:
        A time that has passed already when the peak is nearer than `before`; None where no peak is known.
    """
    peak = next_peak(warm_up.at, now) if warm_up.at else forecast
    return Due(peak - warm_up.before, peak) if peak else None


def next_peak(peak: Peak, after: datetime) -> datetime:
    """Return when a peak comes next after a moment, both in aware UTC.

    A time that the clocks leave out is taken as the zone's rule before the change counts it.
    """
    zone, days = ZoneInfo(peak.timezone), peak.days or tuple(Weekday)
    first = after.astimezone(zone).date()
    coming = (first + timedelta(days=n) for n in range(9))
    times = (
        datetime.combine(day, time(peak.hour, peak.minute), zone).astimezone(UTC)
        for day in coming
        if list(Weekday)[day.weekday()] in days
    )
    return next(at for at in times if at > after)
