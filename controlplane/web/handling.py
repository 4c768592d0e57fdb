"""Handling incidents: finding them, their figures, and what people say about them; for the API and the console's forms.

Whoever says something is who the request proves to be, never what it says of itself. What each route needs stands in
`access`. Called by `app`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Literal, Protocol, get_args

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.flows.standing import Standing
from controlplane.incidents.correlate import Member
from controlplane.incidents.incident import Incident, Wanted
from controlplane.incidents.response import NAME_AT_MOST, TEXT_AT_MOST, Refused, Verb
from controlplane.incidents.statistics import Group, Step, took_s
from controlplane.web.answers import json_answer, problem
from controlplane.web.auth import Visitor
from controlplane.web.frame import Sheet, add_page
from controlplane.web.page import IncidentView
from controlplane.web.paging import After, Limit, Mark, page_of, read_mark, spell_mark
from controlplane.web.shapes import pages

LISTED = 100
MEMBERS_SHOWN = 200
TAGS: list[str | Enum] = ["incidents"]
_STATES = Literal["", "open", "mitigated", "resolved"]
_LEVELS = Literal["", "none", "P0", "P1", "P2"]
_DRILL = Literal["", "true", "false"]
_POOL = Annotated[str, Query(max_length=128)]


class Finding(Protocol):
    """The incidents that are asked for, newest first."""

    async def __call__(self, wanted: Wanted, limit: int, after: Mark | None = None) -> tuple[IncidentView, ...]:
        """Return so many at most, those behind a mark where one is given."""


@dataclass(frozen=True, slots=True)
class HandlingPorts:
    """What the outside may ask of incidents."""

    find: Finding
    get: Callable[[str], Awaitable[IncidentView | None]]
    members: Callable[[str, int], Awaitable[tuple[Member, ...]]]
    """What belongs to an incident: what still holds first."""
    say: Callable[[str, Verb, str, str, str], Awaitable[Incident | Refused]]
    """Takes what a person says: (incident, verb, who, text, to)."""
    statistics: Callable[[], tuple[Group, ...]]
    """Of the last 30 days, real and rehearsed apart."""
    standing: Callable[[], Standing]
    now: Callable[[], datetime]
    version: str


@dataclass(frozen=True, slots=True)
class IncidentList:
    """Everything on the page that lists incidents."""

    standing: Standing
    incidents: tuple[Incident, ...]
    wanted: Wanted
    groups: tuple[Group, ...]
    now: datetime
    version: str

    def age_s(self, incident: Incident) -> float:
        """Return how long an incident has lasted, or lasted."""
        return ((incident.resolved_at or self.now) - incident.detected_at).total_seconds()


class Acknowledge(BaseModel):
    """The body of a request to say that somebody has it."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(default="", max_length=TEXT_AT_MOST)


class Assign(BaseModel):
    """The body of a request to give it to somebody; an empty name takes it from whoever has it."""

    model_config = ConfigDict(extra="forbid")
    to: str = Field(max_length=NAME_AT_MOST)
    why: str = Field(default="", max_length=TEXT_AT_MOST)


class Note(BaseModel):
    """The body of a request to write on the timeline."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, max_length=TEXT_AT_MOST)


class Reason(BaseModel):
    """The body of a request that needs a reason."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=TEXT_AT_MOST)


def who_asks(request: Request) -> str:
    """Return the name of whoever sends a request, as far as it is proven."""
    visitor: Visitor = request.state.visitor
    return visitor.principal.name if visitor.principal else ""


def add_handling(app: FastAPI, ports: HandlingPorts) -> None:
    """Add the routes; before those of single incidents, whose ids hold slashes."""
    _listing(app, ports)
    _words(app, ports)
    _console(app, ports)


def add_single(app: FastAPI, ports: HandlingPorts) -> None:
    """Add the route that takes whatever stands behind `incidents/` for an id; after all others that begin so."""

    @app.get("/api/v1/incidents/{incident_id:path}", tags=TAGS)
    async def incident(incident_id: str) -> JSONResponse:
        """Return one incident with its timeline, oldest entry first, what belongs to it, and its times in seconds."""
        found = await ports.get(incident_id)
        if found is None:
            raise HTTPException(404, "there is no such incident")
        return json_answer(
            {
                "incident": found.incident,
                "timeline": found.timeline,
                "members": await ports.members(incident_id, MEMBERS_SHOWN),
                "took_s": {step: took_s(found.incident, step) for step in Step},
            }
        )


def _wanted(state: str, level: str, drill: str, pool: str) -> Wanted:
    return Wanted(state, level, pool, {"true": True, "false": False}.get(drill))


def _listing(app: FastAPI, ports: HandlingPorts) -> None:
    @app.get("/api/v1/incidents", tags=TAGS, responses=pages(IncidentView))
    async def incidents(
        request: Request,
        limit: Limit = 50,
        after: After = "",
        state: _STATES = "",
        level: _LEVELS = "",
        drill: _DRILL = "",
        pool: _POOL = "",
    ) -> JSONResponse:
        """List incidents, the newest first, each with its timeline; of a state, a level, a pool, drills' or real."""
        found = await ports.find(_wanted(state, level, drill, pool), limit + 1, read_mark(after))
        return page_of(request, found, limit, lambda view: spell_mark((view.incident.detected_at, view.incident.id)))

    @app.get("/api/v1/incidents/statistics", tags=TAGS)
    async def statistics() -> JSONResponse:
        """Give MTTD, MTTA, MTTM and MTTR of the last 30 days by level; drills are counted apart."""
        return json_answer(ports.statistics())


def _words(app: FastAPI, ports: HandlingPorts) -> None:
    async def say(request: Request, incident_id: str, verb: Verb, text: str, to: str = "") -> JSONResponse:
        said = await ports.say(incident_id, verb, who_asks(request), text, to)
        if isinstance(said, Refused):
            return problem(404 if said.missing else 409, f"the incident cannot be told to {verb}", said.why)
        return json_answer(said)

    @app.post("/api/v1/incidents/{incident_id:path}/acknowledge", tags=TAGS)
    async def acknowledge(request: Request, incident_id: str, body: Acknowledge) -> JSONResponse:
        """Say that whoever asks has seen it and sees to it. 409 says why not."""
        return await say(request, incident_id, Verb.ACKNOWLEDGE, body.why)

    @app.post("/api/v1/incidents/{incident_id:path}/assign", tags=TAGS)
    async def assign(request: Request, incident_id: str, body: Assign) -> JSONResponse:
        """Give it to somebody."""
        return await say(request, incident_id, Verb.ASSIGN, body.why, body.to)

    @app.post("/api/v1/incidents/{incident_id:path}/note", tags=TAGS)
    async def note(request: Request, incident_id: str, body: Note) -> JSONResponse:
        """Write on its timeline."""
        return await say(request, incident_id, Verb.NOTE, body.text)

    @app.post("/api/v1/incidents/{incident_id:path}/resolve", tags=TAGS)
    async def resolve(request: Request, incident_id: str, body: Reason) -> JSONResponse:
        """End it; not while a row of the matrix is in force because of it."""
        return await say(request, incident_id, Verb.RESOLVE, body.why)

    @app.post("/api/v1/incidents/{incident_id:path}/reopen", tags=TAGS)
    async def reopen(request: Request, incident_id: str, body: Reason) -> JSONResponse:
        """Open it again; then only a person resolves it."""
        return await say(request, incident_id, Verb.REOPEN, body.why)


def list_sheet(view: IncidentList) -> Sheet:
    """Make the page that lists incidents."""
    service = view.standing.service
    return Sheet("_incident_list.html", f"Incidents · {service} · controlplane", view, service, "/incidents")


def _console(app: FastAPI, ports: HandlingPorts) -> None:
    async def listing(request: Request) -> Sheet:
        asked = request.query_params
        state, level, drill = (
            value if (value := asked.get(name, "")) in get_args(choices) else ""
            for name, choices in (("state", _STATES), ("level", _LEVELS), ("drill", _DRILL))
        )
        wanted = _wanted(state, level, drill, asked.get("pool", "")[:128])
        found = tuple(view.incident for view in await ports.find(wanted, LISTED))
        page = IncidentList(ports.standing(), found, wanted, ports.statistics(), ports.now(), ports.version)
        return list_sheet(page)

    add_page(app, "/incidents", listing)
