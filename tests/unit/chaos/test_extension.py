"""The extension against a control plane that answers what a test wants: it asks, waits a bounded time, fails aloud."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
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
    phases: list[str] = field(default_factory=lambda: ["idle"])
    """Of row P0, likewise."""
    open_leases: list[list[str]] = field(default_factory=lambda: [[]])
    """Drill ids of the leases in force, likewise."""
    state: str = "proven"
    status: int = 201
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def standing(self) -> dict[str, Any]:
        up = next_of(self.up)
        endpoints = [{"endpoint": {"name": f"primary-{n}"}, "up": each, "answer_s": 0.1} for n, each in enumerate(up)]
        rows = [{"row": {"level": "P0"}, "phase": next_of(self.phases)}]
        return {"level": next_of(self.level), "rows": rows, "pools": [{"name": "primary", "endpoints": endpoints}]}

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
    assert len(extension.inject_rolling("node-kill", "primary", "5s", 60)) == 2
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
    assert not extension.level_stays("none", 60)


class Stall:
    """A clock that jumps an hour, once: while this process sleeps, or while it waits for an answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, during: str) -> None:
        self._at = 0.0
        self._ahead = {during: 3600.0}
        self._ask = extension._call
        monkeypatch.setattr(extension, "time", SimpleNamespace(monotonic=lambda: self._at, sleep=self._sleep))
        monkeypatch.setattr(extension, "_call", self._call)

    def _sleep(self, seconds: float) -> None:
        self._at += seconds + self._ahead.pop("sleep", 0.0)

    def _call(self, method: str, path: str) -> Any:
        answer = self._ask(method, path)
        self._at += self._ahead.pop("answer", 0.0)
        return answer


@pytest.mark.parametrize("during", ["sleep", "answer"])
@pytest.mark.parametrize(
    "wait",
    [
        lambda: extension.await_row("P0", "engaged", 5),
        lambda: extension.await_level("P0", 5),
        lambda: extension.await_pool("primary", 5),
        lambda: extension.await_healed(5),
        lambda: not extension.level_stays("none", 5),
    ],
    ids=["row", "level", "pool", "healed", "stays"],
)
def test_a_machine_that_stands_still_until_the_time_is_over_looks_once_more(
    api: Api, monkeypatch: pytest.MonkeyPatch, wait: Callable[[], bool], during: str
) -> None:
    api.phases, api.level = ["engaging", "engaged"], ["none", "P0"]
    api.up, api.open_leases = [[True, False], [True, True]], [["d1"], []]
    Stall(monkeypatch, during)
    assert wait()


@pytest.mark.parametrize("within_s", [0, 0.05])
def test_what_does_not_come_is_waited_for_no_longer_than_its_time(api: Api, within_s: float) -> None:
    api.open_leases = [["d1"]]
    assert not extension.await_row("P0", "engaged", within_s)
    assert not extension.await_level("P0", within_s)
    assert not extension.await_healed(within_s)


@pytest.mark.usefixtures("api")
def test_a_pool_that_is_not_there_fails_the_activity() -> None:
    with pytest.raises(ActivityFailed, match="no pool moon; there are: primary"):
        extension.await_pool("moon", 1)


def test_without_a_drill_nothing_is_asked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTROLPLANE_DRILL")
    with pytest.raises(ActivityFailed, match="controlplane drill run"):
        extension.inject("node-kill", "primary")
    assert api.asked == []
