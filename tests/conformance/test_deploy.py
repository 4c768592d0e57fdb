"""What is deployed is taken by real API servers, and the account that it makes may do its work and nothing else."""

import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.kube import definitions
from tests.support.kube_lab.api import Admin
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab
from tests.support.manifests import (
    COMPONENTS,
    KUSTOMIZE,
    OVERLAYS,
    Object,
    built,
    collection,
    component,
    kubectl,
    lost,
    of_kind,
)
from tests.support.processes import until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not kubectl(), reason="kubectl is not there: see tests/support/kube_lab/get_kubectl.sh"),
]

Right = tuple[str, str, str]

ACCOUNT = "controlplane:controlplane"
OURS, FLEET, STRANGERS = "controlplane", "inference", "strangers"
NAMES = ("controlplane", "another", "inference")
UNKNOWN_TO_1_20 = {".spec.minReadySeconds"}
"""Fields of a StatefulSet that are newer than the server here, which drops them."""

NEVER = (
    ("get", "secrets", OURS), ("get", "secrets", FLEET), ("list", "secrets", ""), ("create", "pods/exec", FLEET),
    ("create", "pods", FLEET), ("create", "pods/ephemeralcontainers", FLEET), ("delete", "nodes", ""),
    ("create", "serviceaccounts/token", OURS), ("impersonate", "users", ""), ("delete", "namespaces", ""),
    ("create", "rolebindings.rbac.authorization.k8s.io", FLEET), ("delete", "deployments.apps", FLEET),
    ("patch", "deployments.apps", FLEET), ("patch", "httproutes.gateway.networking.k8s.io", STRANGERS),
    ("get", "pods", STRANGERS), ("delete", "pods", STRANGERS), ("delete", "pods", OURS),
    ("delete", "pods", "kube-system"),
    ("create", "jobs.batch", OURS), ("update", "leases.coordination.k8s.io", "kube-system"),
)  # fmt: skip
"""What no component allows, nor all of them together."""
MAY = {
    "read-only": (
        ("watch", "pods", FLEET), ("list", "events", FLEET), ("watch", "endpointslices.discovery.k8s.io", FLEET),
        ("list", "inferencepools.inference.networking.k8s.io", FLEET), ("watch", "nodes", ""),
    ),
    "actuate": (
        ("patch", "httproutes.gateway.networking.k8s.io", FLEET),
        ("patch", "virtualservices.networking.istio.io", FLEET),
        ("patch", "deployments.apps/scale", FLEET), ("patch", "statefulsets.apps/scale", FLEET),
        ("create", "inferencemodelrewrites.llm-d.ai", FLEET), ("patch", "horizontalpodautoscalers.autoscaling", FLEET),
    ),
    "cordon": (("get", "nodes", ""), ("patch", "nodes", "")),
    "chaos": (
        ("get", "namespaces/inference", FLEET), ("delete", "pods", FLEET), ("patch", "pods", FLEET),
        ("create", "pods/eviction", FLEET), ("create", "networkpolicies.networking.k8s.io", FLEET),
        ("create", "leases.coordination.k8s.io", FLEET), ("delete", "networkchaos.chaos-mesh.org", FLEET),
        ("list", "jobs.batch", FLEET),
    ),
    "chaos-burner": (("create", "jobs.batch", FLEET),),
    "chaos-nodes": (("patch", "nodes", ""), ("list", "nodes", "")),
    "leader": (
        ("get", "leases.coordination.k8s.io/controlplane", OURS),
        ("update", "leases.coordination.k8s.io/controlplane", OURS),
    ),
}  # fmt: skip
MAY_NOT = {
    "read-only": (("patch", "pods", FLEET), ("patch", "nodes", "")),
    "actuate": (
        ("create", "httproutes.gateway.networking.k8s.io", FLEET),
        ("delete", "httproutes.gateway.networking.k8s.io", FLEET),
        ("delete", "pods", FLEET), ("update", "deployments.apps/scale", FLEET), ("patch", "nodes", ""),
    ),
    "cordon": (("list", "nodes", ""), ("delete", "pods", FLEET), ("patch", "nodes/status", "")),
    "chaos": (
        ("create", "jobs.batch", FLEET), ("patch", "nodes", ""), ("list", "nodes", ""), ("list", "namespaces", ""),
        ("update", "namespaces/inference", FLEET), ("patch", "httproutes.gateway.networking.k8s.io", FLEET),
        ("update", "leases.coordination.k8s.io/controlplane", OURS), ("list", "pods", ""),
    ),
    "chaos-burner": (("delete", "pods", FLEET), ("create", "deployments.apps", FLEET)),
    "chaos-nodes": (("delete", "pods", FLEET), ("update", "nodes", ""), ("patch", "nodes/status", "")),
    "leader": (
        ("update", "leases.coordination.k8s.io/another", OURS), ("create", "leases.coordination.k8s.io", OURS),
        ("list", "leases.coordination.k8s.io", OURS), ("get", "leases.coordination.k8s.io/controlplane", FLEET),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return built(KUSTOMIZE / "overlays" / request.param)


@pytest.fixture(scope="module")
def cluster(kube_lab: Lab) -> Iterator[Admin]:
    """An API server that has the namespaces, and nothing of ours in them."""
    hollow = Hollow(kube_lab.admin)
    for name in (OURS, FLEET, STRANGERS):
        hollow.namespace(name)
    yield kube_lab.admin
    for name in (OURS, FLEET, STRANGERS):
        kube_lab.admin.must("DELETE", f"/api/v1/namespaces/{name}")


def may(admin: Admin, verb: str, what: str, namespace: str) -> bool:
    """Ask the authorizer; `what` is `RESOURCE[.GROUP][/PART]`, where a part is a subresource or one of `NAMES`."""
    kind, _, part = what.partition("/")
    resource, _, group = kind.partition(".")
    asked = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    asked["name" if part in NAMES else "subresource"] = part
    return admin.allows(ACCOUNT, asked)


@contextmanager
def granted(admin: Admin, roles: list[Object], rights: Collection[Right]) -> Iterator[None]:
    """Give the account its roles; the authorizer knows of them from the first line inside to the last."""
    try:
        for found in roles:
            admin.must("POST", collection(found), found)
        until(lambda: all(may(admin, *one) for one in rights), what="it is allowed what it needs")
        yield
    finally:
        for found in roles:
            with suppress(AssertionError):
                admin.must("DELETE", f"{collection(found)}/{found['metadata']['name']}")
    until(lambda: not any(may(admin, *one) for one in rights), what="it is taken back")


def test_the_api_server_takes_every_object_and_keeps_every_field(cluster: Admin, objects: list[Object]) -> None:
    took = 0
    for found in objects:
        if found["apiVersion"].startswith("monitoring.coreos.com/") or found["kind"] == "Namespace":
            continue
        sent = {**found, "apiVersion": found["apiVersion"].replace("policy/v1", "policy/v1beta1")}  # As 1.20 calls it.
        status, kept = cluster.ask("POST", f"{collection(sent)}?dryRun=All", sent)
        name = f"{found['kind']} {found['metadata']['name']}"
        assert status == 201, f"{name}: {kept}"
        assert set(lost(sent, kept)) <= UNKNOWN_TO_1_20, name
        took += 1
    assert took >= 15


def test_the_operators_kinds_are_valid_strictly(kube_crds: Lab, objects: list[Object]) -> None:
    for definition in definitions():
        if definition["spec"]["group"] == "monitoring.coreos.com":
            kube_crds.admin.install(definition)
    theirs = [found for found in objects if found["apiVersion"].startswith("monitoring.coreos.com/")]
    assert sorted(found["kind"] for found in theirs) == ["PrometheusRule", "ServiceMonitor", "ServiceMonitor"]
    for found in theirs:
        path = f"{collection(found)}?dryRun=All&fieldValidation=Strict"
        status, answer = kube_crds.admin.ask("POST", path, found)
        assert status == 201, answer


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_allows_its_own_and_nothing_else(cluster: Admin, name: str, tmp_path: Path) -> None:
    with granted(cluster, component(name, tmp_path / name), MAY[name]):
        assert [one for one in (*MAY_NOT[name], *NEVER) if may(cluster, *one)] == []


def test_a_lease_that_was_made_for_the_account_has_a_spec_to_write_into(cluster: Admin, tmp_path: Path) -> None:
    (lease,) = of_kind(component("leader", tmp_path / "leader"), "Lease")
    kept = cluster.must("POST", f"{collection(lease)}?dryRun=All", lease)
    assert kept["spec"] == {}


def test_kubectl_says_what_the_whole_account_may_not(cluster: Admin, kube_lab: Lab) -> None:
    roles = [found for found in built(KUSTOMIZE / "overlays" / "ha") if found["kind"].endswith(("Role", "RoleBinding"))]

    def can_i(verb: str, what: str, namespace: str) -> str:
        line = [kubectl(), "--kubeconfig", str(kube_lab.kubeconfig), "auth", "can-i", verb, what]
        line += ["--as", f"system:serviceaccount:{ACCOUNT}", "-n", namespace]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
        return str(done.stdout.strip())

    with granted(cluster, roles, [one for ones in MAY.values() for one in ones]):
        assert [one for one in NEVER if may(cluster, *one)] == []
        assert can_i("delete", "pods", FLEET) == "yes"
        assert can_i("get", "secrets", FLEET) == "no"
        assert can_i("delete", "pods", STRANGERS) == "no"
