"""The live page of one incident: what was seen, what holds now, what has been done, and the runbook's next steps."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup

from controlplane.degradation.actuator import Receipt
from controlplane.flows.standing import RowStanding, Standing
from controlplane.incidents.incident import Entry, Incident
from controlplane.incidents.response import Refused, Verb
from controlplane.render.reports.charts import Chart
from controlplane.render.reports.incident import (
    IncidentReport,
    Spent,
    budget_spent,
    causes_of,
    follow_ups,
    html_report,
    markdown_report,
    phase_rows,
)
from controlplane.render.runbooks.subject import Subject
from controlplane.web.console import STATIC_DIR
from controlplane.web.frame import Sheet, add_page, frame_of, report_sheet
from controlplane.web.handling import HandlingPorts, add_handling, add_single, who_asks
from controlplane.web.reading import html_of, section
from controlplane.web.runbooks import Reading, RunbookPorts, readings_of

_PAPER = "\n".join((STATIC_DIR / name).read_text(encoding="utf-8") for name in ("console.css", "pages.css"))
"""The style sheet of a report that is read without the console."""


@dataclass(frozen=True, slots=True)
class Done:
    """One action with how long its phases took."""

    receipt: Receipt
    phases: tuple[tuple[str, float], ...]
    """Seconds since the first evidence."""
    kept: bool | None
    """Whether it was in force within the promise; None when it never was, or nothing is promised."""


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Everything on the page of one incident."""

    incident: Incident
    timeline: tuple[Entry, ...]
    report: IncidentReport
    charts: tuple[Chart, ...]
    done: tuple[Done, ...]
    causes: tuple[str, ...]
    spent: tuple[Spent, ...]
    follow_ups: tuple[str, ...]
    standing: Standing
    row: RowStanding | None
    readings: tuple[Reading, ...]
    subject: Subject | None
    """The page of its row."""
    by_hand: Markup
    suspects: Markup
    address: str
    """The page's own path."""
    refused: str
    """Why what was asked for last was not done; empty otherwise."""
    now: datetime
    version: str


@dataclass(frozen=True, slots=True)
class IncidentPorts:
    """What the pages are made of."""

    report: Callable[[str], Awaitable[IncidentReport | None]]
    """Everything that is known of an incident, by its id."""
    runbooks: RunbookPorts
    handling: HandlingPorts
    """What people may say about them."""


async def page_of(ports: IncidentPorts, report: IncidentReport, refused: str = "") -> IncidentPage:
    """Put an incident, the values of this moment and its row's runbook together."""
    books, incident = ports.runbooks, report.incident
    standing = books.standing()
    subject = next((s for s in books.subjects.values() if s.levels == (incident.level,) and not s.alert), None)
    text = (await books.text(subject.name) or "") if subject else ""
    at = subject.name if subject else ""
    return IncidentPage(
        incident,
        report.timeline,
        report,
        report.charts,
        tuple(_done(receipt, report) for receipt in report.receipts),
        causes_of(report.timeline),
        budget_spent(report),
        follow_ups(report),
        standing,
        next((row for row in standing.rows if row.row.level == incident.level), None),
        _with_trigger(report, readings_of(standing, subject.signals if subject else report.signals, report.thresholds)),
        subject,
        html_of(section(text, "By hand"), at),
        html_of(section(text, "Likely causes, and how to tell them apart"), at),
        f"/incidents/{quote(incident.id, safe='')}",
        refused,
        books.now(),
        books.version,
    )


def _with_trigger(report: IncidentReport, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
    """Put what each signal was when it was decided beside what it is now."""
    begun = min((r.decided_at for r in report.receipts), default=report.incident.detected_at)
    traces = {(trace.pool, trace.signal): trace for trace in report.history}
    return tuple(
        replace(one, at_trigger=trace.at(begun) if (trace := traces.get((one.pool, one.evidence.signal))) else None)
        for one in readings
    )


def _done(receipt: Receipt, report: IncidentReport) -> Done:
    phases = phase_rows(receipt)
    verified = dict(phases).get("verified")
    if verified is None or report.promise is None:
        return Done(receipt, phases, None)
    return Done(receipt, phases, verified <= report.promise.total_seconds())


def incident_sheet(view: IncidentPage) -> Sheet:
    """Make an incident's page."""
    title = f"{view.incident.state}: incident of {view.incident.level} · {view.standing.service}"
    return Sheet("_incident.html", title, view, view.standing.service, "/incidents")


def add_incident_pages(app: FastAPI, ports: IncidentPorts, answer: Callable[..., Response]) -> None:
    """Add the pages and the report; an id holds slashes, so what is asked of it comes before it is asked for alone."""
    add_handling(app, ports.handling)

    async def found(incident_id: str) -> IncidentReport:
        report = await ports.report(incident_id)
        if report is None:
            raise HTTPException(404, "there is no such incident")
        return report

    @app.get("/api/v1/incidents/{incident_id:path}/report", tags=["incidents"])
    async def report(incident_id: str) -> Any:
        """Return the report of one incident: as Markdown, and as an HTML page that needs nothing else."""
        made = await found(incident_id)
        return answer(
            {
                "incident": made.incident,
                "restored_s": made.restored_s,
                "within_objective": made.kept,
                "budget_spent": budget_spent(made),
                "follow_ups": follow_ups(made),
                "markdown": markdown_report(made),
                "html": html_report(made, _PAPER),
            }
        )

    add_single(app, ports.handling)

    @app.get("/incidents/{incident_id:path}/report", response_class=HTMLResponse, include_in_schema=False)
    async def paper(request: Request, incident_id: str) -> str:
        made, books = await found(incident_id), ports.runbooks
        service = made.incident.service
        title = f"Report of incident {made.incident.id} · {service} · controlplane"
        sheet = report_sheet(html_report(made), title, books.now(), books.version, service, "/incidents")
        return sheet.page(frame_of(request))

    @app.post("/incidents/{incident_id:path}/{verb}", include_in_schema=False)
    async def form(request: Request, incident_id: str, verb: Verb) -> Response:
        """Take what a form of the page says, and show the page again."""
        given = parse_qs((await request.body()).decode("utf-8", "replace"))
        text, to = given.get("text", [""])[0], given.get("to", [""])[0]
        said = await ports.handling.say(incident_id, verb, who_asks(request), text, to)
        if isinstance(said, Refused) and said.missing:
            raise HTTPException(404, said.why)
        address = f"/incidents/{quote(incident_id, safe='')}"
        if isinstance(said, Refused):
            sheet = incident_sheet(await page_of(ports, await found(incident_id), said.why))
            return HTMLResponse(sheet.page(frame_of(request), f"{address}/fragment"), 409)
        return RedirectResponse(f"{address}?said={verb}", 303)

    async def page(request: Request) -> Sheet:
        return incident_sheet(await page_of(ports, await found(request.path_params["incident_id"])))

    add_page(app, "/incidents/{incident_id:path}", page)
