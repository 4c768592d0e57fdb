"""A person's words at the command line: what is sent, what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from controlplane.cli import app
from controlplane.cli.client import Client
from controlplane.errors import UsageError

DATA = Path(__file__).resolve().parents[2] / "data"
REFERENCE = Path(__file__).resolve().parents[3] / "controlplane" / "policy" / "reference.yaml"
AT = "2026-11-21T03:04:05+00:00"
ROW = {
    "row": {"level": "P1"}, "phase": "pending", "since": AT, "because": ["alert Slow fires"], "given_back": 0.0,
    "waits_for": "the brake is on; awaiting approval", "awaits_approval": True,
}  # fmt: skip
STANDING = {
    "service": "chat", "level": "P0", "level_since": AT, "why": ["endpoints_down is 100%"], "mode": "approve",
    "pins": [{"level": "P0", "who": "ann", "why": "peak", "at": AT, "until": None}], "braked": True,
    "brake": {"who": "the control plane", "why": "6 switches within an hour", "at": AT}, "rows": [ROW],
}  # fmt: skip


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []

    def post(_: Client, path: str, body: dict[str, Any]) -> Any:
        found.append((path, body))
        return {"until": None}

    monkeypatch.setenv("CONTROLPLANE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CONTROLPLANE_TOKEN", "t")
    monkeypatch.setattr(Client, "post", post)
    monkeypatch.setattr(Client, "get", lambda *_: STANDING)
    monkeypatch.setattr(Client, "text", lambda _, path: f"{path}\n")
    return found


@pytest.mark.parametrize(
    ("command", "path", "more"),
    [
        (["pin", "P1", "--for", "30m"], "/api/v1/pins/P1", {"for": "30m"}),
        (["pin", "none"], "/api/v1/pins/none", {}),
        (["unpin", "P1"], "/api/v1/pins/P1/end", {}),
        (["approve", "P0"], "/api/v1/rows/P0/approve", {}),
        (["refuse", "P0"], "/api/v1/rows/P0/refuse", {}),
        (["release", "P0"], "/api/v1/rows/P0/release", {}),
        (["brake", "pull"], "/api/v1/brake", {}),
        (["brake", "release"], "/api/v1/brake/release", {}),
    ],
)
def test_what_is_said_is_sent_with_who_and_why(
    sent: list[tuple[str, dict[str, Any]]], command: list[str], path: str, more: dict[str, str]
) -> None:
    done = CliRunner().invoke(app, [*command, "--why", "peak hours", "--who", "ann"])
    assert done.exit_code == 0, done.output
    assert sent == [(path, {"why": "peak hours", "who": "ann", **more})]
    assert done.output.strip()


def test_nothing_is_said_without_a_reason(sent: list[tuple[str, dict[str, Any]]]) -> None:
    assert CliRunner().invoke(app, ["pin", "P1"]).exit_code == 2
    assert sent == []


def test_who_says_it_is_the_one_who_is_logged_in(sent: list[tuple[str, dict[str, Any]]]) -> None:
    CliRunner().invoke(app, ["approve", "P0", "--why", "go"])
    assert sent[0][1]["who"]


def test_level_says_what_is_in_force_since_when_why_and_by_whom(sent: list[tuple[str, dict[str, Any]]]) -> None:
    lines = CliRunner().invoke(app, ["level"]).output.splitlines()
    told = "\n".join(lines)
    assert sent == []
    for part in ("chat  level P0 since", "because endpoints_down is 100%", "the brake is on by the control plane",
                 "P0 is pinned by ann", "P1 pending since", "awaiting approval", "alert Slow fires"):  # fmt: skip
        assert part in told
    as_json = json.loads(CliRunner().invoke(app, ["level", "--json"]).output)
    assert as_json["rows"][0]["waits_for"] == ROW["waits_for"]
    assert as_json["pins"] == STANDING["pins"]


def test_a_recording_is_printed_as_it_comes(sent: list[tuple[str, dict[str, Any]]]) -> None:
    assert CliRunner().invoke(app, ["record", "--for", "5m"]).output == "/api/v1/recording?for=5m\n"
    assert sent == []


@pytest.mark.parametrize("name", ["killed-primary", "overload"])
def test_a_recording_is_simulated(name: str) -> None:
    command = ["simulate", str(DATA / f"{name}.jsonl"), "--policy", str(REFERENCE)]
    drawn = CliRunner().invoke(app, command)
    assert drawn.exit_code == 0
    assert "engaging" in drawn.output
    assert "in each level: P0" in drawn.output
    data = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert data["transitions"][0]["row"] == "P0"
    assert data["flaps"] == []
    assert sum(data["level_seconds"].values()) > 20


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", str(tmp_path / "absent"), "--policy", str(REFERENCE)])
    assert isinstance(done.exception, UsageError)
