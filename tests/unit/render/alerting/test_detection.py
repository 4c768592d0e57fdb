"""The way from a harm to whoever is told is added up, and a promise that is shorter is refused with the sum."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.degradation.matrix import Level
from controlplane.errors import UsageError
from controlplane.policy.model import Policy
from controlplane.render.alerting.detection import Detection, detections, refuse, table
from controlplane.render.alerting.groups import groups
from tests.golden.cases import NAMES, policy


def promising(within: timedelta) -> Policy:
    full = policy("full")
    row = replace(full.degradation.rows[Level.P0], within=within)
    return replace(full, degradation=replace(full.degradation, rows={**full.degradation.rows, Level.P0: row}))


def way(of: Policy, alert: str) -> Detection:
    return next(found for found in detections(of, groups(of)) if found.alert == alert)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_pages_keep_what_they_promise(name: str) -> None:
    refuse(policy(name), groups(policy(name)))
    assert all(found.kept for found in detections(policy(name), groups(policy(name))))


def test_every_part_of_the_way_is_added_up() -> None:
    found = way(policy("full"), "QueueDepthBreach")
    assert found.arithmetic == (
        "scrape 5s + window 35s + evaluation 5s + for 5s + group_wait 5s + delivery 1s = 56s"
    )  # fmt: skip
    assert found.level == "P1"
    assert found.promised == timedelta(minutes=15)


def test_what_leads_to_no_row_is_promised_nothing_and_waits_for_company() -> None:
    found = way(policy("full"), "EndpointDown")
    assert found.promised is None
    assert found.kept
    assert {a.name: a.span for a in found.addends}["group_wait"] == timedelta(seconds=30)


def test_a_wait_ends_at_an_evaluation() -> None:
    full = policy("full")
    slow = replace(full, publish=replace(full.publish, evaluation=timedelta(seconds=20)))
    assert {a.name: a.span for a in way(slow, "QueueDepthBreach").addends}["for"] == timedelta(seconds=20)


def test_rules_that_come_later_than_the_promise_are_refused_with_the_sum_and_the_way_out() -> None:
    late = promising(timedelta(seconds=30))
    with pytest.raises(UsageError) as error:
        refuse(late, groups(late))
    assert "would come later than what the row promises" in error.value.what
    sums = [line for line in error.value.why.splitlines() if "AvailabilityBreach: " in line]
    assert sums[0].strip() == (
        "AvailabilityBreach: scrape 5s + window 15s + evaluation 5s + group_wait 5s + delivery 1s = 31s, "
        "and P0 promises 30s"
    )
    assert "`thresholds.availability.window`" in error.value.fix
    assert "`degradation.P0.within`" in error.value.fix
    assert "`degradation.P1.within`" not in error.value.fix


def test_a_promise_that_leaves_no_time_to_act_is_not_kept() -> None:
    exactly = way(policy("full"), "AvailabilityBreach").total
    assert not way(promising(exactly), "AvailabilityBreach").kept
    assert way(promising(exactly + timedelta(seconds=1)), "AvailabilityBreach").kept


def test_slow_scrapes_alone_can_break_a_promise() -> None:
    full = policy("full")
    slow = replace(full, publish=replace(full.publish, scrape=timedelta(minutes=1), evaluation=timedelta(minutes=1)))
    with pytest.raises(UsageError, match="later than what the row promises"):
        refuse(slow, groups(slow))


def test_our_own_patience_shrinks_with_the_promise() -> None:
    waits = [
        next(a.span for a in way(promising(timedelta(seconds=s)), "ControlPlaneDown").addends if a.name == "for")
        for s in (600, 100)
    ]
    assert waits == [timedelta(seconds=30), timedelta(seconds=10)]


def test_the_table_shows_rows_only_and_marks_what_is_late() -> None:
    late = promising(timedelta(seconds=30))
    lines = table(detections(late, groups(late)))
    assert lines[0].split()[:3] == ["alert", "row", "scrape"]
    assert not [line for line in lines if line.startswith("EndpointDown")]
    assert [line for line in lines if line.startswith("AvailabilityBreach") and line.endswith("30s  TOO LATE")]
    assert table(()) == ()
