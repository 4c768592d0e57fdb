"""How drills go over time: the three times of each, a score a month with its trend, and what got slower; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from controlplane.chaos.drill import Drill, DrillPhase, Outcome

SLOWER_BY = 1.5
"""A time is a regression when it is this many times the last run's ..."""
SLOWER_BY_AT_LEAST_S = 1.0
"""... and longer by at least this: a tenth of a second more is noise on any machine."""

TIMES: Mapping[str, DrillPhase] = {
    "MTTD": DrillPhase.DETECTED,
    "MTTM": DrillPhase.VERIFIED,
    "MTTR": DrillPhase.RECOVERED,
}
"""From the fault to: it was detected, users were served again (mitigated), everything was as before (recovered)."""

JUDGED = (Outcome.PASSED, Outcome.FAILED, Outcome.INVALID, Outcome.ABORTED)


@dataclass(frozen=True, slots=True)
class Month:
    """One month of drills."""

    month: str
    """Such as `2026-12`, by UTC."""
    passed: int
    judged: int
    """Drills that ended, however: one that could not tell is not left out."""
    times_s: Mapping[str, float]
    """Median of each of `TIMES` over the drills that know it."""
    change: float | None = None
    """Score less the month's before; None for the first."""

    @property
    def score(self) -> float:
        """Share (0..1) of the month's drills that passed."""
        return self.passed / self.judged


@dataclass(frozen=True, slots=True)
class Regression:
    """A time that got worse since the last run of the same experiment."""

    time: str
    """One of `TIMES`."""
    now_s: float
    before_s: float

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.time} {self.now_s:.2f} s, was {self.before_s:.2f} s ({self.now_s / self.before_s:.1f}x)"


def times_s(drill: Drill) -> dict[str, float]:
    """Return the times of a drill that are known, in seconds from its fault."""
    found = {name: drill.seconds(phase) for name, phase in TIMES.items()}
    return {name: value for name, value in found.items() if value is not None}


def within_objective(drill: Drill) -> bool | None:
    """Tell whether service was restored in the time its row promises, from detection; None when it is not known."""
    detected, verified = drill.phases.get(DrillPhase.DETECTED), drill.phases.get(DrillPhase.VERIFIED)
    return (verified - detected) <= drill.objective if detected and verified else None


def months(drills: Iterable[Drill]) -> tuple[Month, ...]:
    """Score every month in which a drill ended, the newest first; months without one have no score."""
    by_month: dict[str, list[Drill]] = {}
    for drill in drills:
        if drill.outcome in JUDGED and drill.ended_at:
            by_month.setdefault(f"{drill.ended_at:%Y-%m}", []).append(drill)
    found: list[Month] = []
    for month in sorted(by_month):
        scored = _month(month, by_month[month])
        change = scored.score - found[-1].score if found else None
        found.append(Month(scored.month, scored.passed, scored.judged, scored.times_s, change))
    return tuple(reversed(found))


def _month(month: str, drills: Sequence[Drill]) -> Month:
    known = [times_s(drill) for drill in drills]
    medians = {name: median(values) for name in TIMES if (values := [k[name] for k in known if name in k])}
    return Month(month, sum(drill.outcome is Outcome.PASSED for drill in drills), len(drills), medians)


def last_before(drill: Drill, drills: Iterable[Drill]) -> Drill | None:
    """Return the last run of the same experiment that passed before this one."""
    earlier = [
        other for other in drills
        if other.experiment == drill.experiment and other.id != drill.id
        and other.outcome is Outcome.PASSED and other.started_at < drill.started_at
    ]  # fmt: skip
    return max(earlier, key=lambda other: other.started_at, default=None)


def regressions(drill: Drill, before: Drill | None) -> tuple[Regression, ...]:
    """Compare a drill with an earlier one of the same experiment."""
    if before is None:
        return ()
    now, then = times_s(drill), times_s(before)
    margin = timedelta(seconds=SLOWER_BY_AT_LEAST_S).total_seconds()
    return tuple(
        Regression(name, now[name], then[name])
        for name in TIMES
        if name in now and name in then and now[name] > then[name] * SLOWER_BY and now[name] - then[name] >= margin
    )
