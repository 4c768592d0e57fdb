"""What every group of rules asks of a policy: who is served, which row a signal leads to, how long a rule may wait."""

from dataclasses import dataclass
from datetime import timedelta

from controlplane.degradation.matrix import LEVELS, Level, signals_of
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.policy.model import Policy
from controlplane.render import promql
from controlplane.render.alerting.rules import literal
from controlplane.render.promql import quoted
from controlplane.render.wording import inert
from controlplane.signals.engines import EngineNames, names_for_rules
from controlplane.signals.sample import Direction, Signal, Unit

FELT = ("availability", "endpoints_down", "latency_p99", "inter_token_latency_p99", "error_rate", "token_progress")
"""Signals that users feel. A busy machine alone is not ill: utilization in breach waits for the morning."""

VALUE = {
    Unit.RATIO: "{{ $value | humanizePercentage }}",
    Unit.SECONDS: "{{ $value | humanizeDuration }}",
    Unit.COUNT: "{{ $value | humanize }}",
    Unit.PER_SECOND: "{{ $value | humanize }}/s",
    Unit.CELSIUS: "{{ $value | humanize }} °C",
    Unit.WATTS: "{{ $value | humanize }} W",
}
"""A value as it stands in a summary."""

UNNAMED_WINDOW = timedelta(seconds=30)
"""The window of a signal that the page has no threshold for."""
FEWEST_SCRAPES = 4
"""A rate over fewer samples than this is lost with one scrape that fails."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One policy, as the rules see it."""

    policy: Policy

    @property
    def of(self) -> str:
        """Select the control plane's own series of this service."""
        return f"service={quoted(self.policy.service)}"

    @property
    def of_engines(self) -> str:
        """Select the engines' series of this service."""
        return promql.engine_matcher(self.policy.service)

    @property
    def engine(self) -> EngineNames:
        """What the engines call things."""
        return names_for_rules(self.policy.fleet.engine)

    @property
    def service(self) -> str:
        """The service's name as it may stand in a template."""
        return literal(inert(self.policy.service))

    @property
    def served(self) -> tuple[str, ...]:
        """The pools whose state is the users': the primary, and the gateway where there is one."""
        return (*((GATEWAY_POOL,) if self.policy.fleet.gateway else ()), PRIMARY)

    @property
    def worst(self) -> Level:
        """The most severe armed row."""
        return max(self.policy.degradation.rows, key=LEVELS.index, default=Level.NONE)

    def level_of(self, signal: str) -> Level:
        """Return the most severe armed row that looks at a signal."""
        looking = (level for level, row in self.policy.degradation.rows.items() if signal in signals_of(row.when))
        return max(looking, key=LEVELS.index, default=Level.NONE)

    def patience(self, level: str, most: timedelta) -> timedelta:
        """Return how long a rule waits by itself: at most a tenth of what its row promises, in whole seconds."""
        row = self.policy.degradation.rows.get(Level(level))
        return most if row is None else min(most, timedelta(seconds=row.within // timedelta(seconds=10)))

    def window(self, wanted: timedelta) -> timedelta:
        """Return a window for rates: as wanted, or longer where the scrapes are too rare for it."""
        return max(wanted, FEWEST_SCRAPES * self.policy.publish.scrape)

    def window_of(self, signal: str) -> timedelta:
        """Return the window over which the control plane judges a signal."""
        threshold = self.policy.thresholds.get(signal)
        return threshold.window if threshold else UNNAMED_WINDOW

    @property
    def looks(self) -> timedelta:
        """The pace of the slowest probe that judges pools: what the control plane does not look at it cannot show."""
        given = (spec.given for spec in self.policy.probes)
        return max((spec.every for spec in given), default=timedelta(0))


def camel(name: str) -> str:
    """Write a signal's name as part of an alert's name."""
    return "".join(part.capitalize() for part in name.split("_"))


def beyond(signal: Signal, level: float) -> float:
    """Return a value that is clearly at or over the level (under, where that is worse)."""
    if signal.worse is Direction.DOWN:
        return level * 0.9
    return (1 + level) / 2 if signal.unit is Unit.RATIO and level < 1 else level * 1.25 or 1.0


def short_of(signal: Signal, level: float) -> float | None:
    """Return a value that just is not; None where there is none."""
    if signal.worse is Direction.DOWN:
        return level * 1.01 or 0.01
    return level * 0.99 or None
