"""Every alert has a unit test, and Xids, budgets and templates are what they are said to be."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.render.alerting.budgets import recorded
from controlplane.render.alerting.gpus import XID_CLASSES
from controlplane.render.alerting.groups import groups
from controlplane.render.alerting.proof import Wave, expand, values
from controlplane.render.alerting.rules import OUTRANKS, Severity
from controlplane.render.artefacts import render
from controlplane.signals.engines import FATAL_XIDS, VLLM
from controlplane.slo.burn import RULES
from tests.golden.cases import NAMES, policy


def written(name: str, ending: str) -> list[Any]:
    made = render(policy(name), (), "controlplane.yaml")
    return [yaml.safe_load(text) for path, text in made.items() if path.endswith(ending)]


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for page in written(name, ".rules.yml") for group in page["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_is_proven_to_fire_to_be_silent_and_to_resolve(name: str) -> None:
    fires: list[tuple[str, dict[str, str]]] = []
    silent: dict[str, int] = {}
    for page in written(name, ".tests.yml"):
        for test in page["tests"]:
            for check in test["alert_rule_test"]:
                for expected in check["exp_alerts"]:
                    told = expected["exp_annotations"].keys() - {"evaluated_at"}
                    assert told == {"summary", "description", "runbook_url", "dashboard_url"}
                    fires.append((check["alertname"], expected["exp_labels"]))
                silent[check["alertname"]] = silent.get(check["alertname"], 0) + (not check["exp_alerts"])
    alerts = [rule for rule in rules(name) if "alert" in rule]
    assert len(alerts) > 50
    unproven = [
        rule["alert"]
        for rule in alerts
        if not any(fired == rule["alert"] and rule["labels"].items() <= labels.items() for fired, labels in fires)
    ]
    assert unproven == []
    assert {rule["alert"] for rule in alerts if silent[rule["alert"]] < 2} == {"Watchdog"}


def test_every_fatal_xid_has_one_thing_to_be_done_about_it() -> None:
    fatal = [xid for kind in XID_CLASSES if kind.severity is not Severity.INFO for xid in kind.xids]
    assert sorted(fatal) == sorted(FATAL_XIDS)
    harmless = {xid for kind in XID_CLASSES if kind.severity is Severity.INFO for xid in kind.xids}
    assert harmless.isdisjoint(FATAL_XIDS)


def test_xids_are_told_by_their_counter_and_the_gauge_only_where_it_has_changed() -> None:
    by_name = {rule["alert"]: rule["expr"] for rule in rules("full") if "alert" in rule}
    for kind in XID_CLASSES:
        assert "DCGM_EXP_XID_ERRORS_COUNT" in by_name[kind.alert]
        assert "DCGM_FI_DEV_XID_ERRORS" not in by_name[kind.alert]
    last = by_name["GpuXidFatal"]
    assert "changes(DCGM_FI_DEV_XID_ERRORS" in last
    assert "unless on (UUID)\nDCGM_EXP_XID_ERRORS_COUNT" in last
    assert [rule for rule, expr in by_name.items() if "DCGM_FI_DEV_XID_ERRORS" in expr] == ["GpuXidFatal"]


def test_burn_rates_are_recorded_before_they_are_read_and_the_budget_is_the_policys() -> None:
    (group,) = (g for g in groups(policy("kubernetes")) if g.name == "controlplane-budget")
    records = {record.name for record in group.records}
    read = {name for alert in group.alerts for name in re.findall(r"service_objective:\w+:\w+", alert.expr)}
    assert read == records == {recorded(window) for rule in RULES for window in (rule.long, rule.short)}
    fast = next(alert for alert in group.alerts if alert.name == "ErrorBudgetBurnsFast")
    # 2% of the budget of 7 d at 99.9% in an hour: 0.02 x 168 x 0.001.
    assert "ratio_rate1h" in fast.expr
    assert "> 0.00336\n" in fast.expr
    (page,) = written("kubernetes", ".rules.yml")
    budget = next(g for g in page["groups"] if g["name"] == "controlplane-budget")
    kinds = ["record" if "record" in rule else "alert" for rule in budget["rules"]]
    assert kinds == sorted(kinds, reverse=True)


def test_only_alerts_of_a_row_outrank_others() -> None:
    for rule in rules("full"):
        if "alert" in rule and OUTRANKS in rule["labels"]:
            assert rule["labels"]["level"] != "none", rule["alert"]
            assert "ControlPlane" not in rule["alert"]


@pytest.mark.parametrize(
    ("template", "value", "said"),
    [
        ("{{ $value }}", 3.0, "3"),
        ("{{ $value }}", 0.25, "0.25"),
        ("{{ $value | humanize }}", 1234567.0, "1.235M"),
        ("{{ $value | humanize }}", 0.0042, "4.2m"),
        ("{{ $value | humanizePercentage }}", 0.12345, "12.35%"),
        ("{{ $value | humanizeDuration }}", 0.5, "500ms"),
        ("{{ $value | humanizeDuration }}", 61.0, "1m 1s"),
        ("{{ $value | humanizeDuration }}", 3600 * 49 + 5.0, "2d 1h 0m 5s"),
        ("{{ $value | humanizeDuration }}", 0.0, "0s"),
        ('a {{ "{{" }} .Labels }} of {{ $labels.pool }}{{ $labels.none }}', 1.0, "a {{ .Labels }} of primary"),
    ],
)
def test_templates_are_read_as_prometheus_reads_them(template: str, value: float, said: str) -> None:
    assert expand(template, {"pool": "primary"}, value) == said


def test_a_wave_is_written_in_promtools_notation() -> None:
    assert values(Wave("s", 2, well=1), (3, 4, 2)) == "1x2 2x3 1x1"
    assert values(Wave("s", None, well=1), (3, 4, 2)) == "1x2 stale _x3 1x1"
    assert values(Wave("s", 1), (3, 4, 2)) == "_x3 1x3 stale _x1"
    assert values(Wave("s", 5, well=1, grows=True), (3, 4, 2)) == "0+1x2 3+5x3 23+1x1"


def test_windows_of_the_engines_hold_enough_scrapes() -> None:
    by_name = {rule["alert"]: rule["expr"] for rule in rules("kubernetes") if "alert" in rule}
    assert policy("kubernetes").publish.scrape == timedelta(seconds=15)
    assert "[1m]" in by_name["EngineLatencyP99Breach"]  # 30 s would hold two.


PAGES = Path(__file__).parents[3] / "pages"
EXPORTED_BY_DCGM = {
    "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ROW_REMAP_FAILURE",  # its default list
    "DCGM_EXP_XID_ERRORS_COUNT", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",  # known to it, and wanting a line in the list
}  # fmt: skip


def test_every_series_of_the_engine_and_of_dcgm_is_one_they_export() -> None:
    exprs = "\n".join(rule["expr"] for rule in rules("full"))
    captured = "\n".join(page.read_text() for page in PAGES.glob("vllm*.prom"))
    asked = {
        name
        for name in re.findall(r"(vllm:\w+|http_requests_total)", exprs)
        if re.sub(r"_(bucket|count)$", "", name) not in VLLM.renamed
    }
    assert len(asked) > 5
    assert {name for name in asked if not re.search(rf"^{name}\{{", captured, re.MULTILINE)} == set()
    assert set(re.findall(r"DCGM_\w+", exprs)) == EXPORTED_BY_DCGM
