"""What has which colour, on every dashboard the same; and the policy's levels as colour steps; pure.

Called by every dashboard beside it. Names are Grafana's own where it has a good one: they follow its light and dark
themes, which a number would not.
"""

from collections.abc import Mapping

from controlplane.chaos.drill import Outcome
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level
from controlplane.fleet.model import CACHE, GATEWAY_POOL, PRIMARY
from controlplane.signals.sample import Direction, Signal
from controlplane.slo.threshold import Band, Threshold

Steps = tuple[tuple[str, float | None], ...]
"""Colours from the base (whose value is None) up."""

GRAY = "#8e8e8e"
"""Not known, or of no account."""

GREEN: Steps = (("green", None),)
BLUE: Steps = (("blue", None),)
"""Numbers that are neither good nor bad."""

ALARM: Steps = (("green", None), ("orange", 1))
"""None is how it should be."""

LEVELS: Mapping[Level, str] = {Level.NONE: "green", Level.P2: "yellow", Level.P1: "orange", Level.P0: "red"}
BANDS: Mapping[Band, str] = {Band.OK: "green", Band.UNKNOWN: GRAY, Band.WARN: "yellow", Band.BREACH: "red"}
PHASES: Mapping[Phase, str] = {
    Phase.IDLE: "green", Phase.PENDING: "yellow", Phase.ENGAGING: "orange", Phase.ENGAGED: "red",
    Phase.RELEASING: "blue", Phase.FAILED: "dark-red",
}  # fmt: skip
POOLS: Mapping[str, str] = {
    GATEWAY_POOL: "#e0589a", PRIMARY: "blue", "standby": "purple", "base": "orange", CACHE: "#3f9a9a",
}  # fmt: skip
"""A pool has one colour wherever it is drawn; other pools get Grafana's, by name."""
OUTCOMES: Mapping[Outcome, str] = {
    Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.INVALID: "orange", Outcome.ABORTED: "orange",
    Outcome.REFUSED: GRAY,
}  # fmt: skip
SWITCHES: Mapping[str, str] = {"verified": "green", "failed": "red", "refused": GRAY}
URGENCIES: Mapping[str, str] = {"page": "red", "ticket": "orange"}
FAULT = "purple"
DEGRADED = "red"
DRILL = "blue"


def levels_of(signal: Signal, threshold: Threshold | None) -> Steps:
    """Return the policy's levels of a signal as colour steps, from the base up."""
    if threshold is None:
        return GREEN
    if signal.worse is Direction.UP:
        return (("green", None), ("yellow", threshold.warn), ("red", threshold.breach))
    return (("red", None), ("yellow", threshold.breach), ("green", threshold.warn))
