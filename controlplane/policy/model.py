"""The policy page, typed; pure. It composes the specs that each capability defines for itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from controlplane.chaos.guard import Guard
from controlplane.chaos.redundancy import BlastRadius
from controlplane.chaos.safety import GateSpec
from controlplane.chaos.schedule import Freeze
from controlplane.degradation.matrix import Degradation
from controlplane.fleet.model import FleetSpec
from controlplane.probes.probe import ProbeSpec
from controlplane.security.outbound import OutboundSpec
from controlplane.slo.threshold import Threshold


@dataclass(frozen=True, slots=True)
class Objective:
    """What users are promised."""

    name: str
    """The signal the promise is about: `availability`."""
    target: float
    """Ratio 0..1."""
    window: timedelta


@dataclass(frozen=True, slots=True)
class Slot:
    """When a drill comes round, in cron's terms."""

    day: str = "1st tue"
    """Day of the month: a number, or `1st tue` .. `last fri`."""
    hour: int = 10
    minute: int = 0
    timezone: str = "UTC"
    """An IANA name, such as `Asia/Shanghai`."""


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Experiments that are run on a schedule."""

    at: Slot
    experiments: tuple[str, ...]
    """Names of files in the experiments directory, without their ending; run one after another."""
    gates: GateSpec = field(default_factory=GateSpec)
    guards: Mapping[str, Guard] = field(default_factory=dict)
    """What stops a drill when it breaks, by signal of what users get."""
    blast_radius: BlastRadius = field(default_factory=BlastRadius)
    freeze: tuple[Freeze, ...] = ()
    """Days on which nothing is broken; a freeze of any plan holds for every drill."""
    retry_within: timedelta = timedelta(hours=6)
    """A date whose gates are closed, or that came while the control plane was down, is tried again for so long."""
    overdue_after: timedelta = timedelta(days=38)
    """An experiment that has not passed for so long is overdue: a month and a week."""


@dataclass(frozen=True, slots=True)
class PublishSpec:
    """Where the rendered alerts, dashboards and runbooks go."""

    dir: str = "."
    """The directory that gets `alerts/`, `dashboards/` and `runbooks/`. Relative paths start at the policy page."""
    scrape: timedelta = timedelta(seconds=5)
    """How often Prometheus scrapes the control plane and the engines."""
    evaluation: timedelta = timedelta(seconds=5)
    """How often it evaluates the rules that users depend on; its own default of 1m would eat a P0's minutes."""
    group_wait: timedelta = timedelta(seconds=5)
    """How long Alertmanager waits for more of the same before it tells of something critical, or of a row."""
    delivery: timedelta = timedelta(seconds=1)
    """What notifications need to arrive."""
    control: str = "http://127.0.0.1:8600"
    """Where Prometheus and Alertmanager reach the control plane."""
    token_file: str = "/etc/alertmanager/controlplane.token"  # noqa: S105 - the place of a token
    """A file on Alertmanager's machine with the token that it sends to the control plane."""
    grafana: str = ""
    """Grafana's base URL, which links to dashboards begin with; empty leaves them relative."""
    runbooks: str = ""
    """What links to runbooks begin with, such as `https://wiki.example.com/`; empty leaves them relative."""
    notify: Mapping[str, str] = field(default_factory=dict)
    """Who is told of alerts by their severity: `critical`, `warning` or `info` -> a name of `degradation.receivers`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the control plane needs to know about one service."""

    service: str
    fleet: FleetSpec
    probes: tuple[ProbeSpec, ...]
    thresholds: Mapping[str, Threshold]
    """By signal name."""
    objectives: tuple[Objective, ...]
    degradation: Degradation
    drills: Mapping[str, DrillPlan]
    publish: PublishSpec
    alertmanager: str = ""
    """Base URL of the Alertmanager that rows and drills ask; empty without one."""
    outbound: OutboundSpec = field(default_factory=OutboundSpec)
    """Where requests may go."""

    @property
    def fleet_hosts(self) -> tuple[str, ...]:
        """The hosts of the endpoints that stand on the page itself."""
        urls = (url for pool in self.fleet.pools.values() for url in pool.endpoints.static)
        return tuple(dict.fromkeys(host for url in urls if (host := urlsplit(url).hostname)))
