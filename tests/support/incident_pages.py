"""An incident with everything that is known of it, on a quiet day and with hostile texts; and the ports of its page."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

from controlplane.chaos.drill import Drill
from controlplane.incidents.alert import Status
from controlplane.incidents.correlate import Member
from controlplane.incidents.history import History, Trace
from controlplane.incidents.incident import Entry, Incident, Wanted
from controlplane.incidents.response import Refused, Verb, Word, respond
from controlplane.incidents.statistics import Group, of_service
from controlplane.policy.load import load
from controlplane.policy.model import Policy
from controlplane.render.artefacts import dashboard_of, described, render
from controlplane.render.reports.incident import IncidentReport
from controlplane.web.handling import HandlingPorts
from controlplane.web.incidents import IncidentPorts
from controlplane.web.page import IncidentView, Overview
from controlplane.web.paging import Mark
from controlplane.web.runbooks import RunbookPorts
from tests.support import overviews

PAGE = Path(__file__).resolve().parents[2] / "controlplane.yaml"
_RENDERED: dict[str, Mapping[str, str]] = {}
HINT = "likely cause: node loss (all 2 endpoints of node-a are down). Ask whether the machine itself answers."


@cache
def policy() -> Policy:
    """Return the committed example."""
    return load(PAGE).policy


def _rendered(drills: tuple[Drill, ...]) -> Mapping[str, str]:
    """Render the example once for the same drills, which have no hash: hundreds of tests ask for it."""
    known = repr(drills)
    if known not in _RENDERED:
        _RENDERED[known] = render(policy(), drills, "controlplane.yaml")
    return _RENDERED[known]


def history(of: IncidentView, pool: str = "gateway") -> History:
    """Return two minutes around an incident: 10 s in which a fifth of the requests failed, and a gap."""
    start = of.incident.detected_at.timestamp()
    errors = tuple((start + s, 0.2 if 0 <= s < 10 else 0.0) for s in range(-60, 60))
    latency = tuple((start + s, None if 20 <= s < 40 else 0.4 + (0.3 if s > 0 else 0)) for s in range(-60, 60))
    return Trace(pool, "error_rate", errors), Trace("primary", "latency_p99", latency)


def report(view: Overview, of: IncidentView) -> IncidentReport:
    """Return everything that is known of one of an overview's incidents."""
    page = policy()
    entry = Entry(of.incident.detected_at, "hint", HINT)
    return IncidentReport(
        of.incident, (*of.timeline, entry), view.receipts[:1], history(of), timedelta(minutes=5), page.thresholds,
        page.objectives, ("error_rate", "latency_p99", "endpoints_down"), view.now, "/runbooks/P0-switch-to-standby",
    )  # fmt: skip


def hostile_report() -> IncidentReport:
    """Return an incident in which every text that can come from outside is meant to break the page."""
    view, text = overviews.hostile(), overviews.HOSTILE
    (of,) = view.incidents
    entries = (*of.timeline, Entry(view.now, "hint", f"likely cause: {text}"), Entry(view.now, text, text))
    safe = replace(of, incident=replace(of.incident, level="P0"), timeline=entries)
    return replace(report(view, safe), timeline=entries, history=history(safe, text))


def ports(view: Overview, known: Mapping[str, IncidentReport] | None = None, notes: str = "") -> IncidentPorts:
    """Return what the pages of an overview are made of.

    Args:
        view: the overview.
        known: what is known of incidents, by id; None makes it of the overview's own.
        notes: what a person wrote on every runbook.
    """
    page = policy()
    texts, subjects = _rendered(view.drills), described(page)
    reports = known if known is not None else {of.incident.id: report(view, of) for of in view.incidents}

    async def found(incident_id: str) -> IncidentReport | None:
        return reports.get(incident_id)

    async def text(name: str) -> str | None:
        subject = subjects.get(name)
        made = texts[subject.path] if subject else None
        return made.replace("Nothing yet.", notes, 1) if made and notes else made

    async def still() -> tuple[Incident, ...]:
        return tuple(of.incident for of in view.incidents if of.incident.open)

    books = RunbookPorts(
        subjects, text, page.thresholds, dashboard_of(page), lambda: view.standing, still, lambda: view.now,
        view.version,
    )  # fmt: skip
    return IncidentPorts(found, books, handling(view))


def handling(view: Overview, limits: list[int] | None = None) -> HandlingPorts:
    """Return what may be asked of an overview's incidents: kept in memory, by the rules of the real ones.

    Args:
        view: the overview.
        limits: gets how many were asked for at most.
    """
    kept = {of.incident.id: of for of in view.incidents}

    async def find(wanted: Wanted, limit: int, after: Mark | None = None) -> tuple[IncidentView, ...]:
        if limits is not None:
            limits.append(limit)
        ordered = sorted(kept.values(), key=_mark, reverse=True)
        fitting = [view for view in ordered if wanted.state in ("", view.incident.state)]
        return tuple([view for view in fitting if after is None or _mark(view) < after][:limit])

    async def get(incident_id: str) -> IncidentView | None:
        return kept.get(incident_id)

    async def members(_incident_id: str, limit: int) -> tuple[Member, ...]:
        return (Member("f1", "Slow", Status.FIRING, view.now),)[:limit]

    async def say(incident_id: str, verb: Verb, who: str, text: str, to: str) -> Incident | Refused:
        of = kept.get(incident_id)
        if of is None:
            return Refused("there is no such incident", missing=True)
        heard = respond(of.incident, Word(verb, who, view.now, text, to))
        if isinstance(heard, Refused):
            return heard
        kept[incident_id] = IncidentView(heard.incident, (*of.timeline, heard.entry))
        return heard.incident

    def counted() -> tuple[Group, ...]:
        return of_service("chat", (of.incident for of in kept.values()), view.now)

    return HandlingPorts(find, get, members, say, counted, lambda: view.standing, lambda: view.now, view.version)


def _mark(view: IncidentView) -> Mark:
    return view.incident.detected_at, view.incident.id
