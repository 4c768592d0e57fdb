"""One endpoint's row of the fleet's windows, for sentences that are about one row; its neighbours stay silent."""

from collections.abc import Sequence

from controlplane.signals.window import CounterMatrix, GaugeMatrix, OutcomeMatrix

ROW = 2
"""Neither the first row nor the last."""


class Counter:
    """A counter, or a histogram of so many buckets."""

    def __init__(self, span_s: float, width: int = 1) -> None:
        self.matrix = CounterMatrix(span_s, width)
        self.matrix.reserve(ROW + 2)

    def add(self, at: float, values: Sequence[float]) -> None:
        """Take one scrape."""
        self.matrix.add(ROW, at, values)

    def increase(self, now: float) -> tuple[tuple[float, ...], float] | None:
        """Return the growth and the seconds it was seen over; None where it is not known."""
        seen = self.matrix.increase(now)
        assert seen.known.sum() == seen.known[ROW]
        if not seen.known[ROW]:
            return None
        return tuple(float(g) for g in seen.grown[ROW]), float(seen.seconds[ROW])


class Gauge:
    """A gauge."""

    def __init__(self, stale_after_s: float) -> None:
        self.matrix = GaugeMatrix(stale_after_s)
        self.matrix.reserve(ROW + 2)

    def add(self, at: float, value: float) -> None:
        """Take one sample."""
        self.matrix.add(ROW, at, value)

    def value(self, now: float) -> float | None:
        """Return the newest value; None where there is none."""
        values = [None if v != v else float(v) for v in self.matrix.values(now)]  # noqa: PLR0124 - NaN
        assert all(v is None for row, v in enumerate(values) if row != ROW)
        return values[ROW]


class Outcomes:
    """Looks at one endpoint."""

    def __init__(self, span_s: float) -> None:
        self.matrix = OutcomeMatrix(span_s)
        self.matrix.reserve(ROW + 2)

    def add(self, at: float, *, ok: bool) -> None:
        """Take one look's outcome."""
        self.matrix.add(ROW, at, ok=ok)

    def tally(self, now: float) -> tuple[int, int]:
        """Return how many looks succeeded, and how many there were."""
        seen = self.matrix.tally(now)
        assert seen.total.sum() == seen.total[ROW]
        return int(seen.good[ROW]), int(seen.total[ROW])

    def failures_in_a_row(self) -> int:
        """Return how many of the newest looks failed."""
        return self.matrix.failures_in_a_row(ROW)

    def clear(self) -> None:
        """Drop everything."""
        self.matrix.clear(ROW)
