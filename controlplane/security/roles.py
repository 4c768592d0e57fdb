"""Roles and what they may do. `web.access` says what each route needs; `web.guard` asks here.

A need is what a route asks for, a role is what a credential carries. They are two things because two needs are met
without any credential, and because a webhook's token may do one thing only: alerts come from many machines, and the
token that lies on all of them must not read, let alone act.
"""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a token or a session may do."""

    VIEWER = "viewer"
    """Read everything but the audit log and the list of tokens."""
    OPERATOR = "operator"
    """Pull levers, run and stop drills."""
    ADMIN = "admin"
    """Hand out tokens, read the audit log."""
    WEBHOOK = "webhook"
    """Deliver alerts; nothing else, not even reading."""


class Need(StrEnum):
    """What a route asks for."""

    ANYONE = "anyone"
    SCRAPER = "scraper"
    """A viewer, or whoever the server's settings let scrape without a token."""
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    WEBHOOK = "webhook"


_VIEWER = frozenset({Need.ANYONE, Need.SCRAPER, Need.VIEWER})

MAY: Mapping[Role, frozenset[Need]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _VIEWER | {Need.OPERATOR},
    Role.ADMIN: _VIEWER | {Need.OPERATOR, Need.ADMIN, Need.WEBHOOK},
    Role.WEBHOOK: frozenset({Need.ANYONE, Need.WEBHOOK}),
}
"""Role -> the needs it meets."""


def may(role: Role | None, need: Need) -> bool:
    """Tell whether a role meets a need; no role meets what anyone may."""
    return need is Need.ANYONE if role is None else need in MAY[role]


class Scraping(StrEnum):
    """Who may read `/metrics` and `/sd` without a token."""

    LOOPBACK = "loopback"
    """Whoever connects from this machine: Prometheus beside the control plane needs no secret."""
    ANYONE = "anyone"
    """Everybody: for a network that only the monitoring reaches."""
    TOKEN = "token"  # noqa: S105 - the name of a choice
    """Nobody: a viewer's token is needed everywhere."""
