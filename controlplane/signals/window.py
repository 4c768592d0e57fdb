"""Samples over the last N seconds for a whole fleet at once: one matrix a signal, a row an endpoint, a ring of samples.

Pure; `now` is an argument. Every time is a monotonic second count, so that a stepped wall clock moves no window. A
row that has not seen enough to say anything is not known: no data is not zero. What is added waits in a list and goes
into the matrix in one piece when the matrix is next read: numpy is fast for many and slow for one.

A sample that is not newer than its row's last is dropped, and so is one that is no number or infinite.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

_FIRST_DEPTH = 8
_NEVER = -np.inf
_ABSURD = 1e290
"""Nothing counts so far: infinity, and what would become it once a fleet is added up."""


@dataclass(frozen=True, slots=True)
class Increase:
    """How much counters grew inside the window, a row an endpoint."""

    grown: Floats
    """(rows, width)"""
    seconds: Floats
    """The time the growth was seen over: from the last sample before the window, or the first one there is."""
    known: Flags
    """False with fewer than two samples, or when the newest one is older than the window; the row is then zero."""
    at: Floats
    """When each row was last sampled; minus infinity for one that never was."""


class _Rings:
    """Rings of samples, one a row, and the queue of what is to go into them."""

    def __init__(self, span_s: float, width: int) -> None:
        self.span_s = span_s
        self.width = width
        self._rows: list[int] = []
        self._ats: list[float] = []
        self._values: list[Sequence[float]] = []
        self._at: Floats = np.full((0, _FIRST_DEPTH), _NEVER)
        self._held: Floats = np.zeros((0, _FIRST_DEPTH, width))
        self._next: Counts = np.zeros(0, np.int64)
        """Where the next sample of a row goes."""

    @property
    def depth(self) -> int:
        """How many samples a row can hold now."""
        return int(self._at.shape[1])

    def _queued(self) -> Iterator[tuple[Counts, Floats, Floats]]:
        """Give what waits, in rounds in which no row comes twice, each row's samples in the order they were added."""
        if not self._rows:
            return
        rows = np.array(self._rows, np.int64)
        ats = np.array(self._ats)
        values = np.array(self._values, np.float64).reshape(len(rows), self.width)
        self._rows, self._ats, self._values = [], [], []
        usable = (np.abs(values) < _ABSURD).all(axis=1)
        if not usable.all():
            rows, ats, values = rows[usable], ats[usable], values[usable]
        if not len(rows):
            return
        self._make_rows(int(rows.max()) + 1)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        turn = np.empty(len(rows), np.int64)
        turn[order] = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
        for k in range(int(turn.max()) + 1):
            now = turn == k
            yield rows[now], ats[now], values[now]

    def reserve(self, rows: int) -> None:
        """Have at least so many rows, known or not."""
        self._make_rows(rows)

    def _make_rows(self, wanted: int) -> None:
        have = len(self._next)
        if wanted <= have:
            return
        more = max(wanted, 2 * have, 16) - have
        self._at = np.concatenate([self._at, np.full((more, self.depth), _NEVER)])
        self._held = np.concatenate([self._held, np.zeros((more, self.depth, self.width))])
        self._next = np.concatenate([self._next, np.zeros(more, np.int64)])

    def _last(self, rows: Counts) -> Floats:
        """Return when each of the rows was last sampled."""
        newest: Floats = self._at[rows, self._next[rows] - 1]
        return newest

    def _put(self, rows: Counts, ats: Floats, values: Floats, spare: int) -> None:
        """Put one sample into each of the rows, and make the rings deeper when that would drop one still needed.

        Args:
            rows: which rows; none twice.
            ats: monotonic seconds.
            values: (rows, width).
            spare: how many samples from before the window each row keeps.
        """
        while True:
            # The ring's oldest sample is where the next one goes; `spare` further on is the first that must stay.
            stays = self._at[rows, (self._next[rows] + spare) % self.depth]
            full = self._at[rows, self._next[rows]] > _NEVER
            # A sample on the window's very edge still counts.
            if not (full & (stays >= ats - self.span_s)).any():
                break
            self._deepen()
        self._at[rows, self._next[rows]] = ats
        self._held[rows, self._next[rows]] = values
        self._next[rows] = (self._next[rows] + 1) % self.depth

    def _deepen(self) -> None:
        """Double the rings. Their samples stay in order and end the new ring, so the next place is its first one."""
        depth = self.depth
        inorder = (self._next[:, None] + np.arange(depth)) % depth
        at = np.take_along_axis(self._at, inorder, axis=1)
        held = np.take_along_axis(self._held, inorder[:, :, None], axis=1)
        empty = np.full_like(at, _NEVER), np.zeros_like(held)
        self._at = np.concatenate([empty[0], at], axis=1)
        self._held = np.concatenate([empty[1], held], axis=1)
        self._next = np.zeros_like(self._next)

    def clear(self, row: int) -> None:
        """Forget a row: its endpoint left, came back as a new one, or counts in another shape."""
        self._settle()
        if row < len(self._next):
            self._at[row] = _NEVER
            self._next[row] = 0

    def _settle(self) -> None:
        """Take in what waits."""
        raise NotImplementedError


class CounterMatrix(_Rings):
    """Cumulative counts over time: a counter has width one, a histogram one element a bucket.

    The rings hold growth since the row's first sample, corrected for restarts when a sample comes in; the increase
    over any window is then one subtraction.
    """

    def __init__(self, span_s: float, width: int = 1) -> None:
        super().__init__(span_s, width)
        self._raw: Floats = np.zeros((0, width))

    def add(self, row: int, at: float, values: Sequence[float]) -> None:
        """Take one scrape of one endpoint, `width` numbers."""
        self._rows.append(row)
        self._ats.append(at)
        self._values.append(values)

    def increase(self, now: float, span_s: float = 0.0) -> Increase:
        """Return the growth of every row inside the window.

        A counter that falls was restarted: what it shows since then is growth from zero, as in Prometheus' `increase`
        (without its extrapolation to the window's edges). The sample just before the window begins it.

        Args:
            now: monotonic seconds.
            span_s: a shorter window than the matrix was made for; 0 is the whole of it.
        """
        self._settle()
        start = now - (span_s or self.span_s)
        rows = np.arange(len(self._next))
        newest = (self._next - 1) % self.depth
        # From a ring's next place on, its samples stand in order, the unused places (minus infinity) first: the last
        # sample before the window stands at the end of all that are not inside it.
        outside = (self._at <= start).sum(axis=1)
        begins = (self._next + np.maximum(outside - 1, 0)) % self.depth
        begins = np.where(self._at[rows, begins] > _NEVER, begins, (self._next + outside) % self.depth)
        last, first = self._at[rows, newest], self._at[rows, begins]
        known: Flags = np.asarray(np.logical_and(last > start, begins != newest))
        grown = self._held[rows, newest] - self._held[rows, begins]
        grown[~known] = 0.0
        seconds = np.where(known, last, 0.0) - np.where(known, first, 0.0)
        return Increase(grown, seconds, known, last)

    def _settle(self) -> None:
        for rows, ats, values in self._queued():
            newer = ats > self._last(rows)
            at, raw, new = ats[newer], values[newer], rows[newer]
            if not len(new):
                continue
            fresh = self._last(new) == _NEVER
            before = self._raw[new]
            restarted: Flags = np.asarray(np.any(raw < before, axis=1, keepdims=True))
            step = np.where(restarted, raw, raw - before)
            total = np.where(fresh[:, None], 0.0, self._held[new, self._next[new] - 1] + step)
            self._raw[new] = raw
            self._put(new, at, total, spare=1)

    def _make_rows(self, wanted: int) -> None:
        super()._make_rows(wanted)
        more = len(self._next) - len(self._raw)
        self._raw = np.concatenate([self._raw, np.zeros((more, self.width))])


class GaugeMatrix:
    """The newest value of something that goes up and down."""

    def __init__(self, stale_after_s: float) -> None:
        self.stale_after_s = stale_after_s
        """Values older than this are unknown."""
        self._waiting: dict[int, tuple[float, float]] = {}
        self._at: Floats = np.zeros(0)
        self._value: Floats = np.zeros(0)

    def add(self, row: int, at: float, value: float) -> None:
        """Take one sample; an older one than the newest is left out."""
        if -_ABSURD < value < _ABSURD and at > self._waiting.get(row, (_NEVER,))[0]:  # NaN is less than nothing.
            self._waiting[row] = (at, value)

    def values(self, now: float) -> Floats:
        """Return each row's newest value, NaN where there is none or it is stale."""
        if self._waiting:
            rows = np.fromiter(self._waiting, np.int64, len(self._waiting))
            new = np.array(list(self._waiting.values()))
            self._waiting = {}
            self.reserve(int(rows.max()) + 1)
            newer = new[:, 0] > self._at[rows]
            self._at[rows[newer]] = new[newer, 0]
            self._value[rows[newer]] = new[newer, 1]
        return np.where(now - self._at <= self.stale_after_s, self._value, np.nan)

    @property
    def at(self) -> Floats:
        """When each row was last sampled, as of the last reading."""
        return self._at

    def reserve(self, rows: int) -> None:
        """Have at least so many rows, known or not."""
        more = rows - len(self._at)
        if more > 0:
            more = max(more, len(self._at))
            self._at = np.concatenate([self._at, np.full(more, _NEVER)])
            self._value = np.concatenate([self._value, np.zeros(more)])

    def clear(self, row: int) -> None:
        """Forget a row."""
        self._waiting.pop(row, None)
        if row < len(self._at):
            self._at[row] = _NEVER


@dataclass(frozen=True, slots=True)
class Tally:
    """Looks inside the window, a row an endpoint."""

    good: Counts
    total: Counts
    """Looks that say something: they succeeded or failed."""
    discarded: Counts
    """Looks that were late by our own fault and say nothing."""
    at: Floats
    """When each row was last looked at; minus infinity for one that never was."""


_GOOD, _BAD, _DISCARDED = 1.0, 0.0, -1.0
_WELL = (_GOOD,)


class OutcomeMatrix(_Rings):
    """Looks that succeeded, failed, or say nothing because the prober itself was late.

    What decides at once, failures in a row, is kept beside the matrix, a row at a time.
    """

    def __init__(self, span_s: float) -> None:
        super().__init__(span_s, 1)
        self._failing: dict[int, deque[float]] = {}
        self._looked_at: dict[int, float] = {}

    def add(self, row: int, at: float, *, ok: bool, times: int = 1) -> None:
        """Take one look's outcome; one that ended before the row's newest is dropped.

        Args:
            row: whose.
            at: monotonic seconds when it ended.
            ok: whether it succeeded.
            times: how many failures it is, when it did not.
        """
        if at < self._looked_at.get(row, _NEVER):
            return
        self._looked_at[row] = at
        if ok:
            self._rows.append(row)
            self._ats.append(at)
            self._values.append(_WELL)
            if self._failing:
                self._failing.pop(row, None)
            return
        failing = self._failing.setdefault(row, deque())
        for _ in range(times):
            self._rows.append(row)
            self._ats.append(at)
            self._values.append((_BAD,))
            failing.append(at)
        while failing[0] < at - self.span_s:
            failing.popleft()

    def discard(self, row: int, at: float) -> None:
        """Count a look that says nothing; it neither ends nor lengthens a run of failures."""
        self._rows.append(row)
        self._ats.append(at)
        self._values.append((_DISCARDED,))

    def tally(self, now: float) -> Tally:
        """Return how many looks inside the window succeeded, how many there were, and how many say nothing."""
        self._settle()
        inside = (self._at >= now - self.span_s) & (self._at <= now)
        held = self._held[:, :, 0]
        return Tally(
            (inside & (held == _GOOD)).sum(axis=1),
            (inside & (held != _DISCARDED)).sum(axis=1),
            (inside & (held == _DISCARDED)).sum(axis=1),
            self._at.max(axis=1, initial=_NEVER),
        )

    def failures_in_a_row(self, row: int) -> int:
        """Return how many of a row's newest looks failed without a success between them."""
        return len(self._failing.get(row, ()))

    def clear(self, row: int) -> None:
        """Drop everything: what was seen before no longer tells about now (the endpoint came back as a new one)."""
        super().clear(row)
        self._failing.pop(row, None)
        self._looked_at.pop(row, None)

    def _settle(self) -> None:
        for rows, ats, values in self._queued():
            self._put(rows, ats, values, spare=0)
