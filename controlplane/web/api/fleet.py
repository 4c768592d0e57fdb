"""The API of the fleet: how the service stands, its pools, its endpoints, and the verdicts on them. Called by `app`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse

from controlplane.degradation.matrix import Level
from controlplane.flows.standing import EndpointStanding, PoolStanding, Standing
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Verdict
from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts
from controlplane.web.paging import After, Limit, page_of, sliced, spell_key
from controlplane.web.shapes import gives, pages

NAME_FILTER = Query(max_length=253, description="Only what is called so.")


class State(StrEnum):
    """How an endpoint stands."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    """No probe has looked at it yet."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many endpoints are in which state."""

    up: int
    down: int
    unknown: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool in short."""

    name: str
    model: str
    verdict: Band
    weight: int | None
    """Whole percent of the traffic; None for the gateway, and without a lever."""
    endpoints: Count
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet in short: its endpoints, however many, are counted; `/api/v1/fleet/endpoints` lists them."""

    service: str
    at: datetime
    level: Level
    endpoints: Count
    pools: tuple[PoolView, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint as its probes see it."""

    name: str
    pool: str
    node: str
    url: str
    model: str
    state: State
    since: datetime | None
    detail: str
    """What the last failed look said."""
    answer_s: float | None
    """Seconds the last real completion took."""
    verdict: Band
    """On its pool."""


def add_fleet(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/standing", tags=["fleet"], responses=gives(Standing))
    async def standing() -> JSONResponse:
        """Say how the service stands: level, pools, verdicts with evidence, rows."""
        return json_answer(ports.standing())

    @app.get("/api/v1/fleet", tags=["fleet"], responses=gives(FleetView))
    async def fleet() -> JSONResponse:
        """Say what the fleet is made of: pools with their verdicts, weights, nodes, and how many endpoints answer."""
        return json_answer(fleet_view(ports.standing()))

    @app.get("/api/v1/fleet/endpoints", tags=["fleet"], responses=pages(EndpointView))
    async def endpoints(
        request: Request,
        limit: Limit = 100,
        after: After = "",
        pool: Annotated[str | None, NAME_FILTER] = None,
        node: Annotated[str | None, NAME_FILTER] = None,
        state: State | None = None,
    ) -> JSONResponse:
        """List the endpoints, pool by pool; `pool`, `node` and `state` leave out the others."""
        found = [
            seen for seen in endpoint_views(ports.standing())
            if pool in (None, seen.pool) and node in (None, seen.node) and state in (None, seen.state)
        ]  # fmt: skip
        return page_of(request, sliced(found, limit, after, _key), limit, lambda seen: spell_key(_key(seen)))

    @app.get("/api/v1/verdicts", tags=["fleet"], responses=pages(Verdict))
    async def verdicts(request: Request, limit: Limit = 100, after: After = "") -> JSONResponse:
        """List the verdict on each pool, with the evidence that decided it."""
        found = [pool.verdict for pool in ports.standing().pools]
        chosen = sliced(found, limit, after, lambda verdict: verdict.pool)
        return page_of(request, chosen, limit, lambda verdict: spell_key(verdict.pool))


def _key(seen: EndpointView) -> str:
    return f"{seen.pool}/{seen.name}"


def state_of(seen: EndpointStanding) -> State:
    """Return how an endpoint stands in one word."""
    return State.UNKNOWN if seen.up is None else State.UP if seen.up else State.DOWN


def fleet_view(standing: Standing) -> FleetView:
    """Put the fleet in short."""
    every = [seen for pool in standing.pools for seen in pool.endpoints]
    pools = tuple(_pool_view(pool) for pool in standing.pools)
    return FleetView(standing.service, standing.at, standing.level, _count(every), pools, standing.problems)


def _pool_view(pool: PoolStanding) -> PoolView:
    nodes = tuple(sorted({seen.endpoint.node for seen in pool.endpoints if seen.endpoint.node}))
    return PoolView(pool.name, pool.model, pool.verdict.band, pool.weight, _count(pool.endpoints), nodes)


def _count(endpoints: Sequence[EndpointStanding]) -> Count:
    states = Counter(state_of(seen) for seen in endpoints)
    return Count(states[State.UP], states[State.DOWN], states[State.UNKNOWN])


def endpoint_views(standing: Standing) -> list[EndpointView]:
    """Return every endpoint, pool by pool."""
    return [
        EndpointView(
            seen.endpoint.name, pool.name, seen.endpoint.node, seen.endpoint.url, seen.endpoint.model, state_of(seen),
            seen.since, seen.detail, seen.answer_s, pool.verdict.band,
        )
        for pool in standing.pools
        for seen in pool.endpoints
    ]  # fmt: skip
