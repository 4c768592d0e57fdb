"""`controlplane lint --live` against a real Prometheus that scrapes a real fleet: no false alarm, no mistake missed."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support.processes import Fleet, Load, Plane, Running, ask, controlplane, free_port

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus"), pytest.mark.timeout(300)]

QUIET = {"never-proven", "proof-lost", "engine-series"}
"""Warnings that a young fleet without GPUs earns: no drill has run, and not every engine's series is there."""

EXCUSED = {"quiet-series", "quiet-value", "by-design", "no-notes", "engine-series", "no-sample", "quiet-now"}


@dataclass(frozen=True, slots=True)
class Watched:
    """A running fleet with its rendered files and the Prometheus that scrapes it."""

    page: Path
    prometheus: str

    def lint(self, directory: Path | None = None) -> tuple[int, dict[str, Any]]:
        where = ["--out", str(directory)] if directory else []
        done = controlplane("lint", self.page, "--live", "--prometheus", self.prometheus, "--json", *where)
        assert done.out, done.err
        return done.status, json.loads(done.out)

    def copy(self, into: Path) -> Path:
        for folder in ("alerts", "dashboards", "runbooks"):
            shutil.copytree(self.page.parent / folder, into / folder)
        return into


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    here = tmp_path_factory.mktemp("lint")
    with Fleet(here / "run") as fleet, Plane(fleet.page) as plane, Load(fleet.gateway, here / "load.jsonl", 40):
        plane.until_ready()
        rules = [str(file) for file in (fleet.run_dir / "alerts").rglob("*rules*.yml")]
        assert rules
        page = here / "prometheus.yml"
        page.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [
                {"job_name": "fleet", "file_sd_configs": [{"files": [f"{fleet.run_dir}/sd/*.json"]}]},
                {"job_name": "controlplane", "static_configs": [{"targets": [urlsplit(plane.url).netloc]}]},
            ],
        }))  # fmt: skip
        url = f"http://127.0.0.1:{free_port()}"
        line = [program, f"--config.file={page}", f"--storage.tsdb.path={here / 'data'}",
                f"--web.listen-address={urlsplit(url).netloc}", "--log.level=warn"]  # fmt: skip
        with Running(line, here / "prometheus.log") as process:
            wanted = len(fleet.endpoints) + 1
            process.until(lambda: _has(url, "count(count_over_time(up[1m]) >= 6)", wanted), "six scrapes of each")
            process.until(lambda: _has(url, 'count(ALERTS{alertname="Watchdog"})', 1), "the watchdog is evaluated")
            recorded = "count(service_objective:failed_requests:ratio_rate3d)"
            process.until(lambda: _has(url, recorded, 1), "every share of failed requests is recorded")
            yield Watched(fleet.page, url)


def _has(url: str, query: str, at_least: float) -> bool:
    try:
        found = ask(f"{url}/api/v1/query?query={quote(query)}").json["data"]["result"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(found) and float(found[0]["value"][1]) >= at_least


@pytest.fixture(scope="module")
def clean(watched: Watched) -> tuple[int, dict[str, Any]]:
    return watched.lint()


def test_what_is_rendered_asks_for_nothing_that_is_not_there(clean: tuple[int, dict[str, Any]]) -> None:
    status, found = clean
    assert [f for f in found["findings"] if f["severity"] == "error"] == []
    assert [f for f in found["findings"] if f["severity"] == "warn" and f["rule"] not in QUIET] == []
    assert status == 0
    assert found["total"]["checks"] > 200
    assert found["total"]["score"] >= 90


def test_what_is_excused_is_said_by_name(clean: tuple[int, dict[str, Any]]) -> None:
    notes = [f for f in clean[1]["findings"] if f["severity"] == "note"]
    assert {f["rule"] for f in notes} <= EXCUSED
    quiet = [f["what"] for f in notes if f["rule"] in ("quiet-series", "quiet-value")]
    assert any("gpu_utilization" in what for what in quiet)
    assert all("`" in what for what in quiet)


def plant_in_rules(directory: Path, exprs: list[str]) -> list[str]:
    """Put each expression into an alert of its own; return the alerts."""
    planted: list[str] = []

    def put(found: re.Match[str]) -> str:
        if len(planted) == len(exprs) or found["name"] in planted:
            return found[0]
        planted.append(found["name"])
        return f"{found['head']}{json.dumps(exprs[len(planted) - 1])}\n"

    for file in sorted((directory / "alerts").rglob("*.yml")):
        text = file.read_text(encoding="utf-8")
        alert = r"(?P<head>- alert: (?P<name>\w+)\n +expr: )(?!\|)[^\n]+\n"
        file.write_text(re.sub(alert, put, text), encoding="utf-8")
    assert len(planted) == len(exprs)
    return planted


IN_RULES = [
    ("a misspelt series of ours", "controlplane_sginal_value > 5", "unknown-series", "controlplane_signal_value"),
    ("a misspelt series of the engine", 'rate(vllm:request_sucess_total{pool="primary"}[1m]) > 5', "unknown-series",
     "vllm:request_success_total"),
    ("a wrong value of a label", 'vllm:num_requests_running{pool="primry"} > 5', "no-such-value", "primary"),
    ("a wrong value of ours", 'controlplane_signal_value{signal="latncy_p99"} > 5', "unknown-value", "latency_p99"),
    ("a label there is not", 'vllm:num_requests_running{region="eu"} > 5', "no-such-value", "has the label `region`"),
    ("a pair of labels that never meet", 'vllm:num_requests_running{pool="standby", endpoint="primary-0"} > 5',
     "no-such-combination", "each matcher finds some"),
    ("a join without partners", "vllm:num_requests_running / on (instance) controlplane_ready > 5", "join-mismatch",
     "instance ("),
    ("a join on every label", "vllm:num_requests_running / controlplane_endpoint_up > 5", "join-mismatch", "on (...)"),
    ("many on both sides", "vllm:num_requests_running / on (job) up > 5", "refused", "duplicate series"),
    ("a function there is not", "rates(up[1m]) > 5", "refused", "unknown function"),
    ("broken grammar", "sum by (pool (up) > 5", "syntax", "should be"),
]  # fmt: skip


IN_RUNBOOKS = [
    ("a file there is not", "[gone](P7-nowhere.md)", "dead-link", "no such file"),
    ("a heading there is not", "[gone](#what-this-meens)", "dead-link", "#what-this-means"),
    ("an address that does not answer", "[gone](http://127.0.0.1:9/d/x)", "dead-link", "efused"),
    ("a dashboard there is not", "[gone](/d/controlplane-no-such-board)", "dead-link", "has the uid"),
    ("a query on nothing", "```promql\nno_such_series > 5\n```", "unknown-series", "never been seen"),
    ("an old proof", "**Proven on 2020-01-01:** detected to verified in 1 s.", "stale-proof", "days ago"),
]  # fmt: skip
PANELS = [
    ("Variable", 'vllm:num_requests_running{pool="$servce"}', "undefined-variable", "did it mean $service"),
    ("Series", "rate(vllm:num_request_running[1m])", "unknown-series", "did it mean vllm:num_requests_running"),
]


@dataclass(frozen=True, slots=True)
class Planted:
    """One run over files with every mistake in them."""

    status: int
    findings: list[dict[str, Any]]
    alerts: list[str]

    def told(self, rule: str, where: str = "") -> str:
        return "\n".join(
            f"{f['what']} {f['fix']}" for f in self.findings if f["rule"] == rule and f["where"].startswith(where)
        )


@pytest.fixture(scope="module")
def planted(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    directory = watched.copy(tmp_path_factory.mktemp("planted"))
    alerts = plant_in_rules(directory, [case[1] for case in IN_RULES])
    runbook = min((directory / "runbooks").glob("P0*.md"))
    text = runbook.read_text(encoding="utf-8").replace("<!-- notes:begin -->", "")
    mistakes = "\n\n".join(case[1] for case in IN_RUNBOOKS)
    runbook.write_text(re.sub(r"^\*\*Not proven.*$", lambda _: mistakes, text, flags=re.MULTILINE), encoding="utf-8")
    file = min((directory / "dashboards").rglob("*.json"))
    board = json.loads(file.read_text(encoding="utf-8"))
    board["panels"] += [
        {"type": "stat", "title": title, "targets": [{"refId": "A", "expr": expr}]} for title, expr, *_ in PANELS
    ]
    file.write_text(json.dumps(board), encoding="utf-8")
    status, found = watched.lint(directory)
    return Planted(status, [f for f in found["findings"] if f["severity"] == "error"], alerts)


@pytest.mark.parametrize(
    ("nth", "rule", "says"), [(n, *case[2:]) for n, case in enumerate(IN_RULES)], ids=[case[0] for case in IN_RULES]
)
def test_a_mistake_in_an_alert_is_found(planted: Planted, nth: int, rule: str, says: str) -> None:
    assert says in planted.told(rule, planted.alerts[nth])


@pytest.mark.parametrize(("rule", "says"), [c[2:] for c in IN_RUNBOOKS], ids=[case[0] for case in IN_RUNBOOKS])
def test_a_mistake_in_a_runbook_is_found(planted: Planted, rule: str, says: str) -> None:
    assert says in planted.told(rule)


@pytest.mark.parametrize(("title", "rule", "says"), [(c[0], *c[2:]) for c in PANELS])
def test_a_mistake_in_a_panel_is_found(planted: Planted, title: str, rule: str, says: str) -> None:
    assert says in planted.told(rule, f"panel {title}")


def test_a_runbook_whose_notes_would_be_lost_is_found(planted: Planted) -> None:
    assert "no place for people's notes" in planted.told("no-notes-place")


def test_nothing_is_found_but_what_was_planted(planted: Planted) -> None:
    where = {f["where"] for f in planted.findings if f["path"].startswith("alerts/")}
    assert where == set(planted.alerts)
    panels = {f["where"] for f in planted.findings if f["path"].startswith("dashboards/")}
    assert panels == {f"panel {title} A" for title, *_ in PANELS}
    assert len({f["path"] for f in planted.findings if f["path"].startswith("runbooks/")}) == 1
    assert planted.status == 1


def test_a_prometheus_that_is_not_there_is_an_error_with_a_way_out(watched: Watched) -> None:
    done = controlplane("lint", watched.page, "--live", "--prometheus", f"http://127.0.0.1:{free_port()}")
    assert done.status == 4
    assert "no Prometheus answers at" in done.err
    assert "--prometheus URL" in done.err
