"""Watching a drill while it runs: guards, halt, stop, leadership, and what users get meanwhile.

Called by the drill's journey. Whatever cannot be asked counts as a reason to stop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.chaos import guard
from controlplane.chaos.drill import Drill, DrillBook, HaltBook, Measured, Outcome
from controlplane.chaos.fault import Lease, LeaseBook
from controlplane.chaos.guard import Guard, Reading
from controlplane.errors import ControlplaneError
from controlplane.flows.faults import POLL_S, Stops

LATENCY = "latency_p99"
ERROR_BOUND = "latency_p99 (upper bound)"
"""How `readings` names the upper bound of the P99's error."""


@dataclass(frozen=True, slots=True)
class WatchPorts:
    """What the watch looks at."""

    drills: DrillBook
    leases: LeaseBook
    halts: HaltBook
    stops: Stops
    leads: Callable[[], Awaitable[bool]]
    """Whether this control plane is the one that may act."""
    readings: Callable[[], Mapping[str, Reading]]
    """Signals of what users get, by name, as they were judged last; one judged too long ago is unknown."""
    counted: Callable[[], tuple[float, float]]
    """Requests that users got an answer to since the start, and how many of them failed."""
    now: Callable[[], datetime]


class Users:
    """What users got before, during and after the fault."""

    def __init__(self, counted: tuple[float, float]) -> None:
        self._last = counted
        self._parts: dict[str, Measured] = {}

    def take(self, leases: tuple[Lease, ...], counted: tuple[float, float], readings: Mapping[str, Reading]) -> None:
        """Add what was counted since the last call to the part of the drill that it belongs to."""
        injected = [lease for lease in leases if lease.injected_at]
        part = "before" if not injected else "during" if any(lease.open for lease in injected) else "after"
        requests, failed = (max(0.0, now - before) for now, before in zip(counted, self._last, strict=True))
        self._last = counted
        so_far = self._parts.get(part, Measured(0.0, 0.0))
        p99, high = (readings.get(name, Reading(None)).value for name in (LATENCY, ERROR_BOUND))
        worse = p99 is not None and (so_far.p99_s is None or p99 > so_far.p99_s)
        self._parts[part] = Measured(
            so_far.requests + requests,
            so_far.failed + failed,
            p99 if worse else so_far.p99_s,
            high if worse else so_far.p99_high_s,
        )

    @property
    def parts(self) -> Mapping[str, Measured]:
        """What was measured, by part."""
        return dict(self._parts)


async def watch(ports: WatchPorts, drill: Drill, guards: Mapping[str, Guard], users: Users) -> str:
    """Watch a drill until there is a reason to stop it; called off when it ends by itself.

    Returns:
        The reason, in words.
    """
    since: Mapping[str, datetime] = {}
    while True:
        await asyncio.sleep(POLL_S)
        try:
            why = await _called_off(ports, drill)
            if why:
                return why
            readings = ports.readings()
            since, broken = guard.watch(guards, readings, since, ports.now())
            if broken:
                return "; ".join(broken)
            users.take(await ports.leases.of_drill(drill.id), ports.counted(), readings)
        except ControlplaneError as error:
            return f"the guards cannot be evaluated: {error.what}: {error.why}"


async def _called_off(ports: WatchPorts, drill: Drill) -> str:
    """Return why a drill may not go on, whatever the guards say; an empty string while it may."""
    why = ports.stops.why(drill.id)
    if why:
        return why
    if not await ports.leads():
        return "this control plane no longer leads"
    halt = await ports.halts.current()
    if halt:
        return f"halted by {halt.by}: {halt.why}"
    stored = await ports.drills.get(drill.id)
    if stored is None or stored.outcome is not Outcome.RUNNING:
        return "called off by another control plane"
    return stored.called_off
