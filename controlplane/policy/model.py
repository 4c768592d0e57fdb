"""The policy page, typed; pure. It composes the specs that each capability defines for itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from controlplane.chaos.safety import GateSpec
from controlplane.degradation.matrix import Degradation
from controlplane.fleet.model import FleetSpec
from controlplane.probes.probe import ProbeSpec
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
    gates: GateSpec


@dataclass(frozen=True, slots=True)
class PublishSpec:
    """Where the rendered alerts, dashboards and runbooks go."""

    dir: str = "."
    """The directory that gets `alerts/`, `dashboards/` and `runbooks/`. Relative paths start at the policy page."""


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
