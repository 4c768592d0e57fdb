"""`degradation.prewarm`: warm-ups by the clock, and what is refused with its line and the way out."""

from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.degradation.warmup import Peak, WarmUp, Weekday
from controlplane.errors import PolicyError
from controlplane.policy.load import Loaded, loads

PAGE = """\
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.1.1:8000"] } }
    standby: { endpoints: { static: ["http://10.0.2.1:8000"] } }
degradation:
  prewarm:
"""


def loaded(lines: str) -> Loaded:
    return loads(PAGE + lines, Path("page.yaml"))


def test_no_pool_is_warmed_up_unless_the_page_says_so() -> None:
    assert loads(PAGE.partition("degradation")[0], Path("page.yaml")).policy.degradation.prewarm == ()


def test_a_peak_is_a_time_of_the_week_or_learnt() -> None:
    lines = """\
    - pool: standby
      at: { hour: 9, minute: 30, timezone: Asia/Shanghai, days: [mon, fri] }
      before: 45m
      completions: 8
    - { pool: primary, at: { hour: 20 } }
    - { pool: standby, at: forecast }
    - { pool: standby }
"""
    assert loaded(lines).policy.degradation.prewarm == (
        WarmUp(
            "standby", Peak(9, 30, "Asia/Shanghai", (Weekday.MON, Weekday.FRI)), timedelta(minutes=45), 8
        ),
        WarmUp("primary", Peak(20), timedelta(hours=2), 4),
        WarmUp("standby"),
        WarmUp("standby"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{ pool: nowhere }", "`degradation.prewarm[0].pool: nowhere` is no pool"),
        ("{ before: 2h }", "`degradation.prewarm[0].pool` is missing"),
        ("{ pool: standby, before: 8d }", "`degradation.prewarm[0].before` is out of reach"),
        ("{ pool: standby, before: 0s }", "`degradation.prewarm[0].before` is out of reach"),
        ("{ pool: standby, completions: 0 }", "`degradation.prewarm[0].completions: 0` warms nothing"),
        ("{ pool: standby, at: { hour: 24 } }", "24:00 is no time of day"),
        ("{ pool: standby, at: { hour: 9, timezone: Mars } }", "unknown time zone `Mars`"),
        ("{ pool: standby, at: { hour: 9, days: [someday] } }", "`degradation.prewarm[0].at.days[0]: someday` is not"),
        ("{ pool: standby, at: noon }", "`degradation.prewarm[0].at` is `noon`"),
        ("{ pool: standby, when: now }", "unknown key"),
        ("standby", "`degradation.prewarm[0]` is `standby`"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(line: str, what: str) -> None:
    with pytest.raises(PolicyError) as error:
        loaded(f"    - {line}\n")
    (problem,) = error.value.problems
    assert problem.what.startswith(what)
    assert problem.where == "page.yaml:8"
    assert problem.why
    assert problem.fix
