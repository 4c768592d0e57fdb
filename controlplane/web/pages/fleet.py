"""The fleet: one cell an endpoint, a thousand at a glance, and a table of what was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request
from markupsafe import Markup, escape

from controlplane.flows.standing import EndpointStanding, Standing
from controlplane.web.console import endpoint_state
from controlplane.web.frame import Sheet, add_page
from controlplane.web.pages.ports import ConsolePorts

ROWS = 50
"""Endpoints on one page of the table."""
STATES = ("up", "down", "unknown")
MARKS = {"up": "✓", "down": "✕", "unknown": "?"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which endpoints somebody wants to see; empty for all."""

    pool: str = ""
    state: str = ""
    node: str = ""
    page: int = 1

    def path(self, page: int) -> str:
        """Return the address of another page of the same table."""
        said = {"pool": self.pool, "state": self.state, "node": self.node, "page": str(page) if page > 1 else ""}
        query = urlencode({name: value for name, value in said.items() if value})
        return f"/fleet?{query}" if query else "/fleet"

    def wants(self, seen: EndpointStanding) -> bool:
        """Tell whether an endpoint is among them."""
        return (not self.state or endpoint_state(seen) == self.state) and (
            not self.node or seen.endpoint.node == self.node
        )


@dataclass(frozen=True, slots=True)
class Group:
    """The endpoints of one pool that were asked for."""

    pool: str
    shown: int
    count: Mapping[str, int]
    """Of the whole pool: how many are `up`, `down` and `unknown`."""
    cells: Markup


@dataclass(frozen=True, slots=True)
class FleetView:
    """Everything on the page."""

    standing: Standing
    now: datetime
    version: str
    asked: Asked
    pools: tuple[str, ...]
    nodes: tuple[str, ...]
    groups: tuple[Group, ...]
    rows: tuple[EndpointStanding, ...]
    """One page of the table; those that are not up first."""
    found: int
    total: int
    pages: int
    count: Mapping[str, int]


def read_asked(query: Mapping[str, str]) -> Asked:
    """Read what a page's address asks for; what makes no sense asks for nothing."""
    page = query.get("page", "1")
    state = query.get("state", "")
    return Asked(
        query.get("pool", ""), state if state in STATES else "", query.get("node", ""),
        int(page) if page.isascii() and page.isdigit() and len(page) < 7 and int(page) else 1,
    )  # fmt: skip


def fleet_view(standing: Standing, asked: Asked, now: datetime, version: str) -> FleetView:
    """Choose and count the endpoints that were asked for."""
    everything = [seen for pool in standing.pools for seen in pool.endpoints]
    wanted: list[EndpointStanding] = []
    groups = []
    for pool in standing.pools:
        if asked.pool in ("", pool.name) and pool.endpoints:
            shown = [seen for seen in pool.endpoints if asked.wants(seen)]
            wanted += shown
            groups.append(Group(pool.name, len(shown), _count(pool.endpoints), cells(pool.name, shown)))
    wanted.sort(key=lambda seen: (seen.up is True, seen.up is None))
    pages = max(1, -(-len(wanted) // ROWS))
    page = min(asked.page, pages)
    rows = tuple(wanted[(page - 1) * ROWS : page * ROWS])
    return FleetView(
        standing, now, version, Asked(asked.pool, asked.state, asked.node, page),
        tuple(pool.name for pool in standing.pools if pool.endpoints),
        tuple(sorted({seen.endpoint.node for seen in everything if seen.endpoint.node})),
        tuple(groups), rows, len(wanted), len(everything), pages, _count(everything),
    )  # fmt: skip


def _count(endpoints: Sequence[EndpointStanding]) -> dict[str, int]:
    states = [endpoint_state(seen) for seen in endpoints]
    return {state: states.count(state) for state in STATES}


def cells(pool: str, endpoints: Sequence[EndpointStanding]) -> Markup:
    """Draw a pool's endpoints, each a link to what is known of it; written by hand, since there may be thousands."""
    at = f"/pools/{quote(pool, safe='')}?endpoint="
    drawn = []
    for seen in endpoints:
        state, name = endpoint_state(seen), seen.endpoint.name
        told = escape(f"{name} {state}{f', {seen.endpoint.node}' if seen.endpoint.node else ''}")
        drawn.append(
            f'<li><a class="cell is-{state}" href="{escape(at + quote(name, safe=""))}" title="{told}" '
            f'aria-label="{told}">{MARKS[state]}</a></li>'
        )
    return Markup("\n".join(drawn))  # noqa: S704 - every text in it was escaped


def fleet_sheet(view: FleetView) -> Sheet:
    """Make the page."""
    service = view.standing.service
    return Sheet("_fleet.html", f"Fleet · {service} · controlplane", view, service, "/fleet", values={"STATES": STATES})


def add_fleet_page(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the page."""

    async def make(request: Request) -> Sheet:
        return fleet_sheet(fleet_view(ports.standing(), read_asked(request.query_params), ports.now(), ports.version))

    add_page(app, "/fleet", make)
