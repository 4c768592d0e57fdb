"""Alerts about the proof that the levers work, and its age; pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from controlplane.policy.quantity import spell_duration
from controlplane.render import promql
from controlplane.render.alerting.proof import DAYS_STEP, SLOW_STEP, Proof, Wave, line
from controlplane.render.alerting.rules import Alert, Severity, anchored, literal
from controlplane.render.alerting.subject import Subject
from controlplane.render.promql import number, quoted
from controlplane.render.wording import inert

DRILL_PERIOD = timedelta(days=35)
"""The longest time between two monthly slots: `1st tue` to `1st tue` is four or five weeks."""

DRILL_GRACE = timedelta(days=5)

_PASSED = "controlplane_drill_last_passed_timestamp_seconds"
_NEVER = timedelta(hours=1)
"""A control plane that has just begun may well have no drill on record."""


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group; none where nothing can be broken on purpose."""
    if subject.policy.fleet.substrate is None:
        return
    limits = planned(subject)
    for experiment, limit in limits.items():
        yield _overdue(experiment, limit)
        yield _never(experiment, tuple(other for other in limits if other != experiment))
    yield _failed()


def planned(subject: Subject) -> Mapping[str, timedelta]:
    """Return how old the last success of each scheduled experiment may be; the strictest plan counts."""
    found: dict[str, timedelta] = {}
    for plan in subject.policy.drills.values():
        for experiment in plan.experiments:
            found[experiment] = min(plan.overdue_after, found.get(experiment, plan.overdue_after))
    return found


def _overdue(experiment: str, limit: timedelta) -> Alert:
    passed = f"{_PASSED}{{experiment={quoted(experiment)}}}"
    late_s = limit.total_seconds() + 86_400
    series = line(_PASSED, experiment=experiment)
    return Alert(
        "DrillOverdue",
        f"time() - max by (experiment) ({passed}) > {number(limit.total_seconds())}",
        Severity.WARNING,
        "none",
        f"Drill {literal(inert(experiment))} last passed {{{{ $value | humanizeDuration }}}} ago",
        anchored("DrillOverdue"),
        f"It should have passed again by now: {spell_duration(limit)} are over. Everything may have changed since.",
        "Run the drill in a quiet hour, or find out what refused it.",
        # The clock of a unit test begins at 0, so whatever passed before has a time below it.
        Proof(
            (Wave(series, _fires_at_s() - late_s, well=0),), late_s, {"experiment": experiment},
            step=SLOW_STEP, settles=timedelta(0), lasts=_DWELL,
        ),
        dwell=_DWELL,
        labels={"experiment": literal(experiment)},
    )  # fmt: skip


_DWELL = timedelta(minutes=5)


def _fires_at_s() -> float:
    """Return when a unit test looks for the alert, in seconds of its own clock."""
    first, ill, _ = Proof((), 0, step=SLOW_STEP, settles=timedelta(0), lasts=_DWELL).steps(_DWELL)
    return (first + ill - 1) * SLOW_STEP.total_seconds()


def _never(experiment: str, others: Sequence[str]) -> Alert:
    passed = f"{_PASSED}{{experiment={quoted(experiment)}}}"
    return Alert(
        "DrillNeverPassed",
        f"absent({passed})\nand on ()\nmax(controlplane_ready) == 1",
        Severity.WARNING,
        "none",
        f"Drill {literal(inert(experiment))} has never passed here",
        anchored("DrillNeverPassed"),
        "A degradation plan that nobody has rehearsed is a guess.",
        "Run the drill in a quiet hour.",
        Proof(
            (
                Wave(line(_PASSED, experiment=experiment), None, well=1),
                *(Wave(line(_PASSED, experiment=other), 1, well=1) for other in others),
                Wave("controlplane_ready", 1, well=1),
            ),
            1, {"experiment": experiment}, step=SLOW_STEP,
        ),
        dwell=_NEVER,
        labels={"experiment": literal(experiment)},
    )  # fmt: skip


def _failed() -> Alert:
    labels = {"experiment": "node-kill", "outcome": "failed"}
    return Alert(
        "DrillFailed",
        promql.grew('controlplane_drills_total{outcome=~"failed|invalid|aborted"}', "1d"),
        Severity.WARNING,
        "none",
        "Drill {{ $labels.experiment }} ended as {{ $labels.outcome }}",
        anchored("DrillFailed"),
        "A rehearsal did not prove its row: the row was too slow (failed), the fault was not real (invalid), or the "
        "run was cut short (aborted).",
        "Read the reasons of the drill; mend the plan before the fault comes by itself.",
        Proof(
            (Wave(line("controlplane_drills_total", **labels), 1, after=1),), 1, labels,
            step=DAYS_STEP, settles=timedelta(0), lasts=timedelta(0), resolves=timedelta(days=1),
        ),
    )  # fmt: skip
