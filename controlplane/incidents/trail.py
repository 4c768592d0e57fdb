"""A signal's values over time, and the few questions that hints ask of them; pure."""

from dataclasses import dataclass
from statistics import fmean, median

Trail = tuple[tuple[float, float], ...]
"""(seconds, value), oldest first."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a value was and what it is."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through a trail."""

    per_s: float
    fit: float
    """R squared, 0..1: how much of the movement the line explains."""


def mean(trail: Trail, now: float, last_s: float) -> float | None:
    """Return the mean of the last seconds; None when there is nothing in them."""
    recent = [value for at, value in trail if at >= now - last_s]
    return fmean(recent) if recent else None


def rose(trail: Trail, now: float, over_s: float) -> Change | None:
    """Compare the newest fifth of some time with what was before it; None with too little to compare.

    The medians are compared, so that one odd value is no change.
    """
    inside = [(at, value) for at, value in trail if at >= now - over_s]
    border = now - over_s / 5
    before = [value for at, value in inside if at < border]
    after = [value for at, value in inside if at >= border]
    if len(before) < 3 or not after:
        return None
    return Change(median(before), median(after))


def slope_per_s(trail: Trail) -> Slope | None:
    """Fit a straight line by least squares; None with fewer than ten points, or all at one time."""
    if len(trail) < 10:
        return None
    mid_at, mid = fmean(at for at, _ in trail), fmean(value for _, value in trail)
    across = sum((at - mid_at) ** 2 for at, _ in trail)
    up = sum((value - mid) ** 2 for _, value in trail)
    both = sum((at - mid_at) * (value - mid) for at, value in trail)
    if across == 0:
        return None
    return Slope(both / across, both * both / (across * up) if up else 0.0)


def spread_s(trail: Trail) -> float | None:
    """Return how far apart the 10th and the 90th percentile are; None with fewer than ten values."""
    if len(trail) < 10:
        return None
    values = sorted(value for _, value in trail)
    return values[int(0.9 * (len(values) - 1))] - values[int(0.1 * (len(values) - 1))]
