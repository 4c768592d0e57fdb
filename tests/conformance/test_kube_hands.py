"""One suite over every hand that changes a cluster, against real API servers: done once, proven, undone once."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.degradation.action import CordonNode, Errand, RewriteModel, Scale
from controlplane.degradation.actuator import Hand
from controlplane.degradation.actuators.cluster import Cluster
from controlplane.degradation.actuators.cordon import CordonHand
from controlplane.degradation.actuators.kubernetes import ScaleHand
from controlplane.degradation.actuators.rewrite import RewriteHand, rule_of
from controlplane.errors import ActuatorError
from tests.support.kube import definitions
from tests.support.kube_lab.api import MERGE, Admin
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab

pytestmark = pytest.mark.journey

KINDS = ("deployment", "statefulset", "hpa", "cordon", "taint", "rewrite")
SECOND = {"app": "engine", "tier": "gpu"}
REWRITES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferencemodelrewrites"
APPLY = "application/apply-patch+yaml"
THEIR_RULE = {
    "matches": [{"model": {"type": "Exact", "value": "other"}}],
    "targets": [{"modelRewrite": "o", "weight": 1}],
}


@dataclass(slots=True)
class Case:
    """One errand with what it changes."""

    hand: Hand
    errand: Errand
    nobody: Errand
    """The same with something that is not there."""
    admin: Admin
    path: str
    """Of the object that it changes."""
    shown: tuple[str, ...]
    """The field of it that changes, and how it is when nothing was done."""

    def field(self) -> Any:
        found = self.admin.must("GET", self.path)
        for key in self.shown:
            found = found.get(key) if found else None
        return found

    async def seen(self) -> str:
        """Return the proof that it is in force; a workload's controller takes a moment to see its change."""
        async with asyncio.timeout(10.0):
            while not (proof := await self.hand.observe(self.errand, "k", "")):  # noqa: ASYNC110 - only reading tells
                await asyncio.sleep(0.05)
        return proof


@pytest.fixture
def case(request: pytest.FixtureRequest, kube_lab: Lab, hollow: Hollow, namespace: str) -> Iterator[Case]:
    kind = str(request.param)
    if kind == "rewrite":
        yield _rewrite(request.getfixturevalue("kube_crds"), namespace)
        return
    made = _made(kind, kube_lab, hollow, namespace)
    yield made
    with suppress(AssertionError):
        hollow.admin.must("DELETE", f"/api/v1/nodes/{namespace}-node")


def _made(kind: str, lab: Lab, hollow: Hollow, namespace: str) -> Case:
    admin, cluster = hollow.admin, Cluster(str(lab.kubeconfig))
    if kind in ("cordon", "taint"):
        hollow.calm_node(f"{namespace}-node")
        path, taint = f"/api/v1/nodes/{namespace}-node", "degraded=yes:NoSchedule" if kind == "taint" else ""
        shown = ("spec", "taints" if taint else "unschedulable")
        asked = CordonNode(f"{namespace}-node", taint)
        return Case(CordonHand(cluster), asked, replace(asked, node="nobody"), admin, path, shown)
    spec = {
        "selector": {"matchLabels": SECOND}, "replicas": 1,
        "template": {"metadata": {"labels": SECOND}, "spec": {"containers": [{"name": "e", "image": "e:1"}]}},
    }  # fmt: skip
    if kind == "hpa":
        path = f"/apis/autoscaling/v1/namespaces/{namespace}/horizontalpodautoscalers"
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}
        bounds = {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": target}
        admin.must("POST", path, {"metadata": {"name": "chat"}, "spec": bounds})
        asked_for = Scale("hpa/chat", namespace, min=2, max=6, take_over=True)
        absent = replace(asked_for, target="hpa/nobody")
        return Case(ScaleHand(cluster), asked_for, absent, admin, f"{path}/chat", ("spec", "maxReplicas"))
    path = f"/apis/apps/v1/namespaces/{namespace}/{kind}s"
    more = {"serviceName": "chat"} if kind == "statefulset" else {}
    admin.must("POST", path, {"metadata": {"name": "chat"}, "spec": spec | more})
    wanted = Scale(f"{kind}/chat", namespace, replicas=2)
    absent = replace(wanted, target=f"{kind}/nobody")
    return Case(ScaleHand(cluster), wanted, absent, admin, f"{path}/chat", ("spec", "replicas"))


def _rewrite(lab: Lab, name: str) -> Case:
    (definition,) = (d for d in definitions() if d["spec"]["names"]["kind"] == "InferenceModelRewrite")
    lab.admin.install(definition)
    body = {"metadata": {"name": name}, "spec": {"poolRef": {"name": "chat"}, "rules": [THEIR_RULE]}}
    about = {"apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceModelRewrite"}
    lab.admin.must("PATCH", f"{REWRITES}/{name}?fieldManager=controlplane", about | body, APPLY)
    asked = RewriteModel(name, "chat", "large", "small", 0.25)
    absent = replace(asked, inference_pool="other")
    hand = RewriteHand(Cluster(str(lab.kubeconfig)))
    return Case(hand, asked, absent, lab.admin, f"{REWRITES}/{name}", ("spec", "rules"))


@pytest.mark.parametrize("case", KINDS, indirect=True)
async def test_an_errand_is_tried_done_once_proven_and_undone_once(case: Case) -> None:
    before = case.field()
    said = await case.hand.preflight(case.errand)
    assert said.refusal == ""
    assert said.preview
    assert case.field() == before
    assert await case.hand.observe(case.errand, "k", "") == ""
    for _ in range(2):
        await case.hand.apply(case.errand, "k")
        after = case.field()
        assert after != before
    assert await case.seen() != ""
    for _ in range(2):
        await case.hand.revert(case.errand, "k", said.before)
        assert case.field() == before
    assert await case.hand.observe(case.errand, "k", "") == ""


@pytest.mark.parametrize("case", KINDS, indirect=True)
async def test_what_is_not_there_is_refused_and_what_is_gone_needs_no_undoing(case: Case) -> None:
    refusal = (await case.hand.preflight(case.nobody)).refusal
    assert "nobody" in refusal or "other" in refusal
    if not isinstance(case.errand, RewriteModel):
        assert "gone" in await case.hand.revert(case.nobody, "k", {"replicas": 1, "min": 1, "already": 0})


async def test_bounds_of_somebody_else_are_refused_by_his_name(kube_lab: Lab, hollow: Hollow, namespace: str) -> None:
    case = _made("hpa", kube_lab, hollow, namespace)
    body = {
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "chat"},
        "spec": {"minReplicas": 1, "maxReplicas": 3},
    }  # fmt: skip
    case.admin.must("PATCH", f"{case.path}?fieldManager=argocd-controller&force=true", body, APPLY)
    assert isinstance(case.errand, Scale)
    asked = replace(case.errand, take_over=False)
    assert "argocd-controller" in (await case.hand.preflight(asked)).refusal
    with pytest.raises(ActuatorError, match="argocd-controller"):
        await case.hand.apply(asked, "k")
    assert case.field() == 3


async def test_rules_of_somebody_else_are_refused_by_his_name(kube_crds: Lab, namespace: str) -> None:
    case = _rewrite(kube_crds, f"{namespace}-theirs")
    theirs = dict(THEIR_RULE, targets=[{"modelRewrite": "p", "weight": 2}])
    about = {"apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceModelRewrite"}
    body = about | {"metadata": {"name": f"{namespace}-theirs"}, "spec": {"rules": [theirs]}}
    case.admin.must("PATCH", f"{case.path}?fieldManager=helm&force=true", body, APPLY)
    assert "belongs to helm" in (await case.hand.preflight(case.errand)).refusal
    with pytest.raises(ActuatorError, match="belongs to helm"):
        await case.hand.apply(case.errand, "k")
    assert case.field() == [theirs]
    assert isinstance(case.errand, RewriteModel)
    taking = replace(case.errand, take_over=True)
    said = await case.hand.preflight(taking)
    await case.hand.apply(taking, "k")
    assert case.field() == [rule_of(taking), theirs]
    await case.hand.revert(taking, "k", said.before)
    assert case.field() == [theirs]


async def test_a_rewrite_makes_its_object_where_there_is_none_and_takes_it_away(kube_crds: Lab, namespace: str) -> None:
    case = _rewrite(kube_crds, f"{namespace}-x")
    asked = RewriteModel(f"{namespace}-new", "chat", "large", "small")
    path = f"{REWRITES}/{asked.name}"
    said = await case.hand.preflight(asked)
    assert (said.refusal, said.before) == ("", {"made": 1})
    assert case.admin.ask("GET", path)[0] == 404
    await case.hand.apply(asked, "k")
    found = case.admin.must("GET", path)
    assert found["spec"]["poolRef"]["name"] == "chat"
    assert [rule["targets"] for rule in found["spec"]["rules"]] == [rule_of(asked)["targets"]]
    assert "small" in await case.hand.observe(asked, "k", "")
    refused = {"status": {"conditions": [_condition("Accepted", "False")]}}
    case.admin.must("PATCH", f"{path}/status", refused, MERGE)
    assert await case.hand.observe(asked, "k", "") == ""
    await case.hand.revert(asked, "k", said.before)
    assert case.admin.ask("GET", path)[0] == 404
    assert "gone" in await case.hand.revert(asked, "k", said.before)


def _condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}


async def test_a_node_that_somebody_else_has_cordoned_stays_so(kube_lab: Lab, hollow: Hollow, namespace: str) -> None:
    case = _made("cordon", kube_lab, hollow, namespace)
    case.admin.must("PATCH", f"{case.path}?fieldManager=kubectl", {"spec": {"unschedulable": True}}, MERGE)
    said = await case.hand.preflight(case.errand)
    assert said.before == {"already": 1}
    await case.hand.apply(case.errand, "k")
    assert "still" in await case.hand.revert(case.errand, "k", said.before)
    assert case.field() is True
    hollow.admin.must("DELETE", case.path)


async def test_others_taints_stay(kube_lab: Lab, hollow: Hollow, namespace: str) -> None:
    case = _made("taint", kube_lab, hollow, namespace)
    theirs = [{"key": "gpu", "effect": "NoSchedule"}]
    case.admin.must("PATCH", case.path, {"spec": {"taints": theirs}}, MERGE)
    await case.hand.apply(case.errand, "k")
    assert len(case.field()) == 2
    await case.hand.revert(case.errand, "k", {"already": 0})
    assert case.field() == theirs
    hollow.admin.must("DELETE", case.path)


async def test_a_denial_names_verb_and_resource(kube_lab: Lab, hollow: Hollow, namespace: str) -> None:
    case = _made("cordon", kube_lab, hollow, namespace)
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    poor: Path = kube_lab.service_account(f"reads-{namespace}", namespace, rules, cluster=True)
    hand = CordonHand(Cluster(str(poor)))
    assert "this account may not patch nodes" in (await hand.preflight(case.errand)).refusal
    with pytest.raises(ActuatorError) as told:
        await hand.apply(case.errand, "k")
    assert "patch nodes" in told.value.fix
    assert json.dumps(case.field()) == "null"
    hollow.admin.must("DELETE", case.path)
