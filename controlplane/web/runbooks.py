"""The runbooks on the console: every page with the values of this moment beside it; read from the same files."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI, HTTPException, Request
from markupsafe import Markup

from controlplane.flows.standing import RowStanding, Standing
from controlplane.incidents.incident import Incident
from controlplane.render.runbooks.subject import Subject
from controlplane.slo.threshold import Threshold
from controlplane.slo.verdict import Evidence
from controlplane.web.frame import Sheet, add_page
from controlplane.web.reading import html_of

INDEX = "alerts"
"""The name of the page that lists all others."""


@dataclass(frozen=True, slots=True)
class RunbookPorts:
    """What the pages are made of."""

    subjects: Mapping[str, Subject]
    """What each page is about, by its name."""
    text: Callable[[str], Awaitable[str | None]]
    """Gives a page as Markdown, with people's notes."""
    thresholds: Mapping[str, Threshold]
    dashboard: str
    standing: Callable[[], Standing]
    open_incidents: Callable[[], Awaitable[tuple[Incident, ...]]]
    now: Callable[[], datetime]
    version: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One signal of one pool now, beside its thresholds."""

    pool: str
    evidence: Evidence
    threshold: Threshold | None
    at_trigger: float | None = None
    """What it was when the incident was decided on; None when that is not known, or there is no incident."""


@dataclass(frozen=True, slots=True)
class RunbookView:
    """One page of the runbooks with what holds now."""

    subject: Subject
    body: Markup
    standing: Standing
    rows: tuple[RowStanding, ...]
    readings: tuple[Reading, ...]
    incidents: tuple[Incident, ...]
    """Open ones of its rows."""
    dashboard: str
    now: datetime
    version: str


def readings_of(standing: Standing, signals: tuple[str, ...], limits: Mapping[str, Threshold]) -> tuple[Reading, ...]:
    """Return what some signals of every pool are now, the pool that users see first."""
    return tuple(
        Reading(pool.name, seen, limits.get(name))
        for name in signals
        for pool in standing.pools
        if (seen := pool.verdict.signal(name)) is not None
    )


async def view_of(ports: RunbookPorts, name: str) -> RunbookView | None:
    """Put a page and the values of this moment together; None when there is no such page."""
    subject, text = ports.subjects.get(name), await ports.text(name)
    if subject is None or text is None:
        return None
    standing = ports.standing()
    incidents = await ports.open_incidents()
    return RunbookView(
        subject,
        html_of(text, name),
        standing,
        tuple(row for row in standing.rows if row.row.level in subject.levels),
        readings_of(standing, subject.signals, ports.thresholds),
        tuple(i for i in incidents if i.level in subject.levels or not subject.levels),
        ports.dashboard,
        ports.now(),
        ports.version,
    )


def runbook_sheet(view: RunbookView) -> Sheet:
    """Make a runbook's page."""
    service = view.standing.service
    return Sheet("_runbook.html", f"{view.subject.title} · runbook · {service}", view, service, "/runbooks")


def add_runbooks(app: FastAPI, ports: RunbookPorts) -> None:
    """Add the pages."""

    async def found(request: Request) -> Sheet:
        name = str(request.path_params.get("name", "")).removesuffix(".md") or INDEX
        view = await view_of(ports, name)
        if view is None:
            raise HTTPException(404, "there is no such runbook")
        return runbook_sheet(view)

    add_page(app, "/runbooks", found)
    add_page(app, "/runbooks/{name:path}", found)
