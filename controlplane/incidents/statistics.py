"""How long incidents took to be detected, acknowledged, mitigated and resolved; drills are counted apart; pure.

Every time is counted from when it can be counted from: detection from the harm's beginning, where an alert or a drill's
fault says when that was; acknowledgement, mitigation and resolution from detection, which is always known.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import fmean, median

from controlplane.incidents.incident import LEVELS, Incident

WINDOW = timedelta(days=30)
ALL_LEVELS = "all"


class Step(StrEnum):
    """What is timed."""

    DETECT = "detect"
    """MTTD: from the beginning of the harm to the first evidence."""
    ACKNOWLEDGE = "acknowledge"
    """MTTA: from detection to the first person who says that they have it."""
    MITIGATE = "mitigate"
    """MTTM: from detection until a lever served users again."""
    RESOLVE = "resolve"
    """MTTR: from detection to the end."""


@dataclass(frozen=True, slots=True)
class Times:
    """One step over some incidents."""

    count: int
    """Incidents that have taken it, and of which it is known when."""
    mean_s: float | None = None
    median_s: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The incidents of one service at one level, real or rehearsed."""

    service: str
    level: str
    """`all` for every level together."""
    drill: bool
    incidents: int
    open: int
    times: Mapping[Step, Times]


def took_s(incident: Incident, step: Step) -> float | None:
    """Return how many seconds an incident took to a step; None where it has not come, or its beginning is not known."""
    if step is Step.DETECT:
        return _between(incident.began_at, incident.detected_at)
    ends = {
        Step.ACKNOWLEDGE: incident.acknowledged_at,
        Step.MITIGATE: incident.mitigated_at,
        Step.RESOLVE: incident.resolved_at,
    }
    return _between(incident.detected_at, ends[step])


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two moments; None where one is missing, or they are the wrong way round.

    An alert may say a later beginning than what was seen here first: the true one is then not known.
    """
    seconds = (end - begin).total_seconds() if begin and end else None
    return seconds if seconds is not None and seconds >= 0 else None


def statistics(incidents: Iterable[Incident], now: datetime, window: timedelta = WINDOW) -> tuple[Group, ...]:
    """Count incidents that were detected inside a window, by service, level and whether a drill caused them.

    Returns:
        Per service the real ones first, all levels together before each level from the worst; levels without an
        incident are left out, but never the line of all real ones.
    """
    inside = [i for i in incidents if i.detected_at > now - window]
    return tuple(group for service in sorted({i.service for i in inside}) for group in _of(service, inside))


def of_service(
    service: str, incidents: Iterable[Incident], now: datetime, window: timedelta = WINDOW
) -> tuple[Group, ...]:
    """Count the incidents of one service as `statistics` does, even where there is none."""
    inside = [i for i in incidents if i.service == service and i.detected_at > now - window]
    return tuple(_of(service, inside))


def _of(service: str, inside: list[Incident]) -> Iterator[Group]:
    mine = [i for i in inside if i.service == service]
    for drill in (False, True):
        some = [i for i in mine if i.of_drill is drill]
        if some or not drill:
            yield _group(service, ALL_LEVELS, some, drill=drill)
        for level in reversed(LEVELS):
            at_level = [i for i in some if i.level == level]
            if at_level:
                yield _group(service, level, at_level, drill=drill)


def _group(service: str, level: str, some: list[Incident], *, drill: bool) -> Group:
    times = {}
    for step in Step:
        took = [seconds for i in some if (seconds := took_s(i, step)) is not None]
        times[step] = Times(len(took), fmean(took), median(took)) if took else Times(0)
    return Group(service, level, drill, len(some), sum(1 for i in some if i.open), times)
