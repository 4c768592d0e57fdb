"""One pool: its signals over the last half hour beside their thresholds, the verdict, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import FastAPI, HTTPException, Request

from controlplane.degradation.actuator import Receipt
from controlplane.flows.standing import EndpointStanding, PoolStanding, Standing
from controlplane.incidents.history import BEFORE, Event, compact
from controlplane.render.reports.charts import Chart, Mark, charts
from controlplane.signals.recording import Point
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.threshold import Threshold
from controlplane.web.frame import Sheet, add_page
from controlplane.web.pages.ports import ConsolePorts
from controlplane.web.runbooks import Reading

SHOWN = timedelta(minutes=30)
"""As much as the recorder keeps in memory."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """Everything on the page."""

    standing: Standing
    now: datetime
    version: str
    pool: PoolStanding
    chosen: EndpointStanding | None
    """The endpoint that was asked for."""
    readings: tuple[Reading, ...]
    charts: tuple[Chart, ...]


def pool_view(
    standing: Standing,
    pool: PoolStanding,
    endpoint: str,
    thresholds: Mapping[str, Threshold],
    recorded: Sequence[Point],
    receipts: Sequence[Receipt],
    now: datetime,
    version: str,
) -> PoolView:
    """Put a pool's page together.

    Args:
        standing: how the service stands.
        pool: the pool of it.
        endpoint: the name of the endpoint to tell more of; empty for none.
        thresholds: by signal.
        recorded: what the recorder has, of any pool, oldest first.
        receipts: actions, which are marked on the charts.
        now: aware UTC.
        version: ours.
    """
    evidence = pool.verdict.evidence
    mine = [point for point in recorded if point.pool == pool.name]
    wanted = [seen.signal for seen in evidence if seen.signal in CATALOGUE]
    wanted.sort(key=lambda name: name not in thresholds)
    history = compact(mine, Event(pool.name, now - SHOWN + BEFORE, None), wanted)
    marks = [Mark(r.level.value, r.decided_at) for r in receipts if now - r.decided_at < SHOWN]
    return PoolView(
        standing, now, version, pool,
        next((seen for seen in pool.endpoints if seen.endpoint.name == endpoint), None),
        tuple(Reading(pool.name, seen, thresholds.get(seen.signal)) for seen in evidence),
        charts(history, thresholds, marks, wanted),
    )  # fmt: skip


def pool_sheet(view: PoolView) -> Sheet:
    """Make the page."""
    title = f"Pool {view.pool.name} · {view.standing.service} · controlplane"
    return Sheet("_pool.html", title, view, view.standing.service, "/fleet")


def add_pool_page(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the page."""

    async def make(request: Request) -> Sheet:
        overview, name = await ports.overview(), request.path_params["pool"]
        pool = next((pool for pool in overview.standing.pools if pool.name == name), None)
        if pool is None:
            raise HTTPException(404, "there is no such pool")
        return pool_sheet(
            pool_view(
                overview.standing, pool, request.query_params.get("endpoint", ""), ports.thresholds,
                ports.recorded(SHOWN), overview.receipts, overview.now, ports.version,
            )
        )  # fmt: skip

    add_page(app, "/pools/{pool}", make)
