"""Everything that we give a cluster is what its API servers take, strictly; and what is wrong with it they refuse.

Custom resources go to today's server of them (`fieldValidation=Strict`, CEL), built-in kinds to a real API server of a
release that ignores unknown fields. All of it with `dryRun=All`: nothing is kept.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import yaml

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.parameters import settled
from controlplane.chaos.substrates import kube_objects as made
from controlplane.degradation.action import RewriteModel
from controlplane.degradation.actuator import RoutePlan
from controlplane.degradation.actuators.rewrite import REWRITES, document_of, rule_of
from controlplane.degradation.actuators.route_documents import ROUTES as ROUTE_KINDS
from controlplane.degradation.actuators.route_documents import planned_rules
from controlplane.degradation.matrix import Level
from controlplane.fleet.model import BurnerSpec, Endpoint
from tests.golden.cases import HERE
from tests.support.kube import POOLS, ROUTES, Object, definitions
from tests.support.kube_lab.api import Admin
from tests.support.kube_lab.lab import Lab
from tests.support.processes import until

pytestmark = pytest.mark.journey

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
TARGET = made.Target("default", "chat-7d9f-abcde", "0af3", "gpu-1", "replicasets/chat-7d9f", "chat", "node-kill")
BURNER = BurnerSpec("registry.example.com/controlplane:1", gpus=1, runtime_class="nvidia")
PARTITION, SATURATION = FaultKind.NETWORK_PARTITION, FaultKind.GPU_SATURATION


def lease(kind: FaultKind, **given: object) -> Lease:
    """Promise a fault whose id is longer than a label may be."""
    endpoint = Endpoint("chat-7d9f-abcde", "primary", "http://198.18.0.1:8000", "gpu-1")
    return Lease(
        f"0123456789ab-{'x' * 80}-abc123", "0123456789ab", kind, endpoint, NOW + timedelta(seconds=90),
        LeaseState.INTENDED, NOW, parameters=settled(kind, given),
    )  # fmt: skip


def routed(kind: str) -> Object:
    """Return a route after a switch."""
    found, route = ROUTES[kind](), ROUTE_KINDS[kind]
    names = {pool: pool for pool in POOLS}
    plan = RoutePlan({"standby": 60, "base": 40}, Level.P0)
    found["spec"][route.rules] = planned_rules(found, route, names, plan)
    return found


def rendered(name: str) -> Iterator[Object]:
    """Give the objects of one of the rendered files, of every golden policy."""
    for path in sorted((HERE / "rendered").rglob(name)):
        for found in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found["metadata"].setdefault("namespace", "default")
            yield from found["items"] if found["kind"] == "List" else (found,)


REWRITE = RewriteModel("chat", "chat", "large", "small", 0.25)
CUSTOM: dict[str, list[Object]] = {
    "VirtualService": [routed("virtualservice")],
    "HTTPRoute": [routed("httproute")],
    "PodChaos": [made.pod_chaos(lease(FaultKind.NODE_KILL), TARGET, ("default", "other"), NOW)],
    "NetworkChaos": [
        made.network_chaos(lease(PARTITION, **given), TARGET, NOW)
        for given in ({}, {"direction": "to"}, {"direction": "from"}, {"mode": "delay", "delay_ms": 150})
    ],
    "StressChaos": [
        made.stress_chaos(lease(SATURATION, device="cpu", duty=0.8, memory_mib=held, threads=2), TARGET, NOW)
        for held in (0, 64)
    ],
    "InferenceModelRewrite": [
        document_of(replace(REWRITE, share=share), REWRITES[1], [rule_of(replace(REWRITE, share=share))], None)
        for share in (0.25, 1.0)
    ],
    "PrometheusRule": list(rendered("prometheusrule.yaml")),
    "ServiceMonitor": [*rendered("servicemonitor-controlplane.yaml"), *rendered("servicemonitor-fleet.yaml")],
}
BUILT_IN: dict[str, list[Object]] = {
    "Lease": [made.claim(lease(FaultKind.POD_EVICTION), TARGET, NOW)],
    "NetworkPolicy": [
        made.network_policy(lease(PARTITION, direction=direction), TARGET) for direction in ("both", "to", "from")
    ],
    "Job": [
        made.burner_job(lease(SATURATION), TARGET, burner, NOW)
        for burner in (BURNER, replace(BURNER, gpus=0, runtime_class=""))
    ],
    "HorizontalPodAutoscaler": [
        {
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "chat"},
            "spec": {
                "minReplicas": 2, "maxReplicas": 8,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            },
        }
    ],
    "ConfigMap": list(rendered("configmaps.yaml")),
}  # fmt: skip
DROP = object()
WRONG: list[tuple[str, str, Any]] = [
    ("VirtualService", "spec.http.1.route.0.weight", "half"),
    ("VirtualService", "spec.http.1.route.0.destination", {"subset": "a"}),
    ("VirtualService", "spec.http.1.tiemout", "1s"),
    ("HTTPRoute", "spec.rules.1.backendRefs.0.weight", 10**7),
    ("HTTPRoute", "spec.rules.1.backendRefs.0.port", DROP),
    ("HTTPRoute", "spec.rulez", []),
    ("PodChaos", "spec.action", "node-hug"),
    ("PodChaos", "spec.mode", DROP),
    ("PodChaos", "spec.selector.nodes", "gpu-1"),
    ("PodChaos", "spec.durations", "90s"),
    ("NetworkChaos", "spec.direction", "sideways"),
    ("NetworkChaos", "spec.selector", DROP),
    ("NetworkChaos", "spec.selector.pods", {"default": "chat"}),
    ("NetworkChaos", "spec.dealy", {"latency": "1ms"}),
    ("StressChaos", "spec.stressors.cpu.load", 150),
    ("StressChaos", "spec.stressors.cpu.workers", DROP),
    ("StressChaos", "spec.mode", "none"),
    ("InferenceModelRewrite", "spec.poolRef", DROP),
    ("InferenceModelRewrite", "spec.rules.0.targets", []),
    ("InferenceModelRewrite", "spec.rules.0.targets.0.weight", 0),
    ("InferenceModelRewrite", "spec.rules.0.matches.0.model.type", "Fuzzy"),
    ("PrometheusRule", "spec.groups.0.interval", "often"),
    ("PrometheusRule", "spec.groups.0.rules.0.expr", DROP),
    ("ServiceMonitor", "spec.selector", DROP),
    ("Lease", "spec.leaseDurationSeconds", 0),
    ("Lease", "metadata.name", "Not A Name"),
    ("NetworkPolicy", "spec.policyTypes", ["Sideways"]),
    ("NetworkPolicy", "spec.podSelector.matchLabels", {made.CUT_OFF: "x" * 64}),
    ("Job", "spec.activeDeadlineSeconds", -1),
    ("Job", "spec.template.spec.restartPolicy", "Always"),
    ("Job", "spec.template.spec.containers.0.resources.limits", {"cpu": "a lot"}),
    ("Job", "spec.template.spec.containers.0.image", DROP),
    ("HorizontalPodAutoscaler", "spec.minReplicas", 9),
    ("HorizontalPodAutoscaler", "spec.maxReplicas", 0),
]
"""What is wrong: the kind, the field of its first object, and what stands there."""


@pytest.fixture(scope="module")
def custom(kube_crds: Lab) -> Admin:
    """Give the server of custom resources, with every kind that we render."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    plurals = {}
    for one in definitions():
        if one["spec"]["names"]["kind"] in CUSTOM:
            status, answer = kube_crds.admin.ask("POST", crds, one)
            assert status in (201, 409), answer
            plurals[one["spec"]["names"]["kind"]] = one["spec"]["names"]["plural"]
    assert plurals.keys() == CUSTOM.keys()
    for kind, objects in CUSTOM.items():
        until(partial(_is_served, kube_crds.admin, path_of(objects[0], plurals[kind])), what=kind)
    return kube_crds.admin


def _is_served(admin: Admin, path: str) -> bool:
    return bool(admin.ask("GET", path)[0] == 200)


@pytest.fixture(scope="module")
def built_in(kube_lab: Lab) -> Admin:
    return kube_lab.admin


PLURALS = {
    **{d["spec"]["names"]["kind"]: d["spec"]["names"]["plural"] for d in definitions()},
    "Lease": "leases", "NetworkPolicy": "networkpolicies", "Job": "jobs", "ConfigMap": "configmaps",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}  # fmt: skip


def path_of(found: Object, plural: str) -> str:
    at = f"/apis/{found['apiVersion']}" if "/" in found["apiVersion"] else f"/api/{found['apiVersion']}"
    return f"{at}/namespaces/default/{plural}"


def tried(admin: Admin, found: Object) -> tuple[int, str]:
    """Have an object created without being kept; return the status and what the server says."""
    sent = copy.deepcopy(found)
    sent["metadata"]["namespace"] = "default"
    path = f"{path_of(sent, PLURALS[sent['kind']])}?dryRun=All&fieldValidation=Strict"
    status, answer = admin.ask("POST", path, sent)
    return status, str(answer.get("message", "")) if isinstance(answer, dict) else str(answer)


@pytest.mark.parametrize("kind", CUSTOM)
def test_a_custom_resource_of_ours_is_accepted_strictly(custom: Admin, kind: str) -> None:
    assert CUSTOM[kind]
    assert [tried(custom, found) for found in CUSTOM[kind]] == [(201, "")] * len(CUSTOM[kind])


@pytest.mark.parametrize("kind", BUILT_IN)
def test_an_object_of_ours_is_accepted_by_a_real_api_server(built_in: Admin, kind: str) -> None:
    assert BUILT_IN[kind]
    assert [tried(built_in, found) for found in BUILT_IN[kind]] == [(201, "")] * len(BUILT_IN[kind])


@pytest.mark.parametrize(("kind", "where", "value"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_one_is_refused(custom: Admin, built_in: Admin, kind: str, where: str, value: Any) -> None:
    found = copy.deepcopy((CUSTOM | BUILT_IN)[kind][0])
    *path, last = where.split(".")
    here: Any = found
    for key in path:
        here = here[int(key)] if key.isdigit() else here[key]
    if value is DROP:
        del here[last]
    else:
        here[last] = value
    status, said = tried(custom if kind in CUSTOM else built_in, found)
    assert status in (400, 422), f"{status} {said}"
    assert said


def test_enough_is_wrong_and_every_kind_is_among_it() -> None:
    assert len(WRONG) >= 20
    assert {kind for kind, _, _ in WRONG} >= (CUSTOM.keys() | BUILT_IN.keys()) - {"ConfigMap"}


def test_what_is_made_says_whose_it_is_and_until_when() -> None:
    faults = [*CUSTOM["PodChaos"], *CUSTOM["NetworkChaos"], *CUSTOM["StressChaos"]]
    for found in (*faults, *BUILT_IN["Lease"], *BUILT_IN["NetworkPolicy"], *BUILT_IN["Job"]):
        about = found["metadata"]
        assert about["labels"][made.MANAGED_BY] == "controlplane"
        assert len(about["labels"][made.MARK]) <= 63
        assert made.lease_in(found).startswith("0123456789ab-")
        assert not made.is_over(found, NOW + timedelta(seconds=89))
        assert made.is_over(found, NOW + timedelta(seconds=90))
    for found in faults:
        assert found["spec"]["duration"] == "90s"
