"""What the Prometheus operator is given is what its own definitions allow, whatever the names are."""

from dataclasses import replace

import pytest
import yaml

from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from tests.golden.cases import NAMES, hostile_policy, policy
from tests.support.kube import invalid

ALL = pytest.mark.parametrize("of", [*map(policy, NAMES), hostile_policy()], ids=[*NAMES, "hostile"])


@ALL
def test_objects_for_the_operator_are_valid_and_their_rules_are_the_same(of: Policy) -> None:
    made = render(of, (), "a.yaml")
    found = {path: yaml.safe_load(text) for path, text in made.items() if path.startswith("alerts/operator/")}
    kustomization = found.pop("alerts/operator/kustomization.yaml")
    assert [f"alerts/operator/{name}" for name in sorted(kustomization["resources"])] == sorted(found)
    objects = list(found.values())
    assert sorted(one["kind"] for one in objects) == ["PrometheusRule", "ServiceMonitor", "ServiceMonitor"]
    for found in objects:
        assert invalid(f"{found['kind'].lower()}s", found) == ""
        assert len(found["metadata"]["name"]) <= 63
    (plain,) = (yaml.safe_load(text) for path, text in made.items() if path.endswith(".rules.yml"))
    (rule,) = (found for found in objects if found["kind"] == "PrometheusRule")
    assert rule["spec"]["groups"] == plain["groups"]


def test_an_object_that_is_wrong_is_found_out() -> None:
    (text,) = (t for p, t in render(policy("full"), (), "a.yaml").items() if p.endswith("prometheusrule.yaml"))
    found = yaml.safe_load(text)
    found["spec"]["groups"][0]["rules"][0]["fro"] = "5m"
    assert "fro" in invalid("prometheusrules", found)


def test_prometheus_scrapes_lists_where_they_lie_and_addresses_by_scheme_and_path() -> None:
    full = policy("full")
    base = replace(full.fleet.pools["base"].endpoints, static=("https://a:1/x/", "http://b:2", "http://c:3"))
    pools = {**full.fleet.pools, "base": replace(full.fleet.pools["base"], endpoints=base)}
    of = replace(full, fleet=replace(full.fleet, pools=pools), alertmanager="http://am:9093/prefix")
    page = yaml.safe_load(render(of, (), "a.yaml")["alerts/prometheus.yml"])
    jobs = {job["job_name"]: job for job in page["scrape_configs"]}
    assert jobs["fleet-primary"]["file_sd_configs"] == [{"files": ["../run/sd/primary.json"]}]
    assert jobs["fleet-base"]["static_configs"][0] == {
        "targets": ["b:2", "c:3"], "labels": {"pool": "base", "service": "deepseek-chat"},
    }  # fmt: skip
    assert (jobs["fleet-base-1"]["scheme"], jobs["fleet-base-1"]["metrics_path"]) == ("https", "/x/metrics")
    assert page["alerting"]["alertmanagers"][0]["path_prefix"] == "/prefix"
    assert page["rule_files"] == ["deepseek-chat.rules.yml"]
