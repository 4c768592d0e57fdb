"""The API of the drills: asked for, watched, halted, healed; and the faults that are in force. Called by `app`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.chaos.drill import Drill, Event, Halt
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import settled
from controlplane.chaos.safety import Refusal
from controlplane.chaos.score import Month, last_before, months, regressions, times_s, within_objective
from controlplane.errors import UsageError
from controlplane.flows.faults import FaultRequest
from controlplane.policy import quantity
from controlplane.render.reports.drill import markdown_report
from controlplane.web.answers import json_answer, problem
from controlplane.web.api.experiments import EXPERIMENT_NAME
from controlplane.web.api.ports import WebPorts
from controlplane.web.page import Role
from controlplane.web.paging import After, Limit, page_of, read_mark, sliced, spell_key, spell_mark
from controlplane.web.shapes import gives, pages


class StartDrill(BaseModel):
    """The body of a request to start a drill."""

    model_config = ConfigDict(extra="forbid")
    experiment: str = Field(pattern=EXPERIMENT_NAME)
    requested_by: str = Field(default="api", max_length=128)


class StopAll(BaseModel):
    """The body of a request to halt every drill."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=500)
    by: str = Field(default="api", max_length=128)


class Abort(BaseModel):
    """The body of a request to stop one drill."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=500)
    by: str = Field(default="api", max_length=128)


class Resume(BaseModel):
    """The body of a request to let drills start again."""

    model_config = ConfigDict(extra="forbid")
    by: str = Field(default="api", max_length=128)


class Inject(BaseModel):
    """The body of a request to inject a fault; sent by the Chaos Toolkit extension."""

    model_config = ConfigDict(extra="forbid")
    kind: FaultKind
    pool: str = Field(max_length=128)
    endpoints: str = "100%"
    down_for: str = "10s"
    only: list[Annotated[str, Field(max_length=128)]] = Field(default=[], max_length=1000)
    parameters: dict[str, float | str] = {}

    def request(self) -> FaultRequest:
        """Return the request with its units read.

        Raises:
            UsageError: when a unit or a parameter is wrong.
        """
        try:
            share, lasts = quantity.ratio(self.endpoints), quantity.duration(self.down_for)
        except ValueError as error:
            raise UsageError("the fault request is not usable", f"expected {error}", "mend the experiment") from error
        parameters = settled(self.kind, self.parameters)
        return FaultRequest(self.kind, self.pool, share, lasts, tuple(self.only), parameters)


@dataclass(frozen=True, slots=True)
class InForce:
    """A halt, or none."""

    halt: Halt | None


@dataclass(frozen=True, slots=True)
class Halted:
    """What a halt did."""

    halt: Halt
    healed: tuple[str, ...]
    """Each fault that was ended, in words."""


@dataclass(frozen=True, slots=True)
class Healed:
    """What healing did."""

    healed: tuple[str, ...]
    """Each fault that was ended, in words."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What was broken."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The report of one drill, and where its page and its journal are."""

    drill: Drill
    times_s: Mapping[str, float]
    """MTTD, MTTM, MTTR in seconds, as far as they are known."""
    within_objective: bool | None
    regressions: tuple[str, ...]
    months: tuple[Month, ...]
    markdown: str
    markdown_path: PurePath
    html_path: PurePath


def add_drills(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""
    _reading(app, ports)
    _acting(app, ports)


def _reading(app: FastAPI, ports: WebPorts) -> None:
    @app.get("/api/v1/drills", tags=["drills"], responses=pages(Drill))
    async def drills(request: Request, limit: Limit = 50, after: After = "") -> JSONResponse:
        """List the newest drills first."""
        found = await ports.drills(limit + 1, read_mark(after))
        return page_of(request, found, limit, lambda drill: spell_mark((drill.started_at, drill.id)))

    @app.get("/api/v1/drills/{drill_id}", tags=["drills"], responses=gives(Drill))
    async def drill(drill_id: str) -> JSONResponse:
        """Return one drill."""
        return json_answer(await the_drill(ports, drill_id))

    @app.get("/api/v1/drills/{drill_id}/events", tags=["drills"], responses=gives(tuple[Event, ...]))
    async def events(drill_id: str) -> JSONResponse:
        """List what happened in a drill, as it happens, oldest first."""
        await the_drill(ports, drill_id)
        return json_answer(await ports.events(drill_id))

    @app.get("/api/v1/drills/{drill_id}/report", tags=["drills"], responses=gives(DrillReport))
    async def report(drill_id: str) -> JSONResponse:
        """Return the report of one drill as Markdown, with its times, and where its page and its journal are."""
        found = await ports.report(await the_drill(ports, drill_id))
        drill, journal = found.drill, PurePath(found.drill.journal or "no-journal")
        worse = [str(regression) for regression in regressions(drill, last_before(drill, found.drills))]
        return json_answer(
            DrillReport(
                drill, times_s(drill), within_objective(drill), tuple(worse), months(found.drills),
                markdown_report(found), journal.with_suffix(".md"), journal.with_suffix(".html"),
            )
        )  # fmt: skip

    @app.get("/api/v1/halt", tags=["drills"], responses=gives(InForce))
    async def halted() -> JSONResponse:
        """Return the halt in force, or null."""
        return json_answer(InForce(await ports.halt()))

    @app.get("/api/v1/leases", tags=["drills"], responses=pages(Lease))
    async def leases(request: Request, limit: Limit = 100, after: After = "") -> JSONResponse:
        """List the faults in force, oldest first."""
        found = sliced(await ports.leases(), limit, after, lambda lease: lease.id)
        return page_of(request, found, limit, lambda lease: spell_key(lease.id))


def _acting(app: FastAPI, ports: WebPorts) -> None:
    drill_id_path = UrlPath(pattern=r"^[0-9a-f]{1,32}$")

    @app.post("/api/v1/drills", status_code=202, tags=["drills"], responses=gives(Drill, 202, "It runs."))
    async def start(body: StartDrill) -> JSONResponse:
        """Ask the gates and start a drill; 409 with every reason when they refuse."""
        started = await ports.desk.start(body.experiment, body.requested_by)
        if isinstance(started, Refusal):
            fix = _ask_the_leader(ports.role())
            return problem(409, "the drill may not start", "; ".join(started.reasons), fix, reasons=started.reasons)
        return json_answer(started, 202)

    @app.post("/api/v1/drills/{drill_id}/abort", status_code=202, tags=["drills"], responses=gives(Drill, 202, "Told."))
    async def abort(drill_id: Annotated[str, drill_id_path], body: Abort) -> JSONResponse:
        """Tell a running drill to stop: its faults end first, and it proves nothing; 409 when it cannot be told."""
        told = await ports.desk.abort((await the_drill(ports, drill_id)).id, body.why, body.by)
        if isinstance(told, Refusal):
            return problem(409, "the drill cannot be told to stop", "; ".join(told.reasons), reasons=told.reasons)
        return json_answer(told, 202)

    @app.post("/api/v1/halt", tags=["drills"], responses=gives(Halted))
    async def halt(body: StopAll) -> JSONResponse:
        """Stop every drill, end every fault, and block new ones until they are resumed."""
        in_force, healed = await ports.desk.halt(body.why, body.by)
        return json_answer(Halted(in_force, healed))

    @app.post("/api/v1/resume", tags=["drills"], responses=gives(InForce))
    async def resume(body: Resume) -> JSONResponse:
        """Let drills start again; `halt` is the one that was in force, or null."""
        return json_answer(InForce(await ports.desk.resume(body.by)))

    @app.post(
        "/api/v1/drills/{drill_id}/faults",
        status_code=201,
        tags=["drills"],
        responses=gives(Injected, 201, "Injected."),
    )
    async def inject(drill_id: Annotated[str, drill_id_path], body: Annotated[Inject, Body()]) -> JSONResponse:
        """Inject a fault for a running drill; for the Chaos Toolkit extension."""
        found = await the_drill(ports, drill_id)
        leases = await ports.inject(found, body.request())
        return json_answer(Injected(leases), 201)

    @app.post("/api/v1/drills/{drill_id}/heal", tags=["drills"], responses=gives(Healed))
    async def heal_drill(drill_id: Annotated[str, drill_id_path]) -> JSONResponse:
        """End every fault of one drill now."""
        await the_drill(ports, drill_id)
        return json_answer(Healed(await ports.heal_drill(drill_id)))

    @app.post("/api/v1/heal", tags=["drills"], responses=gives(Healed))
    async def heal() -> JSONResponse:
        """End every fault there is now."""
        return json_answer(Healed(await ports.heal_all()))


async def the_drill(ports: WebPorts, drill_id: str) -> Drill:
    """Return a drill.

    Raises:
        HTTPException: 404 when there is none of that id.
    """
    found = await ports.drill(drill_id)
    if found is None:
        raise HTTPException(404, f"no drill {drill_id}")
    return found


def _ask_the_leader(role: Role) -> str:
    """Say whom to ask what only the one in charge can do; empty when that is us."""
    if role.name == "leader":
        return ""
    return f"ask the one in charge: {role.leader}" if role.leader else "nobody is in charge yet; try again in a moment"
