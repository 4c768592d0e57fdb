"""Faults of a cluster when somebody else acts between two of their requests, and when we ourselves are late."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import pytest

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.parameters import settled
from controlplane.chaos.substrates import kube_objects as made
from controlplane.chaos.substrates import looks
from controlplane.chaos.substrates.kube_burner import KubeBurners
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_nodes import KubeNodes
from controlplane.chaos.substrates.kube_reaper import KubeReaper
from controlplane.fleet.cluster import NAMESPACES, NODES, PODS, Document, Kind
from controlplane.fleet.model import Endpoint, KubernetesSubstrateSpec
from tests.support.kube_memory import Memory

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
ENDPOINT = Endpoint("chat-0", "primary", "http://10.0.0.1:8000", "gpu-1")
TARGET = made.Target("prod", "chat-0", "u1", "gpu-1", "statefulsets/chat")
STATEFUL_SETS = Kind("apps", "v1", "statefulsets")
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def lease(kind: FaultKind) -> Lease:
    return Lease(
        "d1-chat-0", "d1", kind, ENDPOINT, NOW + timedelta(minutes=1), LeaseState.INTENDED, NOW,
        parameters=settled(kind, {}),
    )  # fmt: skip


def pod(memory: Memory, name: str, namespace: str = "prod", owner: str = "chat") -> Document:
    owners = [{"controller": True, "kind": "StatefulSet", "name": owner}]
    about = {"name": name, "labels": {"app": "chat"}, "ownerReferences": owners}
    return memory.put(PODS, namespace, {"metadata": about, "spec": {"nodeName": "gpu-1"}, "status": READY})


def world() -> tuple[Memory, Ground]:
    """Return a cluster with a node, and a fleet of one pod there, in a namespace that has opted in."""
    memory = Memory()
    memory.put(NAMESPACES, "", {"metadata": {"name": "prod", "labels": {"controlplane.dev/chaos": "allowed"}}})
    memory.put(NODES, "", {"metadata": {"name": "gpu-1"}})
    pod(memory, "chat-0")
    return memory, Ground(memory, KubernetesSubstrateSpec(("prod",), chaos_mesh=False), lambda: NOW)


def moments(act: Callable[[Memory], object]) -> Iterator[tuple[Memory, Ground]]:
    """Give one world after another: in each, somebody acts after one more request, and in the last one not at all."""
    for moment in count(1):
        memory, ground = world()
        memory.meanwhile[moment] = partial(act, memory)
        yield memory, ground
        if memory.meanwhile:
            return


def taints(memory: Memory) -> list[str]:
    return [one["effect"] for one in memory.kept[NODES, "", "gpu-1"]["spec"].get("taints") or ()]


# -- looking ----------------------------------------------------------------------------------------------------------


async def test_a_burner_that_burns_at_last_is_seen_however_late_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, ground = world()
    burning = lease(FaultKind.GPU_SATURATION)
    memory.put(made.CLAIMS, "prod", made.claim(burning, TARGET, NOW))
    clock = [0.0]

    def stand_still() -> None:
        clock[0] += 60.0
        memory.change(PODS, "prod", "chat-0", {"metadata": {"labels": {made.MARK: made.mark_of(burning.id)}}})

    monkeypatch.setattr(looks, "monotonic", lambda: clock[0])
    memory.meanwhile[2] = stand_still  # After its claim is read, and its pods are looked for once.
    assert await KubeBurners(ground).prove(burning) == "burner chat-0 burns on gpu-1"


# -- reaping ----------------------------------------------------------------------------------------------------------


async def test_a_partition_that_begins_while_a_reaper_looks_lives_on() -> None:
    cut = lease(FaultKind.NETWORK_PARTITION)
    mark = made.mark_of(cut.id)

    def begin(memory: Memory) -> None:
        memory.put(made.CLAIMS, "prod", made.claim(cut, TARGET, NOW))
        memory.put(made.NETWORK_POLICIES, "prod", made.network_policy(cut, TARGET))
        memory.change(PODS, "prod", "chat-0", {"metadata": {"labels": {made.CUT_OFF: mark}}})

    for memory, ground in moments(begin):
        assert await KubeReaper(ground).reap(NOW) == ()
        claimed = (made.CLAIMS, "prod", made.claim_name(cut)) in memory.kept
        enforced = (made.NETWORK_POLICIES, "prod", made.object_name(cut)) in memory.kept
        labelled = made.CUT_OFF in memory.kept[PODS, "prod", "chat-0"]["metadata"]["labels"]
        assert claimed is enforced is labelled is (not memory.meanwhile)


async def test_a_label_that_no_claim_explains_is_taken_off() -> None:
    memory, ground = world()
    memory.change(PODS, "prod", "chat-0", {"metadata": {"labels": {made.CUT_OFF: "nobodys"}}})
    assert await KubeReaper(ground).reap(NOW) == ("fault nobodys: removed label of pod chat-0",)
    assert await ground.left("nobodys") == ()


async def test_a_node_that_is_taken_down_while_its_orphaned_taint_is_swept_stays_down() -> None:
    killed = lease(FaultKind.NODE_KILL)
    entries = {made.mark_of(killed.id): made.entry_of(killed, "prod")}

    def begin(memory: Memory) -> None:
        node = memory.kept[NODES, "", "gpu-1"]
        memory.change(NODES, "", "gpu-1", made.node_change(node, entries, "NoExecute"))

    for memory, ground in moments(begin):
        orphan = {"key": made.DOWN, "value": "down", "effect": "NoSchedule"}
        memory.change(NODES, "", "gpu-1", {"metadata": {"labels": {made.DOWN: "down"}}, "spec": {"taints": [orphan]}})
        done = await KubeReaper(ground).reap(NOW)
        swept = "patch nodes" in memory.asked
        assert done == (("node gpu-1: removed a taint of nobody's",) if swept else ())
        begun = not memory.meanwhile
        assert begun or swept
        assert taints(memory) == (["NoExecute"] if begun else [])
        assert made.down_for(memory.kept[NODES, "", "gpu-1"]) == (entries if begun else {})


# -- killing a node ---------------------------------------------------------------------------------------------------


async def test_a_stranger_who_comes_to_a_node_while_it_is_killed_is_not_driven_out() -> None:
    def come(memory: Memory) -> None:
        if not taints(memory):  # Else a scheduler places nobody there.
            pod(memory, "guest", namespace="others")

    for memory, ground in moments(come):
        await KubeNodes(ground).apply(lease(FaultKind.NODE_KILL))
        came = (PODS, "others", "guest") in memory.kept
        assert taints(memory) == (["NoSchedule"] if came else ["NoExecute"])
        assert (PODS, "prod", "chat-0") not in memory.kept


# -- coming back ------------------------------------------------------------------------------------------------------


async def test_a_workload_is_back_when_its_own_pods_are_ready_whatever_its_count_says() -> None:
    memory, ground = world()
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "chat"}}}
    memory.put(STATEFUL_SETS, "prod", {"metadata": {"name": "chat"}, "spec": spec, "status": {"readyReplicas": 2}})
    waits = "statefulsets prod/chat has 1 of 2 pods ready"
    assert await ground.waits_for(lease(FaultKind.NODE_KILL)) == waits
    pod(memory, "other-0", owner="other")
    assert await ground.waits_for(lease(FaultKind.NODE_KILL)) == waits
    pod(memory, "chat-1")["status"] = {"phase": "Pending"}
    assert await ground.waits_for(lease(FaultKind.NODE_KILL)) == waits
    pod(memory, "chat-1")["metadata"]["deletionTimestamp"] = "2026-11-22T06:00:00Z"
    assert await ground.waits_for(lease(FaultKind.NODE_KILL)) == waits
    pod(memory, "chat-1")
    assert await ground.waits_for(lease(FaultKind.NODE_KILL)) == ""
