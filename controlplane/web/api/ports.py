"""What the outside may ask of the control plane: `runtime.server` fills it in, `app` hands it to each capability."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from controlplane.chaos.drill import Drill, Event, Halt
from controlplane.chaos.experiment import ExperimentFile
from controlplane.chaos.fault import Lease
from controlplane.degradation.actuator import Receipt
from controlplane.flows.faults import FaultRequest
from controlplane.flows.rollout import Refused
from controlplane.flows.standing import Standing
from controlplane.render.reports.drill import Report
from controlplane.telemetry import Requests
from controlplane.web.api.admin import AdminPorts
from controlplane.web.api.alerts import AlertPages
from controlplane.web.api.levers import LeverPorts
from controlplane.web.api.rollouts import StartRollout
from controlplane.web.api.signals import SignalPorts
from controlplane.web.changes import Changes
from controlplane.web.guard import GuardPorts
from controlplane.web.incidents import IncidentPorts
from controlplane.web.oidc import OidcPorts
from controlplane.web.page import Overview, Role
from controlplane.web.pages.ports import ConsolePorts, DrillDoor
from controlplane.web.paging import Newest


@dataclass(frozen=True, slots=True)
class WebPorts:
    """What the outside may ask of the control plane."""

    standing: Callable[[], Standing]
    overview: Callable[[], Awaitable[Overview]]
    receipts: Newest[Receipt]
    receipt: Callable[[str], Awaitable[Receipt | None]]
    drills: Newest[Drill]
    drill: Callable[[str], Awaitable[Drill | None]]
    leases: Callable[[], Awaitable[tuple[Lease, ...]]]
    desk: DrillDoor
    """Where drills are asked for."""
    events: Callable[[str], Awaitable[tuple[Event, ...]]]
    """What happened in a drill, oldest first."""
    report: Callable[[Drill], Awaitable[Report]]
    """Everything the report of a drill is made of."""
    incident_pages: IncidentPorts
    """What the runbooks and the pages of incidents are made of."""
    halt: Callable[[], Awaitable[Halt | None]]
    """The halt in force, if any."""
    inject: Callable[[Drill, FaultRequest], Awaitable[tuple[Lease, ...]]]
    heal_drill: Callable[[str], Awaitable[tuple[str, ...]]]
    heal_all: Callable[[], Awaitable[tuple[str, ...]]]
    not_ready: Callable[[], tuple[str, ...]]
    """What is not ready yet; empty when everything is."""
    in_charge: Callable[[], bool]
    """Whether this control plane may move levers, or another one on the same database does."""
    role: Callable[[], Role]
    """Which of several replicas this is, and who is in charge."""
    lever: LeverPorts
    start_rollout: StartRollout
    abort_rollout: Callable[[str], Awaitable[Receipt | Refused]]
    newest_rollout: Callable[[], Awaitable[Receipt | None]]
    signals: SignalPorts
    """What the signals are, and what they were."""
    experiments: Callable[[], Awaitable[tuple[ExperimentFile, ...]]]
    """Every experiment there is, by name."""
    metrics_path: str
    """Where an engine's metrics page is, behind its base URL."""
    registry: CollectorRegistry
    requests: Requests
    """Counts what is asked and answered."""
    changes: Changes
    alerts: AlertPages
    """What fires by our books."""
    guard: GuardPorts
    admin: AdminPorts
    console: ConsolePorts
    """What the console's pages are made of."""
    oidc: OidcPorts | None = None
    """With whom people may log in besides; None without an identity provider."""
