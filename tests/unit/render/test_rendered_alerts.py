"""The rules say what the policy says, and everything they lead to exists."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from controlplane.telemetry import Metrics
from tests.golden.cases import DRILLS, HOSTILE, NAMES, hostile_policy, policy


def rules(of: Policy) -> list[dict[str, Any]]:
    made = render(of, DRILLS, "controlplane.yaml")
    (text,) = (text for path, text in made.items() if path.endswith(".rules.yml"))
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule]


def named(of: Policy, name: str) -> dict[str, Any]:
    return next(rule for rule in rules(of) if rule["alert"] == name)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_severity_level_runbook_and_summary(name: str) -> None:
    for rule in rules(policy(name)):
        assert rule["labels"]["severity"] in ("critical", "warning", "info", "none")
        assert rule["labels"]["level"] in ("none", "P0", "P1", "P2")
        assert rule["labels"]["service"] == policy(name).service
        assert rule["annotations"].keys() >= {"summary", "description", "runbook_url", "dashboard_url"}


@pytest.mark.parametrize("name", NAMES)
def test_every_runbook_an_alert_leads_to_is_rendered_with_its_heading(name: str) -> None:
    made = render(policy(name), DRILLS, "controlplane.yaml")
    for rule in rules(policy(name)):
        url = rule["annotations"]["runbook_url"]
        assert url.startswith(policy(name).publish.runbooks)
        path, _, anchor = url.removeprefix(policy(name).publish.runbooks).partition("#")
        headings = re.findall(r"^#+ (.+)$", made[path], re.MULTILINE)
        assert not anchor or anchor in [heading.lower() for heading in headings], rule["alert"]


def test_a_threshold_becomes_a_breach_and_a_warning_with_its_time() -> None:
    breach, warn = named(policy("full"), "QueueDepthBreach"), named(policy("full"), "QueueDepthWarn")
    assert breach["expr"].endswith('signal="queue_depth"} >= 100')
    assert warn["expr"].endswith('signal="queue_depth"} >= 50')
    assert breach["for"] == "5s"


def test_a_signal_that_gets_worse_downwards_is_compared_downwards() -> None:
    assert named(policy("full"), "AvailabilityBreach")["expr"].endswith("<= 0.9")


def test_the_engine_quantile_merges_buckets_and_asks_for_enough_samples() -> None:
    expr = named(policy("full"), "EngineLatencyP99Breach")["expr"]
    assert "histogram_quantile(0.99, sum by (service, pool, le) (rate(" in expr
    assert expr.endswith("[30s])) >= 50")


def test_there_is_one_alert_for_each_armed_row() -> None:
    levels = [rule["labels"]["level"] for rule in rules(policy("full")) if rule["alert"] == "DegradationEngaged"]
    assert levels == ["P0", "P1", "P2"]


def test_a_fleet_that_cannot_be_drilled_has_no_drill_alerts() -> None:
    assert not [rule for rule in rules(policy("minimal")) if rule["alert"].startswith("Drill")]


def test_a_busy_machine_alone_wakes_nobody() -> None:
    assert named(policy("full"), "GpuUtilizationBreach")["labels"]["severity"] == "warning"


def test_a_hostile_service_name_stays_one_label_value() -> None:
    for rule in rules(hostile_policy()):
        assert rule["labels"]["service"] == HOSTILE.replace("{{", '{{ "{{" }}')


@pytest.mark.parametrize("name", NAMES)
def test_every_series_of_ours_is_exposed_with_the_labels_that_are_asked_for(name: str) -> None:
    exposed: dict[str, set[str]] = {}
    for metric in Metrics().collectors():
        for family in metric.describe():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            named = metric if isinstance(metric, MetricWrapperBase) else family
            exposed |= {family.name + suffix: set(vars(named)["_labelnames"]) for suffix in suffixes}
    for path, text in render(policy(name), DRILLS, "controlplane.yaml").items():
        # What a history abbreviates ends in an ellipsis and names nothing whole.
        plain = re.sub(r"\w+(?:\\u2026|…)", "", text).replace('\\"', '"')
        for series, labels in re.findall(r"\b(controlplane_[a-z_]+)(\{[^}]*\})?", plain):
            assert series in exposed, f"{path} asks for {series}"
            asked = set(re.findall(r"(\w+)[=!]~?\"", labels))
            assert asked <= exposed[series] | {"le", "instance"}, f"{path}: {series}{labels}"
