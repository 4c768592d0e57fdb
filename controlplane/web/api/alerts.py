"""`GET /api/v1/alerts`: what fires now by our books, page by page. Called by `app`."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from msgspec.structs import asdict

from controlplane.errors import UsageError
from controlplane.incidents.alert import Alert
from controlplane.web.answers import json_answer


class AlertsFound(Protocol):
    """Some of what fires."""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What changed last first."""

    @property
    def after(self) -> tuple[datetime, str] | None:
        """When the last one changed, and its fingerprint, where there are more."""


AlertPages = Callable[[int, tuple[datetime, str] | None], Awaitable[AlertsFound]]
"""(how many at most, behind which one) -> some of what fires."""


def add_alert_routes(app: FastAPI, pages: AlertPages) -> None:
    """Add the route.

    Args:
        app: what it is added to.
        pages: gives what fires.
    """

    @app.get("/api/v1/alerts", tags=["incidents"])
    async def alerts(limit: int = 100, after: str = "") -> JSONResponse:
        """List what fires by our books, what changed last first; `next` is the `after` of the next page, or null."""
        found = await pages(max(1, min(limit, 500)), _read(after) if after else None)
        return json_answer({"alerts": [asdict(alert) for alert in found.alerts], "next": _spell(found.after)})


def _spell(after: tuple[datetime, str] | None) -> str | None:
    return None if after is None else f"{after[0].isoformat()}~{after[1]}"


def _read(text: str) -> tuple[datetime, str]:
    """Read where a page goes on.

    Raises:
        UsageError: when it is not what an earlier page gave.
    """
    at, tilde, fingerprint = text.replace(" ", "+").partition("~")
    try:
        started = datetime.fromisoformat(at)
    except ValueError as error:
        raise UsageError("no such page", str(error), "take `next` of an earlier answer as `after`") from error
    if not tilde or started.tzinfo is None:
        raise UsageError("no such page", f"`{text}` names no alert", "take `next` of an earlier answer as `after`")
    return started, fingerprint
