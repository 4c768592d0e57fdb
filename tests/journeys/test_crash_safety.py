"""The control plane is killed at the worst moments: what it had begun is finished, and no fault outlives its lease."""

import time
from pathlib import Path

import pytest

from tests.support.processes import (
    PRIMARIES,
    Fleet,
    Load,
    Plane,
    ask,
    controlplane,
    parse_time,
    parts,
    quick_experiments,
    reference_page,
    until,
)

pytestmark = pytest.mark.journey


def test_a_new_control_plane_takes_over_an_engaged_row_and_releases_it(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Load(fleet.gateway, tmp_path / "requests.jsonl", 50) as load:
        with Plane(fleet.page, state=state) as first:
            first.until_ready()
            fleet.kill_nodes(held_for_s=60)
            before = first.until_level("P0")
            (receipt,) = first.get("/api/v1/receipts")
            first.kill()
        assert ask(fleet.gateway + "/v1/models").headers["x-degradation-level"] == "P0"
        with Plane(fleet.page, state=state) as second:
            resumed = second.standing()
            assert resumed["level"] == "P0"
            assert parse_time(resumed["level_since"]) == parse_time(receipt["decided_at"])
            assert resumed["why"] == before["why"] == receipt["because"]
            time.sleep(1.0)  # Two evaluations: a control plane that begins anew would have done so by now.
            assert [(r["id"], r["state"]) for r in second.get("/api/v1/receipts")] == [(receipt["id"], "verified")]
            fleet.release()
            second.until_level("none")
            until(lambda: second.get("/api/v1/receipts")[0]["state"] == "reverted", 20, "the receipt is reverted")
            (incident,) = second.get("/api/v1/incidents")
            assert incident["incident"]["state"] == "resolved"
            assert second.stop() == 0
    assert [r for r in load.requests() if r.status != 200 or r.error] == []


def test_a_control_plane_killed_while_it_gives_traffic_back_leaves_a_service_the_next_one_restores(
    fleet: Fleet, tmp_path: Path
) -> None:
    state, slow = tmp_path / "state", fleet.run_dir / "slow-return.yaml"
    slow.write_text(reference_page("2s"), encoding="utf-8")  # It must be seen, and killed, on the way.
    with Plane(slow, state=state) as first:
        first.until_ready()
        fleet.kill_nodes(held_for_s=5.0)
        first.until_level("P0")
        first.until(lambda: first.get("/api/v1/receipts")[0]["state"] == "reverting", "the way back has begun")
        first.kill()
    assert ask(fleet.gateway + "/health").status == 200
    with Plane(fleet.page, state=state) as second:
        second.until_level("none")
        until(lambda: second.get("/api/v1/receipts")[0]["state"] == "reverted", 20, "the receipt is reverted")
        assert len(second.get("/api/v1/receipts")) == 1
    assert parts(fleet.run_dir) == []


def test_with_the_control_plane_dead_a_fault_still_ends_at_its_deadline(fleet: Fleet, tmp_path: Path) -> None:
    state, lasts_s = tmp_path / "state", 10.0
    restarts = [fleet.node(name)["restarts"] for name in PRIMARIES]
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", f"{lasts_s:g}s"), state) as first:
        first.until_ready()
        first.until_open("node-kill")
        drill = first.ask("/api/v1/drills", "POST", {"experiment": "node-kill"}).json
        leases = first.until_proven()
        first.kill()
    deadline = max(parse_time(lease["deadline"]).timestamp() for lease in leases)
    fleet.until_back()
    # With the control plane dead nothing else could have ended it; what is late is the start of two endpoints.
    assert deadline <= time.time() < deadline + 15.0
    assert [fleet.node(name)["restarts"] for name in PRIMARIES] == [n + 1 for n in restarts]
    assert fleet.holds() == []
    assert {lease[0] for lease in first.rows("select state from leases")} == {"proven"}
    with Plane(fleet.page, state=state) as second:
        ended = second.get(f"/api/v1/drills/{drill['id']}")
        assert ended["outcome"] == "aborted"
        assert ended["reasons"] == ["the control plane stopped while the drill ran"]
        until(lambda: second.get("/api/v1/leases") == [], 20, "the leases are closed")
        assert {lease[0] for lease in second.rows("select state from leases")} == {"healed"}
        second.until_level("none")


def test_heal_ends_every_fault_with_the_server_dead(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", "90s"), state) as first:
        first.until_ready()
        first.until_open("node-kill")
        first.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        first.until_proven()
        first.kill()
    done = controlplane("heal", fleet.page, "--state-dir", state)
    assert done.status == 0, done.err
    for name in PRIMARIES:
        assert f"node-kill on {name}: node-{name} is no longer held down" in done.out
    assert done.out.endswith("2 faults leased\n")
    assert fleet.holds() == []
    fleet.until_back(within_s=30.0)
    again = controlplane("heal", fleet.page, "--state-dir", state)
    assert again.status == 0, again.err
    assert {row[0] for row in first.rows("select state from leases")} == {"healed"}
    assert controlplane("heal", fleet.page, "--state-dir", state).out == "0 faults leased\n"
    with Plane(fleet.page, state=state) as second:
        assert [drill["outcome"] for drill in second.get("/api/v1/drills")] == ["aborted"]
        second.until_level("none")


def test_heal_ends_every_fault_through_a_living_server(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", "90s"), state) as plane:
        plane.until_ready()
        plane.until_open("node-kill")
        drill = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"}).json
        plane.until_proven()
        done = controlplane("heal", fleet.page, "--state-dir", state)
        assert done.status == 0, done.err
        assert done.out.endswith("2 faults leased\n")
        assert fleet.holds() == []
        fleet.until_back(within_s=30.0)

        def ended() -> str:
            outcome: str = plane.get(f"/api/v1/drills/{drill['id']}")["outcome"]
            return "" if outcome == "running" else outcome

        plane.until(ended, "the drill has ended", 60)
        assert plane.get("/api/v1/leases") == []
        plane.until_level("none")


def test_sigterm_in_the_middle_of_a_drill_stops_within_seconds_and_the_drill_is_called_off(
    fleet: Fleet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", "90s"), state) as first:
        first.until_ready()
        first.until_open("node-kill")
        first.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        first.until_proven()
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 10.0
        assert "Traceback" not in first.said
    with Plane(fleet.page, state=state) as second:
        assert [drill["outcome"] for drill in second.get("/api/v1/drills")] == ["aborted"]
        fleet.until_back(within_s=30.0)
        until(lambda: second.get("/api/v1/leases") == [], 20, "the leases are closed")
        second.until_level("none")
