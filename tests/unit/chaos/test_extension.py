"""The extension against a control plane that answers what a test wants: it asks, waits a bounded time, fails aloud."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chaoslib.exceptions import ActivityFailed

from controlplane.chaos import extension


@dataclass(slots=True)
class Api:
    """What is answered, and what was asked."""

    level: list[str] = field(default_factory=lambda: ["none"])
    """One an answer; the last one stays."""
    up: list[list[bool]] = field(default_factory=lambda: [[True, True]])
    """Of the pool `primary`, likewise."""
    open_leases: list[list[str]] = field(default_factory=lambda: [[]])
    """Drill ids of the leases in force, likewise."""
    state: str = "proven"
    status: int = 201
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def standing(self) -> dict[str, Any]:
        up = next_of(self.up)
        endpoints = [{"endpoint": {"name": f"primary-{n}"}, "up": each, "answer_s": 0.1} for n, each in enumerate(up)]
        return {"level": next_of(self.level), "rows": [], "pools": [{"name": "primary", "endpoints": endpoints}]}

    def leases(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "leases": [{"endpoint": {"name": name}, "state": self.state} for name in body.get("only", ["primary-0"])]
        }


def next_of(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            leases = [{"drill_id": drill} for drill in next_of(found.open_leases)] if "leases" in self.path else None
            self.say(200, found.standing() if leases is None else leases)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append((self.path, body))
            self.say(found.status, found.leases(body) if "faults" in self.path else {"healed": []})

        def say(self, status: int, content: object) -> None:
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CONTROLPLANE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("CONTROLPLANE_TOKEN", "t")
        monkeypatch.setenv("CONTROLPLANE_DRILL", "d1")
        monkeypatch.setattr(extension, "_POLL_S", 0.005)
        yield found
        server.shutdown()
        thread.join()


def test_a_fault_is_asked_for_with_its_parameters(api: Api) -> None:
    extension.inject("network-partition", "primary", "50%", "8s", {"mode": "reset"})
    assert api.asked == [
        ("/api/v1/drills/d1/faults",
         {"kind": "network-partition", "pool": "primary", "endpoints": "50%", "down_for": "8s",
          "parameters": {"mode": "reset"}})
    ]  # fmt: skip


def test_a_number_of_endpoints_is_asked_for_by_their_names(api: Api) -> None:
    extension.inject("node-kill", "primary", 1)
    assert api.asked[0][1]["only"] == ["primary-0"]
    with pytest.raises(ActivityFailed, match="has 2 endpoints, not 3"):
        extension.inject("node-kill", "primary", 3)
    assert len(api.asked) == 1


def test_a_fault_that_is_not_proven_fails_the_activity(api: Api) -> None:
    api.state = "injected"
    with pytest.raises(ActivityFailed, match="could not prove node-kill on primary-0"):
        extension.inject("node-kill", "primary")


def test_a_refusal_fails_the_activity_with_its_reason(api: Api) -> None:
    api.status = 422
    with pytest.raises(ActivityFailed, match="leases"):
        extension.inject("node-kill", "primary")


def test_one_after_another_waits_for_each_to_heal_and_be_up(api: Api) -> None:
    api.open_leases = [["d1"], ["d1"], ["other"], [], []]
    api.up = [[True, True], [False, True], [True, True]]
    assert len(extension.inject_rolling("node-kill", "primary", "5s", 5)) == 2
    assert [body["only"] for _, body in api.asked] == [["primary-0"], ["primary-1"]]


@pytest.mark.parametrize(("leases", "up"), [([["d1"]], [[True, True]]), ([[]], [[False, True]])])
def test_one_after_another_stops_at_the_first_that_does_not_come_back(
    api: Api, leases: list[list[str]], up: list[list[bool]]
) -> None:
    api.open_leases, api.up = leases, up
    with pytest.raises(ActivityFailed, match="primary-0 was not back"):
        extension.inject_rolling("node-kill", "primary", "5s", 0.05)
    assert len(api.asked) == 1


def test_a_level_stays_only_when_it_is_never_left(api: Api) -> None:
    assert extension.level_stays("none", 0.05)
    api.level = ["none", "none", "P0", "none"]
    assert not extension.level_stays("none", 5)


@pytest.mark.usefixtures("api")
def test_a_pool_that_is_not_there_fails_the_activity() -> None:
    with pytest.raises(ActivityFailed, match="no pool moon; there are: primary"):
        extension.await_pool("moon", 1)


def test_without_a_drill_nothing_is_asked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTROLPLANE_DRILL")
    with pytest.raises(ActivityFailed, match="controlplane drill run"):
        extension.inject("node-kill", "primary")
    assert api.asked == []
