"""What Kubernetes says of pods and nodes is said once, in words that point to a cause."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes.kube_state import ClusterState
from tests.support.fake_api import event, node, pod

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def said(cluster: ClusterState) -> list[str]:
    return [text for _, text in cluster.told]


def container(restarts: int = 0, ended: str = "", code: int = 0, waiting: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"restartCount": restarts}
    if ended:
        found["lastState"] = {"terminated": {"reason": ended, "exitCode": code}}
    if waiting:
        found["state"] = {"waiting": {"reason": waiting}}
    return found


def with_status(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "vllm-0"}, "spec": {}, "status": status}


def test_a_restart_is_said_with_how_the_container_ended() -> None:
    cluster = ClusterState()
    cluster.pod(with_status(containerStatuses=[container(1, "Error", 1)]))
    assert said(cluster) == [], "what happened before we looked is no news"
    cluster.pod(with_status(containerStatuses=[container(2, "Error", 1)]))
    assert said(cluster) == ["Restarted vllm-0: Error, exit code 1"]


def test_an_oom_kill_counts_and_is_said() -> None:
    cluster = ClusterState()
    cluster.pod(with_status(containerStatuses=[container()]))
    cluster.pod(with_status(containerStatuses=[container(1, "OOMKilled", 137)]))
    assert said(cluster) == ["OOMKilled vllm-0"]
    assert cluster.page(Endpoint("vllm-0", "primary", "http://x"), ()).counters == {
        "pod_restarts": 1,
        "pods_oom_killed": 1,
    }


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({"containerStatuses": [container(3, waiting="CrashLoopBackOff")]}, "CrashLoopBackOff vllm-0"),
        ({"initContainerStatuses": [container(waiting="ImagePullBackOff")]}, "ImagePullBackOff vllm-0"),
        ({"reason": "Evicted", "message": "low on memory"}, "Evicted vllm-0: low on memory"),
        ({"reason": "OutOfnvidia.com/gpu", "message": "m"}, "OutOfnvidia.com/gpu vllm-0: m"),
        (
            {"reason": "UnexpectedAdmissionError", "message": "no devices"},
            "UnexpectedAdmissionError vllm-0: no devices",
        ),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]},
            "DisruptionTarget vllm-0: EvictionByEvictionAPI",
        ),
    ],
)
def test_a_trouble_is_said_when_it_begins_and_again_when_it_comes_back(status: dict[str, Any], line: str) -> None:
    cluster = ClusterState()
    for _ in range(3):
        cluster.pod(with_status(**status))
    assert said(cluster) == [line]
    cluster.pod(with_status(phase="Running"))
    cluster.pod(with_status(**status))
    assert said(cluster) == [line, line]


def test_containers_that_are_being_made_are_no_trouble() -> None:
    cluster = ClusterState()
    cluster.pod(with_status(containerStatuses=[container(waiting="ContainerCreating")]))
    assert said(cluster) == []


def gpus(allocatable: int, capacity: int = 8, **more: Any) -> dict[str, Any]:
    found = node("node-a")
    found["status"] |= {
        "capacity": {"nvidia.com/gpu": str(capacity), "cpu": "64"}, "allocatable": {"nvidia.com/gpu": str(allocatable)},
    }  # fmt: skip
    found["status"]["conditions"] += more.get("conditions", [])
    return found


def test_gpus_that_cannot_be_given_to_pods_are_missing() -> None:
    cluster = ClusterState()
    cluster.node(gpus(8))
    assert said(cluster) == []
    cluster.node(gpus(7))
    cluster.node(gpus(7))
    assert said(cluster) == ["GPUsMissing node-a: 7 of 8 can be given to pods"]
    cluster.node(gpus(6))
    assert said(cluster)[1:] == ["GPUsMissing node-a: 6 of 8 can be given to pods"]


def test_what_a_health_monitor_writes_on_a_node_is_said() -> None:
    cluster = ClusterState()
    cluster.node(gpus(8, conditions=[{"type": "GpuXidError", "status": "True", "message": "Xid 79"}]))
    assert said(cluster) == ["NodeCondition node-a: GpuXidError (Xid 79)"]


def test_a_node_that_is_lost_is_said_and_counted() -> None:
    cluster = ClusterState()
    cluster.node(node("node-a"))
    cluster.node(node("node-a", ready=False))
    assert said(cluster) == ["NodeNotReady node-a"]
    assert cluster.page(Endpoint("x", "p", "http://x"), ()).gauges["nodes_not_ready"] == 1
    cluster.nodes_known = False
    assert "nodes_not_ready" not in cluster.page(Endpoint("x", "p", "http://x"), ()).gauges


def test_an_event_counts_once_for_each_time_it_happened() -> None:
    cluster = ClusterState()
    for count in (1, 1, 2):
        cluster.event(event("e", "FailedScheduling", "vllm-9", "3 Insufficient nvidia.com/gpu", count), NOW)
    cluster.event(event("f", "Pulled", "vllm-9"), NOW)
    cluster.event(event("g", "Unhealthy", "vllm-9") | {"eventTime": None}, NOW)
    assert said(cluster) == ["FailedScheduling vllm-9: 3 Insufficient nvidia.com/gpu"] * 2 + ["Unhealthy vllm-9: "]


@pytest.mark.parametrize(
    "when",
    [
        lambda at: {"lastTimestamp": at, "eventTime": None},
        lambda at: {"lastTimestamp": None, "eventTime": at},
        lambda at: {"eventTime": "2026-11-22T11:00:00.000000Z", "series": {"lastObservedTime": at}},
    ],
)
def test_an_event_of_before_we_looked_is_no_news_and_its_next_time_is(when: Callable[[str], dict[str, Any]]) -> None:
    cluster = ClusterState()
    for count, ago in ((1, timedelta(minutes=50)), (1, timedelta(minutes=50)), (2, timedelta(seconds=5))):
        at = f"{NOW - ago:%Y-%m-%dT%H:%M:%S}Z"
        cluster.event(event("e", "FailedScheduling", "vllm-9", f"time {count}", count) | when(at), NOW)
    assert said(cluster) == ["FailedScheduling vllm-9: time 2"]


def test_a_pod_is_found_by_the_name_that_its_endpoint_has_in_kubernetes() -> None:
    cluster = ClusterState()
    cluster.pod(pod("vllm-0", restarts=4))
    named = Endpoint("standby.vllm-0", "standby", "http://10.0.0.1", pod="llm/vllm-0")
    assert cluster.page(named, ()).counters["pod_restarts"] == 4


READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("found", "waiting"),
    [
        (with_status(phase="Running", conditions=[READY]), 0),
        (with_status(phase="Running", conditions=[READY | {"status": "False"}]), 1),
        (with_status(phase="Running", conditions=[READY | {"status": "Unknown"}]), 1),
        (with_status(phase="Pending"), 1),
        (with_status(phase="Failed", reason="Evicted"), 0),
        (with_status(phase="Succeeded"), 0),
        ({"metadata": {"name": "vllm-0", "deletionTimestamp": "2026-11-22T10:00:00Z"}, "status": {}}, 0),
    ],
    ids=["serves", "starts", "node is lost", "no node", "evicted", "done", "asked to end"],
)
def test_a_pod_that_should_serve_and_does_not_is_counted(found: dict[str, Any], waiting: int) -> None:
    cluster = ClusterState()
    cluster.pod(pod("vllm-1", ready=True))
    cluster.pod(found)
    assert cluster.page(Endpoint("vllm-1", "primary", "http://x"), ()).gauges["pods_not_ready"] == waiting
