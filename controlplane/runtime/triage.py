"""Running the triage: what is ours, which drills there were, and how incidents stand in figures."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

import controlplane
from controlplane.chaos.drill import Drill
from controlplane.chaos.fault import LeaseBook
from controlplane.errors import StoreError
from controlplane.flows.respond import RespondPorts, say
from controlplane.flows.standing import Standing
from controlplane.flows.triage import AlertRecord, Triage, TriagePorts
from controlplane.incidents.incident import LEVELS, Incident, Wanted
from controlplane.incidents.reading import AFTERMATH, Habits, Rehearsal
from controlplane.incidents.response import Refused, Verb
from controlplane.incidents.statistics import WINDOW, Group, of_service
from controlplane.policy.model import Policy
from controlplane.render.alerting import drills as drill_alerts
from controlplane.render.alerting import itself
from controlplane.render.alerting.subject import Subject
from controlplane.runtime.books import Books
from controlplane.runtime.leader import Leadership
from controlplane.telemetry import Metrics
from controlplane.web.handling import HandlingPorts
from controlplane.web.page import IncidentView
from controlplane.web.paging import Mark

TRIAGE_EVERY = timedelta(seconds=1)
COUNT_EVERY = timedelta(seconds=15)
COUNTED_AT_MOST = 10_000
"""Incidents of the window that statistics are made of; the newest."""
DRILLS_LOOKED_AT = 8

log = structlog.get_logger("triage")


def habits_of(policy: Policy) -> Habits:
    """Return what is ours, by the names of the alerts that are rendered for a policy."""
    subject = Subject(policy)
    return Habits(
        policy.service,
        frozenset(alert.name for alert in itself.alerts(subject)),
        frozenset(alert.name for alert in drill_alerts.alerts(subject)),
    )


async def fault_began(leases: LeaseBook, drill_id: str) -> datetime | None:
    """Return when the first fault of a drill was injected; None where there is none, or no drill."""
    found = await leases.of_drill(drill_id) if drill_id else ()
    return min((lease.injected_at for lease in found if lease.injected_at), default=None)


async def rehearsals(drills: Iterable[Drill], leases: LeaseBook, now: datetime) -> tuple[Rehearsal, ...]:
    """Return the times of the drills that broke something, and run or ended so lately that alerts may still begin.

    What a drill intends to break may break before that is recorded; once it is over, only what was injected counts.
    """
    found = []
    for drill in drills:
        running = drill.ended_at is None
        if drill.ended_at is None or now - drill.ended_at <= 6 * AFTERMATH:
            held = await leases.of_drill(drill.id)
            began = [lease.injected_at or lease.intended_at for lease in held if lease.injected_at or running]
            found += [Rehearsal(drill.id, min(began), drill.ended_at)] if began else []
    return tuple(found)


@dataclass(slots=True)
class TriageDesk:
    """Correlates alerts, and counts what came of them."""

    policy: Policy
    books: Books
    metrics: Metrics
    now: Callable[[], datetime]
    tick: Callable[[], Awaitable[None]]
    """Correlates what has changed; called every second."""
    judged: Callable[..., None]
    """Told how pools stand, at every evaluation."""
    statistics: tuple[Group, ...] = ()
    """Of the last days, as they were counted last."""

    async def count(self) -> None:
        """Count anew; called every few seconds, by whoever runs.

        Raises:
            StoreError: when the database refuses.
        """
        service, now = self.policy.service, self.now()
        recent = await self.books.incidents.find(service, Wanted(since=now - WINDOW), COUNTED_AT_MOST)
        self.statistics = of_service(service, recent, now)
        still = await self.books.incidents.open_incidents(service)
        self.metrics.incidents_waiting.by = lambda: _waiting(service, still, self.now())
        self.metrics.incidents_by_level.by = lambda: _by_level(service, still)
        self.metrics.incident_seconds.by = lambda: _times(self.statistics)


def join(
    policy: Policy,
    books: Books,
    alerts: AlertRecord,
    leadership: Leadership,
    changed: Callable[[], None],
    metrics: Metrics,
    now: Callable[[], datetime],
) -> TriageDesk:
    """Join the triage of one service."""

    async def drills() -> tuple[Rehearsal, ...]:
        return await rehearsals(await books.drills.recent(DRILLS_LOOKED_AT), books.leases, now())

    triage = Triage(
        TriagePorts(
            habits_of(policy), books.incidents, books.incidents.holding, alerts, drills, lambda: leadership.acting,
            lambda: leadership.held is None, changed, metrics, now,
        )
    )  # fmt: skip
    return TriageDesk(policy, books, metrics, now, triage.tick, triage.judged)


def handling(desk: TriageDesk, standing: Callable[[], Standing], changed: Callable[[], None]) -> HandlingPorts:
    """Return what the outside may ask of incidents."""
    service, book = desk.policy.service, desk.books.incidents
    ports = RespondPorts(service, book, changed, desk.now)

    async def find(wanted: Wanted, limit: int, after: Mark | None = None) -> tuple[IncidentView, ...]:
        return tuple(IncidentView(*found) for found in await book.find_whole(service, wanted, limit, after))

    async def get(incident_id: str) -> IncidentView | None:
        found = await book.get(incident_id)
        return IncidentView(*found) if found and found[0].service == service else None

    async def told(incident_id: str, verb: Verb, who: str, text: str, to: str) -> Incident | Refused:
        said = await say(ports, incident_id, verb, who, text, to)
        if not isinstance(said, Refused):
            try:
                await desk.count()
            except StoreError as error:  # What was said is stored; a failure now would have it said once more.
                log.warning("not counted", incident=incident_id, what=error.what, why=error.why)
        return said

    return HandlingPorts(
        find, get, book.members, told, lambda: desk.statistics, standing, desk.now, controlplane.__version__
    )


def _real(incidents: Iterable[Incident]) -> list[Incident]:
    return [incident for incident in incidents if not incident.of_drill]


def _by_level(service: str, still: Iterable[Incident]) -> Iterable[tuple[tuple[str, ...], float]]:
    real = _real(still)
    for level in LEVELS:
        for acknowledged in (True, False):
            some = [i for i in real if i.level == level and (i.acknowledged_at is not None) is acknowledged]
            yield (service, level, str(acknowledged).lower()), float(len(some))


def _waiting(service: str, still: Iterable[Incident], now: datetime) -> Iterable[tuple[tuple[str, ...], float]]:
    """Tell how long the oldest incident that nobody has acknowledged has waited, by severity; 0 where none does."""
    real = [i for i in _real(still) if i.acknowledged_at is None]
    for severity in ("critical", "warning"):
        ages = [(now - i.detected_at).total_seconds() for i in real if i.severity == severity]
        yield (service, severity), max(ages, default=0.0)


def _times(groups: Iterable[Group]) -> Iterable[tuple[tuple[str, ...], float]]:
    for group in groups:
        for step, times in group.times.items():
            if group.drill or times.mean_s is None or times.median_s is None:
                continue
            yield (group.service, group.level, step.value, "mean"), times.mean_s
            yield (group.service, group.level, step.value, "median"), times.median_s
