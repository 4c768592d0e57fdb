"""The HTTP application: the API under `/api/v1`, the console at `/`, `/metrics`, `/healthz`, `/readyz`, `/events`.

What each route needs stands in `access`; `guard`, in front of it all, sees to it. Errors are problem documents (RFC
9457).
"""

from functools import cache
from typing import Annotated, Any, cast

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

import controlplane
from controlplane.render.reports.drill import html_report
from controlplane.security.tokens import csrf_of
from controlplane.web.answers import json_answer
from controlplane.web.api.admin import add_admin
from controlplane.web.api.alerts import add_alert_routes
from controlplane.web.api.description import described
from controlplane.web.api.discovery import add_discovery
from controlplane.web.api.drills import add_drills, the_drill
from controlplane.web.api.events import add_events
from controlplane.web.api.experiments import add_experiments
from controlplane.web.api.fleet import add_fleet
from controlplane.web.api.health import add_health
from controlplane.web.api.levers import add_lever_routes
from controlplane.web.api.matrix import add_matrix
from controlplane.web.api.ports import WebPorts
from controlplane.web.api.receipts import add_receipts
from controlplane.web.api.rollouts import add_rollouts
from controlplane.web.api.runbooks import add_runbook_texts
from controlplane.web.api.signals import add_signals
from controlplane.web.auth import Visitor
from controlplane.web.console import STATIC_DIR, overview_fragment, overview_html
from controlplane.web.doors import audit_html
from controlplane.web.etag import EntityTags
from controlplane.web.guard import Guard
from controlplane.web.incidents import add_incident_pages
from controlplane.web.oidc import add_oidc
from controlplane.web.problems import add_problems
from controlplane.web.red import Counted
from controlplane.web.runbooks import add_runbooks
from controlplane.web.sessions import add_sessions

__all__ = ["WebPorts", "build_app"]

AUDIT_SHOWN = 100


def build_app(ports: WebPorts) -> FastAPI:
    """Make the application."""
    # No documentation page of FastAPI's: it loads its parts from elsewhere, and a control plane must not need that.
    app = FastAPI(title="controlplane", version=controlplane.__version__, docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")
    add_problems(app)
    _console(app, ports)
    _doors(app, ports)
    _api(app, ports)
    # The last one added stands first.
    app.add_middleware(cast("Any", EntityTags))
    app.add_middleware(cast("Any", Guard), routes=lambda: app.routes, ports=ports.guard)
    app.add_middleware(cast("Any", Counted), requests=ports.requests)
    describe = app.openapi
    app.openapi = cache(lambda: described(describe()))  # type: ignore[method-assign] # FastAPI's own way to extend it
    return app


def _console(app: FastAPI, ports: WebPorts) -> None:
    """Add the pages that people read."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def overview(request: Request) -> str:
        visitor: Visitor = request.state.visitor
        who = visitor.principal.name if visitor.principal and visitor.cookie else ""
        return overview_html(await ports.overview(), who, csrf_of(visitor.cookie) if visitor.cookie else "")

    @app.get("/drills/{drill_id}", response_class=HTMLResponse, include_in_schema=False)
    async def report(drill_id: str) -> str:
        return html_report(await ports.report(await the_drill(ports, drill_id)))

    @app.get("/fragment", response_class=HTMLResponse, include_in_schema=False)
    async def fragment() -> str:
        return overview_fragment(await ports.overview())

    @app.get("/audit", response_class=HTMLResponse, include_in_schema=False)
    async def page(before: Annotated[int | None, Query(ge=1)] = None) -> str:
        return audit_html(await ports.admin.audit.recent(AUDIT_SHOWN, before), AUDIT_SHOWN, ports.admin.now())

    add_incident_pages(app, ports.incident_pages, json_answer)
    add_runbooks(app, ports.incident_pages.runbooks)


def _doors(app: FastAPI, ports: WebPorts) -> None:
    """Add the ways in."""
    guard = ports.guard
    add_sessions(
        app, guard.keeper, guard.failures, guard.clock_s, secure=guard.secure,
        provider=ports.oidc.provider.name if ports.oidc else "",
    )  # fmt: skip
    if ports.oidc:
        add_oidc(app, guard.keeper, ports.oidc, secure=guard.secure)


def _api(app: FastAPI, ports: WebPorts) -> None:
    """Add what machines read and do."""
    add_health(app, ports)
    add_events(app, ports.changes, ports.requests)
    add_discovery(app, ports)
    add_fleet(app, ports)
    add_signals(app, ports.signals)
    add_matrix(app, ports)
    add_receipts(app, ports)
    add_drills(app, ports)
    add_experiments(app, ports)
    add_runbook_texts(app, ports.incident_pages.runbooks)
    add_alert_routes(app, ports.alerts)
    add_lever_routes(app, ports.lever)
    add_rollouts(app, ports.start_rollout, ports.abort_rollout, ports.newest_rollout)
    add_admin(app, ports.admin)
