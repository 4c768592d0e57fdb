"""Quantiles of bucketed latencies, each with the bounds of what the buckets can tell.

Pure. The interpolation is Prometheus' own `histogram_quantile` (linear inside the bucket, the lowest bucket starts
at zero, the `+Inf` bucket answers with the last finite edge, a bucket that shows less than the one below it counts as
that one), so that a rule and a verdict agree on the same data. Source: prometheus/promql/quantile.go,
`bucketQuantile` and `ensureMonotonic`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile and how sure it is."""

    value: float
    low: float
    """The true quantile is not below this bucket edge."""
    high: float
    """The true quantile is not above this bucket edge; `inf` when it lies beyond the last one."""
    samples: int


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The same quantile of many histograms; NaN where one has no observations, or so many that they are no number."""

    value: Floats
    low: Floats
    high: Floats
    samples: Floats

    def at(self, index: int) -> Quantile | None:
        """Return one of them; None without observations."""
        seen = float(self.samples[index])
        if not 0 < seen < inf:
            return None
        samples = round(seen)
        return Quantile(float(self.value[index]), float(self.low[index]), float(self.high[index]), samples)


def histogram_quantiles(q: float, edges: Sequence[float], cumulative: Floats) -> Quantiles:
    """Estimate a quantile from many histograms with the same buckets.

    Args:
        q: the quantile, 0..1.
        edges: upper bucket edges, ascending, the last one `inf`.
        cumulative: (histograms, buckets): observations up to each edge.
    """
    upper = np.asarray(edges, np.float64)
    lower = np.concatenate([[0.0], upper[:-1]])
    rising = np.maximum.accumulate(cumulative, axis=1)
    total = rising[:, -1]
    rank = q * total
    # The first bucket that holds the rank; buckets below the first observation hold nothing, whatever the rank.
    index = ((rising < rank[:, None]) | (rising <= 0)).sum(axis=1)
    index = np.minimum(index, len(upper) - 1)
    each = np.arange(len(total))
    below = np.where(index > 0, rising[each, index - 1], 0.0)
    inside = rising[each, index] - below
    low, high = lower[index], upper[index]
    known = (total > 0) & (total < inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = low + (high - low) * (np.maximum(0.0, rank - below) / inside)
    value = np.where(np.isinf(high), low, value)
    nothing = np.nan
    return Quantiles(
        np.where(known, value, nothing), np.where(known, low, nothing), np.where(known, high, nothing), total
    )


def histogram_quantile(q: float, edges: Sequence[float], counts: Sequence[float]) -> Quantile | None:
    """Estimate a quantile from one histogram.

    Args:
        q: the quantile, 0..1.
        edges: upper bucket edges, ascending, the last one `inf`.
        counts: observations per bucket (not cumulative), same length as `edges`.

    Returns:
        The estimate with its bounds, or None when there are no observations.
    """
    return histogram_quantiles(q, edges, np.array([list(accumulate(counts))], np.float64)).at(0)
