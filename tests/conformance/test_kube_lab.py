"""The laboratory itself: a real API server on which pods are ready, go away, are protected and are validated."""

from pathlib import Path

import pytest

from tests.support.kube import definitions
from tests.support.kube_lab.hollow import Hollow, Kubelets
from tests.support.kube_lab.lab import Lab
from tests.support.processes import until

pytestmark = pytest.mark.journey


def pods(hollow: Hollow, namespace: str) -> dict[str, str]:
    listed = hollow.admin.must("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {p["metadata"]["name"]: p["status"].get("podIP", "") for p in listed}


def test_a_hollow_pod_is_ready_behind_its_service_until_it_is_deleted(hollow: Hollow, namespace: str) -> None:
    service = {"metadata": {"name": "engine"}, "spec": {"selector": {"app": "engine"}, "ports": [{"port": 8000}]}}
    hollow.admin.must("POST", f"/api/v1/namespaces/{namespace}/services", service)
    hollow.node("lab-a", zone="eu-1", gpus=8)
    hollow.pod(namespace, "engine-0", "lab-a", ip="198.18.0.1", gpus=1)
    slices = f"/apis/discovery.k8s.io/v1beta1/namespaces/{namespace}/endpointslices"

    def addresses() -> list[str]:
        found = hollow.admin.must("GET", slices)["items"]
        return [a for s in found for e in s["endpoints"] or () if e["conditions"]["ready"] for a in e["addresses"]]

    until(lambda: addresses() == ["198.18.0.1"], what="the endpoint is there")
    hollow.delete(namespace, "engine-0")
    until(lambda: addresses() == [], what="the endpoint is gone")


def test_kubelets_run_what_is_bound_and_a_budget_protects_it(hollow: Hollow, namespace: str) -> None:
    hollow.node("lab-b")
    for name in ("engine-0", "engine-1"):
        hollow.pod(namespace, name, "lab-b", ready=False, grace_s=30)
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "engine"}}}}
    with Kubelets(hollow.admin):
        until(lambda: all(pods(hollow, namespace).values()), what="both have an address")
        hollow.admin.must("POST", f"/apis/policy/v1beta1/namespaces/{namespace}/poddisruptionbudgets", budget)
        eviction = {"kind": "Eviction", "metadata": {"name": "engine-0", "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/pods/engine-0"
        refused = until(lambda: hollow.admin.ask("POST", f"{path}/eviction", eviction), what="an answer")
        assert refused[0] == 429
        hollow.admin.must("DELETE", path)
        until(lambda: set(pods(hollow, namespace)) == {"engine-1"}, what="the deleted pod is gone")


def test_the_crd_server_is_strict(kube_crds: Lab) -> None:
    (route,) = (d for d in definitions() if d["spec"]["names"]["plural"] == "httproutes")
    kube_crds.admin.install(route)
    wrong = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {"rulez": []}}  # fmt: skip # noqa: E501
    at = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes?dryRun=All&fieldValidation=Strict"
    status, answer = kube_crds.admin.ask("POST", at, wrong)
    assert status == 400
    assert 'unknown field "spec.rulez"' in answer["message"]


def test_kubeconfigs_are_for_their_owner_alone(kube_api: Path) -> None:
    assert kube_api.stat().st_mode & 0o077 == 0
