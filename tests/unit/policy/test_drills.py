"""The `drills:` section: plans with guards, limits and freezes, and what is refused with the way out."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from controlplane.chaos.guard import Guard
from controlplane.chaos.redundancy import BlastRadius
from controlplane.chaos.schedule import Freeze
from controlplane.errors import PolicyError
from controlplane.policy.load import loads
from controlplane.policy.model import Policy

PAGE = Path("controlplane.yaml")
MINIMAL = 'service: chat\nfleet: { pools: { primary: { endpoints: { static: ["http://10.0.1.1:8000"] } } } }\n'


def policy(drills: str = "") -> Policy:
    return loads(MINIMAL + (f"drills:\n{drills}" if drills else ""), PAGE).policy


def refused(drills: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        policy(drills)
    assert all(p.why and p.fix and p.where.startswith("controlplane.yaml:") for p in error.value.problems)
    return [p.what for p in error.value.problems]


def test_the_defaults_are_gated_guarded_and_bounded() -> None:
    plan = policy().drills["monthly"]
    assert plan.gates.error_budget_left == 0.25
    assert plan.guards == {"availability": Guard(below=0.99, dwell=timedelta(seconds=20))}
    assert plan.blast_radius == BlastRadius(0.5, 1)
    assert (plan.retry_within, plan.overdue_after) == (timedelta(hours=6), timedelta(days=38))
    assert plan.freeze == ()


def test_a_plan_is_read_whole() -> None:
    found = policy(
        """
  monthly:
    guards: { error_rate: { above: 5%, for: 3s }, latency_p99: { above: 2s } }
    freeze: ["2026-12-24/2027-01-02", "2026-11-27"]
    blast_radius: { endpoints: 40%, survivors: 2 }
    gates: { error_budget_left: 0% }
    retry_within: 90m
"""
    )
    plan = found.drills["monthly"]
    assert set(found.drills) == {"monthly"}
    assert plan.guards == {
        "error_rate": Guard(above=0.05, dwell=timedelta(seconds=3)), "latency_p99": Guard(above=2.0),
    }  # fmt: skip
    assert plan.freeze == (
        Freeze(date(2026, 12, 24), date(2027, 1, 2)), Freeze(date(2026, 11, 27), date(2026, 11, 27)),
    )  # fmt: skip
    assert plan.blast_radius == BlastRadius(0.4, 2)
    assert plan.gates.error_budget_left == 0.0
    assert plan.retry_within == timedelta(minutes=90)


def test_the_resolved_page_is_a_page_that_says_the_same() -> None:
    text = MINIMAL + 'drills:\n  monthly: { freeze: ["2026-12-24"] }\n'
    once = loads(text, PAGE)
    assert loads(yaml.safe_dump(dict(once.resolved)), PAGE).policy == once.policy


@pytest.mark.parametrize(
    ("drills", "said"),
    [
        ("  monthly: { blast_radius: { endpoints: 100% } }\n", "a blast radius of 100% leaves nobody to serve"),
        ("  monthly: { blast_radius: { survivors: 0 } }\n", "0 survivors serve nobody"),
        ('  monthly: { freeze: ["christmas"] }\n', "christmas"),
        ('  monthly: { freeze: ["2027-01-02/2026-12-24"] }\n', "is no freeze"),
        ("  monthly: { guards: { availabilty: { below: 99% } } }\n", "availabilty"),
        ("  monthly: { guards: { availability: breach } }\n", "is no guard"),
        ("  monthly: { guards: { availability: { for: 3s } } }\n", "needs one of `above` and `below`"),
        ("  monthly: { guards: { availability: { below: 2s } } }\n", "wrong unit"),
        ("  monthly: { retry_within: 0s }\n", "is nothing"),
        ("  monthly: { gates: { error_budget: 25% } }\n", "error_budget"),
        ("  monthly: soon\n", "soon"),
    ],
)
def test_what_cannot_be_meant_is_refused(drills: str, said: str) -> None:
    assert any(said in what for what in refused(drills)), refused(drills)
