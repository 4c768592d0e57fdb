"""Where pools are listed, as the page says it: read with its defaults, or refused where it stands."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from controlplane.errors import PolicyError, Problem
from controlplane.fleet.model import EndpointSource, KubernetesEndpoints, PrometheusEndpoints, Scheme
from controlplane.policy.load import Loaded, loads

PAGE = """service: chat
fleet:
  pools:
    primary:
      endpoints:
        {}
"""


def loaded(endpoints: str) -> Loaded:
    return loads(PAGE.format(endpoints), Path("controlplane.yaml"))


def source(endpoints: str) -> EndpointSource:
    return loaded(endpoints).policy.fleet.pools["primary"].endpoints


def problems(endpoints: str) -> tuple[Problem, ...]:
    with pytest.raises(PolicyError) as refused:
        loaded(endpoints)
    return refused.value.problems


def test_a_pool_of_kubernetes_is_read() -> None:
    where = "context: eu-west-1, namespace: llm, selector: 'app=vllm,tier in (gold)', port: 8000, scheme: https"
    assert source(f"kubernetes: {{ {where} }}").kubernetes == KubernetesEndpoints(
        selector="app=vllm,tier in (gold)", namespace="llm", port=8000, scheme=Scheme.HTTPS, context="eu-west-1"
    )


@pytest.mark.parametrize("way", ["selector: app=vllm", "service: chat", "inference_pool: chat"])
def test_what_it_leaves_out_is_in_force_and_shown(way: str) -> None:
    found = loaded(f"kubernetes: {{ {way} }}")
    spec = found.policy.fleet.pools["primary"].endpoints.kubernetes
    assert spec is not None
    assert (spec.namespace, spec.port, spec.scheme) == ("default", 0, Scheme.HTTP)
    shown = found.resolved["fleet"]["pools"]["primary"]["endpoints"]["kubernetes"]
    assert (shown["namespace"], shown["port"], shown["scheme"]) == ("default", 0, "http")
    assert "scheme: http\n" in yaml.safe_dump(found.resolved), "`controlplane check` prints it so"


def test_a_pool_of_prometheus_is_read() -> None:
    assert source("prometheus: { url: 'http://prom:9090', job: vllm, every: 10s }").prometheus == PrometheusEndpoints(
        "http://prom:9090", job="vllm", every=timedelta(seconds=10)
    )


@pytest.mark.parametrize(
    ("endpoints", "what", "fix"),
    [
        ("kubernetes: {}", "needs exactly one of `selector`, `service` and `inference_pool`", "selector"),
        ("kubernetes: { selector: a=b, service: c }", "needs exactly one of `selector`, `service`", "selector"),
        ("kubernetes: { selector: 'a=b c' }", "`a=b c` is no label selector", "app=vllm"),
        ("kubernetes: { service: llm/chat }", "`llm/chat` is no name of Kubernetes", "namespace has a key of its own"),
        ("kubernetes: { selector: a=b, port: 70000 }", "`70000` is no port", "leave it out"),
        ("kubernetes: { selector: a=b, port: http }", "is `http`", "a whole number"),
        ("kubernetes: { selector: a=b, scheme: ftp }", "scheme: ftp` is not usable", "one of: http, https"),
        (
            "kubernetes: { selektor: a=b }",
            "unknown key `fleet.pools.primary.endpoints.kubernetes.selektor`",
            "`selector`?",
        ),
        ("prometheus: { job: a }", "url` is missing", "add `url:`"),
        ("prometheus: { url: 'http://prom' }", "needs exactly one of `job` and `query`", "job: vllm"),
        ("prometheus: { url: prom, job: a }", "is no URL", "http://prom"),
        ("prometheus: { url: 'http://p', job: a, every: 0s }", "is not positive", "5s"),
        ("{ file: a, kubernetes: { selector: a=b } }", "needs exactly one of `static`, `file`", "kubernetes"),
        ("kuberntes: { selector: a=b }", "unknown key `fleet.pools.primary.endpoints.kuberntes`", "`kubernetes`?"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands_with_the_way_out(endpoints: str, what: str, fix: str) -> None:
    found = [p for p in problems(endpoints) if what in p.what]
    assert found, problems(endpoints)
    assert fix in found[0].fix
    assert found[0].where in ("controlplane.yaml:5", "controlplane.yaml:6")
