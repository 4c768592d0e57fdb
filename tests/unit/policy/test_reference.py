"""What the reference page offers in a comment is a page, too: the one that the bench `monthly-drill` rehearses."""

from datetime import timedelta
from pathlib import Path

from bench.monthly_drill import EXPERIMENTS, rehearsed
from controlplane.degradation.matrix import AnyOf, Condition, Level
from controlplane.policy.load import load

PAGE = Path(__file__).resolve().parents[3] / "controlplane" / "policy" / "reference.yaml"


def test_what_it_offers_to_a_fleet_of_cpus_puts_all_three_drills_in_force(tmp_path: Path) -> None:
    page = tmp_path / "controlplane.yaml"
    page.write_text(rehearsed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    (tmp_path / "gateway").mkdir()
    policy, plain = load(page).policy, load(PAGE).policy
    assert set(policy.drills["monthly"].experiments) == set(EXPERIMENTS)
    assert policy.drills["monthly"].gates.error_budget_left == 0
    slow = Condition("inter_token_latency_p99", above=0.05, dwell=timedelta(seconds=3))
    assert policy.degradation.rows[Level.P2].when == AnyOf((slow,))
    assert plain.degradation.rows[Level.P2].when != AnyOf((slow,))
    assert set(plain.drills["monthly"].experiments) == {"node-kill", "network-partition"}
