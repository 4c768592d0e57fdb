"""The HTTP application: the API under `/api/v1`, the console at `/`, `/metrics`, `/healthz`, `/readyz`, `/events`.

What each route needs stands in `access`; `guard`, in front of it all, sees to it. Errors are problem documents (RFC
9457).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Protocol, cast

import structlog
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi import Path as UrlPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

import controlplane
from controlplane.chaos.drill import Drill, Event, Halt
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import settled
from controlplane.chaos.redundancy import Preview, spell_preview
from controlplane.chaos.safety import Go, Refusal
from controlplane.chaos.score import last_before, months, regressions, times_s, within_objective
from controlplane.degradation.actuator import Receipt
from controlplane.errors import ControlplaneError, UsageError
from controlplane.flows.faults import FaultRequest
from controlplane.flows.rollout import Refused
from controlplane.flows.standing import Standing
from controlplane.policy import quantity
from controlplane.render.reports.drill import Report, html_report, markdown_report
from controlplane.security.tokens import csrf_of
from controlplane.web.access import described
from controlplane.web.admin import AdminPorts, add_admin
from controlplane.web.alerts import AlertPages, add_alert_routes
from controlplane.web.answers import json_answer as _json
from controlplane.web.answers import problem as _problem
from controlplane.web.auth import Visitor
from controlplane.web.changes import Changes
from controlplane.web.console import STATIC_DIR, overview_fragment, overview_html
from controlplane.web.guard import SECURITY_HEADERS, Guard, GuardPorts
from controlplane.web.incidents import IncidentPorts, add_incident_pages
from controlplane.web.levers import LeverPorts, add_lever_routes
from controlplane.web.oidc import OidcPorts, add_oidc
from controlplane.web.page import Overview, Role
from controlplane.web.rollouts import StartRollout, add_rollouts
from controlplane.web.runbooks import add_runbooks
from controlplane.web.sessions import add_sessions

EXPERIMENT_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"

log = structlog.get_logger("web")


class Desk(Protocol):
    """Where drills are asked for."""

    async def start(self, experiment: str, requested_by: str) -> Drill | Refusal:
        """Start a drill of an experiment, asked for by somebody; it runs on in the background."""

    async def preview(self, experiment: str) -> tuple[Preview, Go | Refusal]:
        """Say what a drill would do and what the gates say now; touches nothing."""

    async def halt(self, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
        """Stop every drill, end every fault, block new ones."""

    async def resume(self, by: str) -> Halt | None:
        """Let drills start again; returns the halt that was in force."""


@dataclass(frozen=True, slots=True)
class WebPorts:
    """What the outside may ask of the control plane."""

    standing: Callable[[], Standing]
    overview: Callable[[], Awaitable[Overview]]
    receipts: Callable[[int], Awaitable[tuple[Receipt, ...]]]
    drills: Callable[[int], Awaitable[tuple[Drill, ...]]]
    drill: Callable[[str], Awaitable[Drill | None]]
    leases: Callable[[], Awaitable[tuple[Lease, ...]]]
    desk: "Desk"
    """Where drills are asked for."""
    events: Callable[[str], Awaitable[tuple[Event, ...]]]
    """What happened in a drill, oldest first."""
    report: Callable[[Drill], Awaitable[Report]]
    """Everything the report of a drill is made of."""
    incident_pages: IncidentPorts
    """What the runbooks and the pages of incidents are made of."""
    halt: Callable[[], Awaitable[Halt | None]]
    """The halt in force, if any."""
    inject: Callable[[Drill, FaultRequest], Awaitable[tuple[Lease, ...]]]
    heal_drill: Callable[[str], Awaitable[tuple[str, ...]]]
    heal_all: Callable[[], Awaitable[tuple[str, ...]]]
    not_ready: Callable[[], tuple[str, ...]]
    """What is not ready yet; empty when everything is."""
    in_charge: Callable[[], bool]
    """Whether this control plane may move levers, or another one on the same database does."""
    lever: LeverPorts
    start_rollout: StartRollout
    abort_rollout: Callable[[str], Awaitable[Receipt | Refused]]
    newest_rollout: Callable[[], Awaitable[Receipt | None]]
    registry: CollectorRegistry
    changes: Changes
    alerts: AlertPages
    """What fires by our books."""
    guard: GuardPorts
    admin: AdminPorts
    oidc: OidcPorts | None = None
    """With whom people may log in besides; None without an identity provider."""
    role: Callable[[], Role] = lambda: Role("leader", "")
    """Which of several replicas this is, and who is in charge."""


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


def build_app(ports: WebPorts) -> FastAPI:
    """Make the application."""
    # No documentation page of FastAPI's: it loads its parts from elsewhere, and a control plane must not need that.
    app = FastAPI(title="controlplane", version=controlplane.__version__, docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")
    _errors(app)
    _console(app, ports)
    _probes(app, ports)
    _reading(app, ports)
    _reading_drills(app, ports)
    add_incident_pages(app, ports.incident_pages, _json)
    add_runbooks(app, ports.incident_pages.runbooks)
    add_alert_routes(app, ports.alerts, _json)
    _acting(app, ports)

    guard = ports.guard
    add_sessions(
        app, guard.keeper, guard.failures, guard.clock_s, secure=guard.secure,
        provider=ports.oidc.provider.name if ports.oidc else "",
    )  # fmt: skip
    if ports.oidc:
        add_oidc(app, guard.keeper, ports.oidc, secure=guard.secure)
    add_admin(app, ports.admin)
    app.add_middleware(cast("Any", Guard), routes=lambda: app.routes, ports=guard)
    describe = app.openapi
    app.openapi = lambda: described(describe())  # type: ignore[method-assign] # FastAPI's own way to extend it
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ControlplaneError)
    async def ours(_: Request, error: ControlplaneError) -> JSONResponse:
        return _problem(400 if isinstance(error, UsageError) else 503, error.what, error.why, error.fix)

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: StarletteHTTPException) -> JSONResponse:
        response = _problem(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [{"where": ".".join(map(str, e["loc"])), "what": str(e["msg"])} for e in error.errors()]
        return _problem(422, "the request is not valid", errors=wrong)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("unforeseen", path=request.url.path, exc_info=error)
        response = _problem(500, "something went wrong in the control plane", "its log says what", "report it with it")
        response.headers.update(SECURITY_HEADERS)  # This handler stands outside the guard.
        return response


def _console(app: FastAPI, ports: WebPorts) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def overview(request: Request) -> str:
        visitor: Visitor = request.state.visitor
        who = visitor.principal.name if visitor.principal and visitor.cookie else ""
        return overview_html(await ports.overview(), who, csrf_of(visitor.cookie) if visitor.cookie else "")

    @app.get("/drills/{drill_id}", response_class=HTMLResponse, include_in_schema=False)
    async def report(drill_id: str) -> str:
        return html_report(await ports.report(await _the_drill(ports, drill_id)))

    @app.get("/fragment", response_class=HTMLResponse, include_in_schema=False)
    async def fragment() -> str:
        return overview_fragment(await ports.overview())

    @app.get("/events", include_in_schema=False)
    async def events() -> StreamingResponse:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(ports.changes.stream(), media_type="text/event-stream", headers=headers)


def _probes(app: FastAPI, ports: WebPorts) -> None:
    @app.get("/healthz", response_class=PlainTextResponse, tags=["self"])
    async def healthz() -> str:
        """Say that the event loop turns."""
        return "ok\n"

    @app.get("/readyz", tags=["self"])
    async def readyz(request: Request) -> JSONResponse:
        """Say what is not ready yet and who is in charge (to a stranger only whether), and which role this one has."""
        missing, role = ports.not_ready(), ports.role()
        known = request.state.near or request.state.visitor.principal
        told = missing if known or not missing else ("something; a viewer's token shows what",)
        body = {
            "ready": not missing, "not_ready": told, "in_charge": ports.in_charge(), "role": role.name,
            "leader": role.leader if known else "",
        }  # fmt: skip
        return JSONResponse(body, 503 if missing else 200)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["self"])
    async def metrics(request: Request) -> Response:
        """Give the control plane's own metrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(ports.registry), media_type=content_type)


def _reading(app: FastAPI, ports: WebPorts) -> None:
    @app.get("/api/v1/standing", tags=["fleet"])
    async def standing() -> JSONResponse:
        """Say how the service stands: level, pools, verdicts with evidence, rows."""
        return _json(ports.standing())

    @app.get("/api/v1/receipts", tags=["degradation"])
    async def receipts(limit: int = 50) -> JSONResponse:
        """List the newest actions first."""
        return _json(await ports.receipts(_bounded(limit)))


def _reading_drills(app: FastAPI, ports: WebPorts) -> None:
    @app.get("/api/v1/drills", tags=["drills"])
    async def drills(limit: int = 50) -> JSONResponse:
        """List the newest drills first."""
        return _json(await ports.drills(_bounded(limit)))

    @app.get("/api/v1/drills/{drill_id}", tags=["drills"])
    async def drill(drill_id: str) -> JSONResponse:
        """Return one drill."""
        return _json(await _the_drill(ports, drill_id))

    @app.get("/api/v1/drills/{drill_id}/events", tags=["drills"])
    async def events(drill_id: str) -> JSONResponse:
        """List what happened in a drill, as it happens, oldest first."""
        await _the_drill(ports, drill_id)
        return _json(await ports.events(drill_id))

    @app.get("/api/v1/drills/{drill_id}/report", tags=["drills"])
    async def report(drill_id: str) -> JSONResponse:
        """Return the report of one drill as Markdown, with its times, and where its page and its journal are."""
        found = await ports.report(await _the_drill(ports, drill_id))
        drill, journal = found.drill, PurePath(found.drill.journal or "no-journal")
        worse = [str(regression) for regression in regressions(drill, last_before(drill, found.drills))]
        return _json(
            {
                "drill": drill,
                "times_s": times_s(drill),
                "within_objective": within_objective(drill),
                "regressions": worse,
                "months": months(found.drills),
                "markdown": markdown_report(found),
                "markdown_path": journal.with_suffix(".md"),
                "html_path": journal.with_suffix(".html"),
            }
        )

    @app.get("/api/v1/experiments/{experiment}/preview", tags=["drills"])
    async def preview(experiment: Annotated[str, UrlPath(pattern=EXPERIMENT_NAME)]) -> JSONResponse:
        """Say what a drill would break, what survives, at what load, and whether the gates are open."""
        found, asked = await ports.desk.preview(experiment)
        reasons = asked.reasons if isinstance(asked, Refusal) else ()
        seen = asked.seen if isinstance(asked, Go) else ()
        return _json({"preview": found, "words": spell_preview(found), "refused": reasons, "gates": seen})

    @app.get("/api/v1/halt", tags=["drills"])
    async def halted() -> JSONResponse:
        """Return the halt in force, or null."""
        return _json({"halt": await ports.halt()})

    @app.get("/api/v1/leases", tags=["drills"])
    async def leases() -> JSONResponse:
        """List the faults in force."""
        return _json(await ports.leases())


def _acting(app: FastAPI, ports: WebPorts) -> None:
    add_lever_routes(app, ports.lever, _json, _problem)
    add_rollouts(app, ports.start_rollout, ports.abort_rollout, ports.newest_rollout, _json, _problem)
    drill_id_path = UrlPath(pattern=r"^[0-9a-f]{1,32}$")

    @app.post("/api/v1/drills", status_code=202, tags=["drills"])
    async def start(body: StartDrill) -> JSONResponse:
        """Ask the gates and start a drill; 409 with every reason when they refuse."""
        started = await ports.desk.start(body.experiment, body.requested_by)
        if isinstance(started, Refusal):
            fix = _ask_the_leader(ports.role())
            return _problem(409, "the drill may not start", "; ".join(started.reasons), fix, reasons=started.reasons)
        return _json(started, 202)

    @app.post("/api/v1/halt", tags=["drills"])
    async def halt(body: StopAll) -> JSONResponse:
        """Stop every drill, end every fault, and block new ones until they are resumed."""
        in_force, healed = await ports.desk.halt(body.why, body.by)
        return _json({"halt": in_force, "healed": healed})

    @app.post("/api/v1/resume", tags=["drills"])
    async def resume(body: Resume) -> JSONResponse:
        """Let drills start again; `halt` is the one that was in force, or null."""
        return _json({"halt": await ports.desk.resume(body.by)})

    @app.post("/api/v1/drills/{drill_id}/faults", status_code=201, tags=["drills"])
    async def inject(drill_id: Annotated[str, drill_id_path], body: Annotated[Inject, Body()]) -> JSONResponse:
        """Inject a fault for a running drill; for the Chaos Toolkit extension."""
        found = await _the_drill(ports, drill_id)
        leases = await ports.inject(found, body.request())
        return _json({"leases": leases}, 201)

    @app.post("/api/v1/drills/{drill_id}/heal", tags=["drills"])
    async def heal_drill(drill_id: Annotated[str, drill_id_path]) -> JSONResponse:
        """End every fault of one drill now."""
        await _the_drill(ports, drill_id)
        return JSONResponse({"healed": await ports.heal_drill(drill_id)})

    @app.post("/api/v1/heal", tags=["drills"])
    async def heal() -> JSONResponse:
        """End every fault there is now."""
        return JSONResponse({"healed": await ports.heal_all()})


def _ask_the_leader(role: Role) -> str:
    """Say whom to ask what only the one in charge can do; empty when that is us."""
    if role.name == "leader":
        return ""
    return f"ask the one in charge: {role.leader}" if role.leader else "nobody is in charge yet; try again in a moment"


def _bounded(limit: int) -> int:
    return max(1, min(limit, 500))


async def _the_drill(ports: WebPorts, drill_id: str) -> Drill:
    found = await ports.drill(drill_id)
    if found is None:
        raise HTTPException(404, f"no drill {drill_id}")
    return found
