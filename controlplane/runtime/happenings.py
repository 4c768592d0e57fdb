"""Finding out what happened: what is seen now beside what was seen before, told to whoever listens.

Nobody who changes anything must know who listens: one task compares, whenever something is said to have changed.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from controlplane.chaos.drill import Drill, Halt
from controlplane.errors import StoreError
from controlplane.flows.standing import Standing
from controlplane.incidents.incident import Incident
from controlplane.web.changes import Changes, Happening

LOOKED_AT = 12
"""How many of the newest drills are compared."""
LOOK_EVERY_S = 1.0
"""Something is judged twice a second: the store is not asked as often."""
WAIT_S = 10.0
_GONE: Mapping[str, Mapping[str, Any]] = {"endpoint": {"gone": True}, "incident": {"state": "resolved"}}

log = structlog.get_logger("happenings")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared: by kind and name, how each thing stands."""

    things: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


def seen(
    standing: Standing, drills: tuple[Drill, ...], open_incidents: tuple[Incident, ...], halt: Halt | None
) -> Seen:
    """Return how everything stands that is told of."""
    endpoints = [(pool.name, one) for pool in standing.pools for one in pool.endpoints]
    return Seen(
        {
            "level": {standing.service: {"level": standing.level, "why": list(standing.why)}},
            "row": {row.row.level: {"phase": row.phase, "waits_for": row.waits_for} for row in standing.rows},
            "endpoint": {f"{pool}/{one.endpoint.name}": {"pool": pool, "up": one.up} for pool, one in endpoints},
            "drill": {one.id: {"experiment": one.experiment, "outcome": one.outcome} for one in drills},
            "incident": {one.id: {"level": one.level, "state": one.state} for one in open_incidents},
            "halt": {"halt": {"halted": halt is not None, "why": halt.why if halt else ""}},
        }
    )


def happenings(before: Seen, now: Seen) -> tuple[Happening, ...]:
    """Return what happened between two looks: each thing that is new or stands otherwise, kind by kind.

    An endpoint that is gone has left the fleet, an incident that is open no more is resolved; drills merely grow old.
    """
    found = []
    for kind, things in now.things.items():
        old = before.things.get(kind, {})
        for name, state in things.items():
            if old.get(name) != state:
                found.append(Happening(kind, {"name": name, **state}))
        found += [
            Happening(kind, {"name": name, **_GONE[kind]}) for name in old if kind in _GONE and name not in things
        ]
    return tuple(found)


async def follow(
    changes: Changes, look: Callable[[], Awaitable[Seen]], pause: Callable[[float], Awaitable[None]]
) -> None:
    """Tell what happens, for ever; nothing is told of the time before the first look.

    Args:
        changes: says when to look, and is told what happened.
        look: gives how everything stands.
        pause: waits for some seconds.
    """
    before, version = await _first(look, pause), changes.version
    while True:
        if version == changes.version:
            await changes.wait(WAIT_S)
        await pause(LOOK_EVERY_S)
        if version == changes.version:
            continue
        version = changes.version
        try:
            now = await look()
        except StoreError as error:
            log.warning("what happened is not known", why=error.why)
            version = -1
            continue
        changes.happened(happenings(before, now))
        before = now


async def _first(look: Callable[[], Awaitable[Seen]], pause: Callable[[float], Awaitable[None]]) -> Seen:
    while True:
        try:
            return await look()
        except StoreError:
            await pause(WAIT_S)
