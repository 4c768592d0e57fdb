"""Faults other than dead nodes, as an operator drills them, and what is left of them when the control plane dies."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.processes import EXPERIMENTS, PRIMARIES, Fleet, Load, Plane, controlplane, until

pytestmark = pytest.mark.journey


@pytest.fixture
def fleet(running_fleet: Fleet) -> Iterator[Fleet]:
    running_fleet.until_back()
    yield running_fleet
    until(lambda: not broken(running_fleet), 40, "nothing is broken any more")


def broken(fleet: Fleet) -> list[str]:
    """Return the files of faults in force."""
    files = [*(fleet.run_dir / "links").glob("*"), *(fleet.run_dir / "nodes").glob("*.keeper"), *fleet.holds()]
    return [path.name for path in files]


def stopped(fleet: Fleet) -> list[str]:
    """Return the primaries whose engines stand still."""
    return [n for n in PRIMARIES if psutil.Process(fleet.node(n)["pid"]).status() == psutil.STATUS_STOPPED]


def lasting(directory: Path, name: str, down_for: str, *others: tuple[str, str]) -> Path:
    """Write an experiment with another lease than it was shipped with, and return the directory it is in.

    Args:
        directory: where to; it is made.
        name: the experiment's.
        down_for: its lease.
        others: further texts to replace, each with what stands in its place.
    """
    directory.mkdir()
    text = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    shipped = "down_for: 15s" if others else "down_for: 30s"
    for old, new in ((shipped, f"down_for: {down_for}"), *others):
        assert old in text
        text = text.replace(old, new)
    (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
    return directory


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["network-partition", "stalled-engine"])
def test_row_p0_restores_service_from_a_fault_that_refuses_nothing(fleet: Fleet, tmp_path: Path, name: str) -> None:
    with Plane(fleet.page, lasting(tmp_path / "experiments", name, "15s"), tmp_path / "state") as plane:
        plane.until_ready()
        plane.until_open(name)
        done = controlplane("drill", "run", name, "--json", "--state-dir", plane.state, within_s=220)
        drill = json.loads(done.out)
        assert (drill["outcome"], drill["reasons"]) == ("passed", [])
        leases = plane.rows("select state, kind, parameters from leases")
    assert [(state, kind) for state, kind, _ in leases] == [("healed", name)] * 2
    if name == "network-partition":
        assert {json.loads(parameters)["direction"] for *_, parameters in leases} == {"both"}
    assert broken(fleet) == []


@pytest.mark.timeout(240)
def test_row_p0_restores_service_where_only_the_gateway_is_cut_off(fleet: Fleet, tmp_path: Path) -> None:
    name = "network-partition-gateway"
    with (
        Load(fleet.gateway, tmp_path / "requests.jsonl", 50) as load,
        Plane(fleet.page, lasting(tmp_path / "experiments", name, "12s"), tmp_path / "state") as plane,
    ):
        plane.until_ready()
        plane.until_open(name)
        done = controlplane("drill", "run", name, "--json", "--state-dir", plane.state, within_s=220)
        drill = json.loads(done.out)
        assert (drill["outcome"], drill["reasons"]) == ("passed", [])
        receipts = [r for r in plane.get("/api/v1/receipts") if r["level"] == "P0"]
        assert receipts, "a primary that only looks well to us is given traffic again, and may be left again"
        assert all(r["because"] for r in receipts)
    assert [r for r in load.requests() if r.status != 200 or r.error] == []


@pytest.mark.timeout(240)
def test_a_control_plane_that_is_cut_off_alone_moves_nobody(fleet: Fleet, tmp_path: Path) -> None:
    name = "network-partition-controlplane"
    experiments = lasting(tmp_path / "experiments", name, "6s", ("for_s: 28", "for_s: 18"))
    with (
        Load(fleet.gateway, tmp_path / "requests.jsonl", 50) as load,
        Plane(fleet.page, experiments, tmp_path / "state") as plane,
    ):
        plane.until_ready()
        plane.until_open(name)
        done = controlplane("drill", "run", name, "--json", "--state-dir", plane.state, within_s=220)
        drill = json.loads(done.out)
        assert (drill["outcome"], drill["reasons"]) == ("passed", [])
        assert plane.get("/api/v1/receipts") == []
    assert [r for r in load.requests() if r.status != 200 or r.error] == []


def test_stopped_engines_run_again_when_the_control_plane_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, lasting(tmp_path / "experiments", "stalled-engine", "90s"), state) as first:
        first.until_ready()
        first.until_open("stalled-engine")
        first.ask("/api/v1/drills", "POST", {"experiment": "stalled-engine"})
        first.until_proven()
        assert stopped(fleet) == list(PRIMARIES)
        first.kill()
    until(lambda: stopped(fleet) == [], 20, "the engines run, long before their deadline")
    with Plane(fleet.page, state=state) as second:
        until(lambda: second.get("/api/v1/leases") == [], 20, "the leases are closed")
        assert {lease[0] for lease in second.rows("select state from leases")} == {"healed"}
        second.until_level("none", 60)


def test_heal_restores_the_network_with_the_server_dead(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, lasting(tmp_path / "experiments", "network-partition", "90s"), state) as first:
        first.until_ready()
        first.until_open("network-partition")
        first.ask("/api/v1/drills", "POST", {"experiment": "network-partition"})
        first.until_proven()
        first.kill()
    assert len(broken(fleet)) == 2
    done = controlplane("heal", fleet.page, "--state-dir", state)
    assert done.status == 0, done.err
    assert done.out.count("network-partition on primary-") == 2
    assert broken(fleet) == []
    fleet.until_back()
    with Plane(fleet.page, state=state) as second:
        until(lambda: second.get("/api/v1/leases") == [], 20, "the leases are closed")
        second.until_level("none", 60)
