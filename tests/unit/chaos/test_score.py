"""Scores count what could not tell, medians know only what was measured, and a regression is more than noise."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.chaos.score import Regression, last_before, months, regressions, times_s, within_objective

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
NAMES = {"MTTD": DrillPhase.DETECTED, "MTTM": DrillPhase.VERIFIED, "MTTR": DrillPhase.RECOVERED}


def drill(key: str, day: float = 0, outcome: Outcome = Outcome.PASSED, **seconds: float) -> Drill:
    at = T0 + timedelta(days=day)
    phases = {NAMES[name]: at + timedelta(seconds=value) for name, value in seconds.items()}
    return Drill(
        key, "node-kill", "P0", timedelta(seconds=5), "ann", at, outcome=outcome,
        ended_at=None if outcome is Outcome.RUNNING else at + timedelta(minutes=1),
        phases={DrillPhase.FAULT: at, **phases} if phases else {},
    )  # fmt: skip


def test_times_are_counted_from_the_fault() -> None:
    assert times_s(drill("a", MTTD=0.5, MTTR=20.0)) == {"MTTD": 0.5, "MTTR": 20.0}
    assert times_s(drill("a")) == {}


def test_the_objective_is_from_detection_to_restored_service() -> None:
    assert within_objective(drill("a", MTTD=3.0, MTTM=8.0)) is True
    assert within_objective(drill("a", MTTD=3.0, MTTM=8.1)) is False
    assert within_objective(drill("a", MTTD=3.0)) is None


def test_a_month_is_scored_over_every_drill_that_ended_in_it() -> None:
    story = [
        drill("a", 0, MTTM=1.0), drill("b", 1, MTTM=3.0), drill("c", 2, Outcome.INVALID),
        drill("d", 3, Outcome.ABORTED),
        drill("e", 31, MTTM=2.0), drill("f", 32, Outcome.RUNNING), drill("g", 33, Outcome.REFUSED),
    ]  # fmt: skip
    april, march = months(story)
    assert (march.month, march.passed, march.judged, march.score, march.change) == ("2026-03", 2, 4, 0.5, None)
    assert march.times_s == {"MTTM": 2.0}
    assert (april.month, april.judged, april.score, april.change) == ("2026-04", 1, 1.0, 0.5)


def test_a_month_without_a_drill_has_no_score() -> None:
    assert months([]) == ()
    assert [m.month for m in months([drill("a"), drill("b", 90)])] == ["2026-06", "2026-03"]


def test_a_drill_is_compared_with_the_last_one_that_passed() -> None:
    now = drill("now", 9)
    others = [
        now, drill("old", 1), drill("last", 5), drill("bad", 8, Outcome.FAILED), drill("later", 10),
        replace(drill("other", 8), experiment="network-partition"),
    ]  # fmt: skip
    found = last_before(now, others)
    assert found is not None
    assert found.id == "last"
    assert last_before(others[1], others) is None


@pytest.mark.parametrize(("now", "before", "worse"), [(4.0, 2.0, True), (2.9, 2.0, False), (0.9, 0.1, False)])
def test_a_regression_is_slower_by_half_and_by_a_second(now: float, before: float, worse: bool) -> None:  # noqa: FBT001
    found = regressions(drill("b", 1, MTTM=now), drill("a", MTTM=before, MTTD=0.1))
    assert found == ((Regression("MTTM", now, before),) if worse else ())


def test_without_a_run_before_there_is_no_regression() -> None:
    assert regressions(drill("a", MTTM=9.0), None) == ()
    assert str(Regression("MTTM", 4.2, 1.3)) == "MTTM 4.20 s, was 1.30 s (3.2x)"
