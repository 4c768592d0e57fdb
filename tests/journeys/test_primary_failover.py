"""The whole primary pool dies under load: users do not notice, the proof is stored, and traffic comes back by steps.

One failover is lived through once; each test reads another page of what it left behind.
"""

import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.processes import (
    Fleet,
    Load,
    Plane,
    Request,
    Series,
    ask,
    parse_time,
    parts,
    seconds_between,
    until,
)

pytestmark = pytest.mark.journey
RATE = 40.0
"""What piles up while the machine stands still for a second fits into the gateway's retry budget (64)."""
HELD_S = 60.0
"""Longer than the switch and what is asked during it take on the slowest machine: the test lets go before."""


def counted(plane: Plane) -> Series | None:
    """Return the metrics once they count no open incident; they are counted again every few seconds."""
    series = plane.metrics()
    return series if series.value("controlplane_incidents_open") == 0 else None


@dataclass(frozen=True, slots=True)
class Failover:
    """Everything one failover left behind."""

    fleet: Fleet
    killed_at: float
    """Unix seconds."""
    requests: list[Request]
    engaged: dict[str, Any]
    """The standing while P0 was engaged."""
    header: str
    """`x-degradation-level` of an answer that the test itself asked for then."""
    weights_seen: list[int]
    """What the primary was given, in percent, each time it changed, as the standing told it."""
    after: dict[str, Any]
    receipts: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    metrics_engaged: Series
    metrics: Series
    clean_stops: tuple[int, int, int]

    @property
    def receipt(self) -> dict[str, Any]:
        """The one receipt."""
        (receipt,) = self.receipts
        return receipt


def weight(standing: dict[str, Any], pool: str) -> int:
    (found,) = [p["weight"] for p in standing["pools"] if p["name"] == pool]
    return int(found)


def row(standing: dict[str, Any], level: str) -> dict[str, Any]:
    (found,) = [r for r in standing["rows"] if r["row"]["level"] == level]
    return dict(found)


def watch_the_way_back(plane: Plane) -> list[int]:
    seen: list[int] = []

    def back() -> bool:
        standing = plane.standing()
        now = weight(standing, "primary")
        if not seen or seen[-1] != now:
            seen.append(now)
        return bool(row(standing, "P0")["phase"] == "idle" and now == 100)

    plane.until(back, "traffic is back at the primary", 60)
    return seen


@pytest.fixture(scope="module")
def failover(tmp_path_factory: pytest.TempPathFactory) -> Failover:
    here = tmp_path_factory.mktemp("failover")
    with Fleet(here / "run", hold="3s") as fleet, Plane(fleet.page) as plane:
        plane.until_ready()
        with Load(fleet.gateway, here / "requests.jsonl", RATE) as load:
            load.until(lambda: len(load.requests()) > RATE, "the load is steady")
            killed_at = fleet.kill_nodes(held_for_s=HELD_S)
            engaged = plane.until_level("P0")
            header = ask(fleet.gateway + "/v1/models").headers["x-degradation-level"]
            metrics_engaged = plane.metrics()
            seen_at = time.time()
            load.until(lambda: load.requests()[-1].intended > seen_at + 1.5, "load while P0 is in force")
            fleet.release()
            weights_seen = watch_the_way_back(plane)
            back_at = time.time()
            load.until(lambda: load.requests()[-1].intended > back_at + 0.5, "load after the failback")
        load_status = load.stop()
        until(lambda: plane.get("/api/v1/incidents")[0]["incident"]["state"] == "resolved", what="the incident is over")
        story = {
            "after": plane.standing(),
            "receipts": plane.get("/api/v1/receipts"),
            "incidents": plane.get("/api/v1/incidents"),
            "metrics": until(lambda: counted(plane), what="the resolved incident is counted"),
        }
        stops = (load_status, plane.stop(), fleet.stop())
    return Failover(
        fleet=fleet,
        killed_at=killed_at,
        requests=load.requests(),
        engaged=engaged,
        header=header,
        weights_seen=weights_seen,
        metrics_engaged=metrics_engaged,
        clean_stops=stops,
        **story,
    )


def test_no_request_fails_before_during_or_after(failover: Failover) -> None:
    bad = [r for r in failover.requests if r.status != 200 or r.error]
    assert len(failover.requests) > 3 * RATE
    assert [r for r in failover.requests if r.intended > failover.killed_at]
    assert bad == []


def test_the_switch_is_verified_within_five_seconds_of_the_kill(failover: Failover) -> None:
    took = parse_time(failover.receipt["times"]["verified"]).timestamp() - failover.killed_at
    assert 0 < took < 5


def test_the_receipt_tells_every_moment_in_the_order_it_happened(failover: Failover) -> None:
    receipt, times = failover.receipt, failover.receipt["times"]
    moments = [receipt["detected_at"], receipt["decided_at"]]
    moments += [times[state] for state in ("intended", "applied", "verified", "reverting", "reverted")]
    assert [parse_time(m) for m in moments] == sorted(map(parse_time, moments))
    assert receipt["state"] == "reverted"
    assert receipt["level"] == "P0"
    assert receipt["action"] == "switch_pool to standby"
    assert receipt["before"] == {"weights": {"primary": 100}, "level": "none", "shed": None, "cordoned": []}
    assert receipt["id"] == f"{receipt['service']}/P0/1"
    assert [step["progress"] for step in receipt["steps"]] == ["undone"]
    assert receipt["after"]["weights"]["standby"] == 100
    assert "standby-0" in receipt["detail"]


def test_while_it_lasts_the_standing_shows_p0_with_all_traffic_on_the_standby_and_says_why(failover: Failover) -> None:
    standing = failover.engaged
    assert row(standing, "P0")["phase"] == "engaged"
    assert (weight(standing, "primary"), weight(standing, "standby"), weight(standing, "base")) == (0, 100, 0)
    assert any("endpoints_down" in reason for reason in standing["why"])
    down = [e for pool in standing["pools"] if pool["name"] == "primary" for e in pool["endpoints"]]
    assert [e["up"] for e in down] == [False, False]
    assert all(e["detail"] for e in down)


def test_answers_carry_the_level_in_force(failover: Failover) -> None:
    assert failover.header == "P0"
    times = failover.receipt["times"]
    verified, reverting = (parse_time(times[state]).timestamp() for state in ("verified", "reverting"))
    between = [r for r in failover.requests if r.intended > verified + 0.1 and r.done < reverting - 0.1]
    assert len(between) > RATE
    assert {(r.level, r.served_by) for r in between} == {("P0", "standby-0")}
    assert {r.level for r in failover.requests if r.done < failover.killed_at} == {"none"}
    assert failover.requests[-1].level == "none"
    assert {r.served_by for r in failover.requests[-20:]} <= {"primary-0", "primary-1"}


def test_traffic_comes_back_by_the_steps_of_the_plan(failover: Failover) -> None:
    assert failover.weights_seen == [0, 10, 50, 100]
    assert failover.after["level"] == "none"
    assert failover.after["why"] == []
    assert {r["phase"] for r in failover.after["rows"]} == {"idle"}


def test_the_incident_is_resolved_and_its_timeline_is_in_order(failover: Failover) -> None:
    (entry,) = failover.incidents
    incident, timeline = entry["incident"], entry["timeline"]
    assert incident["state"] == "resolved"
    assert incident["drill_id"] == ""
    assert seconds_between(incident["detected_at"], incident["mitigated_at"]) < 5
    assert parse_time(incident["mitigated_at"]) < parse_time(incident["resolved_at"])
    moments = [parse_time(note["at"]) for note in timeline]
    assert moments == sorted(moments)
    seen = [note["kind"] for note in timeline]
    assert {"verdict", "triage"} >= set(seen) - {"detected", "hint", "decided", "lever", "receipt"}
    kinds = [kind for kind in seen if kind not in ("hint", "verdict", "triage")]
    assert kinds == ["detected", "decided", "lever", "receipt", *["lever"] * (len(kinds) - 4)]
    told = " | ".join(note["text"] for note in timeline)
    for step in ("10%", "50%", "100%", "all traffic is back"):
        assert step in told
        told = told[told.index(step) :]


def test_metrics_show_the_level_while_it_is_in_force_and_count_the_switch(failover: Failover) -> None:
    engaged, after = failover.metrics_engaged, failover.metrics
    levels = ("none", "P2", "P1", "P0")
    assert [engaged.value("controlplane_level", level=level) for level in levels] == [0, 0, 0, 1]
    assert [after.value("controlplane_level", level=level) for level in levels] == [1, 0, 0, 0]
    assert after.value("controlplane_switches_total", row="P0", outcome="verified") == 1
    assert after.value("controlplane_switches_total", row="P0", outcome="failed") == 0
    assert after.value("controlplane_switch_seconds_count", row="P0", phase="verified") == 1
    assert (after.value("controlplane_switch_seconds_sum", row="P0", phase="verified") or 99) < 5
    assert engaged.value("controlplane_endpoint_up", pool="primary", endpoint="primary-0") == 0
    assert after.value("controlplane_endpoint_up", pool="primary", endpoint="primary-0") == 1
    assert after.value("controlplane_incidents_open") == 0


def test_everything_stops_cleanly_and_leaves_no_part_of_a_file(failover: Failover) -> None:
    assert failover.clean_stops == (0, 0, 0)
    assert parts(failover.fleet.run_dir) == []
    assert not (failover.fleet.run_dir / "state" / "url").exists()
    assert failover.fleet.holds() == []
