"""The command line without a fleet: it starts fast, says what is wrong, and prints what can be read back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from controlplane.cli import app, main, output
from controlplane.cli.client import Client, connect
from controlplane.cli.drill import since_fault
from controlplane.errors import (
    ControlplaneError,
    NotAllowedError,
    NotNowError,
    PolicyError,
    Problem,
    UnreachableError,
    UsageError,
)
from controlplane.policy.load import load
from controlplane.target.errors import TargetError

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("sqlalchemy", "fastapi", "torch", "aiohttp", "chaoslib", "grafanalib", "numpy", "pydantic", "alembic",
         "uvicorn", "kubernetes", "apscheduler", "grafana_client", "requests")  # fmt: skip
COMMANDS = (
    "check", "render", "serve", "status", "heal", "drill", "up", "target", "demo", "level", "pin", "unpin", "approve",
    "refuse", "release", "brake", "record", "simulate", "dashboards", "lint", "incident", "token", "audit",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTROLPLANE_URL", "CONTROLPLANE_TOKEN", "CONTROLPLANE_TOKEN_FILE", "CONTROLPLANE_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, controlplane.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_help_imports_nothing_heavy_either() -> None:
    code = (
        "import sys, atexit; sys.argv = ['controlplane', '--help'];"
        f"atexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr));"
        "from controlplane.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", [[c] for c in COMMANDS] + [["drill", "run"], ["drill", "plan"], ["target", "load"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) > 5


def test_a_load_waits_for_its_answers_as_long_as_it_is_told(tmp_path: Path) -> None:
    line = ["target", "load", "http://127.0.0.1:1", "--timeout", "30", "--locustfile", str(tmp_path / "load.py")]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "TIMEOUT_S = 30.0" in (tmp_path / "load.py").read_text(encoding="utf-8")


def test_the_version_is_the_packages() -> None:
    import controlplane  # noqa: PLC0415 - only this test asks

    assert CliRunner().invoke(app, ["--version"]).output == f"{controlplane.__version__}\n"


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "err", Console(stderr=True, highlight=False, width=60, no_color=True))


def raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("controlplane.cli.app", fail)


LONG = "a/path/" * 20 + "file"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ControlplaneError("it broke", f"because of {LONG}", "mend it"), 1),
        (UnreachableError("it broke", f"because of {LONG}", "mend it"), 4),
        (UsageError("it broke", f"because of {LONG}", "mend it"), 2),
        (TargetError("it broke", f"because of {LONG}", "mend it"), 1),
    ],
    ids=["failure", "unreachable", "usage", "target"],
)
@pytest.mark.usefixtures("wide")
def test_an_error_is_printed_as_what_why_and_fix_on_the_error_stream(
    error: Exception, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: it broke\n  why: because of {LONG}\n  fix: mend it\n"


@pytest.mark.usefixtures("wide")
def test_every_problem_of_a_page_is_printed_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = (Problem("a.yaml:3", "one", "why one", "fix one"), Problem("a.yaml:9", "two", "why two", ""))
    raising(PolicyError(problems), monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: 2 problems in the policy\n"
        "a.yaml:3: one\n  why: why one\n  fix: fix one\n"
        "a.yaml:9: two\n  why: why two\n"
    )


@pytest.mark.usefixtures("wide")
def test_brackets_in_an_error_are_text_not_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(ControlplaneError("no `[red]` here", "see [/]", "[bold]x[/bold]"), monkeypatch)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: no `[red]` here\n  why: see [/]\n  fix: [bold]x[/bold]\n"


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("controlplane.cli.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


# -- talking to a server -----------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serve one answer to everything; yields the address and the headers that were sent."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            seen.append({k.lower(): v for k, v in self.headers.items()})
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_answer_is_read_and_the_token_is_sent() -> None:
    with answering(200, b'{"a": 1}') as (url, seen):
        assert Client(url, "secret").get("/x") == {"a": 1}
        assert Client(url, "secret").post("/x", {}) == {"a": 1}
    assert [headers["authorization"] for headers in seen] == ["Bearer secret"] * 2


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [(400, UsageError, 2), (404, UsageError, 2), (422, UsageError, 2), (401, NotAllowedError, 5),
     (403, NotAllowedError, 5), (409, NotNowError, 3), (500, ControlplaneError, 1), (503, ControlplaneError, 1)],
)  # fmt: skip
def test_a_problem_document_becomes_the_error_it_was_made_from(
    status: int, kind: type[ControlplaneError], exit_code: int
) -> None:
    problem = {"title": "it broke", "detail": "because", "fix": "mend it", "status": status}
    with answering(status, json.dumps(problem).encode()) as (url, _), pytest.raises(kind) as caught:
        Client(url, "").get("/x")
    error = caught.value
    assert (error.what, error.why, error.fix, error.exit_code) == ("it broke", "because", "mend it", exit_code)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"null", b'"text"', b"\xff"])
def test_an_error_that_is_no_problem_document_is_named_by_its_status(body: bytes) -> None:
    with answering(502, body) as (url, _), pytest.raises(ControlplaneError) as caught:
        Client(url, "").get("/x")
    assert caught.value.what == "HTTP 502"


def test_an_answer_that_is_not_ours_is_an_unreachable_control_plane() -> None:
    with answering(200, b"<html>") as (url, _), pytest.raises(UnreachableError) as caught:
        Client(url, "").get("/x")
    assert url in caught.value.what


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8600", "http://", "ftp://x", "http://[", "nonsense"])
def test_an_address_that_leads_nowhere_is_an_unreachable_control_plane(url: str) -> None:
    with pytest.raises(UnreachableError):
        Client(url, "").get("/x")


def test_a_server_that_does_not_answer_in_time_is_unreachable() -> None:
    import socket  # noqa: PLC0415 - only this test listens and says nothing

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UnreachableError):
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "", timeout_s=0.1).get("/x")


def test_a_server_is_found_by_its_state_directory_or_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnreachableError) as caught:
        connect(tmp_path)
    assert "--state-dir" in caught.value.fix
    (tmp_path / "url").write_text("http://127.0.0.1:8600/\n")
    (tmp_path / "token").write_text("secret\n")
    assert connect(tmp_path) == Client("http://127.0.0.1:8600", "secret")
    monkeypatch.setenv("CONTROLPLANE_URL", "http://other:1")
    with pytest.raises(UsageError, match="no token for http://other:1"):
        connect(tmp_path)
    monkeypatch.setenv("CONTROLPLANE_TOKEN", "other")
    assert connect(tmp_path / "none") == Client("http://other:1", "other")


# -- pages -------------------------------------------------------------------------------------------------------------

PAGES = [
    ROOT / page
    for page in (
        "controlplane.yaml",
        "controlplane/policy/reference.yaml",
        "tests/golden/policies/full.yaml",
        "tests/golden/policies/minimal.yaml",
    )
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_check_prints_a_page_that_loads_again_as_the_same_policy(page: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(page)])
    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout) == dict(load(page).resolved)
    again = tmp_path / "resolved.yaml"
    again.write_text(done.stdout, encoding="utf-8")
    assert load(again).policy == load(page).policy
    assert CliRunner().invoke(app, ["check", str(again)]).stdout == done.stdout


def test_check_says_aloud_which_rows_are_not_armed() -> None:
    done = CliRunner().invoke(app, ["check", str(ROOT / "controlplane" / "policy" / "reference.yaml")])
    for row, why in load(ROOT / "controlplane" / "policy" / "reference.yaml").policy.degradation.not_armed.items():
        assert f"note: row {row} is not armed" in done.stderr
        assert why.split("`")[0] in done.stderr


def test_the_plan_of_drills_is_printed_with_dates() -> None:
    done = CliRunner().invoke(app, ["drill", "plan", str(ROOT / "controlplane.yaml"), "--months", "3"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) == 3
    assert all("monthly: node-kill" in line for line in lines)
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0 ms"), (0.0634, "63 ms"), (0.9994, "999 ms"), (1.0, "1.00 s")]
)
def test_durations_are_written_short(value: float | None, text: str) -> None:
    assert output.seconds(value) == text


def test_a_phase_that_did_not_come_has_no_time() -> None:
    fault = "2026-11-21T03:04:00+00:00"
    drill = {"phases": {"fault": fault, "detected": "2026-11-21T03:04:00.250000+00:00"}}
    assert since_fault(drill, "detected") == 0.25
    assert since_fault(drill, "healed") is None
    assert since_fault({"phases": {}}, "detected") is None
