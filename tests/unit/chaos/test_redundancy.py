"""What a drill would break, what survives, and at what load, before anything is touched."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.experiment import PlannedFault, read
from controlplane.chaos.fault import MAX_LEASE, FaultKind
from controlplane.chaos.redundancy import (
    BlastRadius,
    PoolNow,
    Preview,
    Target,
    chosen,
    preview,
    spell_preview,
    waves,
    worst,
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


def together(name: str) -> list[list[str]]:
    """Return the pools whose faults may be in force together, by the experiment's steps."""
    page = yaml.safe_load((Path("experiments") / f"{name}.yaml").read_text(encoding="utf-8"))
    experiment, problems = read(name, page)
    assert experiment, problems
    return [[fault.pool for fault in wave] for wave in waves(page, experiment.faults)]


def test_faults_are_in_force_together_until_a_step_has_waited_for_their_pool() -> None:
    assert together("node-kill") == [["primary"]]
    assert together("standby-cut") == [["primary"], ["standby"]]


def test_faults_of_steps_that_cannot_be_told_apart_count_as_together() -> None:
    fault = PlannedFault(FaultKind.NODE_KILL, "primary", 1.0, 0, timedelta(seconds=8), {})
    assert waves({}, (fault, fault)) == ((fault, fault),)
    assert waves({"method": [{"provider": {"func": "inject"}}, "x", None]}, (fault,)) == ((fault,),)
    assert waves({"method": []}, ()) == ()


def test_of_several_waves_the_worst_is_told_and_every_refusal() -> None:
    none = replace(KILL_ONE, endpoints=())
    found = worst([look(KILL_ALL), look(KILL_ONE), look(none)], [KILL_ALL, KILL_ONE, none])
    assert found.refusals == ("node-kill: pool primary has no endpoint to break",)
    assert len(found.targets) == 3


def test_what_is_not_of_the_fleet_takes_nothing_of_it_away() -> None:
    found = look(Target("disk-full", "controlplane", ("controlplane",), timedelta(seconds=8)))
    assert (found.gone, found.refusals, found.serving) == ((), (), "primary")


@given(st.integers(1, 50), st.floats(0.0, 1.0))
def test_a_share_takes_at_least_one_and_never_more_than_all(size: int, share: float) -> None:
    names = [str(i) for i in range(size)]
    assert 1 <= chosen(names, share) <= size
    assert chosen(names, 1.0) == size
