"""What faults put into a cluster, and how they are told from everybody else's: pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.parameters import settled
from controlplane.chaos.substrates import kube_objects as made
from controlplane.fleet.model import BurnerSpec, Endpoint

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
TARGET = made.Target("prod", "chat-0", "u1", "gpu-1", "statefulsets/chat", "chat-0", "node-kill")


def lease(kind: FaultKind = FaultKind.NODE_KILL, lasts_s: float = 60, **given_ones: object) -> Lease:
    endpoint = Endpoint("chat-0", "primary", "http://10.0.0.1:8000", "gpu-1")
    return Lease(
        "d1-chat-0-abc", "d1", kind, endpoint, NOW + timedelta(seconds=lasts_s), LeaseState.INTENDED, NOW,
        parameters=settled(kind, given_ones),
    )  # fmt: skip


def test_a_claim_says_what_is_broken_by_whom_and_until_when() -> None:
    found = made.claim(lease(), TARGET, NOW)
    assert made.target_in(found) == TARGET
    assert made.lease_in(found) == "d1-chat-0-abc"
    assert made.mark_in(found) == made.mark_of("d1-chat-0-abc")
    assert found["spec"]["leaseDurationSeconds"] == 60
    assert made.target_in({"metadata": {}}) is None


@given(st.text(min_size=1, max_size=300))
def test_any_lease_has_a_mark_that_a_label_can_carry(lease_id: str) -> None:
    mark = made.mark_of(lease_id)
    assert mark.isalnum()
    assert len(mark) <= 63


@pytest.mark.parametrize("deadline", ["soon", None, "", 7])
def test_what_does_not_say_until_when_is_over(deadline: object) -> None:
    assert made.is_over({"metadata": {"annotations": {made.DEADLINE: deadline}}}, NOW)
    assert made.is_over({"metadata": {}}, NOW)


@given(st.floats(min_value=-10_000, max_value=10_000))
def test_a_duration_is_whole_seconds_and_never_none(lasts_s: float) -> None:
    assert made.left_s(lease(lasts_s=lasts_s), NOW) >= max(1, lasts_s)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "chat"}}, True),
        ({"matchLabels": {"app": "chat", "tier": "x"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["chat", "b"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["chat"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_policy_selects_as_kubernetes_does(selector: Mapping[str, Any], *, selected: bool) -> None:
    assert made.selects({"spec": {"podSelector": selector}}, {"app": "chat"}) is selected


def test_only_policies_that_let_something_through_stand_in_the_way() -> None:
    def policy(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}}

    found = [
        policy("in", ingress=[{}]), policy("out", egress=[{}]), policy("closed", ingress=[]),
        {"metadata": {"name": "ours", "labels": {made.MARK: "m"}}, "spec": {"podSelector": {}, "ingress": [{}]}},
    ]  # fmt: skip
    assert made.allowances(found, {}, ["Ingress"]) == ("in",)
    assert made.allowances(found, {}, ["Ingress", "Egress"]) == ("in", "out")


def test_a_node_is_down_for_its_leases_and_keeps_what_is_others() -> None:
    theirs = {"key": "gpu", "effect": "NoSchedule"}
    node = {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [theirs]}}
    one, two = made.entry_of(lease(), "prod"), made.entry_of(lease(), "prod")
    change = made.node_change(node, {"a": one, "b": two}, "NoExecute")
    assert change["metadata"]["resourceVersion"] == "7"
    assert change["spec"]["taints"] == [theirs, {"key": made.DOWN, "value": "down", "effect": "NoExecute"}]
    down = {"metadata": {**change["metadata"]}, "spec": change["spec"]}
    assert made.down_for(down).keys() == {"a", "b"}
    assert not made.entry_is_over(one, NOW)
    assert made.entry_is_over(one, NOW + timedelta(minutes=1))
    back = made.node_change(down, {}, "")
    assert back["spec"]["taints"] == [theirs]
    assert back["metadata"]["annotations"] == {made.DOWN: None}
    assert made.down_for({"metadata": {"annotations": {made.DOWN: "[]"}}}) == {}


@pytest.mark.parametrize(
    ("toleration", "stays"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "tolerationSeconds": 30}, False),
        ({"key": made.DOWN, "operator": "Exists", "effect": "NoExecute"}, True),
        ({"key": made.DOWN, "effect": "NoSchedule"}, False),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_a_pod_stays_on_a_node_that_is_down_only_where_it_tolerates_that(
    toleration: Mapping[str, Any], *, stays: bool
) -> None:
    assert made.tolerates({"spec": {"tolerations": [toleration]}}, "NoExecute") is stays


@pytest.mark.parametrize(("direction", "seen"), [("both", "both"), ("to", "from"), ("from", "to")])
def test_a_direction_is_turned_round_for_chaos_mesh_which_sees_it_as_the_pod_does(direction: str, seen: str) -> None:
    found = made.network_chaos(lease(FaultKind.NETWORK_PARTITION, direction=direction), TARGET, NOW)
    assert found["spec"]["direction"] == seen
    assert found["spec"]["selector"]["pods"] == {"prod": ["chat-0"]}


def test_a_burner_has_no_rights_and_sees_the_gpu_without_asking_for_it() -> None:
    job = made.burner_job(lease(FaultKind.GPU_SATURATION), TARGET, BurnerSpec("i"), NOW)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in container["env"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    asks = made.burner_job(lease(FaultKind.GPU_SATURATION), TARGET, BurnerSpec("i", gpus=2), NOW)
    (container,) = asks["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {one["name"] for one in container["env"]} == {"HOME"}


def test_chaos_mesh_has_injected_only_where_it_selected_something() -> None:
    def said(**conditions: str) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": k, "status": v} for k, v in conditions.items()]}}

    assert made.all_injected(said(Selected="True", AllInjected="True"))
    assert not made.all_injected(said(Selected="False", AllInjected="True"))
    assert not made.all_injected({})
