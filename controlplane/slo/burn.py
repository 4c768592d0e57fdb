"""Error budgets, and how fast they burn in two windows at once; pure, `now` is an argument.

The rules are those of the Google SRE workbook, "Alerting on SLOs", table 5-8: a long window says that it matters, a
short one of a twelfth that it still goes on. A factor is the share of the budget a rule allows times the objective's
period over its long window, so other periods than 30 days get the factors that spend the same shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from controlplane.slo.threshold import Band


class Urgency(StrEnum):
    """Who is told of a burn."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, slots=True)
class BurnRule:
    """One row of the workbook's table."""

    spent: float
    """Share (0..1) of the budget that is gone after the long window at this rate."""
    long: timedelta
    short: timedelta
    urgency: Urgency

    def factor(self, period: timedelta) -> float:
        """Return the burn rate that spends this share in the long window; 1 spends the budget in one period."""
        return self.spent * (period / self.long)

    @property
    def spelled(self) -> str:
        """The two windows as people write them."""
        return f"{_spell(self.long)} and {_spell(self.short)}"


RULES = (
    BurnRule(0.02, timedelta(hours=1), timedelta(minutes=5), Urgency.PAGE),
    BurnRule(0.05, timedelta(hours=6), timedelta(minutes=30), Urgency.PAGE),
    BurnRule(0.10, timedelta(days=1), timedelta(hours=2), Urgency.TICKET),
    BurnRule(0.10, timedelta(days=3), timedelta(hours=6), Urgency.TICKET),
)
"""14.4x over 1 h and 5 min, 6x over 6 h and 30 min, 3x over 1 d and 2 h, 1x over 3 d and 6 h, for 30 days."""

LOW_TRAFFIC_FAILURES = 5
"""Where a single failure would trip a rule by itself, so many are needed: one lost request is no incident."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was good and what was not in some time."""

    good: float
    total: float

    @property
    def bad(self) -> float:
        """Return how many were not good."""
        return max(0.0, self.total - self.good)


class BudgetWindow:
    """Good and total events in steps of a fixed length, over one period; costs the same however many events come."""

    def __init__(self, period: timedelta, step: timedelta = timedelta(minutes=1)) -> None:
        self.period = period
        self._step_s = step.total_seconds()
        steps = max(1, round(period / step))
        self._good: NDArray[np.float64] = np.zeros(steps)
        self._total: NDArray[np.float64] = np.zeros(steps)
        self._newest: int | None = None
        self._oldest = 0

    def add(self, at: float, good: float, total: float) -> None:
        """Count events.

        Args:
            at: seconds on a clock that does not step back; what is older than the period is left out.
            good: how many were good.
            total: how many there were.
        """
        step = int(at // self._step_s)
        if self._newest is None:
            self._newest = self._oldest = step
        if step > self._newest:
            self._clear(self._newest + 1, step)
            self._newest = step
        if step > self._newest - len(self._total):
            self._good[step % len(self._good)] += min(good, total)
            self._total[step % len(self._total)] += total

    def _clear(self, first: int, last: int) -> None:
        places = np.arange(max(first, last - len(self._total) + 1), last + 1) % len(self._total)
        self._good[places] = 0.0
        self._total[places] = 0.0

    def tally(self, now: float, window: timedelta) -> Tally:
        """Return what came in the last `window`, by whole steps; the step that has begun counts, too."""
        if self._newest is None:
            return Tally(0.0, 0.0)
        last = int(now // self._step_s)
        count = min(len(self._total), max(1, round(window.total_seconds() / self._step_s)))
        first = max(last - count + 1, self._newest - len(self._total) + 1)
        last = min(last, self._newest)
        if first > last:
            return Tally(0.0, 0.0)
        places = np.arange(first, last + 1) % len(self._total)
        return Tally(float(self._good[places].sum()), float(self._total[places].sum()))

    def watched_s(self, now: float) -> float:
        """Return for how many seconds events have been counted, at most one period."""
        if self._newest is None:
            return 0.0
        return min(max(0.0, now - self._oldest * self._step_s), len(self._total) * self._step_s)

    def dump(self) -> dict[str, tuple[float, float]]:
        """Return the steps that hold anything, to be kept over a restart."""
        if self._newest is None:
            return {}
        steps = range(max(self._oldest, self._newest - len(self._total) + 1), self._newest + 1)
        size = len(self._total)
        kept = {step: (float(self._good[step % size]), float(self._total[step % size])) for step in steps}
        ends = (steps[0], steps[-1])  # They say since when, and until when, it was counted.
        return {str(step): pair for step, pair in kept.items() if pair[1] or step in ends}

    def load(self, kept: Mapping[str, Sequence[float]]) -> None:
        """Take back what `dump` returned."""
        for step, (good, total) in sorted((int(step), pair) for step, pair in kept.items()):
            self.add(step * self._step_s, float(good), float(total))


def burn_rate(tally: Tally, target: float) -> float | None:
    """Return how many times faster than allowed a budget burns; None when nothing came.

    Args:
        tally: what came.
        target: the objective, 0..1; one of 1 leaves no budget, and any failure burns without end.
    """
    if tally.total <= 0:
        return None
    allowed = 1.0 - target
    failed = tally.bad / tally.total
    if allowed <= 0:
        return float("inf") if failed > 0 else 0.0
    return failed / allowed


@dataclass(frozen=True, slots=True)
class Burn:
    """One rule as it stands."""

    rule: BurnRule
    factor: float
    long: float | None
    """Burn rate over the long window; None when nothing came."""
    short: float | None
    trips: bool
    reason: str = ""
    """Why it does not trip although the rates say so."""


@dataclass(frozen=True, slots=True)
class Budget:
    """An objective's budget as it stands."""

    target: float
    left: float | None
    """Share (0..1) of the period's budget that is left, below 0 when overspent; None when nothing came."""
    burns: tuple[Burn, ...]
    events: float
    watched_s: float
    """For how long events have been counted: less than a period says less than the whole."""

    @property
    def urgency(self) -> Urgency | None:
        """Return the most urgent rule that trips."""
        tripped = {burn.rule.urgency for burn in self.burns if burn.trips}
        return Urgency.PAGE if Urgency.PAGE in tripped else Urgency.TICKET if tripped else None

    @property
    def band(self) -> Band:
        """Return the budget as a band: a page is a breach, a ticket a warning."""
        if self.events <= 0:
            return Band.UNKNOWN
        return {Urgency.PAGE: Band.BREACH, Urgency.TICKET: Band.WARN, None: Band.OK}[self.urgency]


def budget(window: BudgetWindow, target: float, now: float, rules: tuple[BurnRule, ...] = RULES) -> Budget:
    """Judge an objective.

    Args:
        window: its events, over its period.
        target: what was promised, 0..1.
        now: seconds on the window's clock.
        rules: the workbook's table.
    """
    whole = window.tally(now, window.period)
    spent = burn_rate(whole, target)
    burns = tuple(_burn(rule, window, target, now) for rule in rules)
    left = None if spent is None else 1.0 - spent
    return Budget(target, left, burns, whole.total, window.watched_s(now))


def _burn(rule: BurnRule, window: BudgetWindow, target: float, now: float) -> Burn:
    factor = rule.factor(window.period)
    seen = window.tally(now, rule.long)
    long, short = burn_rate(seen, target), burn_rate(window.tally(now, rule.short), target)
    if long is None or short is None or long < factor or short < factor:
        return Burn(rule, factor, long, short, trips=False)
    alone = burn_rate(Tally(seen.total - 1, seen.total), target)
    if alone is not None and alone >= factor and seen.bad < LOW_TRAFFIC_FAILURES:
        few = f"{seen.bad:g} failures of {seen.total:g} requests: too little traffic to tell a burn from bad luck"
        return Burn(rule, factor, long, short, trips=False, reason=few)
    return Burn(rule, factor, long, short, trips=True)


def _spell(span: timedelta) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h")):
        count, rest = divmod(span.total_seconds(), size)
        if count and not rest:
            return f"{count:g} {unit}"
    return f"{span.total_seconds() / 60:g} min"
