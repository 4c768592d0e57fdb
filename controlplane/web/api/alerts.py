"""`GET /api/v1/alerts`: what fires now by our books, page by page. Called by `app`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from controlplane.incidents.alert import Alert
from controlplane.web.answers import json_answer
from controlplane.web.paging import After, Limit, link_next, read_mark, spell_mark
from controlplane.web.shapes import gives


class AlertsFound(Protocol):
    """Some of what fires."""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What changed last first."""

    @property
    def after(self) -> tuple[datetime, str] | None:
        """When the last one changed, and its fingerprint, where there are more."""


@dataclass(frozen=True, slots=True)
class AlertList:
    """A page of what fires."""

    alerts: tuple[Alert, ...]
    next: str | None
    """The `after` of the next page."""


AlertPages = Callable[[int, tuple[datetime, str] | None], Awaitable[AlertsFound]]
"""(how many at most, behind which one) -> some of what fires."""


def add_alert_routes(app: FastAPI, pages: AlertPages) -> None:
    """Add the route.

    Args:
        app: what it is added to.
        pages: gives what fires.
    """

    @app.get("/api/v1/alerts", tags=["incidents"], responses=gives(AlertList, Link="The next page (RFC 8288)."))
    async def alerts(request: Request, limit: Limit = 100, after: After = "") -> JSONResponse:
        """List what fires by our books, what changed last first; `next` is the `after` of the next page, or null."""
        found = await pages(limit, read_mark(after))
        onward = spell_mark(found.after) if found.after else None
        answer = json_answer(AlertList(found.alerts, onward))
        if onward:
            link_next(request, answer, onward)
        return answer
