"""The HTTP application: the API under `/api/v1`, the console at `/`, `/metrics`, `/healthz`, `/readyz`, `/events`.

What each route needs stands in `access`; `guard`, in front of it all, sees to it. Errors are problem documents (RFC
9457).
"""

from functools import cache
from typing import Any, cast

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import controlplane
from controlplane.web.answers import json_answer
from controlplane.web.api.admin import add_admin
from controlplane.web.api.alerts import add_alert_routes
from controlplane.web.api.description import described
from controlplane.web.api.discovery import add_discovery
from controlplane.web.api.drills import add_drills
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
from controlplane.web.console import STATIC_DIR
from controlplane.web.etag import EntityTags
from controlplane.web.guard import Guard
from controlplane.web.incidents import add_incident_pages
from controlplane.web.oidc import add_oidc
from controlplane.web.pages.every import add_console
from controlplane.web.pages.wrong import InWords
from controlplane.web.problems import add_problems
from controlplane.web.red import Counted
from controlplane.web.runbooks import add_runbooks
from controlplane.web.sessions import add_sessions

__all__ = ["WebPorts", "build_app"]


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
    app.add_middleware(cast("Any", InWords))
    app.add_middleware(cast("Any", Counted), requests=ports.requests)
    describe = app.openapi
    app.openapi = cache(lambda: described(describe()))  # type: ignore[method-assign] # FastAPI's own way to extend it
    return app


def _console(app: FastAPI, ports: WebPorts) -> None:
    """Add the pages that people read."""
    add_console(app, ports.console)
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
