"""Two replicas on one PostgreSQL: any of them takes what comes, one of them acts, and one that slept can do nothing."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bench.replicas import ALERT, HOOK, Poster, Replica, World, told, until, world
from tests.support.kube_lab.lab import Lab
from tests.support.postgres import Server, name_of, server_or_skip

pytestmark = [pytest.mark.journey, pytest.mark.debian("postgresql")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server_or_skip() as running:
        yield running


@pytest.fixture(scope="module")
def running(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("replicas")
    with world(folder, postgres.fresh(), replicas=2, down_for="20s") as around:
        yield around


@pytest.fixture
def around(running: World) -> World:
    # A follower that could not ask the database says so until its next tick.
    running.until_ready()
    running.until_calm()
    return running


def both(around: World) -> tuple[Replica, Replica]:
    """Return who is in charge, and the other one."""
    led = around.until_leader()
    return led, next(r for r in around.replicas if r is not led)


def rows(replica: Replica) -> dict[str, Any]:
    """Return the phase of each row by a replica's standing."""
    standing = replica.ask("GET", "/api/v1/standing").json
    return {row["row"]["level"]: row["phase"] for row in standing["rows"]}


def test_a_follower_says_what_it_is_and_who_is_in_charge(around: World) -> None:
    led, follower = both(around)

    def found() -> Any:
        said = follower.ask("GET", "/readyz").json
        return said if said["leader"] else None

    ready = until(found, "it has found who is in charge")
    assert (ready["ready"], ready["role"], ready["in_charge"]) == (True, "follower", False)
    assert ready["leader"].endswith(str(led.state))
    assert f"in charge is <bdi>{ready['leader']}</bdi>" in follower.ask("GET", "/").body.decode()
    assert 'id="role"' not in led.ask("GET", "/").body.decode()
    refused = follower.ask("POST", "/api/v1/drills", {"experiment": "node-kill"})
    assert (refused.status, ready["leader"] in refused.json["fix"]) == (409, True)
    rollout = follower.ask("POST", "/api/v1/rollouts", {"service": "ha", "to": "standby"})
    assert (rollout.status, ready["leader"] in rollout.json["detail"]) == (409, True)


def test_an_alert_that_a_follower_takes_is_acted_on_and_shown_by_both(around: World) -> None:
    led, follower = both(around)
    assert follower.ask("POST", HOOK, {"version": "4", "alerts": [told(ALERT)]}).status == 200
    until(lambda: rows(led)["P1"] == "engaged", "the one in charge acts")
    until(lambda: rows(follower)["P1"] == "engaged", "the follower shows it")
    assert follower.ask("GET", "/api/v1/receipts").json[0]["state"] == "verified"
    assert led.ask("POST", HOOK, {"version": "4", "alerts": [told(ALERT, ends=True)]}).status == 200
    around.until_calm()
    assert around.out.twice() == []


def test_what_people_say_to_a_follower_is_followed_and_what_they_end_there_is_let_go_of(around: World) -> None:
    led, follower = both(around)
    assert led.ask("POST", "/api/v1/brake", {"why": "we measure"}).status == 201
    until(lambda: follower.ask("GET", "/api/v1/standing").json["braked"], "the follower shows the brake")
    assert follower.ask("POST", "/api/v1/brake/release", {"why": "done"}).status == 200
    until(lambda: not led.ask("GET", "/api/v1/standing").json["braked"], "the brake is let go of")
    said = follower.ask("POST", "/api/v1/pins/P1", {"why": "peak"})
    assert (said.status, said.json["kind"]) == (202, "pin")
    until(lambda: rows(led)["P1"] == "engaged", "the pin is followed")
    assert follower.ask("POST", "/api/v1/pins/P1/end", {"why": "over"}).status == 200
    around.until_calm()
    late = follower.ask("POST", "/api/v1/rows/P1/release", {"why": "there is nothing to release"})
    assert late.status == 202

    def ended() -> str:
        newest = led.ask("GET", "/api/v1/instructions?limit=1").json[0]
        return str(newest["ended_why"] if newest["kind"] == "release" else "")

    assert until(ended, "it is ended with the reason").startswith("not followed: row P1 cannot be released now")


def test_a_halt_at_a_follower_stops_the_leaders_drill_and_ends_its_faults(around: World) -> None:
    led, follower = both(around)
    drill = around.start_drill()
    until(lambda: [x["state"] for x in led.ask("GET", "/api/v1/leases").json] == ["proven"], "a node is down")
    assert follower.ask("POST", "/api/v1/halt", {"why": "smoke"}).status == 200
    until(lambda: led.ask("GET", f"/api/v1/drills/{drill}").json["outcome"] == "aborted", "the drill is stopped")
    assert follower.ask("POST", "/api/v1/resume", {}).status == 200
    around.until_calm()


def test_a_drill_is_aborted_at_any_of_them(around: World) -> None:
    led, follower = both(around)
    drill = around.start_drill()
    until(lambda: [x["state"] for x in led.ask("GET", "/api/v1/leases").json] == ["proven"], "a node is down")
    told = follower.ask("POST", f"/api/v1/drills/{drill}/abort", {"why": "seen enough", "by": "mei"})
    assert told.status == 202
    reason = told.json["called_off"]
    assert reason.endswith(": seen enough")
    until(lambda: led.ask("GET", f"/api/v1/drills/{drill}").json["outcome"] == "aborted", "the drill is stopped")
    assert reason in led.ask("GET", f"/api/v1/drills/{drill}").json["reasons"]
    assert led.ask("GET", "/api/v1/leases").json == []
    assert led.ask("GET", "/api/v1/halt").json["halt"] is None
    again = follower.ask("POST", f"/api/v1/drills/{drill}/abort", {"why": "once more"})
    assert again.status == 409
    around.until_calm()


def test_a_leader_that_was_put_to_sleep_in_a_drill_wakes_to_a_drill_that_is_over_and_can_break_nothing(
    around: World,
) -> None:
    led, follower = both(around)
    drill = around.start_drill()
    until(lambda: [x["state"] for x in led.ask("GET", "/api/v1/leases").json] == ["proven"], "a node is down")
    led.send(signal.SIGSTOP)
    try:
        assert around.until_leader(but=led) is follower
        found = follower.ask("GET", f"/api/v1/drills/{drill}").json
        assert (found["outcome"], found["reasons"]) == ("aborted", ["the control plane stopped while the drill ran"])
        until(lambda: follower.ask("GET", "/api/v1/leases").json == [], "the fault is healed by the new one")
        # What is only intended now is the new one's: it has settled what it found before it led.
        begun = {r["id"] for r in follower.ask("GET", "/api/v1/receipts").json if r["state"] != "intended"}
        moved = len(around.out.moves)
    finally:
        led.send(signal.SIGCONT)
    until(lambda: led.role() == "follower", "the old one knows")
    fault = {"kind": "node-kill", "pool": "primary", "endpoints": "100%", "down_for": "5s"}
    assert led.ask("POST", f"/api/v1/drills/{drill}/faults", fault).status == 400
    assert not any(node.hold.exists() for node in around.nodes)
    assert around.until_calm() is follower
    assert led.ask("GET", f"/api/v1/drills/{drill}").json["outcome"] == "aborted"
    engaged = [move.key.removesuffix("/0") for move in around.out.moves[moved:] if move.key.endswith("/0")]
    by_old = begun.intersection(engaged)
    assert by_old == set()
    assert around.out.twice() == []


def test_a_database_that_is_restarted_under_webhooks_costs_none_of_them_and_the_leader_acts_on(
    around: World, postgres: Server
) -> None:
    with Poster(around.replicas, within_s=30.0) as poster:
        until(lambda: poster.taken > 10, "webhooks are taken")
        postgres.stop()
        until(lambda: poster.statuses.get(503, 0) > 3, "webhooks are refused")
        read = until(lambda: around.replicas[0].ask("GET", "/api/v1/receipts"), "there is an answer")
        assert (read.status, "retry-after" in read.headers) == (503, True)
        postgres.start()
        before = poster.taken
        until(lambda: poster.taken > before + 10, "webhooks are taken again")
        around.until_leader()
    assert set(poster.statuses) == {200, 503}
    assert poster.without_retry_after == 0
    kept = postgres.ask("SELECT count(*) FROM alerts WHERE name = 'Storm'", name_of(around.database))[0][0]
    assert kept == poster.taken


@pytest.mark.timeout(240)
def test_by_a_lease_of_kubernetes_one_leads_one_that_slept_does_not_and_a_server_that_is_gone_ends_it(
    kube_lab: Lab, namespace: str, postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]
    env = {"KUBECONFIG": str(kube_lab.service_account("replica", namespace, rules))}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/controlplane"

    def spec() -> Any:
        return kube_lab.admin.must("GET", path)["spec"]

    lease = ("--leader", f"kubernetes:{namespace}/controlplane")
    with world(tmp_path_factory.mktemp("by-lease"), postgres.fresh(), 2, lease, env) as around:
        led, follower = both(around)
        assert spec()["holderIdentity"].endswith(str(led.state))
        was = spec()["leaseTransitions"]
        led.send(signal.SIGSTOP)
        assert around.until_leader(but=led) is follower
        assert spec()["holderIdentity"].endswith(str(follower.state))
        assert spec()["leaseTransitions"] > was
        led.send(signal.SIGCONT)
        until(lambda: led.role() == "follower", "the old one knows")
        kube_lab.kill_api()
        try:
            until(lambda: {r.role() for r in around.replicas} == {"follower"}, "nobody leads without the API server")
            assert led.ask("POST", "/api/v1/drills", {"experiment": "node-kill"}).status == 409
        finally:
            kube_lab.start_api()
        around.until_leader()
    assert spec()["holderIdentity"] == "", "it was given back"
