"""Webhooks as Alertmanager 0.25 and Grafana 11 post them, and the door they are posted at, with a real store behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from controlplane.flows.intake import Busy, Intake, IntakePorts
from controlplane.incidents.alert import Alert, Status, Webhook, fingerprint
from controlplane.incidents.firing import Change
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.telemetry import Metrics
from controlplane.web.intake import PATH, DoorPorts, IntakeDoor, WebhookCheck

TOKEN = "a-token-of-the-webhook"
T0 = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"
"""How Go writes that an alert has not ended."""


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def alert(name: str, status: str = "firing", starts: float = 0.0, ends: float | None = None, **labels: str) -> Alert:
    """Return an alert that started, and ended, so many seconds after `T0`."""
    whole = {"alertname": name, **labels}
    return Alert(
        fingerprint(whole), later(starts), Status(status), name, labels.get("service", ""),
        None if ends is None else later(ends), labels=whole,
    )  # fmt: skip


def told(alert: Alert, **more: object) -> dict[str, Any]:
    """Write an alert as it stands in a webhook."""
    return {
        "status": alert.status.value,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": alert.starts_at.isoformat().replace("+00:00", "Z"),
        "endsAt": alert.ends_at.isoformat().replace("+00:00", "Z") if alert.ends_at else NEVER,
        "generatorURL": alert.generator,
        "fingerprint": alert.fingerprint,
        **more,
    }


def webhook(alerts: Sequence[Mapping[str, Any]], **more: object) -> bytes:
    """Write a body as Alertmanager does."""
    body = {
        "receiver": "controlplane",
        "status": "firing",
        "alerts": alerts,
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": '{}:{alertname="x"}',
        "truncatedAlerts": 0,
        **more,
    }
    return json.dumps(body).encode()


GRAFANA: dict[str, object] = {
    "version": "1", "orgId": 1, "title": "[FIRING:1]", "state": "alerting", "message": "**Firing**",
}  # fmt: skip
"""What Grafana's body has besides, or otherwise."""
GRAFANA_ALERT: dict[str, object] = {
    "silenceURL": "http://grafana/alerting/silence/new", "dashboardURL": "", "panelURL": "",
    "values": {"A": 21.5, "B": None}, "valueString": "[ var='A' labels={} value=21.5 ]", "imageURL": "",
}  # fmt: skip


@dataclass(slots=True)
class Desk:
    """A door with a store behind it."""

    door: IntakeDoor
    take: Callable[[Webhook], Coroutine[Any, Any, Busy | None]]
    put: Callable[[Webhook, Callable[[Busy | None], None]], None]
    book: StoredAlerts
    database: Database
    metrics: Metrics
    changes: list[Change]
    truncated: list[None]

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def post(self, body: bytes, token: str = TOKEN, **scope: Any) -> int:
        """Post without a socket; return the status."""
        return (await asgi(self.door, body, token, **scope)).status

    async def firing(self) -> set[str]:
        """Return the fingerprints of what fires by the books."""
        return {found.fingerprint for found in (await self.book.page(500)).alerts}


@dataclass(frozen=True, slots=True)
class Got:
    """An answer over ASGI."""

    status: int
    headers: dict[str, str]
    body: bytes


async def asgi(app: Any, body: bytes, token: str = TOKEN, pieces: int = 1, **more: Any) -> Got:
    """Ask an application in this process."""
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, **more}
    size = -(-len(body) // pieces) or 1
    parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    coming = [{"type": "http.request", "body": p, "more_body": i < len(parts) - 1} for i, p in enumerate(parts)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = {k.decode(): v.decode() for k, v in sent[0]["headers"]} if sent else {}
    return Got(sent[0]["status"] if sent else 0, head, b"".join(m.get("body", b"") for m in sent))


async def of_token(_: str) -> None:
    """Know nobody but by the token of the file."""


async def not_found(_scope: Any, _receive: Any, send: Any) -> None:
    """Stand in for the rest of the application."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def desk(folder: Path, inbox: Any = None, body_within_s: float = 10.0) -> AsyncIterator[Desk]:
    """Open a door; everything behind it is real, unless an inbox is given."""
    database = open_database(sqlite_url(folder / "alerts.db"))
    async with at_desk(database, inbox, body_within_s) as opened:
        yield opened
    database.close()


@asynccontextmanager
async def at_desk(database: Database, inbox: Any = None, body_within_s: float = 10.0) -> AsyncIterator[Desk]:
    """Open a door on a database."""
    metrics, book, changes, truncated = Metrics(), StoredAlerts(database), list[Change](), list[None]()
    intake = Intake(
        IntakePorts(
            inbox or book, changes.extend, metrics, lambda: datetime.now(UTC), lambda: truncated.append(None)
        )
    )  # fmt: skip
    allowed = WebhookCheck(TOKEN, of_token)
    door = IntakeDoor(not_found, DoorPorts(intake.take, intake.put, allowed, metrics.webhooks_refused), body_within_s)
    writing = asyncio.create_task(intake.run())
    await asyncio.sleep(0)
    try:
        yield Desk(door, intake.take, intake.put, book, database, metrics, changes, truncated)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
