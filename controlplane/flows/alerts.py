"""Alerts during a drill: a silence that ends with the faults, and a record of everything that fired meanwhile.

Called by the drill's journey, as a task beside the watch. It decides nothing while the drill runs: an Alertmanager
that does not answer lets people be paged, and fails the contract if it does not answer at the end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from controlplane.chaos.contract import AlertRoom, Contract, Firing, Silence, broken
from controlplane.chaos.drill import Drill, DrillLog, Event
from controlplane.chaos.fault import LeaseBook
from controlplane.errors import ControlplaneError, StoreError
from controlplane.flows.notes import note

LOOK_EVERY_S = 0.5
ARRIVE_WITHIN_S = 5.0
"""How long an expected alert may be on its way to Alertmanager when the drill ends."""

log = structlog.get_logger("drill")


@dataclass(frozen=True, slots=True)
class AlertPorts:
    """What this touches."""

    room: AlertRoom | None
    """None when the page names no Alertmanager."""
    leases: LeaseBook
    log: DrillLog
    service: str
    now: Callable[[], datetime]


@dataclass(slots=True)
class Watched:
    """What was seen of one drill's alerts."""

    fired: set[Firing] = field(default_factory=set)
    silence: str = ""
    """Id of the silence; empty before there is one."""
    until: datetime | None = None
    """When it ends by itself."""
    forgotten: bool = False
    """Whether Alertmanager may have forgotten it."""
    looked: bool = False
    """Whether Alertmanager answered when it was asked last: what fires is known."""
    trouble: str = ""
    """Why it is not; empty when it is."""
    silencing: str = ""
    """Why the silence is not as it should be; empty when it is."""


async def follow(ports: AlertPorts, drill: Drill, contract: Contract, watched: Watched) -> None:
    """Keep the silence as long as the drill's faults are leased, and note what fires; until it is called off."""
    while True:
        await _look(ports, drill, contract, watched)
        await asyncio.sleep(LOOK_EVERY_S)


async def _look(ports: AlertPorts, drill: Drill, contract: Contract, watched: Watched) -> None:
    """Keep the silence and see what fires; neither keeps the other from it."""
    if ports.room is None:
        return
    try:
        await _keep_silence(ports, ports.room, drill, contract, watched)
        watched.silencing = ""
    except ControlplaneError as error:
        _tell(drill, "not silenced", error, watched.silencing)
        watched.silencing, watched.forgotten = error.why, True
    try:
        firing = await ports.room.firing()
    except ControlplaneError as error:
        _tell(drill, "alerts unknown", error, watched.trouble)
        watched.looked, watched.trouble = False, error.why
        return
    for alert in firing:
        if alert not in watched.fired and alert.since >= drill.started_at:
            await _note(ports, drill, f"{alert.name} fires since {alert.since:%H:%M:%S}")
        watched.fired.add(alert)
    if watched.trouble:  # Who did not answer may have been restarted, and have forgotten the silence.
        watched.forgotten = True
    watched.looked, watched.trouble = True, ""


def _tell(drill: Drill, what: str, error: ControlplaneError, told: str) -> None:
    """Say what went wrong, once as long as it stays the same."""
    if error.why != told:
        log.error(what, drill=drill.id, what=error.what, why=error.why)


async def _keep_silence(ports: AlertPorts, room: AlertRoom, drill: Drill, contract: Contract, watched: Watched) -> None:
    """Silence what is expected until the last fault's deadline; where the faults are not known, it stays as it is.

    A silence that may have been forgotten is ended, which is free, and made anew.
    """
    try:
        leases = [lease for lease in await ports.leases.of_drill(drill.id) if lease.open]
    except StoreError as error:
        log.error("faults unknown", drill=drill.id, what=error.what, why=error.why)
        return
    ends = max((lease.deadline for lease in leases), default=None)
    if watched.silence and (watched.forgotten or not leases):
        await _lift(ports, drill, watched)
    if ends and contract.expected and (watched.until is None or ends > watched.until):
        comment = f"drill {drill.id} of {drill.experiment} expects these; ends by itself with its faults"
        asked = Silence(contract.expected, ports.service, ends, comment, watched.silence)
        watched.silence, watched.until = await room.silence(asked), ends
        await _note(ports, drill, f"silenced until {ends:%H:%M:%S}: {', '.join(contract.expected)}")


async def _lift(ports: AlertPorts, drill: Drill, watched: Watched) -> None:
    if ports.room and watched.silence:
        await ports.room.lift(watched.silence)
        watched.silence, watched.until, watched.forgotten = "", None, False
        await _note(ports, drill, "the silence is lifted")


async def _note(ports: AlertPorts, drill: Drill, text: str) -> None:
    await note(ports.log, drill.id, Event(ports.now(), "alert", text))


async def settle(ports: AlertPorts, drill: Drill, contract: Contract, watched: Watched) -> tuple[str, ...]:
    """End the silence, wait a moment for alerts that are on their way, and hold what fired against the contract.

    Returns:
        Every breach of the contract, in words, and that the alerts are unknown where one may have been missed; none
        without an Alertmanager or a contract.
    """
    if ports.room is None:
        return ()
    until = ports.now() + timedelta(seconds=ARRIVE_WITHIN_S)
    while True:
        looked_at = ports.now()  # Before the look: after one that outlasts the wait, one more is taken.
        await _look(ports, drill, contract, watched)
        reasons = broken(contract, watched.fired, drill.started_at, ports.service)
        missing = [text for text in reasons if text.startswith("expected")]
        unknown = not watched.looked and (missing or contract.forbidden)
        if not (missing or unknown) or looked_at >= until:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    try:
        await _lift(ports, drill, watched)
    except ControlplaneError as error:
        log.error("silence not lifted", drill=drill.id, ends=str(watched.until), why=error.why)
    if unknown:
        seen = tuple(text for text in reasons if text not in missing)
        return (f"the alerts are unknown: {watched.trouble}", *seen)
    return reasons
