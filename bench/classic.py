"""The classic pipeline beside ours: Debian's Prometheus and Alertmanager with a webhook, set as fast as they go.

Scrape and evaluation every second, no `for`, no `group_wait`. Used by the bench `p0`.
"""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.fleet import wait_until

PROMETHEUS, ALERTMANAGER = "prometheus", "prometheus-alertmanager"
_PROMETHEUS = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
alerting: {{ alertmanagers: [ {{ static_configs: [ {{ targets: ["127.0.0.1:{alertmanager}"] }} ] }} ] }}
scrape_configs: [ {{ job_name: primary, file_sd_configs: [ {{ files: ["{targets}"] }} ] }} ]
"""
_RULES = """
groups:
  - name: primary
    rules: [ { alert: PrimaryDown, expr: 'sum(up{job="primary"}) == 0' } ]
"""
_ALERTMANAGER = """
route: {{ receiver: hook, group_wait: 0s, group_interval: 1s, repeat_interval: 1h }}
receivers: [ {{ name: hook, webhook_configs: [ {{ url: "http://127.0.0.1:{hook}/", send_resolved: true }} ] }} ]
"""


def installed() -> bool:
    """Tell whether both programs are on this machine."""
    return bool(shutil.which(PROMETHEUS) and shutil.which(ALERTMANAGER))


class Hook:
    """Notes when the webhook was called, and with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []
        """Unix seconds and the state: `firing` or `resolved`."""
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.time()
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                calls.append((at, body["status"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def first_firing(self, after: float) -> float | None:
        """Return when it was told of a fire after a moment (Unix seconds); None while it was not."""
        return next((at for at, state in self.calls if state == "firing" and at >= after), None)

    def quiet(self) -> bool:
        """Tell whether the last thing it heard is that all is well."""
        return not self.calls or self.calls[-1][1] == "resolved"


@contextmanager
def classic(folder: Path, targets: Path) -> Iterator[Hook]:
    """Run the pipeline on the targets of a `file_sd` file; everything is ended by its pid."""
    folder.mkdir()
    hook, (prometheus, alertmanager) = Hook(), free_ports(2)
    thread = threading.Thread(target=hook.server.serve_forever, daemon=True)
    thread.start()
    (folder / "prometheus.yml").write_text(_PROMETHEUS.format(alertmanager=alertmanager, targets=targets))
    (folder / "rules.yml").write_text(_RULES)
    (folder / "alertmanager.yml").write_text(_ALERTMANAGER.format(hook=hook.server.server_port))
    commands = (
        [
            ALERTMANAGER, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am",
            f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=",
        ],
        [
            PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error",
        ],
    )  # fmt: skip
    children = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("wb") as log:
                children.append(subprocess.Popen(command, stdout=log, stderr=log))
        for child, port in zip(children, (alertmanager, prometheus), strict=True):
            wait_until(lambda port=port: listens(port), "the classic pipeline runs", child)  # type: ignore[misc]
        yield hook
    finally:
        for child in children:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [int(free.getsockname()[1]) for free in sockets]
    for free in sockets:
        free.close()
    return ports


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
