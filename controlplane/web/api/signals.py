"""The API of the signals: what each is now beside its thresholds, and what it was. Called by `app`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse

from controlplane.flows.standing import Standing
from controlplane.incidents.history import History, Trail, pools_of, thin
from controlplane.signals.recording import Point
from controlplane.signals.sample import CATALOGUE, Unit
from controlplane.slo.threshold import Threshold
from controlplane.slo.verdict import Evidence
from controlplane.web.answers import json_answer
from controlplane.web.api.levers import read_lasts
from controlplane.web.paging import After, Limit, page_of, sliced, spell_key
from controlplane.web.shapes import gives, pages

SHOWN_POINTS = 400
"""Of one pool's history; longer ones are thinned to the lowest and the highest value of each stretch."""


@dataclass(frozen=True, slots=True)
class SignalPorts:
    """What the signals are read from."""

    standing: Callable[[], Standing]
    thresholds: Mapping[str, Threshold]
    recorded: Callable[[timedelta], tuple[Point, ...]]
    """What was recorded in the last so many minutes, oldest first."""
    kept: Callable[[str], Awaitable[History]]
    """What is kept of an incident or a drill, by its id; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class SignalView:
    """One signal of one pool now."""

    pool: str
    signal: str
    unit: Unit
    now: Evidence
    threshold: Threshold | None


@dataclass(frozen=True, slots=True)
class Moment:
    """One value."""

    at: datetime
    value: float | None
    """In the signal's base unit; None while it was unknown."""


@dataclass(frozen=True, slots=True)
class PoolHistory:
    """One signal of one pool over time."""

    pool: str
    points: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class SignalHistory:
    """One signal over time."""

    signal: str
    unit: Unit
    about: str
    """The incident or drill it was kept for; empty for the last minutes."""
    threshold: Threshold | None
    pools: tuple[PoolHistory, ...]


def add_signals(app: FastAPI, ports: SignalPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/signals", tags=["signals"], responses=pages(SignalView))
    async def signals(
        request: Request,
        limit: Limit = 500,
        after: After = "",
        pool: Annotated[str | None, Query(max_length=253)] = None,
        signal: Annotated[str | None, Query(max_length=128)] = None,
    ) -> JSONResponse:
        """List what every signal of every pool is now, with its evidence and beside its thresholds."""
        found = [
            seen for seen in views(ports.standing(), ports.thresholds)
            if pool in (None, seen.pool) and signal in (None, seen.signal)
        ]  # fmt: skip
        return page_of(request, sliced(found, limit, after, _key), limit, lambda seen: spell_key(_key(seen)))

    @app.get("/api/v1/signals/{signal}/history", tags=["signals"], responses=gives(SignalHistory))
    async def history(
        signal: Annotated[str, UrlPath(max_length=128)],
        lasts: Annotated[str, Query(alias="for", max_length=32, description="Such as 10m; at most 30m.")] = "10m",
        about: Annotated[
            str, Query(max_length=255, description="Id of an incident or a drill: what was kept of it instead.")
        ] = "",
        pool: Annotated[str | None, Query(max_length=253)] = None,
    ) -> JSONResponse:
        """Give what a signal was, by pool: in the last minutes, or around an incident or a drill."""
        if signal not in CATALOGUE:
            raise HTTPException(404, f"no signal {signal}")
        asked = read_lasts(lasts) or timedelta()
        trails = await _kept(ports, about, signal) if about else _recorded(ports, signal, asked)
        chosen = {name: trail for name, trail in trails.items() if pool in (None, name)}
        return json_answer(SignalHistory(
            signal, CATALOGUE[signal].unit, about, ports.thresholds.get(signal),
            tuple(PoolHistory(name, _moments(trail)) for name, trail in chosen.items()),
        ))  # fmt: skip


async def _kept(ports: SignalPorts, about: str, signal: str) -> dict[str, Trail]:
    return {pool: trace.points for pool, trace in pools_of(await ports.kept(about), signal).items()}


def _recorded(ports: SignalPorts, signal: str, lasts: timedelta) -> dict[str, Trail]:
    trails: dict[str, list[tuple[float, float | None]]] = {}
    for point in ports.recorded(lasts):
        if point.signal == signal:
            trails.setdefault(point.pool, []).append((point.at.timestamp(), point.value))
    return {pool: tuple(trail) for pool, trail in trails.items()}


def _moments(trail: Trail) -> tuple[Moment, ...]:
    return tuple(Moment(datetime.fromtimestamp(at, UTC), value) for at, value in thin(trail, SHOWN_POINTS))


def views(standing: Standing, thresholds: Mapping[str, Threshold]) -> list[SignalView]:
    """Return every signal of every pool, the pool that users see first."""
    return [
        SignalView(pool.name, seen.signal, CATALOGUE[seen.signal].unit, seen, thresholds.get(seen.signal))
        for pool in standing.pools
        for seen in pool.verdict.evidence
    ]


def _key(seen: SignalView) -> str:
    return f"{seen.pool}/{seen.signal}"
