"""Quantiles of bucketed latencies, each with the bounds of what the buckets can tell.

Pure. The interpolation is Prometheus' own `histogram_quantile` (linear inside the bucket, the lowest bucket starts
at zero, the `+Inf` bucket answers with the last finite edge), so that a rule and a verdict agree on the same data.
Source: prometheus/promql/quantile.go, `bucketQuantile`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile and how sure it is."""

    value: float
    low: float
    """The true quantile is not below this bucket edge."""
    high: float
    """The true quantile is not above this bucket edge; `inf` when it lies beyond the last one."""
    samples: int


def histogram_quantile(q: float, edges: Sequence[float], counts: Sequence[float]) -> Quantile | None:
    """Estimate a quantile from one histogram.

    Args:
        q: the quantile, 0..1.
        edges: upper bucket edges, ascending, the last one `inf`.
        counts: observations per bucket (not cumulative), same length as `edges`.

    Returns:
        The estimate with its bounds, or None when there are no observations.
    """
    total = sum(counts)
    if not 0 < total < inf:
        return None
    rank = q * total
    below = 0.0
    low = 0.0
    for edge, count in zip(edges, counts, strict=True):
        if count > 0 and below + count >= rank:
            if edge == inf:
                return Quantile(low, low, inf, round(total))
            value = low + (edge - low) * max(0.0, rank - below) / count
            return Quantile(value, low, edge, round(total))
        below += count
        low = edge if edge != inf else low
    return Quantile(low, low, inf, round(total))
