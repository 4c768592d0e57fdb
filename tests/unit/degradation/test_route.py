"""Engaged rows combine into one split of the traffic."""

import pytest

from controlplane.degradation.action import SwitchPool, UsePool
from controlplane.degradation.actuator import Pull, RoutePlan, route
from controlplane.degradation.matrix import Level

P0 = Pull(Level.P0, (SwitchPool("standby"),))
P2 = Pull(Level.P2, (UsePool("base", 0.5),))


def split(*pulls: Pull) -> dict[str, int]:
    return {pool: weight for pool, weight in route(pulls).weights.items() if weight}


def test_no_engaged_row_leaves_everything_at_the_primary_without_a_level() -> None:
    assert route(()) == RoutePlan({"primary": 100}, Level.NONE)


def test_p0_moves_everything_to_the_standby() -> None:
    assert split(P0) == {"standby": 100}
    assert route((P0,)).level is Level.P0


def test_p2_moves_its_share_to_the_smaller_model() -> None:
    assert split(P2) == {"primary": 50, "base": 50}
    assert route((P2,)).level is Level.P2


@pytest.mark.parametrize("pulls", [(P0, P2), (P2, P0)])
def test_p0_on_top_of_p2_moves_what_is_left_at_the_primary_whatever_the_order(pulls: tuple[Pull, Pull]) -> None:
    assert split(*pulls) == {"base": 50, "standby": 50}
    assert route(pulls).level is Level.P0


@pytest.mark.parametrize(
    ("strength", "weights"),
    [(1.0, {"standby": 100}), (0.9, {"primary": 10, "standby": 90}), (0.5, {"primary": 50, "standby": 50}),
     (0.0, {"primary": 100})],
)  # fmt: skip
def test_a_row_that_is_given_back_by_steps_moves_less(strength: float, weights: dict[str, int]) -> None:
    assert split(Pull(Level.P0, (SwitchPool("standby"),), strength)) == weights


def test_a_row_that_is_given_back_whole_no_longer_sets_the_level() -> None:
    assert route((Pull(Level.P0, (SwitchPool("standby"),), 0.0), P2)).level is Level.P2


def test_shares_that_are_no_whole_percent_still_add_up_to_a_hundred() -> None:
    assert split(Pull(Level.P2, (UsePool("base", 1 / 3),))) == {"primary": 67, "base": 33}
    assert split(Pull(Level.P2, (UsePool("base", 0.005),))) in ({"primary": 99, "base": 1}, {"primary": 100})
