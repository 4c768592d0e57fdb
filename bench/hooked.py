"""A control plane that webhooks are posted at, and one endpoint and one receiver around it, both in this process.

Used by the benches `intake` and `am-loss`. Its matrix has one row that waits for an alert and tells a receiver, so that
what is counted and timed is an action that reached the outside.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.classic import free_ports
from bench.fleet import wait_until
from tests.support.answering import Answering, answering

ALERT = "BenchStorm"
"""The alert that the row waits for."""
PATH = "/hooks/alertmanager"
_COMPLETION = (
    b'{"id":"1","object":"text_completion","choices":[{"index":0,"text":"pong","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
_PAGE = """
service: bench
{alertmanager}
fleet:
  pools:
    primary: {{ endpoints: {{ static: ["http://127.0.0.1:{port}"] }} }}
    standby: {{ endpoints: {{ static: ["http://localhost:{port}"] }} }}
  gateway: {{ dry_run: {{}} }}
probes: [ {{ http: {{ path: /health, every: 1s, timeout: 500ms }} }} ]
degradation:
  max_switches_per_hour: 100000
  receivers: {{ hook: {{ webhook: "http://127.0.0.1:{port}/receiver" }} }}
  P1:
    when: {{ alert: {alert} }}
    do: [ {{ notify: {{ receiver: hook }} }}, {{ switch_pool: {{ to: standby }} }} ]
    release: {{ steps: [100%], hold: 500ms }}
"""


@dataclass(slots=True)
class Outside:
    """The endpoint that is always well, and the receiver that notes what it is told."""

    port: int
    told: list[tuple[float, str]] = field(default_factory=list)
    """Unix seconds and idempotency key of every message."""

    def begun(self) -> list[str]:
        """Return the key of every message that an action began."""
        return [key for _, key in self.told if key.endswith("/firing")]


@contextmanager
def outside() -> Iterator[Outside]:
    """Serve both."""
    told: list[tuple[float, str]] = []

    class Handler(Answering):
        def do_GET(self) -> None:
            self.say(_COMPLETION)

        def do_POST(self) -> None:
            if self.path == "/receiver":
                told.append((time.time(), self.headers.get("idempotency-key", "")))
            self.body()
            self.say(_COMPLETION)

    with answering(Handler) as port:
        yield Outside(port, told)


class Plane:
    """`controlplane serve` on a page of its own; started, killed and started again on the same state."""

    def __init__(self, folder: Path, out: Outside, alertmanager: str = "", database: str = "", port: int = 0) -> None:
        self.folder, self.port = folder, port or free_ports(1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        told = f'alertmanager: "{alertmanager}"' if alertmanager else ""
        (folder / "controlplane.yaml").write_text(_PAGE.format(port=out.port, alert=ALERT, alertmanager=told))
        more = ("--database", database) if database else ()
        self._command = [
            sys.executable, "-m", "controlplane", "serve", str(folder / "controlplane.yaml"), "--port", str(self.port),
            *more,
        ]  # fmt: skip
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def token_file(self) -> Path:
        """The webhook's token; made here, so that it is there before the first start."""
        path = self.folder / "state" / "webhook-token"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text("bench-token\n")
        return path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "state" / "controlplane.db"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        _ = self.token_file
        with (self.folder / "serve.log").open("ab") as log:
            self._child = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._answers, "the control plane answers", self._child)

    def _answers(self) -> bool:
        try:
            return self.get("/healthz") is not None
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL it."""
        if self._child:
            self._child.kill()
            self._child.wait()
            self._child = None

    def stop(self) -> None:
        """End it."""
        if self._child:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._child = None

    def get(self, path: str) -> bytes:
        """Ask it."""
        return self._ask("GET", path)

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Post a webhook; it must be taken."""
        self._ask("POST", PATH, json.dumps({"version": "4", "alerts": alerts}).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            file = self.token_file if path.startswith("/hooks/") else self.folder / "state" / "token"
            token = file.read_text().strip()
            connection.request(method, path, body, {"authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise OSError(f"{method} {path} gave {answer.status}: {content[:200]!r}")
            return content
        finally:
            connection.close()

    def phase(self) -> str:
        """Return the phase of the row."""
        rows = json.loads(self.get("/api/v1/standing"))["rows"]
        return str(next(row["phase"] for row in rows if row["row"]["level"] == "P1"))


@contextmanager
def plane(folder: Path, out: Outside, alertmanager: str = "", database: str = "") -> Iterator[Plane]:
    """Run a control plane; it is ended by its pid."""
    made = Plane(folder, out, alertmanager, database)
    made.start()
    try:
        yield made
    finally:
        made.stop()
