"""The API of the incidents, in a list. Called by `app`."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from controlplane.web.api.ports import WebPorts
from controlplane.web.api.shapes import pages
from controlplane.web.page import IncidentView
from controlplane.web.paging import After, Limit, page_of, read_mark, spell_mark


def add_incidents(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/incidents", tags=["incidents"], responses=pages(IncidentView))
    async def incidents(request: Request, limit: Limit = 50, after: After = "") -> JSONResponse:
        """List the newest incidents first, each with its timeline."""
        found = await ports.incidents(limit + 1, read_mark(after))
        return page_of(request, found, limit, lambda view: spell_mark((view.incident.detected_at, view.incident.id)))
