"""The plainest windows and quantile there can be, kept as the reference that the fast ones are tested against."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from controlplane.signals.quantile import Quantile

Vector = tuple[float, ...]


@dataclass(slots=True)
class CounterWindow:
    """Cumulative counts over time: a counter is a vector of one, a histogram one element per bucket."""

    span_s: float
    _samples: deque[tuple[float, Vector]] = field(default_factory=deque)

    def add(self, at: float, values: Vector) -> None:
        """Take one scrape; one that is not newer than the last, or has another shape, starts the window again."""
        if self._samples:
            last_at, last = self._samples[-1]
            if at <= last_at:
                return
            if len(last) != len(values):
                self._samples.clear()
        self._samples.append((at, values))
        # One sample from before the window stays, so that the increase covers the whole of it.
        while len(self._samples) > 2 and self._samples[1][0] <= at - self.span_s:
            self._samples.popleft()

    def increase(self, now: float) -> tuple[Vector, float] | None:
        """Return the growth per element inside the window and the seconds it was seen over.

        A counter that falls was restarted: what it shows since then is growth from zero, as in Prometheus' `increase`
        (without its extrapolation to the window's edges). The sample just before the window begins it.

        Returns:
            None with fewer than two samples, or when the newest one is older than the window.
        """
        kept = [s for i, s in enumerate(self._samples) if self._reaches(i, now)]
        if len(kept) < 2 or now - kept[-1][0] > self.span_s:
            return None
        total = [0.0] * len(kept[0][1])
        for (_, before), (_, after) in pairwise(kept):
            restarted = any(b > a for b, a in zip(before, after, strict=True))
            for i, value in enumerate(after):
                total[i] += value if restarted else value - before[i]
        return tuple(total), kept[-1][0] - kept[0][0]

    def _reaches(self, index: int, now: float) -> bool:
        """Tell whether a sample lies in the window, or is the last one before it."""
        start = now - self.span_s
        at = self._samples[index][0]
        return at >= start or (index + 1 < len(self._samples) and self._samples[index + 1][0] > start)


@dataclass(slots=True)
class GaugeWindow:
    """The newest value of something that goes up and down."""

    stale_after_s: float
    _at: float = float("-inf")
    _value: float = 0.0

    def add(self, at: float, value: float) -> None:
        """Take one sample; an older one than the newest is left out."""
        if at > self._at:
            self._at, self._value = at, value

    def value(self, now: float) -> float | None:
        """Return the newest value, or None once it is stale."""
        return self._value if now - self._at <= self.stale_after_s else None


@dataclass(slots=True)
class OutcomeWindow:
    """Looks that succeeded or failed."""

    span_s: float
    _looks: deque[tuple[float, bool]] = field(default_factory=deque)

    def add(self, at: float, *, ok: bool) -> None:
        """Take one look's outcome."""
        self._looks.append((at, ok))
        while self._looks and self._looks[0][0] < at - self.span_s:
            self._looks.popleft()

    def tally(self, now: float) -> tuple[int, int]:
        """Return how many looks inside the window succeeded, and how many there were."""
        inside = [ok for at, ok in self._looks if now - self.span_s <= at <= now]
        return sum(inside), len(inside)

    def failures_in_a_row(self) -> int:
        """Return how many of the newest looks failed without a success between them."""
        run = 0
        for _, ok in reversed(self._looks):
            if ok:
                break
            run += 1
        return run

    def clear(self) -> None:
        """Drop everything: what was seen before no longer tells about now (the endpoint came back as a new one)."""
        self._looks.clear()


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
    if total <= 0:
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
