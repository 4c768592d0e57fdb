"""The Kubernetes lever and the hand that scales, against an API server in this process."""

import copy
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from controlplane.degradation.action import Notify, Scale
from controlplane.degradation.actuator import Preflight, RoutePlan
from controlplane.degradation.actuators.cluster import Cluster
from controlplane.degradation.actuators.kubernetes import KubernetesActuator, ScaleHand
from controlplane.degradation.actuators.route_documents import ROUTES, observed_in, planned_rules
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.errand import wrong_with_scale
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError
from controlplane.fleet.model import KubernetesSpec
from tests.support import kube
from tests.support.kube import Api

SWITCHED = RoutePlan({"standby": 100}, Level.P0)
NAMES = {pool: pool for pool in kube.POOLS}
UP = Scale("deployment/engine", replicas=6)
BOUNDS = Scale("hpa/engine", min=4, max=9, take_over=True)


@pytest.fixture
def api() -> Iterator[Api]:
    with kube.api_server() as running:
        yield running


@pytest.fixture
def cluster(api: Api, tmp_path: Path) -> Cluster:
    return Cluster(str(kube.kubeconfig(tmp_path, api.url)))


# -- routes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["virtualservice", "httproute"])
def test_a_plan_changes_weights_and_level_and_nothing_else_of_the_rules(kind: str) -> None:
    found, route = kube.ROUTES[kind](), ROUTES[kind]
    rules = planned_rules(found, route, NAMES, SWITCHED)
    back = copy.deepcopy(found) | {"spec": {route.rules: rules}}
    assert observed_in(back, route, NAMES).weights == {"standby": 100}
    assert rules[0] == found["spec"][route.rules][0]
    back["spec"][route.rules] = planned_rules(back, route, NAMES, RoutePlan({"primary": 100}))
    again = planned_rules(back, route, NAMES, SWITCHED)
    assert again == rules
    if kind == "httproute":
        assert rules[1]["filters"][0]["responseHeaderModifier"]["set"] == [
            {"name": "x-team", "value": "ml"},
            {"name": "x-degradation-level", "value": "P0"},
        ]
    else:
        assert rules[1]["retries"] == {"attempts": 2, "perTryTimeout": "2s"}


def test_a_pool_may_be_a_subset_of_a_host() -> None:
    found = kube.virtual_service()
    found["spec"]["http"][1]["route"] = [
        {"destination": {"host": "engine", "subset": "v1"}, "weight": 100},
        {"destination": {"host": "engine", "subset": "v2"}},
    ]
    names = {"primary": "engine/v1", "standby": "engine/v2"}
    rules = planned_rules(found, ROUTES["virtualservice"], names, SWITCHED)
    assert [entry["weight"] for entry in rules[1]["route"]] == [0, 100]


def test_a_rule_that_also_leads_elsewhere_is_refused_because_its_shares_would_not_be_the_plans() -> None:
    found = kube.http_route()
    found["spec"]["rules"][1]["backendRefs"].append({"name": "shadow", "port": 80, "weight": 5})
    with pytest.raises(ValueError, match="rule 2 leads to shadow as well"):
        planned_rules(found, ROUTES["httproute"], NAMES, SWITCHED)


def test_rules_that_disagree_show_no_split_at_all() -> None:
    found = kube.virtual_service()
    other = copy.deepcopy(found["spec"]["http"][1])
    other["route"][0]["weight"], other["route"][1]["weight"] = 10, 90
    found["spec"]["http"].append(other)
    seen = observed_in(found, ROUTES["virtualservice"], NAMES)
    assert seen.weights == {}
    assert "differently" in seen.rejected


def test_what_a_gateway_has_against_a_route_is_told() -> None:
    condition = {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no standby"}
    found = kube.http_route() | {"status": {"parents": [{"conditions": [condition]}]}}
    assert observed_in(found, ROUTES["httproute"], NAMES).rejected == "BackendNotFound: no standby"


async def test_a_rule_that_somebody_changes_between_our_read_and_our_write_is_not_undone(
    api: Api, cluster: Cluster
) -> None:
    api.put("httproutes", kube.http_route(), "controlplane")
    changed = kube.http_route()["spec"]
    changed["rules"][0]["matches"][0]["path"]["value"] = "/livez"
    api.meddle = [changed]
    async with aiohttp.ClientSession() as session:
        spec = KubernetesSpec("httproute", "chat", "http://127.0.0.1:1")
        lever = KubernetesActuator(cluster, spec, kube.POOLS, Sampler(session, "http://127.0.0.1:1", ""))
        await lever.apply(SWITCHED, "k")
        seen = await lever.configured()
    rules = api.spec("httproutes", "chat")["rules"]
    assert rules[0]["matches"][0]["path"]["value"] == "/livez"
    assert seen.weights == {"standby": 100}


async def test_an_object_that_is_not_there_says_which_one_and_what_to_do(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        spec = KubernetesSpec("virtualservice", "chat", "http://127.0.0.1:1", namespace="ml")
        lever = KubernetesActuator(cluster, spec, kube.POOLS, Sampler(session, "http://127.0.0.1:1", ""))
        with pytest.raises(ActuatorError, match="VirtualService ml/chat") as failed:
            await lever.configured()
    assert "404" in failed.value.why
    assert "namespace" in failed.value.fix


# -- scale -------------------------------------------------------------------------------------------------------------


async def test_a_deployment_is_scaled_proven_before_its_pods_are_ready_and_put_back(api: Api, cluster: Cluster) -> None:
    api.put("deployments", kube.deployment(3))
    hand = ScaleHand(cluster)
    said = await hand.preflight(UP)
    assert said == Preflight(preview="deployment default/engine: replicas 3 -> replicas 6", before={"replicas": 3})
    assert api.spec("deployments", "engine") == {"replicas": 3}
    assert await hand.observe(UP, "k", "") == ""
    for _ in range(2):
        await hand.apply(UP, "k")
        assert api.spec("deployments", "engine") == {"replicas": 6}
    assert await hand.observe(UP, "k", "") == "deployment default/engine: 3 of 6 replicas ready"
    api.objects["deployments", "engine"]["metadata"]["generation"] = 2
    assert await hand.observe(UP, "k", "") == ""  # Its controller has not seen the change yet.
    for _ in range(2):
        await hand.revert(UP, "k", said.before)
        assert api.spec("deployments", "engine") == {"replicas": 3}


@pytest.mark.parametrize("versions", [{"v1", "v2"}, {"v1"}], ids=["today", "before 1.23"])
async def test_an_autoscalers_bounds_are_changed_and_put_back(api: Api, cluster: Cluster, versions: set[str]) -> None:
    api.versions = versions
    api.put("horizontalpodautoscalers", kube.autoscaler(2, 5))
    hand = ScaleHand(cluster)
    said = await hand.preflight(BOUNDS)
    assert said.before == {"min": 2, "max": 5}
    assert await hand.observe(BOUNDS, "k", "") == ""
    await hand.apply(BOUNDS, "k")
    assert await hand.observe(BOUNDS, "k", "") == "hpa default/engine: min 4, max 9, 2 replicas now"
    await hand.revert(BOUNDS, "k", said.before)
    spec = api.spec("horizontalpodautoscalers", "engine")
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)


async def test_bounds_that_belong_to_somebody_else_are_left_to_him(api: Api, cluster: Cluster) -> None:
    api.put("horizontalpodautoscalers", kube.autoscaler(2, 5), owner="argocd-controller")
    asked = Scale("hpa/engine", min=4)
    refusal = (await ScaleHand(cluster).preflight(asked)).refusal
    assert "belongs to argocd-controller" in refusal
    with pytest.raises(ActuatorError, match="belongs to argocd-controller") as told:
        await ScaleHand(cluster).apply(asked, "k")
    assert "take_over" in told.value.fix
    assert api.spec("horizontalpodautoscalers", "engine")["minReplicas"] == 2


async def test_an_autoscaler_whose_status_is_written_between_our_read_and_our_write_is_changed_all_the_same(
    api: Api, cluster: Cluster
) -> None:
    api.put("horizontalpodautoscalers", kube.autoscaler(2, 5))
    hand = ScaleHand(cluster)
    api.meddle = [api.spec("horizontalpodautoscalers", "engine")] * 4
    said = await hand.preflight(BOUNDS)
    assert said.before == {"min": 2, "max": 5}
    assert api.meddle == []
    api.meddle = [api.spec("horizontalpodautoscalers", "engine")] * 3
    await hand.apply(BOUNDS, "k")
    bounds = api.spec("horizontalpodautoscalers", "engine")
    assert (bounds["minReplicas"], bounds["maxReplicas"]) == (4, 9)
    api.meddle = [bounds] * 4
    assert "again" in await hand.revert(BOUNDS, "k", said.before)
    assert api.spec("horizontalpodautoscalers", "engine")["minReplicas"] == 2


async def test_an_autoscaler_that_changes_every_time_is_given_up(api: Api, cluster: Cluster) -> None:
    api.put("horizontalpodautoscalers", kube.autoscaler(2, 5))
    api.meddle = [api.spec("horizontalpodautoscalers", "engine")] * 100
    with pytest.raises(ActuatorError, match="refused by the API server") as told:
        await ScaleHand(cluster).apply(BOUNDS, "k")
    assert "409" in told.value.why


async def test_bounds_that_somebody_changes_while_we_put_ours_back_are_left_alone(api: Api, cluster: Cluster) -> None:
    api.put("horizontalpodautoscalers", kube.autoscaler(2, 5))
    hand = ScaleHand(cluster)
    await hand.apply(BOUNDS, "k")
    ours = api.spec("horizontalpodautoscalers", "engine")
    api.meddle = [ours, ours | {"minReplicas": 7}]
    assert "left at min 7" in await hand.revert(BOUNDS, "k", {"min": 2, "max": 5})
    assert api.spec("horizontalpodautoscalers", "engine")["minReplicas"] == 7


async def test_what_somebody_has_scaled_since_is_left_alone(api: Api, cluster: Cluster) -> None:
    api.put("deployments", kube.deployment(3))
    hand = ScaleHand(cluster)
    await hand.apply(UP, "k")
    api.objects["deployments", "engine"]["spec"]["replicas"] = 10
    assert "left at replicas 10" in await hand.revert(UP, "k", {"replicas": 3})
    assert api.spec("deployments", "engine") == {"replicas": 10}


async def test_what_is_gone_needs_no_undoing_and_what_is_not_on_record_cannot_be(cluster: Cluster) -> None:
    hand = ScaleHand(cluster)
    assert "gone" in await hand.revert(UP, "k", {"replicas": 3})
    with pytest.raises(ActuatorError, match="put"):
        await hand.revert(UP, "k", {})


async def test_a_deployment_that_an_autoscaler_rules_is_refused_since_it_would_be_put_back(
    api: Api, cluster: Cluster
) -> None:
    api.put("deployments", kube.deployment())
    ruler = kube.autoscaler()
    ruler["spec"]["scaleTargetRef"]["name"] = "engine"
    api.put("horizontalpodautoscalers", ruler)
    assert "scale `hpa/engine`" in (await ScaleHand(cluster).preflight(UP)).refusal


async def test_a_preflight_finds_out_that_this_account_may_not_scale(api: Api, cluster: Cluster) -> None:
    api.put("deployments", kube.deployment())
    api.forbidden = {"PATCH"}
    assert "403" in (await ScaleHand(cluster).preflight(UP)).refusal
    with pytest.raises(ActuatorError) as refused:
        await ScaleHand(cluster).apply(UP, "k")
    assert "account" in refused.value.fix


async def test_an_api_server_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    hand = ScaleHand(Cluster(str(kube.kubeconfig(tmp_path, "http://127.0.0.1:1"))))
    assert "cannot ask" in (await hand.preflight(UP)).refusal
    with pytest.raises(ActuatorError, match="cannot ask the Kubernetes API server"):
        await hand.apply(UP, "k")
    with pytest.raises(ActuatorError, match="no kubeconfig at"):
        await ScaleHand(Cluster(str(tmp_path / "absent"))).observe(UP, "k", "")


@pytest.mark.parametrize(
    ("scale", "wrong"),
    [
        (Scale("engine", replicas=1), "neither"),
        (Scale("daemonset/engine", replicas=1), "neither"),
        (Scale("statefulset/engine", min=1), "replicas"),
        (Scale("deployment/engine"), "replicas"),
        (Scale("deployment/engine", replicas=1, min=1), "replicas"),
        (Scale("hpa/engine"), "min"),
        (Scale("hpa/engine", replicas=1, min=1), "min"),
        (UP, ""),
        (BOUNDS, ""),
        (Scale("hpa/engine", max=3), ""),
    ],
)
def test_a_scale_errand_that_makes_no_sense_says_why(scale: Scale, wrong: str) -> None:
    assert wrong in wrong_with_scale(scale)
    assert bool(wrong) == bool(wrong_with_scale(scale))


async def test_a_hand_does_only_its_own_errands(cluster: Cluster) -> None:
    with pytest.raises(TypeError):
        await ScaleHand(cluster).apply(Notify("oncall"), "k")
