"""Joining the parts of drills: gates' facts, guards, the journey, the halt, the desk. Called by `wiring` alone."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.chaos.contract import AlertRoom
from controlplane.chaos.drill import Drill, DrillBook, DrillLog, HaltBook, RowTimes
from controlplane.chaos.experiment import Experiment, Walk
from controlplane.chaos.fault import FaultDriver, LeaseBook
from controlplane.chaos.redundancy import BlastRadius
from controlplane.fleet.model import Endpoint
from controlplane.flows.alerts import AlertPorts
from controlplane.flows.drill import DrillPorts, Order
from controlplane.flows.faults import FaultPorts, Stops
from controlplane.flows.halt import HaltPorts
from controlplane.flows.watch import WatchPorts
from controlplane.policy.model import Policy
from controlplane.runtime.drills import DeskPorts, DrillDesk, ScheduleBook
from controlplane.runtime.facts import DrillFacts, FactPorts
from controlplane.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class DrillingParts:
    """What `wiring` has made already."""

    policy: Policy
    drills: DrillBook
    log: DrillLog
    schedule: ScheduleBook
    leases: LeaseBook
    halts: HaltBook
    driver: FaultDriver | None
    facts: FactPorts
    walk: Callable[[Order], Awaitable[Walk]]
    experiment: Callable[[str], tuple[Experiment, Path]]
    endpoints: Callable[[str], tuple[Endpoint, ...]]
    fleet: Callable[[], int]
    counted: Callable[[], tuple[float, float]]
    row_times: Callable[[str, datetime], Awaitable[RowTimes | None]]
    recovered: Callable[[str, datetime], Awaitable[datetime | None]]
    objective: Callable[[str], timedelta | None]
    published: Callable[[Drill], Awaitable[None]]
    alerts: AlertRoom | None
    journals: Path
    spawn: Callable[[Coroutine[None, None, None]], object]
    leads: Callable[[], Awaitable[bool]]
    acting: Callable[[], bool]
    changed: Callable[[], None]
    metrics: Metrics
    now: Callable[[], datetime]


def join(parts: DrillingParts) -> tuple[DrillPorts, DrillDesk]:
    """Join everything about drills; returns the journey's ports, and the desk where drills are asked for."""
    stops = Stops()
    gathered = DrillFacts(parts.facts)

    def radius(experiment: str) -> BlastRadius:
        return desk.plan_for(experiment).blast_radius

    drilling = DrillPorts(
        drills=parts.drills,
        log=parts.log,
        faults=FaultPorts(
            leases=parts.leases, log=parts.log, halts=parts.halts, driver=parts.driver,
            endpoints=parts.endpoints, fleet=parts.fleet, radius=radius, now=parts.now, stops=stops,
        ),
        watching=WatchPorts(
            drills=parts.drills, leases=parts.leases, halts=parts.halts, stops=stops, leads=parts.leads,
            readings=gathered.readings, counted=parts.counted, now=parts.now,
        ),
        alerts=AlertPorts(parts.alerts, parts.leases, parts.log, parts.policy.service, parts.now),
        walk=parts.walk,
        experiment=parts.experiment,
        preview=gathered.preview,
        facts=gathered.facts,
        row_times=parts.row_times,
        recovered=parts.recovered,
        objective=parts.objective,
        published=parts.published,
        journals=parts.journals,
        now=parts.now,
    )  # fmt: skip
    halting = HaltPorts(
        parts.halts, parts.drills, parts.leases, parts.driver, stops, drilling.faults.own, drilling.walked, parts.now
    )
    desk = DrillDesk(
        DeskPorts(
            parts.policy.drills,
            drilling,
            halting,
            parts.schedule,
            parts.spawn,
            parts.acting,
            parts.changed,
            parts.metrics,
            parts.now,
        )
    )
    return drilling, desk
