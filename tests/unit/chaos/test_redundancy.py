"""What a drill would break, what survives, and at what load, before anything is touched."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.fault import MAX_LEASE
from controlplane.chaos.redundancy import (
    BlastRadius,
    Planned,
    PoolNow,
    Preview,
    Target,
    chosen,
    planned,
    preview,
    spell_preview,
)

FLEET = (
    PoolNow("primary", ("p0", "p1")), PoolNow("standby", ("s0",)), PoolNow("base", ("b0",)),
)  # fmt: skip
KILL_ALL = Target("node-kill", "primary", ("p0", "p1"), timedelta(seconds=8))
KILL_ONE = replace(KILL_ALL, endpoints=("p0",))


HALF = BlastRadius()


def look(*targets: Target, radius: BlastRadius = HALF, pools: tuple[PoolNow, ...] = FLEET) -> Preview:
    return preview(targets, pools, "primary", "standby", radius, 30.0)


def test_the_standby_carries_what_a_dead_primary_pool_carried() -> None:
    found = look(KILL_ALL)
    assert (found.serving, found.survivors, found.refusals) == ("standby", ("s0",), ())
    assert (found.load_before_per_s, found.load_after_per_s, found.load_factor) == (15.0, 30.0, 2.0)
    assert "load: 15.0 -> 30.0 requests/s an endpoint (2.0x)" in spell_preview(found)


def test_the_rest_of_the_primary_pool_carries_what_one_of_it_carried() -> None:
    found = look(KILL_ONE)
    assert (found.serving, found.survivors) == ("primary", ("p1",))


def test_more_than_the_blast_radius_is_refused_with_the_arithmetic() -> None:
    found = look(KILL_ALL, Target("node-kill", "base", ("b0",), timedelta(seconds=8)))
    assert found.refusals == ("3 of 4 endpoints (75%) would be gone: b0, p0, p1; the blast radius is 50%",)


def test_what_is_down_already_counts() -> None:
    pools = (PoolNow("primary", ("p0",), ("p1",)), PoolNow("standby", (), ("s0",)), FLEET[2])
    found = look(KILL_ONE, pools=pools)
    assert found.gone == ("p0", "p1", "s0")
    assert len(found.refusals) == 2
    assert "0 of pool standby would be left to serve" in found.refusals[1]


def test_too_few_survivors_are_refused() -> None:
    found = look(KILL_ALL, radius=BlastRadius(0.5, survivors=2))
    assert found.refusals == ("1 of pool standby would be left to serve; the policy wants 2",)


def test_a_target_that_has_vanished_is_refused() -> None:
    assert look(replace(KILL_ALL, endpoints=())).refusals == ("node-kill: pool primary has no endpoint to break",)


@pytest.mark.parametrize("lasts", [MAX_LEASE + timedelta(seconds=1), timedelta(0)])
def test_a_lease_that_is_too_long_or_none_is_refused(lasts: timedelta) -> None:
    assert len(look(replace(KILL_ONE, lasts=lasts)).refusals) == 1


def test_without_traffic_the_load_is_not_known_and_said_so() -> None:
    found = preview((KILL_ALL,), FLEET, "primary", "standby", BlastRadius(), None)
    assert found.load_factor is None
    assert spell_preview(found)[-1] == "load: not known, no traffic was seen"


def test_the_faults_of_an_experiment_are_read_from_its_page() -> None:
    page = yaml.safe_load(Path("experiments/node-kill.yaml").read_text(encoding="utf-8"))
    assert planned(page) == (Planned("node-kill", "primary", "100%", "8s"),)
    assert planned({}) == ()
    assert planned({"method": [{"provider": {"func": "inject"}}, "x", None]}) == (Planned("", "", "100%", "10s"),)


@given(st.integers(1, 50), st.floats(0.0, 1.0))
def test_a_share_takes_at_least_one_and_never_more_than_all(size: int, share: float) -> None:
    names = [str(i) for i in range(size)]
    assert 1 <= chosen(names, share) <= size
    assert chosen(names, 1.0) == size
