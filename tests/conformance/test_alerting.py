"""What is rendered under `alerts/` is taken by the tools that read it, and does there what it says."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.policy.model import Policy
from controlplane.render.alerting import pages
from controlplane.render.alerting.groups import groups
from controlplane.render.alerting.rules import Group
from controlplane.signals.engines import ENGINES
from tests.golden.cases import HOSTILE, NAMES, hostile_policy, policy
from tests.support.processes import Running, ask, free_port, listens, until

prometheus = pytest.mark.debian("prometheus")
alertmanager = pytest.mark.debian("prometheus-alertmanager")

SHORTER = HOSTILE[:200]
"""Ten thousand characters in every series would take promtool an hour."""


@cache
def of(name: str) -> Policy:
    if name == "hostile":
        return hostile_policy()
    return replace(policy("minimal"), service=SHORTER) if name == "shorter" else policy(name)


def write(of: Policy, folder: Path, only: str = "") -> Path:
    """Write everything under `alerts/`, or the group of a name only; return the folder."""
    made: tuple[Group, ...] = tuple(group for group in groups(of) if only in group.name)
    for path, text in pages.pages(of, made, "made for a test", "/d/x").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder / "alerts"


def run(tool: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([found, *map(str, args)], capture_output=True, text=True, timeout=110, check=False)


def passes(tool: str, *args: str | Path) -> str:
    done = run(tool, *args)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
    return done.stdout


@prometheus
@pytest.mark.parametrize("name", [*NAMES, "hostile"])
def test_prometheus_takes_rules_and_configuration(name: str, tmp_path: Path) -> None:
    here = write(of(name), tmp_path)
    (rules,) = here.glob("*.rules.yml")
    assert "SUCCESS" in passes("promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
    assert "SUCCESS" in passes("promtool", "check", "config", here / "prometheus.yml")


@prometheus
@pytest.mark.parametrize("name", ["shorter", *(name for name in NAMES if name != "minimal")])
def test_every_alert_is_silent_fires_with_its_text_and_resolves(name: str, tmp_path: Path) -> None:
    tests = sorted(write(of(name), tmp_path).glob("*.tests.yml"))
    assert len(tests) == 3
    for page in tests:
        passes("promtool", "test", "rules", page)


@prometheus
@pytest.mark.parametrize("engine", [name for name in ENGINES if name not in ("vllm", "reference", "sglang")])
def test_the_second_witness_is_proven_on_every_engines_own_names(engine: str, tmp_path: Path) -> None:
    full = policy("full")
    fleet = replace(full, fleet=replace(full.fleet, engine=engine))
    (page,) = (
        p for p in write(fleet, tmp_path, "engine").glob("*.tests.yml") if yaml.safe_load(p.read_text())["tests"]
    )
    assert len(yaml.safe_load(page.read_text())["tests"]) >= 3
    passes("promtool", "test", "rules", page)


@prometheus
def test_a_rule_that_is_not_what_was_proven_fails_its_unit_test(tmp_path: Path) -> None:
    here = write(policy("minimal"), tmp_path, "service")
    (rules,) = here.glob("*.rules.yml")
    text = rules.read_text()
    for right, wrong in (
        ('signal="latency_p99"} >= 2\n', 'signal="latency_p99"} >= 3\n'),
        ('signal="latency_p99"} >= 2\n', 'signal="latency_p99"} >= 1\n'),
        ("for: 30s", "for: 2m"),
        ("(breach is at or over 2s)", "(breach is at or over 3s)"),
    ):
        changed = text.replace(right, wrong).replace(right.replace("\n", "'\n"), wrong.replace("\n", "'\n"))
        assert changed != text, right
        rules.write_text(changed)
        assert run("promtool", "test", "rules", here / "tiny.tests.yml").returncode != 0, wrong
    rules.write_text(text)
    passes("promtool", "test", "rules", here / "tiny.tests.yml")


@alertmanager
@pytest.mark.parametrize("name", [*NAMES, "hostile"])
def test_alertmanager_takes_its_configuration(name: str, tmp_path: Path) -> None:
    assert "SUCCESS" in passes("amtool", "check-config", write(of(name), tmp_path) / "alertmanager.yml")


CONTROL = "controlplane"
ROUTES = [
    ("severity=critical level=P0", f"{CONTROL},people-critical"),
    ("severity=critical level=P1", f"{CONTROL},people-critical"),
    ("severity=critical level=P2", f"{CONTROL},people-critical"),
    ("severity=critical level=none", f"{CONTROL},people-critical"),
    ("severity=warning level=P0", f"{CONTROL},people-warning"),
    ("severity=warning level=none", f"{CONTROL},people-warning"),
    ("severity=info level=P2", f"{CONTROL},nobody"),
    ("severity=none level=none alertname=Watchdog", "controlplane-watchdog"),
]


@alertmanager
def test_everything_reaches_the_control_plane_and_people_by_severity(tmp_path: Path) -> None:
    page = write(policy("kubernetes"), tmp_path) / "alertmanager.yml"

    def route(*labels: str) -> str:
        return passes("amtool", "config", "routes", "test", f"--config.file={page}", *labels).strip()

    for labels, receivers in ROUTES:
        assert route("service=search-assist", *labels.split()) == receivers, labels
        assert route("service=another", *labels.split()) == "nobody"


@alertmanager
def test_the_control_plane_hears_of_every_alert_there_is(tmp_path: Path) -> None:
    here = write(policy("kubernetes"), tmp_path)
    (rules,) = here.glob("*.rules.yml")
    every = [r["labels"] for g in yaml.safe_load(rules.read_text())["groups"] for r in g["rules"] if "alert" in r]
    kinds = {(labels["severity"], labels["level"]) for labels in every if labels["severity"] != "none"}
    assert len(kinds) >= 5
    for severity, level in kinds:
        labels = ("service=search-assist", f"severity={severity}", f"level={level}")
        told = passes("amtool", "config", "routes", "test", f"--config.file={here / 'alertmanager.yml'}", *labels)
        assert told.startswith(f"{CONTROL},"), labels


@dataclass
class Heard:
    """What a webhook was sent."""

    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Path, authorization and body of each."""
    port: int = 0

    def told(self, alertname: str, status: str) -> bool:
        found = [a for _, _, body in list(self.calls) for a in body["alerts"]]
        return any(a["labels"]["alertname"] == alertname and a["status"] == status for a in found)


@contextmanager
def hook() -> Iterator[Heard]:
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.calls.append((self.path, self.headers.get("authorization", ""), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(url: str, rules: Path, name: str, *, ends: bool = False) -> None:
    """Tell Alertmanager of an alert with the labels that its rule gives it."""
    written = yaml.safe_load(rules.read_text())["groups"]
    labels = next(r["labels"] for g in written for r in g["rules"] if r.get("alert") == name)
    now = datetime.now(UTC)
    body: dict[str, Any] = {"labels": {"alertname": name, "pool": "primary", **labels}, "annotations": {}}
    body["startsAt"] = (now - timedelta(minutes=1)).isoformat()
    body["endsAt"] = (now - timedelta(seconds=1) if ends else now + timedelta(hours=1)).isoformat()
    assert ask(f"{url}/api/v2/alerts", "POST", [body]).status == 200


def states(url: str) -> dict[str, bool]:
    """Return by alert whether it is inhibited."""
    found = ask(f"{url}/api/v2/alerts").json
    return {a["labels"]["alertname"]: bool(a["status"]["inhibitedBy"]) for a in found}


@alertmanager
@pytest.mark.journey
def test_a_real_alertmanager_keeps_lower_levels_silent_and_tells_the_control_plane_with_its_token(
    tmp_path: Path,
) -> None:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    token = tmp_path / "token"
    token.write_text("a-secret\n")
    with hook() as heard:
        full = policy("full")
        publish = replace(
            full.publish, control=f"http://127.0.0.1:{heard.port}", token_file=str(token), group_wait=timedelta(0)
        )
        here = write(replace(full, publish=publish), tmp_path)
        (rules,) = here.glob("*.rules.yml")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        line = [program, f"--config.file={here / 'alertmanager.yml'}", f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"]  # fmt: skip
        with Running(line, tmp_path / "alertmanager.log") as server:
            server.until(lambda: listens(port), "Alertmanager listens")
            for name in ("AvailabilityBreach", "AvailabilityWarn", "LatencyP99Breach", "Watchdog", "DrillFailed"):
                say(url, rules, name)
            silent = {"AvailabilityWarn": True, "LatencyP99Breach": True}
            loud = {"AvailabilityBreach": False, "Watchdog": False, "DrillFailed": False}
            until(lambda: states(url) == silent | loud, 20, "the worse one silences the others")
            until(lambda: heard.told("AvailabilityBreach", "firing"), 20, "the control plane is told")
            until(lambda: heard.told("Watchdog", "firing"), 20, "the watchdog arrives")
            assert not heard.told("LatencyP99Breach", "firing")
            say(url, rules, "AvailabilityBreach", ends=True)
            until(lambda: heard.told("LatencyP99Breach", "firing"), 60, "what was silenced is told when it may be")
            until(lambda: heard.told("AvailabilityBreach", "resolved"), 60, "the end is told")
            assert {(path, token) for path, token, _ in heard.calls} == {
                ("/hooks/alertmanager", "Bearer a-secret"),
            }  # fmt: skip
