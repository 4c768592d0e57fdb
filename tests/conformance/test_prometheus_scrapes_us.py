"""A real Prometheus scrapes a real fleet and a real control plane, with the rules we render."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support.processes import Fleet, Load, Plane, Running, ask, free_port, until

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus"), pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus and what it watches."""

    url: str
    fleet: Fleet
    plane: Plane

    def api(self, path: str) -> Any:
        answer = ask(f"{self.url}/api/v1/{path}")
        assert answer.json["status"] == "success", answer
        return answer.json["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(f"query?query={quote(expr)}")["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("targets")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]


def configuration(fleet: Fleet, plane: Plane, here: Path) -> Path:
    """Write what a person would: our rules, the fleet as the control plane discovers it, the control plane.

    Slow groups are evaluated at the pace of the fast ones: a test cannot wait a minute.
    """
    (rules,) = (fleet.run_dir / "alerts").glob("*.rules.yml")
    quick = here / "rules.yml"
    quick.write_text(rules.read_text(encoding="utf-8").replace("interval: 1m", "interval: 5s"), encoding="utf-8")
    page = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(quick)],
        "scrape_configs": [
            {"job_name": "fleet", "http_sd_configs": [{"url": f"{plane.url}/sd"}]},
            {"job_name": "controlplane", "static_configs": [{"targets": [urlsplit(plane.url).netloc]}]},
        ],
    }
    path = here / "prometheus.yml"
    path.write_text(json.dumps(page), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    here = tmp_path_factory.mktemp("prometheus")
    with Fleet(here / "run") as fleet, Plane(fleet.page) as plane, Load(fleet.gateway, here / "load.jsonl", 40):
        plane.until_ready()
        url = f"http://127.0.0.1:{free_port()}"
        line = [program, f"--config.file={configuration(fleet, plane, here)}", f"--storage.tsdb.path={here / 'data'}",
                f"--web.listen-address={urlsplit(url).netloc}", "--log.level=warn"]  # fmt: skip
        with Running(line, here / "prometheus.log") as process:
            process.until(lambda: _ready(url), "Prometheus is ready")
            found = Prometheus(url, fleet, plane)
            process.until(lambda: all(r["health"] != "unknown" for r in found.rules()), "every rule was evaluated")
            every = len(fleet.endpoints) + 1
            process.until(lambda: len(found.query("count_over_time(up[1m]) >= 4")) == every, "four scrapes of each")
            yield found


def _ready(url: str) -> bool:
    try:
        return ask(f"{url}/-/ready").status == 200
    except OSError:
        return False


def is_soon(asked: Callable[[], object], wanted: object, within_s: float = 30.0) -> None:
    """Ask until the answer is what it should be: a scrape that fails leaves its target without series for a while."""
    deadline = time.monotonic() + within_s
    while (found := asked()) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == wanted


def test_every_endpoint_and_the_control_plane_are_targets_that_answer(prometheus: Prometheus) -> None:
    assert {t["labels"].get("endpoint", t["labels"]["job"]) for t in prometheus.targets()} == {
        *prometheus.fleet.endpoints, "controlplane",
    }  # fmt: skip
    is_soon(lambda: [(t["scrapeUrl"], t["lastError"]) for t in prometheus.targets() if t["health"] != "up"], [])


def test_what_is_discovered_says_of_each_engine_where_it_belongs(prometheus: Prometheus) -> None:
    found = [t for t in prometheus.targets() if t["labels"]["job"] == "fleet"]
    assert {(t["labels"]["service"], t["scrapeUrl"].rpartition("/")[2]) for t in found} == {("reference", "metrics")}
    pools = {t["labels"]["endpoint"]: (t["labels"]["pool"], bool(t["labels"]["node"])) for t in found}
    assert pools == {name: (name.rpartition("-")[0], True) for name in prometheus.fleet.endpoints}


def test_every_rule_is_healthy_and_evaluates_without_an_error(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert len(rules) > 20
    assert [(r["name"], r.get("lastError")) for r in rules if r["health"] != "ok" or r.get("lastError")] == []
    own = ask(f"{prometheus.url}/metrics").text
    failures = re.findall(r"^prometheus_rule_evaluation_failures_total\{.*\} (\S+)$", own, re.MULTILINE)
    assert failures
    assert set(failures) == {"0"}


def test_a_healthy_fleet_fires_nothing_that_wakes_a_person(prometheus: Prometheus) -> None:
    """A machine that stands still for seconds fails its users, and an alert says so; a rule that is wrong goes on."""

    def waking() -> list[dict[str, str]]:
        alerts = prometheus.api("alerts")["alerts"]
        return [a["labels"] for a in alerts if a["state"] == "firing" and a["labels"]["severity"] == "critical"]

    is_soon(waking, [], 90)


def test_our_own_series_are_there_with_the_values_of_a_healthy_fleet(prometheus: Prometheus) -> None:
    is_soon(lambda: [r["metric"]["level"] for r in prometheus.query("controlplane_level == 1")], ["none"])
    is_soon(
        lambda: {r["metric"]["endpoint"] for r in prometheus.query("controlplane_endpoint_up == 1")},
        {*prometheus.fleet.endpoints, "gateway"},
    )
    is_soon(lambda: [r["value"][1] for r in prometheus.query("controlplane_ready")], ["1"])
    available = 'controlplane_signal_value{pool="primary",signal="availability"} == 1'
    until(lambda: prometheus.query(available), what=available)
    probed = "rate(controlplane_probes_total[10s]) > 0"
    until(lambda: prometheus.query(probed), what=probed)


def test_every_series_of_ours_that_a_rule_reads_is_exposed(prometheus: Prometheus) -> None:
    """A series appears with its first value; those that only a switch or a drill gives are known by their type."""
    read = {name for rule in prometheus.rules() for name in re.findall(r"\bcontrolplane_\w+", rule["query"])}
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", prometheus.plane.ask("/metrics").text, re.MULTILINE))
    series = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            series |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    assert read
    assert read - series == set()


def test_engine_series_carry_the_pool_that_the_rules_ask_for(prometheus: Prometheus) -> None:
    names = ("vllm:num_requests_running", "vllm:request_success_total", "vllm:e2e_request_latency_seconds_count")

    def missing() -> set[tuple[str, str]]:
        there = {(name, r["metric"].get("pool")) for name in names for r in prometheus.query(name)}
        return set(product(names, ("primary", "standby", "base"))) - there

    is_soon(missing, set())
