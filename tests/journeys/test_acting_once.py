"""Real processes, really killed and really stopped: an action is done once, and never left half done."""

from pathlib import Path

import pytest

from bench.exactly_once import judge, storm
from bench.receipt_crash import matrix

pytestmark = pytest.mark.journey

EVERY = 5
"""Every so-manieth crash point; the bench has them all."""
TRIGGERS = 600


def test_a_control_plane_killed_at_any_write_leaves_the_service_untouched_or_the_action_in_force() -> None:
    endings = matrix(EVERY)
    assert len(endings) > 8
    assert {ending.ended for ending in endings} == {"untouched", "in force"}
    assert {"none", "intended", "verified", "reverting"} <= {ending.left for ending in endings}


@pytest.mark.parametrize("fenced", [True, False])
def test_two_control_planes_on_one_database_never_act_twice(tmp_path: Path, *, fenced: bool) -> None:
    told = storm(tmp_path, TRIGGERS, fenced=fenced)
    assert told["fired"] >= TRIGGERS
    assert told["engaged"] > 0
    assert (told["twice"], told["stale"]) == (0, 0)
    assert not fenced or told["fenced"] > 0


def test_the_count_sees_what_is_done_twice_and_what_comes_late() -> None:
    def line(key: str, pool: str, token: int = 1) -> dict[str, object]:
        return {"key": key, "plan": {pool: 100}, "token": token}

    once = [line("s/P0/1/0", "standby"), line("s/P0/1/shift/x", "primary"), line("s/P0/2/0", "standby", 2)]
    assert judge(once) == {"engaged": 2, "twice": 0, "stale": 0, "terms": 2}
    assert judge([*once, line("s/P0/3/0", "standby", 2)])["twice"] == 1
    assert judge([*once, line("s/P0/2/shift/x", "primary", 2), line("s/P0/2/0", "standby", 2)])["twice"] == 1
    assert judge([*once, line("s/P0/1/shift/y", "primary", 1)])["stale"] == 1
