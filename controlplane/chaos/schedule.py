"""When drills come round, and when they may not; pure. The calendar itself is APScheduler's, in `runtime`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Freeze:
    """Days on which nothing is broken on purpose; both ends belong to it."""

    first: date
    last: date

    def __str__(self) -> str:
        """Write it as the policy page has it."""
        return f"{self.first.isoformat()}/{self.last.isoformat()}"


def read_freeze(text: str) -> Freeze:
    """Read `2026-12-24/2027-01-02`.

    Raises:
        ValueError: when it is anything else, or ends before it begins.
    """
    first, slash, last = text.partition("/")
    freeze = Freeze(date.fromisoformat(first), date.fromisoformat(last if slash else first))
    if freeze.last < freeze.first:
        raise ValueError(f"{text} ends before it begins")
    return freeze


def frozen(freezes: Iterable[Freeze], today: date) -> str:
    """Return the window that a day is in, or an empty string.

    Args:
        freezes: of every plan; a freeze holds for all drills.
        today: the day where the fleet's people are.
    """
    return next((str(freeze) for freeze in freezes if freeze.first <= today <= freeze.last), "")


def slot_name(plan: str, due: datetime) -> str:
    """Return the name of a slot, the same in every control plane: `monthly/2026-12-01T10:00+0800`."""
    return f"{plan}/{due:%Y-%m-%dT%H:%M%z}"


def overdue(last_passed: datetime | None, since: datetime, now: datetime, after: timedelta) -> bool:
    """Tell whether an experiment has not passed for too long.

    Args:
        last_passed: when it last passed; None when it never has.
        since: what an experiment that never passed is counted from: when the control plane first ran.
        now: aware UTC.
        after: how long is too long.
    """
    return now - (last_passed or since) > after
