"""The journey from a committed alert to an incident: alerts -> notices -> decisions -> stored, with their reasons.

It reads what was written down and keeps nothing that a crash could lose: each alert that fires, or ended lately, is
read again after a start, when this control plane comes to be in charge, and every minute; what was correlated before
changes nothing. In between it reads only what has changed. Only the one in charge writes. `runtime/triage` runs it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

import structlog

from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.incidents.alert import Alert
from controlplane.incidents.book import IncidentBook
from controlplane.incidents.correlate import LATE, Ignore, Join, Notice, Open, Resolve
from controlplane.incidents.incident import SERVING, Entry
from controlplane.incidents.reading import Habits, Rehearsal, read
from controlplane.slo.verdict import Verdict
from controlplane.telemetry import Metrics

SWEEP_EVERY = timedelta(minutes=1)
AT_ONCE = 100
"""Alerts of one transaction at most: webhooks wait for the database meanwhile."""
SHARE = 0.2
"""Of the time that an alert storm is read in: the rest is left to webhooks, which must be on disk before anything."""
WAIT_AT_MOST_S = 0.5

log = structlog.get_logger("triage")


class AlertPage(Protocol):
    """Some of what fires."""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What changed last first."""

    @property
    def after(self) -> tuple[datetime, str] | None:
        """What to ask for next, where there are more."""


class AlertRecord(Protocol):
    """What was written down of alerts."""

    async def told_since(self, since: datetime, after: str, limit: int) -> tuple[tuple[datetime, Alert], ...]:
        """Return what changed at a moment, behind a fingerprint, and since; the oldest change first, with its time."""

    async def tellings(self, fingerprints: tuple[str, ...]) -> tuple[Alert, ...]:
        """Return what is known of some alerts."""

    async def page(self, limit: int, after: tuple[datetime, str] | None = None) -> AlertPage:
        """Return what fires, from behind a change on."""


@dataclass(frozen=True, slots=True)
class TriagePorts:
    """What this journey touches."""

    habits: Habits
    incidents: IncidentBook
    holding: Callable[[str], Awaitable[tuple[str, ...]]]
    """The fingerprints of what fires by the open incidents of a service."""
    alerts: AlertRecord
    drills: Callable[[], Awaitable[tuple[Rehearsal, ...]]]
    """The drills of the last hours."""
    acting: Callable[[], bool]
    """Whether this control plane is in charge."""
    follows: Callable[[], bool]
    """Whether another one may be, which notes what it sees itself; not while a lease has only run out for a moment."""
    changed: Callable[[], None]
    """Told when an incident is not as it was."""
    metrics: Metrics
    now: Callable[[], datetime]


class Triage:
    """Correlates what alerts tell."""

    def __init__(self, ports: TriagePorts) -> None:
        self._ports = ports
        self._read_to: tuple[datetime, str] | None = None
        """The last change that was read; None: read everything."""
        self._swept_at: datetime | None = None
        self._bands: dict[str, str] = {}
        self._verdicts: list[tuple[str, Entry]] = []
        for decision in (Open, Join, Resolve, Ignore):
            ports.metrics.triaged.labels(_name(decision))

    async def tick(self) -> None:
        """Correlate what has changed; everything, where that is due.

        Raises:
            FencedError: when another control plane has taken over.
            StoreError: when the database refuses; what was read is read again.
        """
        ports = self._ports
        if not ports.acting():
            self._read_to = self._swept_at = None
            if ports.follows():
                self._verdicts.clear()
            return
        now = ports.now()
        if self._read_to is None or self._swept_at is None or abs(now - self._swept_at) >= SWEEP_EVERY:
            await self._sweep(now)
            self._swept_at = now
        else:
            await self._follow(self._read_to)
        await self._take(())
        await self._note_verdicts()

    # -- alerts ----------------------------------------------------------------------------------------------------

    async def _sweep(self, now: datetime) -> None:
        """Read all that fires, all that ended lately, and all that an open incident still holds to fire."""
        alerts, after = self._ports.alerts, None
        while True:
            began = monotonic()
            page = await alerts.page(AT_ONCE, after)
            await self._take(page.alerts)
            after = page.after
            if after is None:
                break
            await _leave_room(began)
        held = await self._ports.holding(self._ports.habits.service)
        for start in range(0, len(held), AT_ONCE):
            began = monotonic()
            await self._take(await alerts.tellings(held[start : start + AT_ONCE]))
            if start + AT_ONCE < len(held):
                await _leave_room(began)
        await self._follow((now - LATE, ""))

    async def _follow(self, read_to: tuple[datetime, str]) -> None:
        """Read what has changed since."""
        while True:
            began = monotonic()
            told = await self._ports.alerts.told_since(*read_to, AT_ONCE)
            await self._take(tuple(alert for _, alert in told))
            if told:
                read_to = (told[-1][0], told[-1][1].fingerprint)
            self._read_to = read_to
            if len(told) < AT_ONCE:
                return
            await _leave_room(began)

    async def _take(self, alerts: tuple[Alert, ...]) -> None:
        """Correlate some alerts; with none, incidents that have been quiet for long enough resolve."""
        ports = self._ports
        drills = await ports.drills() if alerts else ()
        found = [read(alert, ports.habits, drills) for alert in alerts]
        notices = tuple(one for one in found if isinstance(one, Notice))
        ignored = [one for one in found if isinstance(one, Ignore)]
        if alerts and not notices:
            self._count(tuple(ignored))
            return
        ruling = await ports.incidents.take(ports.habits.service, notices, ports.now())
        self._count((*ignored, *ruling.decisions))
        if ruling.cases:
            ports.changed()

    def _count(self, decisions: tuple[Open | Join | Resolve | Ignore, ...]) -> None:
        for decision in decisions:
            self._ports.metrics.triaged.labels(_name(type(decision))).inc()
            if isinstance(decision, Open | Resolve):
                log.info(_name(type(decision)), incident=decision.incident_id, why=decision.why)

    # -- verdicts --------------------------------------------------------------------------------------------------

    def judged(self, verdicts: Mapping[str, Verdict]) -> None:
        """Take in how pools stand; a change is written on the timelines of the open incidents of that pool."""
        at = self._ports.now()
        for pool, verdict in verdicts.items():
            was, self._bands[pool] = self._bands.get(pool), verdict.band.value
            if was is not None and was != verdict.band.value and len(self._verdicts) < AT_ONCE:
                self._verdicts.append((pool, Entry(at, "verdict", f"pool {pool}: {was} -> {verdict.band.value}")))

    async def _note_verdicts(self) -> None:
        if not self._verdicts:
            return
        still = await self._ports.incidents.open_incidents(self._ports.habits.service)
        while self._verdicts:
            pool, entry = self._verdicts[0]
            place = "" if pool in (GATEWAY_POOL, PRIMARY) else pool
            for incident in still:
                if (incident.pool, incident.about) == (place, SERVING) and entry.at >= incident.detected_at:
                    await self._ports.incidents.note(incident.id, entry)
            del self._verdicts[0]  # Now only: what could not be stored is stored at the next tick.


async def _leave_room(began: float) -> None:
    """Leave the database to others, after a piece that was begun then (monotonic seconds)."""
    await asyncio.sleep(min((monotonic() - began) * (1.0 / SHARE - 1.0), WAIT_AT_MOST_S))


def _name(decision: type[Open | Join | Resolve | Ignore]) -> str:
    return decision.__name__.lower()
