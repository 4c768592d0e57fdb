"""The audit log: who did what, the newest first; for admins."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from fastapi import FastAPI, Request

from controlplane.security.chain import AuditBook, Link
from controlplane.web.frame import Sheet, add_page
from controlplane.web.pages.ports import ConsolePorts

SHOWN = 100
LOOKED_AT = 1000
"""Rows that one page with a filter looks through."""


@dataclass(frozen=True, slots=True)
class AuditView:
    """One page of the log."""

    now: datetime
    version: str
    links: tuple[Link, ...]
    """The newest first."""
    who: str
    action: str
    older: str
    """Where older rows are; empty where there are none."""


async def audit_view(
    book: AuditBook, who: str, action: str, before: int | None, now: datetime, version: str
) -> AuditView:
    """Gather one page: rows whose author and deed hold what was asked for."""
    rows = await book.recent(LOOKED_AT if who or action else SHOWN, before)
    found = [link for link in rows if who in link.deed.who.lower() and action in link.deed.action.lower()]
    links = tuple(found[:SHOWN])
    last = links[-1].number if len(found) > SHOWN else rows[-1].number if rows else 1
    said = {"who": who, "action": action, "before": str(last)}
    query = urlencode({name: value for name, value in said.items() if value})
    return AuditView(now, version, links, who, action, f"/audit?{query}" if last > 1 else "")


def audit_sheet(view: AuditView, service: str) -> Sheet:
    """Make the page."""
    return Sheet("_audit.html", f"Audit log · {service} · controlplane", view, service, "/audit", moves=False)


def add_audit_page(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the page."""

    async def make(request: Request) -> Sheet:
        asked = request.query_params
        number = asked.get("before", "")
        before = int(number) if number.isascii() and number.isdigit() and 0 < len(number) < 16 else None
        who, action = (asked.get(name, "").strip().lower()[:100] for name in ("who", "action"))
        view = await audit_view(ports.audit, who, action, before or None, ports.now(), ports.version)
        return audit_sheet(view, ports.standing().service)

    add_page(app, "/audit", make)
