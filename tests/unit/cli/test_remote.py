"""The command line against a server elsewhere: what it shows, as tables and as JSON, and the status it ends with."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.chaos.safety import Refusal
from controlplane.cli import complete, main
from controlplane.security.roles import Role
from controlplane.web.app import build_app
from controlplane.web.changes import Happening
from tests.support import overviews
from tests.support.doors import FILE_TOKEN, text_of
from tests.unit.web.test_api import DRILL, Told, ports, serving

RECEIPT = overviews.failover().receipts[0].id


@dataclass(slots=True)
class Elsewhere:
    """A server in a thread of its own, and what it was asked."""

    url: str
    told: Told
    happened: Callable[[Happening], None]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    told, begun, over = Told(), threading.Event(), threading.Event()
    found: list[Elsewhere] = []

    async def run() -> None:
        given, loop = ports(told), asyncio.get_running_loop()

        def happened(one: Happening) -> None:
            loop.call_soon_threadsafe(given.changes.happened, (one,))

        async with serving(build_app(given)) as url:
            found.append(Elsewhere(url, told, happened))
            begun.set()
            await asyncio.to_thread(over.wait)
            given.changes.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert begun.wait(60)
        yield found[0]
    finally:
        over.set()
        thread.join(60)
    assert not thread.is_alive()


@dataclass(slots=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture
def call(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("CONTROLPLANE_URL", elsewhere.url)
    monkeypatch.setenv("CONTROLPLANE_TOKEN", FILE_TOKEN)
    monkeypatch.setattr(elsewhere.told, "answer", DRILL)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["controlplane", *words])
        status: Any = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsys.readouterr()
        return Said(int(status), captured.out, captured.err)

    return run


READING = {
    "status": [], "level": [], "fleet": [], "signals": [], "matrix": [], "alerts": [], "leases": [],
    "experiments": [], "receipt list": [], "receipt show": [RECEIPT], "runbook list": [], "runbook show": ["alerts"],
    "drill list": [], "drill show": [DRILL.id], "drill preview": ["node-kill"], "drill report": [DRILL.id],
    "incident list": [], "token list": [], "audit list": [], "audit verify": [],
}  # fmt: skip
DOING: dict[str, list[str]] = {
    "drill start": ["node-kill"], "drill heal": [DRILL.id], "drill abort": [DRILL.id, "--why", "x"],
    "halt": ["--why", "x"], "resume": [], "heal": [],
    "pin": ["P1", "--why", "x"], "unpin": ["P1", "--why", "x"], "approve": ["P0", "--why", "x"],
    "refuse": ["P0", "--why", "x"], "release": ["P0", "--why", "x"], "brake pull": ["--why", "x"],
    "brake release": ["--why", "x"], "token create": ["grafana", "--role", "viewer"],
    "token revoke": [text_of(Role.WEBHOOK)[4:16]],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(READING))
def test_everything_that_is_shown_is_shown_as_json_too(call: Call, name: str) -> None:
    told = call(*name.split(), *READING[name])
    assert (told.status, told.err) == (0, ""), told
    assert told.out.strip()
    as_json = call(*name.split(), *READING[name], "--json")
    assert as_json.status == 0
    assert as_json.json is not None


@pytest.mark.parametrize("name", sorted(DOING))
def test_everything_that_is_done_answers_as_json_too(call: Call, name: str) -> None:
    done = call(*name.split(), *DOING[name], "--json")
    assert (done.status, done.err) == (0, ""), done
    assert isinstance(done.json, dict)


def test_lists_are_fetched_page_after_page(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = call("fleet", "--json").json
    monkeypatch.setattr("controlplane.cli.client.MOST_OF_A_PAGE", 1)
    assert call("fleet", "--json").json == whole
    assert call("fleet", "--limit", "2", "--json").json == whole[:2]
    assert {one["pool"] for one in call("fleet", "--pool", "primary", "--json").json} == {"primary"}


def test_a_refusal_no_answer_and_a_door_that_stays_shut_end_with_a_status_of_their_own(
    call: Call, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("drill", "show", "absent").status == 2
    monkeypatch.setattr(elsewhere.told, "answer", Refusal(("an incident is open",)))
    refused = call("drill", "start", "node-kill")
    assert (refused.status, "an incident is open" in refused.err) == (3, True)
    monkeypatch.setenv("CONTROLPLANE_TOKEN", text_of(Role.VIEWER))
    shut = call("halt", "--why", "x")
    assert (shut.status, "ask an admin" in shut.err) == (5, True)
    monkeypatch.setenv("CONTROLPLANE_TOKEN", "wrong")
    assert call("matrix").status == 5
    monkeypatch.setenv("CONTROLPLANE_URL", "http://127.0.0.1:1")
    assert call("matrix").status == 4
    assert call("watch").status == 4


def test_what_happens_is_followed(call: Call, elsewhere: Elsewhere) -> None:
    again = threading.Event()

    def happen() -> None:
        while not again.wait(0.05):
            elsewhere.happened(Happening("level", {"name": "chat", "level": "P0"}))

    telling = threading.Thread(target=happen)
    telling.start()
    try:
        (line,) = call("watch", "--count", "1", "--json").out.splitlines()
        assert json.loads(line) == {"event": "level", "name": "chat", "level": "P0"}
        assert "level P0" in call("watch", "--count", "1").out
    finally:
        again.set()
        telling.join()


def test_the_statuses_are_in_the_help(call: Call) -> None:
    assert "3 refused" in " ".join(call("--help").out.split())


@pytest.mark.usefixtures("call")
def test_names_are_completed_from_the_server_and_quietly_not_at_all_without_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(complete, "WITHIN_S", 60.0)  # A shell would not wait so long for a machine that stands still.
    assert complete.levels("P") == ["P0", "P1", "P2"]
    assert complete.experiments("node") == ["node-kill"]
    assert "primary" in complete.pools("p")
    assert complete.drills("")
    assert complete.incidents("")
    assert "alerts" in complete.runbooks("al")
    monkeypatch.setenv("CONTROLPLANE_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    assert complete.drills("") == complete.experiments("") == []
