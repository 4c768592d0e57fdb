"""How long incidents took, level by level; drills are counted apart, and what is not known is not counted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.incidents.incident import Incident, IncidentState
from controlplane.incidents.statistics import Step, of_service, statistics, took_s

T0 = datetime(2026, 11, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def incident(key: str, level: str = "P0", begins: float | None = 0, mitigated: float = 12, **more: str) -> Incident:
    return Incident(
        key, "chat", level, "t", IncidentState.RESOLVED, at(10), mitigated_at=at(mitigated), resolved_at=at(100),
        began_at=None if begins is None else at(begins), acknowledged_at=at(40), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_detection_counts_from_the_beginning_and_everything_else_from_detection() -> None:
    one = incident("a")
    assert [took_s(one, step) for step in Step] == [10, 30, 2, 90]
    assert took_s(replace(one, began_at=at(11)), Step.DETECT) is None
    assert took_s(replace(one, acknowledged_at=None), Step.ACKNOWLEDGE) is None


def test_means_medians_and_counts_leave_drills_and_what_is_old_or_unknown_out() -> None:
    found = (
        incident("a", mitigated=12), incident("b", mitigated=13), incident("c", "P2", begins=None, mitigated=21),
        incident("d", mitigated=1000, drill_id="d1"), replace(incident("e"), detected_at=at(-40 * 86_400)),
        replace(incident("x"), service="other"),
    )  # fmt: skip
    real, p0, p2, drills, _ = of_service("chat", found, at(3600))
    assert (real.level, real.drill, real.incidents) == ("all", False, 3)
    assert (real.times[Step.MITIGATE].count, real.times[Step.MITIGATE].median_s) == (3, 3)
    assert real.times[Step.MITIGATE].mean_s == (2 + 3 + 11) / 3
    assert real.times[Step.DETECT].count == 2
    assert (p0.level, p0.incidents, p2.level, p2.times[Step.DETECT].mean_s) == ("P0", 2, "P2", None)
    assert (drills.drill, drills.times[Step.MITIGATE].mean_s) == (True, 990)
    assert {group.service for group in statistics(found, at(3600))} == {"chat", "other"}


def test_a_service_without_incidents_has_its_line() -> None:
    (none,) = of_service("chat", (), T0)
    assert (none.incidents, none.open, none.times[Step.RESOLVE].count) == (0, 0, 0)
