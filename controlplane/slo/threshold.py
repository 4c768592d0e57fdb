"""Healthy, warn and breach levels of a signal, and the band a series of values is in; pure.

Trip and clear are different levels and both take time, so a value that hovers at a level does not flap:
`warn` trips at the warn level and clears below the healthy one; `breach` trips at the breach level and clears below
the warn one; each after holding for the dwell.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import isnan

from controlplane.signals.sample import Direction


class Band(StrEnum):
    """How bad a signal is; the order is the severity."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARN = "warn"
    BREACH = "breach"


SEVERITY: dict[Band, int] = {Band.OK: 0, Band.UNKNOWN: 1, Band.WARN: 2, Band.BREACH: 3}


@dataclass(frozen=True, slots=True)
class Threshold:
    """The levels of one signal, in its base unit."""

    healthy: float
    warn: float
    breach: float
    window: timedelta
    """The value is computed over this much time."""
    dwell: timedelta
    """How long a new band must hold before it counts (`for` on the page)."""
    min_samples: int = 1
    """Fewer samples in the window make the signal unknown."""


@dataclass(frozen=True, slots=True)
class BandState:
    """The band in force, and the one that is waiting out its dwell."""

    band: Band = Band.UNKNOWN
    candidate: Band = Band.UNKNOWN
    candidate_since: float = 0.0
    """Monotonic seconds."""


def classify(value: float, threshold: Threshold, worse: Direction, current: Band) -> Band:
    """Return the band a value calls for, given the band in force (hysteresis).

    Args:
        value: the signal's value, in its base unit.
        threshold: the levels.
        worse: which way the signal gets worse.
        current: the band in force; an unknown one has no memory.
    """
    sign = 1.0 if worse is Direction.UP else -1.0
    healthy, warn, breach, seen = (
        sign * threshold.healthy,
        sign * threshold.warn,
        sign * threshold.breach,
        sign * value,
    )
    if seen >= breach:
        return Band.BREACH
    if seen >= warn:
        return Band.BREACH if current is Band.BREACH else Band.WARN
    if seen > healthy and current in (Band.WARN, Band.BREACH):
        return Band.WARN
    return Band.OK


def advance(state: BandState, value: float | None, threshold: Threshold, worse: Direction, now: float) -> BandState:
    """Move a signal's band by one evaluation.

    Args:
        state: where it stood.
        value: the value over the window; None when it is not known.
        threshold: the levels and times.
        worse: which way the signal gets worse.
        now: monotonic seconds.

    Returns:
        The next state. Becoming unknown takes no dwell, and neither does a first value that is well: there is nothing
        to hold on to. A first value that is not well waits its dwell out, as unknown.
    """
    if value is None or isnan(value):
        return BandState(Band.UNKNOWN, Band.UNKNOWN, now)
    wanted = classify(value, threshold, worse, state.band)
    if wanted is state.band:
        return state if state.candidate is wanted else BandState(wanted, wanted, now)
    since = state.candidate_since if wanted is state.candidate else now
    first_sight = state.band is Band.UNKNOWN and wanted is Band.OK
    if first_sight or now - since >= threshold.dwell.total_seconds():
        return BandState(wanted, wanted, now)
    return BandState(state.band, wanted, since)
