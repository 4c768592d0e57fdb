"""Every command of every runbook runs on a real fleet: first looks, causes, each step with its check and undo."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.processes import Fleet, Plane
from tests.support.runbook_pages import ByHand, blocks, steps

pytestmark = [pytest.mark.journey, pytest.mark.debian("jq"), pytest.mark.timeout(420)]

OFFLINE = ("Move the traffic", "Give the traffic back")
"""Steps for when the lever is no longer the control plane's."""


@contextmanager
def answering_everything() -> Iterator[str]:
    """Stand in for Prometheus and Alertmanager: every path is well and holds nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Shell:
    """A person's shell in the directory of the policy page."""

    def __init__(self, fleet: Fleet, state: Path, other: str, setup: str) -> None:
        self._folder, self._setup = fleet.run_dir, setup
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(state), "LANG": "C.UTF-8",
            "CONTROLPLANE_STATE_DIR": str(state), "ILL": "base-0", "RESTART": "true", "START": "true", "STOP": "true",
            "PROMETHEUS": other, "ALERTMANAGER": other,
        }  # fmt: skip

    def run(self, *commands: str, control: str = "") -> str:
        script = "\n".join(("set -e", self._setup, *commands))
        env = self._env | ({"CONTROL": control} if control else {})
        done = subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{script}\n--- said\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_every_command_of_every_runbook_does_what_the_page_says(fleet: Fleet, tmp_path: Path) -> None:
    state, page = tmp_path / "state", fleet.run_dir / "runbooks-under-test.yaml"
    quick = "  P2: { release: { hold: 2s } }\n"  # P0 and P1 of the reference page are quick already
    page.write_text(fleet.page.read_text(encoding="utf-8") + quick, encoding="utf-8")
    with answering_everything() as other, Plane(page, state=state) as plane:
        plane.until_ready()
        pages = {path: path.read_text(encoding="utf-8") for path in (fleet.run_dir / "runbooks").rglob("*.md")}
        assert len(pages) > 30
        (setup,) = {next(blocks(page, "sh")).text for page in pages.values()}
        shell = Shell(fleet, state, other, setup)
        by_hand = {step.do: step for page in pages.values() for step in steps(page)}
        doing = {text for step in by_hand.values() for text in (step.do, step.check, step.undo)}
        looks = [b.text for page in pages.values() for b in blocks(page, "sh") if b.text not in doing]
        said = shell.run(*dict.fromkeys(looks))
        assert '"weight":100' in said
        assert "level" in said
        for step in by_hand.values():
            if not _offline(step):
                _do(shell, step, plane)
    _move_by_hand(shell, [step for step in by_hand.values() if _offline(step)])


def _offline(step: ByHand) -> bool:
    return step.title.partition(". ")[2] in OFFLINE


def _do(shell: Shell, step: ByHand, plane: Plane) -> None:
    """Take one step, check it and undo it; the fleet is then as it was."""
    shell.run(step.do, step.check, step.undo)
    if "brake pull" in step.undo:
        shell.run('controlplane brake release --why "the test goes on"')
    plane.until_level("none", 90)
    assert plane.get("/api/v1/leases") == []


def _move_by_hand(shell: Shell, moves: list[ByHand]) -> None:
    """Move the gateway itself, with the control plane gone, and see that answers say so."""
    assert any("Move the traffic" in step.title for step in moves)
    for step in moves:
        at_work = "Move the traffic" in step.title
        level = "P" if at_work else "none"
        shown = f'{{ {step.check}\n}} | grep -qi "x-degradation-level: {level}"'
        watched = f"for _ in $(seq 50); do {shown} && break; sleep 0.1; done"
        said = shell.run(step.do, watched, step.check, control="http://127.0.0.1:9")
        assert f"x-degradation-level: {level.lower()}" in said.lower()
        shell.run(step.undo, control="http://127.0.0.1:9")
