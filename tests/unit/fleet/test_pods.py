"""A cluster's objects become endpoints: what is ready, where it runs, what it was given."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.fleet.model import KubernetesEndpoints, Scheme
from controlplane.fleet.pods import (
    Naming,
    Node,
    Pod,
    Selected,
    pod_endpoints,
    read_inference_pool,
    read_node,
    read_pod,
    read_slice,
    slice_endpoints,
)
from controlplane.fleet.selector import parse_selector

SPEC = KubernetesEndpoints(selector="app=vllm", namespace="llm")
NAMING = Naming("primary", "full", SPEC)
ALL = Selected((), ())


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "vllm-0", "labels": {"app": "vllm"}},
        "spec": {
            "nodeName": "gpu-a",
            "containers": [
                {"ports": [{"containerPort": 8000}], "resources": {"limits": {"nvidia.com/gpu": "4", "cpu": "8"}}},
                {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 2}}},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.1.0.5", "conditions": [{"type": "Ready", "status": "True"}]}
        | status,
    }


def test_a_pod_is_read_with_its_gpus_and_its_port() -> None:
    assert read_pod(pod()) == Pod("vllm-0", {"app": "vllm"}, "10.1.0.5", "gpu-a", ready=True, gpus=6, port=8000)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Pending"}, {"phase": "Succeeded"}, {"podIP": ""}, {"conditions": []}, {"conditions": None},
        {"conditions": [{"type": "Ready", "status": "False"}]},
    ],
)  # fmt: skip
def test_a_pod_that_does_not_serve_is_not_ready(status: dict[str, Any]) -> None:
    assert not read_pod(pod(**status)).ready


def test_a_pod_that_was_asked_to_end_is_not_ready() -> None:
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
    assert not read_pod(ending).ready


def test_ready_pods_that_are_selected_become_endpoints_by_name() -> None:
    one = read_pod(pod())
    pods = [replace(one, name=name) for name in ("b", "a")] + [replace(one, name="c", ready=False)]
    pods += [replace(one, name="d", labels={"app": "other"})]
    nodes = {"gpu-a": Node("gpu-a", "eu-1", "NVIDIA-H200")}
    found, wrong = pod_endpoints(NAMING, pods, nodes, Selected(parse_selector("app=vllm"), ()))
    assert [e.name for e in found] == ["a", "b"]
    assert (found[0].url, found[0].node, found[0].zone, found[0].gpus, found[0].accelerator, found[0].pod) == (
        "http://10.1.0.5:8000", "gpu-a", "eu-1", 6, "NVIDIA-H200", "llm/a",
    )  # fmt: skip
    assert wrong == ""


def test_a_pod_without_a_port_is_named() -> None:
    found, wrong = pod_endpoints(NAMING, [replace(read_pod(pod()), port=0)], {}, ALL)
    assert found == ()
    assert "vllm-0 declares no port" in wrong


def test_each_of_several_ports_is_an_endpoint_of_its_own() -> None:
    found, _ = pod_endpoints(NAMING, [read_pod(pod())], {}, Selected((), (8000, 8001)))
    assert [(e.name, e.url) for e in found] == [
        ("vllm-0-8000", "http://10.1.0.5:8000"), ("vllm-0-8001", "http://10.1.0.5:8001"),
    ]  # fmt: skip


def test_an_address_of_ipv6_stands_in_brackets_and_names_can_be_kept_apart() -> None:
    naming = Naming("standby", "", replace(SPEC, scheme=Scheme.HTTPS), prefix="standby.")
    (one,), _ = pod_endpoints(naming, [replace(read_pod(pod()), ip="fd00::5")], {}, ALL)
    assert (one.name, one.url) == ("standby.vllm-0", "https://[fd00::5]:8000")


def test_a_node_tells_its_zone_and_its_accelerator() -> None:
    labels = {"topology.kubernetes.io/zone": "eu-1", "nvidia.com/gpu.product": "NVIDIA-H200"}
    assert read_node({"metadata": {"name": "a", "labels": labels}}) == Node("a", "eu-1", "NVIDIA-H200")
    assert read_node({"metadata": {"name": "a"}}) == Node("a")


def endpoint(host: str, name: str, **more: Any) -> dict[str, Any]:
    return {"addresses": [host], "targetRef": {"kind": "Pod", "name": name}, **more}


@pytest.mark.parametrize(
    "where",
    [
        {"nodeName": "gpu-a", "zone": "eu-1"},
        {"topology": {"kubernetes.io/hostname": "gpu-a", "topology.kubernetes.io/zone": "eu-1"}},
    ],
)
def test_the_slices_of_a_service_become_endpoints(where: dict[str, Any]) -> None:
    slices = [
        {
            "metadata": {"name": "chat-x", "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"port": 8080}],
            "endpoints": [
                endpoint("10.1.0.2", "b", **where),
                endpoint("10.1.0.1", "a", conditions={"ready": True}),
                endpoint("10.1.0.3", "c", conditions={"ready": False}),
                endpoint("10.1.0.4", "d", conditions={"ready": True, "terminating": True}),
            ],
        }
        for service in ("chat", "other")
    ]
    naming = Naming("primary", "", KubernetesEndpoints(service="chat", namespace="llm"))
    found, wrong = slice_endpoints(naming, map(read_slice, slices), {})
    assert [(e.name, e.url) for e in found] == [("a", "http://10.1.0.1:8080"), ("b", "http://10.1.0.2:8080")]
    assert (found[1].node, found[1].zone, found[1].pod) == ("gpu-a", "eu-1", "llm/b")
    assert wrong == ""


def test_an_inference_pool_selects_by_labels_in_both_of_its_shapes() -> None:
    new = {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}, {"number": 8001}]}
    old = {"selector": {"app": "vllm"}, "targetPortNumber": 8000}
    selected = parse_selector("app=vllm")
    meta = {"name": "pool"}
    assert read_inference_pool({"metadata": meta, "spec": new}) == Selected(selected, (8000, 8001))
    assert read_inference_pool({"metadata": meta, "spec": old}) == Selected(selected, (8000,))
    with pytest.raises(ValueError, match="selects nothing, or names no port"):
        read_inference_pool({"metadata": meta, "spec": {}})


KEYS = (
    "metadata", "name", "labels", "spec", "status", "conditions", "containers", "endpoints", "addresses", "ports",
    "selector", "matchLabels", "targetPorts", "number", "resources", "limits", "nvidia.com/gpu", "podIP",
)  # fmt: skip
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "endpoints", "ports"]), plain))
def test_an_object_of_any_shape_is_read_or_refused(found: dict[str, Any]) -> None:
    for read in (read_pod, read_node, read_slice, read_inference_pool):
        with suppress(ValueError):
            read({"metadata": {"name": "x"}} | found)
