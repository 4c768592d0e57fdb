"""One suite over every fault of a cluster, against a real API server whose nodes and pods are hollow."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from controlplane.chaos.drill import Drill, Facts, Outcome, judge, time_phases
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import settled
from controlplane.chaos.redundancy import BlastRadius
from controlplane.chaos.substrates import kube_ground
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_objects import DOWN
from controlplane.chaos.substrates.registry import KUBERNETES, kubernetes_faults
from controlplane.clock import utcnow
from controlplane.errors import FaultError
from controlplane.fleet.cluster import Cluster
from controlplane.fleet.model import Endpoint
from controlplane.flows.faults import FaultPorts, FaultRequest, inject, until_healed
from tests.support.fleets import ROOT
from tests.support.kube import definitions
from tests.support.kube_chaos import LONG, Listener, Rig, chaos_mesh, enforcing, listener, tending
from tests.support.kube_lab.api import MERGE
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab
from tests.unit.flows.drilling import FakeHalts, FakeLog, TimedLeases

pytestmark = pytest.mark.journey

_numbers = count(1)


@pytest.fixture
def rig(kube_lab: Lab, hollow: Hollow, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A namespace that has opted in, with two nodes and somebody who runs what is placed on them."""
    # Whoever makes a fault seen (`enforcing`, `tending`) shares this process, and the pauses of its machine.
    monkeypatch.setattr(kube_ground, "SEEN_WITHIN_S", 30.0)
    made = Rig(hollow, kube_lab.kubeconfig, namespace)
    made.opt_in()
    made.make_nodes()
    with tending(made):
        yield made
    for name in made.nodes:
        hollow.admin.must("DELETE", f"/api/v1/nodes/{name}")


@pytest.fixture
def engine() -> Iterator[Listener]:
    with listener(f"127.0.77.{next(_numbers)}") as made:
        yield made


def served(rig: Rig, engine: Listener) -> Endpoint:
    """Return an endpoint whose address takes connections until its network cuts it off."""
    host = engine._address
    rig.hollow.pod(rig.namespace, "engine-0", rig.nodes[0], ip=host, port=engine.port)
    return Endpoint("engine-0", "primary", f"http://{host}:{engine.port}", rig.nodes[0])


async def over(rig: Rig, lease: Lease, within_s: float = 40.0) -> None:
    """Wait until nothing is left of a fault."""
    deadline = time.monotonic() + within_s
    while left := await rig.driver.residue(lease):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.1)


@pytest.fixture
def target(rig: Rig, engine: Listener) -> Iterator[Callable[[FaultKind], Endpoint]]:
    """Gives what a kind is tried on, with everything around it that a real cluster would have."""
    with ExitStack() as around:

        def make(kind: FaultKind) -> Endpoint:
            if kind is not FaultKind.NETWORK_PARTITION:
                return rig.fleet()
            around.enter_context(enforcing(rig, engine))
            return served(rig, engine)

        yield make


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_a_fault_is_in_force_once_proven_from_outside_and_over_once(
    rig: Rig, kind: FaultKind, target: Callable[[FaultKind], Endpoint]
) -> None:
    lease = rig.lease(kind, target(kind))
    assert await rig.driver.prove(lease) == ""
    assert rig.ours() == []
    await rig.driver.apply(lease)
    assert await rig.driver.prove(lease) != ""
    made = rig.ours()
    assert made != []
    await rig.driver.apply(lease)
    assert await rig.driver.prove(lease) != ""
    assert rig.ours() == made
    assert await rig.driver.residue(lease) != ""
    first = await rig.driver.revert(lease)
    assert await rig.driver.revert(lease) == first
    await over(rig, lease)
    assert await rig.driver.prove(lease) == ""
    assert rig.ours() == []


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_two_leases_do_not_do_the_same_harm_to_one_endpoint(
    rig: Rig, kind: FaultKind, target: Callable[[FaultKind], Endpoint]
) -> None:
    endpoint = target(kind)
    first, second = rig.lease(kind, endpoint), rig.lease(kind, endpoint)
    await rig.driver.apply(first)
    with pytest.raises(FaultError, match="broken that way already"):
        await rig.driver.apply(second)
    await rig.driver.revert(second)
    assert await rig.driver.prove(first) != ""
    await rig.driver.revert(first)
    await over(rig, first)


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_nothing_is_broken_where_the_namespace_has_not_opted_in(
    rig: Rig, kind: FaultKind, target: Callable[[FaultKind], Endpoint]
) -> None:
    endpoint = target(kind)
    gone = {"metadata": {"labels": {"controlplane.dev/chaos": None}}}
    rig.admin.must("PATCH", f"/api/v1/namespaces/{rig.namespace}", gone, MERGE)
    before = set(rig.pods())
    with pytest.raises(FaultError, match="nothing may be broken in namespace") as told:
        await rig.driver.apply(rig.lease(kind, endpoint))
    assert "kubectl label namespace" in told.value.fix
    assert rig.ours() == []
    assert set(rig.pods()) == before


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_a_target_that_is_not_there_is_told_with_the_way_out(rig: Rig, kind: FaultKind) -> None:
    nobody = Endpoint("nobody-0", "primary", "http://127.0.0.1:1")
    with pytest.raises(FaultError, match="no pod of nobody-0") as told:
        await rig.driver.apply(rig.lease(kind, nobody))
    assert rig.namespace in told.value.why
    assert "namespaces" in told.value.fix


APPLY = """
import asyncio, json, sys, time
from datetime import datetime
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.substrates import kube_network
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.registry import kubernetes_faults
from controlplane.clock import utcnow
from controlplane.errors import FaultError
from controlplane.fleet.cluster import Cluster
from controlplane.fleet.model import BurnerSpec, Endpoint, KubernetesSubstrateSpec
raw = json.loads(sys.argv[1])
at = datetime.fromisoformat(raw["at"])
lease = Lease(raw["id"], "drill", FaultKind(raw["kind"]), Endpoint(**raw["endpoint"]), at, LeaseState.INTENDED, at,
              parameters=raw["parameters"])
spec = KubernetesSubstrateSpec((raw["namespace"],), raw["kubeconfig"], chaos_mesh=False, burner=BurnerSpec("burner:1"))
driver = kubernetes_faults(Ground(Cluster(raw["kubeconfig"], "", FaultError), spec, utcnow))
asyncio.run(driver.apply(lease))
print("in force", flush=True)
time.sleep(600)
"""


def asked_and_died(rig: Rig, lease: Lease) -> None:
    """Have a process of its own put a fault in force, and kill it."""
    order = {
        "id": lease.id, "kind": lease.kind, "endpoint": asdict(lease.endpoint), "at": lease.deadline.isoformat(),
        "parameters": dict(lease.parameters), "namespace": rig.namespace, "kubeconfig": str(rig.kubeconfig),
    }  # fmt: skip
    line = [sys.executable, "-c", APPLY, json.dumps(order)]
    asking = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    said = asking.stdout.readline()
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    assert said == "in force\n"


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_what_a_killed_process_left_is_reaped_by_another_one_when_its_time_has_come(
    rig: Rig, kind: FaultKind, target: Callable[[FaultKind], Endpoint]
) -> None:
    lease = rig.lease(kind, target(kind), timedelta(seconds=40))
    asked_and_died(rig, lease)
    made = rig.ours()
    assert made != []
    assert await rig.reaper().reap(lease.deadline - timedelta(seconds=1)) == ()
    assert set(rig.ours()) >= set(made)  # A job makes its pod in its own time.
    (line,) = await rig.reaper().reap(lease.deadline)
    assert lease.id in line
    await over(rig, lease)
    assert rig.ours() == []
    assert await rig.reaper().reap(lease.deadline) == ()


async def test_healing_by_hand_ends_everything_before_its_time_without_a_database(rig: Rig, tmp_path: Path) -> None:
    lease = rig.lease(FaultKind.NODE_KILL, rig.fleet())
    await rig.driver.apply(lease)
    page = tmp_path / "page.yaml"
    where = {"namespaces": [rig.namespace], "kubeconfig": str(rig.kubeconfig), "chaos_mesh": False}
    fleet = {"pools": {"primary": {"endpoints": {"static": [lease.endpoint.url]}}}, "substrate": {"kubernetes": where}}
    page.write_text(json.dumps({"service": "chat", "fleet": fleet}))
    line = [sys.executable, "-m", "controlplane", "heal", str(page), "--state-dir", str(tmp_path / "state")]
    done = await asyncio.to_thread(subprocess.run, line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lease.id in done.stdout
    await over(rig, lease)
    assert rig.ours() == []


# -- what each kind has of its own ------------------------------------------------------------------------------------


async def test_a_killed_node_takes_the_fleets_pods_along_and_drives_out_nobody_elses(rig: Rig, hollow: Hollow) -> None:
    endpoint = rig.fleet()
    bystander = hollow.namespace(f"{rig.namespace}-others")
    hollow.pod(bystander, "monitor", rig.nodes[0])
    before = {pod["metadata"]["uid"] for pod in rig.pods().values()}
    lease = rig.lease(FaultKind.NODE_KILL, endpoint)
    told = await rig.driver.apply(lease)
    assert rig.taints(rig.nodes[0]) == ["NoSchedule"], told
    assert await rig.driver.prove(lease) != ""
    elsewhere = rig.until_ready(but=before)
    assert {pod["spec"]["nodeName"] for pod in elsewhere.values()} == {rig.nodes[1]}
    hollow.admin.must("GET", f"/api/v1/namespaces/{bystander}/pods/monitor")
    await rig.driver.revert(lease)
    hollow.delete(bystander, "monitor")
    hollow.admin.must("DELETE", f"/api/v1/namespaces/{bystander}")
    again = rig.lease(FaultKind.NODE_KILL, rig.endpoint(min(rig.pods())))
    await rig.driver.apply(again)
    assert rig.taints(rig.nodes[1]) == ["NoExecute"]
    await rig.driver.revert(again)
    await over(rig, again)
    assert rig.taints(rig.nodes[0]) == rig.taints(rig.nodes[1]) == []


async def test_a_node_is_down_until_the_last_of_its_leases_is_over(rig: Rig) -> None:
    rig.fleet()
    names = sorted(rig.pods())
    leases = [rig.lease(FaultKind.NODE_KILL, rig.endpoint(name)) for name in names]
    claims = [await rig.ground.take(lease) for lease in leases]
    for lease, claim in zip(leases, claims, strict=True):
        await rig.ground.take_down(lease, claim, "NoSchedule")
    await rig.driver.revert(leases[0])
    assert rig.taints(rig.nodes[0]) == ["NoSchedule"]
    await rig.driver.revert(leases[1])
    assert rig.taints(rig.nodes[0]) == []
    assert rig.ours() == []


async def test_a_drill_may_kill_every_endpoint_of_one_node(rig: Rig) -> None:
    rig.fleet()
    leases = [rig.lease(FaultKind.NODE_KILL, rig.endpoint(name), name=f"drill-{name}") for name in sorted(rig.pods())]
    for lease in leases:  # The second one's pod is gone with the node by then.
        await rig.driver.apply(lease)
    for lease in leases:
        assert await rig.driver.prove(lease) != ""
    for lease in leases:
        await rig.driver.revert(lease)
    for lease in leases:
        await over(rig, lease)
    assert rig.ours() == []


async def test_others_taints_and_labels_are_left_as_they_are(rig: Rig) -> None:
    theirs = {"metadata": {"labels": {"pool": "gpu"}}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}
    endpoint = rig.fleet()
    rig.admin.must("PATCH", f"/api/v1/nodes/{rig.nodes[0]}", theirs, MERGE)
    lease = rig.lease(FaultKind.NODE_KILL, endpoint)
    await rig.driver.apply(lease)
    await rig.driver.revert(lease)
    node = rig.admin.must("GET", f"/api/v1/nodes/{rig.nodes[0]}")
    assert node["spec"]["taints"] == [{"key": "gpu", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["pool"] == "gpu"
    assert DOWN not in json.dumps(node["metadata"].get("annotations") or {})


async def test_a_taint_that_nobody_remembers_is_taken_off(rig: Rig) -> None:
    orphan = {"metadata": {"labels": {DOWN: "down"}}, "spec": {"taints": [{"key": DOWN, "effect": "NoSchedule"}]}}
    rig.admin.must("PATCH", f"/api/v1/nodes/{rig.nodes[0]}", orphan, MERGE)
    assert await rig.reaper().reap(utcnow()) != ()
    assert rig.ours() == []


@pytest.mark.parametrize("kind", [FaultKind.NODE_KILL, FaultKind.POD_EVICTION])
async def test_a_pod_that_nobody_would_bring_back_is_not_taken_away(
    rig: Rig, kind: FaultKind, engine: Listener
) -> None:
    endpoint = served(rig, engine)
    with pytest.raises(FaultError) as told:
        await rig.driver.apply(rig.lease(kind, endpoint))
    assert "no controller owns it" in told.value.why
    assert rig.ours() == []
    rig.admin.must("GET", f"/api/v1/namespaces/{rig.namespace}/pods/engine-0")


async def test_a_disruption_budget_refuses_an_eviction_by_its_name(rig: Rig) -> None:
    endpoint = rig.fleet()
    budget = {
        "metadata": {"name": "chat-stays"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "chat"}}},
    }
    rig.admin.must("POST", f"/apis/policy/v1beta1/namespaces/{rig.namespace}/poddisruptionbudgets", budget)
    with pytest.raises(FaultError, match="disruption budget forbids") as told:
        await rig.driver.apply(rig.lease(FaultKind.POD_EVICTION, endpoint))
    assert "chat-stays" in told.value.why
    assert endpoint.name in rig.pods()
    assert rig.ours() == []


async def test_a_partition_that_no_network_enforces_is_not_proven(
    rig: Rig, engine: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_ground, "SEEN_WITHIN_S", 1.0)
    lease = rig.lease(FaultKind.NETWORK_PARTITION, served(rig, engine))
    await rig.driver.apply(lease)
    assert await rig.driver.prove(lease) == ""
    await rig.driver.revert(lease)
    await over(rig, lease)


async def test_a_policy_that_lets_traffic_through_is_named(rig: Rig, engine: Listener) -> None:
    allowing = {
        "metadata": {"name": "from-the-gateway"},
        "spec": {"podSelector": {"matchLabels": {"app": "engine"}}, "ingress": [{"ports": [{"port": 8000}]}]},
    }
    rig.admin.must("POST", f"/apis/networking.k8s.io/v1/namespaces/{rig.namespace}/networkpolicies", allowing)
    with pytest.raises(FaultError) as told:
        await rig.driver.apply(rig.lease(FaultKind.NETWORK_PARTITION, served(rig, engine)))
    assert "from-the-gateway" in told.value.why
    assert rig.ours() == []


async def test_an_endpoint_that_is_not_reached_anyway_is_not_cut_off(rig: Rig, engine: Listener) -> None:
    endpoint = served(rig, engine)
    engine.close()
    with pytest.raises(FaultError, match="takes no connections"):
        await rig.driver.apply(rig.lease(FaultKind.NETWORK_PARTITION, endpoint))
    assert rig.ours() == []


@pytest.mark.parametrize(
    "given", [{"mode": "reset"}, {"mode": "delay"}, {"direction": "from"}, {"peer": "gateway"}], ids=str
)
async def test_what_a_network_policy_cannot_do_or_show_is_refused(
    rig: Rig, engine: Listener, given: dict[str, object]
) -> None:
    with pytest.raises(FaultError):
        await rig.driver.apply(rig.lease(FaultKind.NETWORK_PARTITION, served(rig, engine), LONG, "", **given))
    assert rig.ours() == []


async def test_an_endpoint_is_found_by_its_address_where_it_is_not_called_as_its_pod(rig: Rig) -> None:
    endpoint = rig.fleet()
    lease = rig.lease(FaultKind.POD_EVICTION, replace(endpoint, name="primary-0"))
    await rig.driver.apply(lease)
    assert endpoint.name in await rig.driver.prove(lease)
    await rig.driver.revert(lease)
    await over(rig, lease)


async def test_a_burner_ends_by_itself_and_is_held_to_its_ceilings(rig: Rig) -> None:
    endpoint = rig.fleet()
    lease = rig.lease(FaultKind.GPU_SATURATION, endpoint, memory_mib=512, max_temperature_c=80)
    await rig.driver.apply(lease)
    (job,) = rig.admin.must("GET", f"/apis/batch/v1/namespaces/{rig.namespace}/jobs")["items"]
    assert 1 <= job["spec"]["activeDeadlineSeconds"] <= LONG.total_seconds()
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeName"] == endpoint.node
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    line = " ".join(container["args"])
    assert "--memory-mib 512" in line
    assert "--max-temperature 80" in line
    assert "burns on" in await rig.driver.prove(lease)
    await rig.driver.revert(lease)
    await over(rig, lease)


async def test_without_an_image_nothing_burns(rig: Rig) -> None:
    endpoint = rig.fleet()
    ground = Ground(Cluster(str(rig.kubeconfig), "", FaultError), replace(rig.spec, burner=None), utcnow)
    with pytest.raises(FaultError, match="no burner") as told:
        await kubernetes_faults(ground).apply(rig.lease(FaultKind.GPU_SATURATION, endpoint))
    assert "burner" in told.value.fix


READS = [
    {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["get", "list"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "create", "delete"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get", "list"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"]},
]
DENIED = {
    FaultKind.NODE_KILL: ("patch", "nodes"),
    FaultKind.POD_EVICTION: ("create", "pods/eviction"),
    FaultKind.NETWORK_PARTITION: ("create", "networkpolicies.networking.k8s.io"),
    FaultKind.GPU_SATURATION: ("create", "jobs.batch"),
}


@pytest.mark.parametrize("kind", KUBERNETES)
async def test_a_denial_names_its_verb_resource_and_namespace_and_leaves_nothing(
    rig: Rig, kind: FaultKind, target: Callable[[FaultKind], Endpoint], kube_lab: Lab
) -> None:
    endpoint = target(kind)
    poor = kube_lab.service_account(f"poor-{rig.namespace}", rig.namespace, READS, cluster=True)
    driver = kubernetes_faults(Ground(Cluster(str(poor), "", FaultError), rig.spec, utcnow))
    with pytest.raises(FaultError) as told:
        await driver.apply(rig.lease(kind, endpoint))
    verb, resource = DENIED[kind]
    where = "" if resource == "nodes" else f" in namespace {rig.namespace}"
    assert f"this account may not {verb} {resource}{where}" in told.value.why
    assert f"{verb} {resource}" in told.value.fix
    assert rig.ours() == []


async def test_an_api_server_that_does_not_answer_is_a_fault_that_could_not_be_injected(rig: Rig) -> None:
    nowhere = rig.kubeconfig.read_text().replace(f"{rig.admin._host}:{rig.admin._port}", "127.0.0.1:1")
    path = rig.kubeconfig.with_name(f"{rig.namespace}-nowhere.conf")
    path.write_text(nowhere)
    driver = kubernetes_faults(Ground(Cluster(str(path), "", FaultError), rig.spec, utcnow))
    lease = rig.lease(FaultKind.NODE_KILL, Endpoint("chat-0", "primary", "http://127.0.0.1:1"))
    with pytest.raises(FaultError, match="cannot ask the Kubernetes API server"):
        await driver.apply(lease)
    path.unlink()


# -- where Chaos Mesh is ----------------------------------------------------------------------------------------------


@pytest.fixture
def meshed(rig: Rig, engine: Listener) -> Iterator[Rig]:
    """The same namespace in a cluster that has Chaos Mesh's kinds, and somebody who does what it does."""
    for definition in definitions():
        if definition["spec"]["group"] == "chaos-mesh.org":
            rig.admin.install(definition)
    with chaos_mesh(rig, engine):
        yield Rig(rig.hollow, rig.kubeconfig, rig.namespace, chaos_mesh=True)


MESHED: dict[FaultKind, tuple[str, dict[str, object]]] = {
    FaultKind.NODE_KILL: ("podchaos", {}),
    FaultKind.NETWORK_PARTITION: ("networkchaos", {}),
    FaultKind.GPU_SATURATION: ("stresschaos", {"device": "cpu"}),
}
"""What a kind is given to Chaos Mesh as, and how it is asked for."""


@pytest.mark.parametrize("kind", MESHED)
async def test_chaos_mesh_is_given_what_it_can_do_and_ends_it_by_itself(
    meshed: Rig, kind: FaultKind, engine: Listener
) -> None:
    plural, given = MESHED[kind]
    endpoint = served(meshed, engine) if kind is FaultKind.NETWORK_PARTITION else meshed.fleet()
    before = set(meshed.pods())
    lease = meshed.lease(kind, endpoint, LONG, "", **given)
    assert await meshed.driver.prove(lease) == ""
    for _ in range(2):
        await meshed.driver.apply(lease)
        path = f"/apis/chaos-mesh.org/v1alpha1/namespaces/{meshed.namespace}/{plural}"
        (found,) = meshed.admin.must("GET", path)["items"]
        assert 1 <= int(found["spec"]["duration"].removesuffix("s")) <= LONG.total_seconds()
        assert await meshed.driver.prove(lease) != ""
    assert set(meshed.pods()) == before
    assert plural in await meshed.driver.residue(lease)
    assert await meshed.reaper().reap(utcnow()) == ()
    assert lease.id in "".join(await meshed.reaper().reap(lease.deadline))
    await over(meshed, lease)
    assert meshed.admin.must("GET", path)["items"] == []


@pytest.mark.parametrize("given", [{"mode": "reset"}, {"peer": "gateway"}], ids=str)
async def test_what_chaos_mesh_cannot_do_is_refused_too(
    meshed: Rig, engine: Listener, given: dict[str, object]
) -> None:
    with pytest.raises(FaultError):
        await meshed.driver.apply(meshed.lease(FaultKind.NETWORK_PARTITION, served(meshed, engine), LONG, "", **given))
    assert meshed.ours() == []


# -- through the journey of a drill, which is the same everywhere ---------------------------------------------------


def ports(rig: Rig, leases: TimedLeases, endpoints: tuple[Endpoint, ...]) -> FaultPorts:
    """Return what a drill touches, with the real driver and everything else in memory."""
    return FaultPorts(
        leases, FakeLog(), FakeHalts(), rig.driver, lambda _: endpoints, lambda: 4, lambda _: BlastRadius(), utcnow
    )


DRILL = Drill("d1", "node-kill", "P0", timedelta(minutes=5), "ann", utcnow())


async def test_a_drill_breaks_a_pool_of_pods_proves_it_and_leaves_nothing(rig: Rig) -> None:
    rig.fleet()
    endpoints = tuple(rig.endpoint(name) for name in sorted(rig.pods()))
    leases = TimedLeases()
    joined = ports(rig, leases, endpoints)
    request = FaultRequest(FaultKind.NODE_KILL, "primary", 1.0, LONG, parameters={})
    injected = await inject(joined, DRILL, request)
    assert len(injected) == 2
    assert all(lease.proven_at for lease in injected)
    assert await until_healed(joined, "d1", within_s=30.0) == ()
    assert all(lease.healed_at for lease in await leases.of_drill("d1"))
    assert rig.ours() == []


async def test_a_drill_whose_partition_no_network_enforces_is_invalid(
    rig: Rig, engine: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_ground, "SEEN_WITHIN_S", 1.0)
    joined = ports(rig, leases := TimedLeases(), (served(rig, engine),))
    given = settled(FaultKind.NETWORK_PARTITION, {})
    request = FaultRequest(FaultKind.NETWORK_PARTITION, "primary", 1.0, LONG, parameters=given)
    injected = await inject(joined, DRILL, request)
    residues = await until_healed(joined, "d1", within_s=30.0)
    proven = sum(1 for lease in injected if lease.proven_at)
    facts = Facts(
        time_phases(await leases.of_drill("d1"), None, None),
        1,
        proven,
        DRILL.objective,
        residues,
        "completed",
        deviated=False,
    )
    assert judge(facts) == (Outcome.INVALID, ("only 0 of 1 faults could be proven from outside",))
    assert rig.ours() == []
