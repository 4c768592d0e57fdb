"""What the outside may ask of a joined control plane: the ports of the web, filled in. Used by `server`."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypedDict

import controlplane
from controlplane.clock import utcnow
from controlplane.degradation.actuator import Receipt
from controlplane.flows import faults, people, recover
from controlplane.flows.rollout import Refused
from controlplane.render.reports.incident import IncidentReport
from controlplane.render.wording import page_name
from controlplane.runtime.console import console_ports, planned
from controlplane.runtime.doors import Doors
from controlplane.runtime.histories import of_incident
from controlplane.runtime.reading import experiments_of, metrics_path
from controlplane.runtime.rollouts import RolloutDesk
from controlplane.runtime.triage import handling
from controlplane.runtime.wiring import Plane
from controlplane.settings import ServeSettings
from controlplane.telemetry import Metrics
from controlplane.web.api.levers import LeverPorts
from controlplane.web.api.rollouts import StartRollout
from controlplane.web.api.signals import SignalPorts
from controlplane.web.app import WebPorts
from controlplane.web.changes import Changes
from controlplane.web.incidents import IncidentPorts
from controlplane.web.page import IncidentView, Overview, Role
from controlplane.web.runbooks import RunbookPorts

SHOWN = 12
"""How many of the newest things the console's front page shows; it counts every open incident."""


class RolloutDoors(TypedDict):
    """What `WebPorts` asks of rollouts."""

    start_rollout: StartRollout
    abort_rollout: Callable[[str], Awaitable[Receipt | Refused]]
    newest_rollout: Callable[[], Awaitable[Receipt | None]]


def web_ports(plane: Plane, metrics: Metrics, changes: Changes, opened: Doors, settings: ServeSettings) -> WebPorts:
    """Return what the API and the console may ask of a control plane that is joined."""
    books, policy, service = plane.books, plane.loaded.policy, plane.loaded.policy.service

    async def overview() -> Overview:
        return Overview(
            standing=plane.standing(),
            incidents=tuple(IncidentView(*found) for found in await books.incidents.open_first(service, SHOWN)),
            drills=await books.drills.recent(SHOWN),
            receipts=await books.receipts.recent(service, SHOWN),
            leases=await books.leases.open_leases(),
            halt=await books.halts.current(),
            next_drill=next(iter(planned(plane)), None),
            now=utcnow(),
            version=controlplane.__version__,
            role=Role(plane.leadership.role, plane.leadership.leader),
        )

    return WebPorts(
        standing=plane.standing,
        overview=overview,
        receipts=partial(books.receipts.recent, service),
        receipt=books.receipts.get,
        drills=books.drills.recent,
        drill=books.drills.get,
        leases=books.leases.open_leases,
        desk=plane.desk,
        events=books.drills.events,
        report=plane.report,
        incident_pages=_incident_ports(plane),
        halt=books.halts.current,
        inject=lambda drill, request: faults.inject(plane.drill.faults, drill, request),
        heal_drill=lambda drill_id: faults.heal(plane.drill.faults, drill_id),
        heal_all=lambda: recover.heal_all(plane.recover),
        not_ready=partial(_not_ready, plane, metrics),
        in_charge=lambda: plane.leadership.acting,
        role=lambda: Role(plane.leadership.role, plane.leadership.leader),
        lever=_lever_ports(plane),
        **_rollout_ports(plane.rollouts),
        alerts=plane.alerts.pages,
        signals=SignalPorts(plane.standing, policy.thresholds, plane.recorder.points, books.histories.history),
        experiments=experiments_of(settings.experiments_dir, plane.standing),
        metrics_path=metrics_path(policy),
        registry=metrics.registry,
        requests=metrics.requests,
        changes=changes,
        guard=opened.guard,
        admin=opened.admin,
        console=console_ports(plane, overview, opened.admin.audit, settings.experiments_dir),
    )


def _not_ready(plane: Plane, metrics: Metrics) -> tuple[str, ...]:
    """Return what is not ready yet, in words."""
    standing = plane.standing()
    unseen = [e.endpoint.name for pool in standing.pools for e in pool.endpoints if e.up is None]
    missing = (*standing.problems, *(f"{name} has not been looked at yet" for name in unseen))
    missing = missing if standing.pools else ("no inventory has been read yet",)
    missing = (*missing, plane.charge.unable) if plane.charge.unable else missing
    metrics.ready.set(not missing)
    return missing


def _incident_ports(plane: Plane) -> IncidentPorts:
    policy, library = plane.loaded.policy, plane.library

    async def report(incident_id: str) -> IncidentReport | None:
        found = await plane.books.incidents.get(incident_id)
        if found is None or found[0].service != policy.service:
            return None
        incident, entries = found
        row = next((r for level, r in policy.degradation.rows.items() if level == incident.level), None)
        return IncidentReport(
            incident, entries, await plane.books.receipts.of_incident(incident),
            await plane.histories.of(of_incident(incident)), row.within if row else None, policy.thresholds,
            policy.objectives, plane.histories.signals, utcnow(), f"/runbooks/{page_name(row)}" if row else "",
        )  # fmt: skip

    books = RunbookPorts(
        library.subjects, library.text, policy.thresholds, library.dashboard, plane.standing,
        partial(plane.books.incidents.open_incidents, policy.service), utcnow, controlplane.__version__,
    )  # fmt: skip
    return IncidentPorts(report, books, handling(plane.triage, plane.standing, plane.changed))


def _lever_ports(plane: Plane) -> LeverPorts:
    service = plane.loaded.policy.service
    return LeverPorts(
        instruct=partial(people.instruct, plane.people),
        end=partial(people.end, plane.people),
        instructions=partial(plane.books.instructions.recent, service),
        recording=plane.recorder.points,
        acting=lambda: plane.leadership.acting,
    )


def _rollout_ports(desk: RolloutDesk | None) -> RolloutDoors:
    if desk:
        return {"start_rollout": desk.start, "abort_rollout": desk.abort, "newest_rollout": desk.newest}
    refused = Refused("the fleet has no gateway: nothing can be moved")

    async def no_start(*_: object) -> Refused:
        return refused

    async def no_abort(_: str) -> Refused:
        return refused

    async def none() -> None:
        return None

    return {"start_rollout": no_start, "abort_rollout": no_abort, "newest_rollout": none}
