"""What people tell a running control plane is done for real, outlives its death, and is noted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.web.intake import PATH
from tests.support.processes import Done, Fleet, Plane, ask, controlplane
from tests.support.webhooks import alert, told, webhook

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("people") / "run") as fleet:
        yield fleet


def say(state: Path, *words: str) -> Done:
    return controlplane(*words, "--who", "ann", "--state-dir", state)


def level_shown(fleet: Fleet) -> str:
    return ask(fleet.gateway + "/v1/models").headers["x-degradation-level"]


def test_a_pin_moves_the_lever_outlives_a_kill_and_ends_when_it_is_ended(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, state=state) as first:
        first.until_ready()
        pinned = say(state, "pin", "P1", "--for", "30m", "--why", "peak hours")
        assert (pinned.status, pinned.out[:12]) == (0, "P1 is pinned"), pinned
        standing = first.until_level("P1")
        assert {pool["name"]: pool["weight"] for pool in standing["pools"]}["cache"] == 100
        assert standing["why"][0].startswith("ann pinned P1 until")
        assert level_shown(fleet) == "P1"
        first.kill()
    with Plane(fleet.page, state=state) as second:
        second.until_ready()
        assert second.standing()["level"] == "P1"
        assert [(pin["level"], pin["who"], pin["why"]) for pin in second.standing()["pins"]] == [
            ("P1", "ann", "peak hours")
        ]
        shown = controlplane("level", "--state-dir", state).out
        assert "P1 is pinned by ann" in shown
        assert say(state, "unpin", "P1", "--why", "over").status == 0
        second.until_level("none", 60)
        second.until(lambda: level_shown(fleet) == "none", "the gateway shows the normal state")
        (incident,) = second.get("/api/v1/incidents")
        said = [entry["text"] for entry in incident["timeline"] if entry["kind"] == "person"]
        assert said[-1] == "ann ended the pin of P1: over"


def test_what_fits_nothing_is_refused_with_the_reason_and_needs_the_token(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Plane(fleet.page, state=state) as plane:
        plane.until_ready()
        refused = say(state, "release", "P0", "--why", "well")
        assert refused.status == 3
        assert "row P0 cannot be released now: it is idle" in refused.err
        assert plane.ask("/api/v1/pins/P1", "POST", {"why": "x"}, token="").status == 401
        assert plane.get("/api/v1/instructions") == []


def test_what_was_just_seen_can_be_recorded_and_simulated(fleet: Fleet, tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "recorded.jsonl"
    with Plane(fleet.page, state=state) as plane:
        plane.until_ready()
        hook = json.loads(webhook([told(alert("TooSlow"))]))
        assert plane.ask(PATH, "POST", hook, (state / "webhook-token").read_text().strip()).status == 200

        def recording() -> str:
            recorded = controlplane("record", "--for", "5m", "--state-dir", state)
            assert recorded.status == 0, recorded
            return recorded.out

        plane.until(lambda: '"TooSlow"' in recording(), "the alert is recorded")
        file.write_text(recording(), encoding="utf-8")
    simulated = controlplane("simulate", file, "--policy", fleet.page)
    assert simulated.status == 0, simulated
    assert "no row would have moved" in simulated.out
