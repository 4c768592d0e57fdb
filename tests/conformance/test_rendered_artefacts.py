"""What is rendered is taken by the tools that read it: promtool, bash and jq really run."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.policy.load import load
from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from tests.golden.cases import DRILLS, hostile_policy, policy
from tests.support.dashboards import dashboards, filled
from tests.support.dashboards import queries as dashboard_queries
from tests.support.runbook_pages import blocks, queries

prometheus = pytest.mark.debian("prometheus")

POLICIES = pytest.mark.parametrize(
    "of", [policy("minimal"), policy("full"), hostile_policy()], ids=["minimal", "full", "hostile"]
)

GRAFANA = {"__rate_interval": "1m", "__interval": "5s", "__range": "1h", "service": "x", "pool": ".+", "endpoint": ".+",
           "gpu_pool": ".+", "experiment": ".+", "instance": "127\\\\.0\\\\.0\\\\.1:8600"}  # fmt: skip
"""What Grafana puts in place of its variables."""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def promtool(*args: str) -> str:
    done = subprocess.run([tool("promtool"), *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rule_file(of: Policy, folder: Path) -> Path:
    (text,) = (text for path, text in render(of, DRILLS, "a.yaml").items() if path.endswith(".rules.yml"))
    file = folder / "service.rules.yml"
    file.write_text(text, encoding="utf-8")
    return file


def parses(exprs: list[str], folder: Path) -> None:
    file = folder / "exprs.yml"
    rules = [{"record": f"r:{i}", "expr": expr} for i, expr in enumerate(exprs)]
    file.write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}, ensure_ascii=False), encoding="utf-8")
    promtool("check", "rules", "--lint=none", str(file))


@prometheus
@POLICIES
def test_prometheus_takes_the_rules(of: Policy, tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(rule_file(of, tmp_path)))


@prometheus
@POLICIES
def test_every_panel_and_mark_asks_something_prometheus_understands(of: Policy, tmp_path: Path) -> None:
    asked = [filled(query.expr, GRAFANA) for made in dashboards(of).values() for query in dashboard_queries(made)]
    parses(asked, tmp_path)
    assert len(asked) > 150


@prometheus
@POLICIES
def test_every_query_on_a_runbook_is_one_prometheus_understands(of: Policy, tmp_path: Path) -> None:
    asked: list[str] = []
    for path, page in render(of, DRILLS, "a.yaml").items():
        if path.endswith(".md"):
            asked += queries(page)
    assert len(asked) > 100
    parses(list(dict.fromkeys(asked)), tmp_path)


@POLICIES
def test_every_command_on_a_runbook_is_one_bash_understands(of: Policy) -> None:
    bash = tool("bash")
    pages = {path: page for path, page in render(of, DRILLS, "a.yaml").items() if path.endswith(".md")}
    distinct = {block.text: path for path, page in pages.items() for block in blocks(page, "sh")}
    assert len(distinct) > 30
    for text, path in distinct.items():
        done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"{path}: {done.stderr}\n{text}"


@pytest.mark.debian("jq")
def test_the_route_file_that_is_rewritten_by_hand_moves_all_traffic_and_sets_the_level(tmp_path: Path) -> None:
    before = {
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "virtual_hosts": [{"routes": [{"route": {"weighted_clusters": {"clusters": [
                {"name": "primary", "weight": 100}, {"name": "standby", "weight": 0}, {"name": "base"},
            ]}}}]}],
            "response_headers_to_add": [{"header": {"key": "x-degradation-level", "value": "none"}}],
        }]
    }  # fmt: skip
    tool("jq")
    after = json.loads(_by_hand("Move the traffic", json.dumps(before), tmp_path))
    (resource,) = after["resources"]
    clusters = resource["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert {c["name"]: c["weight"] for c in clusters} == {"primary": 0, "standby": 100, "base": 0}
    assert resource["response_headers_to_add"][0]["header"]["value"] == "P0"
    assert json.loads(_by_hand("Give the traffic back", json.dumps(after), tmp_path)) == {
        "resources": [before["resources"][0] | {"virtual_hosts": [
            {"routes": [{"route": {"weighted_clusters": {"clusters": [
                {"name": "primary", "weight": 100}, {"name": "standby", "weight": 0}, {"name": "base", "weight": 0},
            ]}}}]}
        ]}]
    }  # fmt: skip


def _by_hand(step: str, routes: str, folder: Path) -> str:
    """Do one manual step of the P0 page on a route file; return the file afterwards."""
    page = render(policy("full"), (), "a.yaml")["runbooks/P0-switch-to-standby.md"]
    command = page.split(f"{step}\n")[1].split("```sh\n")[1].split("```")[0]
    rds = folder / "rds.json"
    rds.write_text(routes, encoding="utf-8")
    subprocess.run(
        [tool("bash"), "-euc", command], env={"RDS": str(rds), "PATH": "/usr/bin:/bin"}, check=True, timeout=10
    )
    assert (folder / "rds.json.before").read_text(encoding="utf-8") == routes
    return rds.read_text(encoding="utf-8")


SERVICE = 'service="deepseek-chat"'
BUCKET = 'vllm:e2e_request_latency_seconds_bucket{pool="primary", instance="%s", le="%s"}'
SCENARIOS: list[dict[str, Any]] = [
    {
        "alert": "LatencyP99Breach", "at": "20s", "level": "P1",
        "series": {f'controlplane_signal_value{{{SERVICE}, pool="primary", signal="latency_p99"}}': "0.4 2.5x10"},
    },
    {
        "alert": "LatencyP99Breach", "at": "20s", "level": "",
        "series": {f'controlplane_signal_value{{{SERVICE}, pool="primary", signal="latency_p99"}}': "1.9x10"},
    },
    {
        "alert": "EngineLatencyP99Breach", "at": "50s", "level": "P1",
        "series": {
            BUCKET % ("a", "1.0"): "0+20x20", BUCKET % ("a", "5.0"): "0+30x20", BUCKET % ("a", "+Inf"): "0+30x20",
            BUCKET % ("b", "1.0"): "0+20x20", BUCKET % ("b", "5.0"): "0+20x20", BUCKET % ("b", "+Inf"): "0+20x20",
            'vllm:e2e_request_latency_seconds_count{pool="primary", instance="a"}': "0+30x20",
            'vllm:e2e_request_latency_seconds_count{pool="primary", instance="b"}': "0+20x20",
        },
    },
    {  # the same share of slow requests, and too few of them to say anything
        "alert": "EngineLatencyP99Breach", "at": "50s", "level": "",
        "series": {
            BUCKET % ("a", "1.0"): "0+1x20", BUCKET % ("a", "5.0"): "0+2x20", BUCKET % ("a", "+Inf"): "0+2x20",
            'vllm:e2e_request_latency_seconds_count{pool="primary", instance="a"}': "0+2x20",
        },
    },
    {  # the first switch ever: the series is born with its first observation
        "alert": "ObjectiveMissed", "at": "40s", "level": "P0", "row": "P0",
        "series": {
            f'controlplane_switch_seconds_sum{{{SERVICE}, row="P0", phase="verified"}}': "_x4 200x10",
            f'controlplane_switch_seconds_count{{{SERVICE}, row="P0", phase="verified"}}': "_x4 1x10",
            f'controlplane_row_objective_seconds{{{SERVICE}, row="P0"}}': "180x20",
        },
    },
    {  # a later one, that took 10 s
        "alert": "ObjectiveMissed", "at": "2h", "level": "",
        "series": {
            f'controlplane_switch_seconds_sum{{{SERVICE}, row="P0", phase="verified"}}': "200x1300 210x500",
            f'controlplane_switch_seconds_count{{{SERVICE}, row="P0", phase="verified"}}': "1x1300 2x500",
            f'controlplane_row_objective_seconds{{{SERVICE}, row="P0"}}': "180x1800",
        },
    },
    {
        "alert": "ControlPlaneDown", "at": "1m", "level": "P0",
        "series": {'controlplane_level{service="another", level="none"}': "1x20"},
    },
    {
        "alert": "ControlPlaneDown", "at": "1m", "level": "",
        "series": {f'controlplane_level{{{SERVICE}, level="none"}}': "0x20"},
    },
    {
        "alert": "DrillFailed", "at": "2m", "level": "none",
        "series": {'controlplane_drills_total{experiment="node-kill", outcome="failed"}': "_x4 1x40"},
    },
    {"alert": "Watchdog", "at": "10s", "level": "none", "series": {}},
]  # fmt: skip


@prometheus
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s['alert']}-{'fires' if s['level'] else 'silent'}")
def test_an_alert_fires_when_it_should_and_only_then(scenario: dict[str, Any], tmp_path: Path) -> None:
    rules = rule_file(policy("full"), tmp_path)
    page = {
        "rule_files": [str(rules)],
        "evaluation_interval": "5s",
        "tests": [{
            "interval": "5s",
            "input_series": [{"series": k, "values": v} for k, v in scenario["series"].items()],
            "promql_expr_test": [{
                "expr": f'count(ALERTS{{alertname="{scenario["alert"]}", alertstate="firing"}}) or vector(0)',
                "eval_time": scenario["at"],
                "exp_samples": [{"labels": "{}", "value": 1 if scenario["level"] else 0}],
            }],
        }],
    }  # fmt: skip
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(page), encoding="utf-8")
    promtool("test", "rules", str(file))


def test_the_example_page_arms_every_row_and_can_be_drilled() -> None:
    page = load(Path(__file__).parents[2] / "controlplane.yaml").policy
    assert sorted(page.degradation.rows) == ["P0", "P1", "P2"]
    assert page.fleet.substrate
    assert "runbooks/P0-switch-to-standby.md" in render(page, (), "controlplane.yaml")
