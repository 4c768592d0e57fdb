"""A pool of real pods: kubelets, containers with addresses of their own, Services, and the roles of `deploy/`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.chaos.drill import DrillPhase
from controlplane.chaos.substrates.kube_objects import DOWN
from controlplane.target.gateway_clusters import Place
from controlplane.target.spec import PoolSpec
from tests.support.envoys import Envoy, envoy_to
from tests.support.kube_lab.api import Object
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab, missing
from tests.support.kube_lab.network import own_network
from tests.support.kube_lab.nodes import ENGINE, ENGINE_PORT, Node, deployment, missing_for_pods, proxied, ready_pods
from tests.support.manifests import collection, component
from tests.support.processes import Plane, Running, command, quick_experiments, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(420)]

OURS, FLEET = "controlplane", "inference"
POOLS = {"primary": PoolSpec(1, "base"), "standby": PoolSpec(1, "base")}
PAGE = """
service: chat
fleet:
  engine: reference
  pools:
    primary: {{ endpoints: {{ kubernetes: {{ kubeconfig: "{kubeconfig}", namespace: inference, service: primary }} }} }}
    standby: {{ endpoints: {{ kubernetes: {{ kubeconfig: "{kubeconfig}", namespace: inference, service: standby }} }} }}
  gateway: {{ envoy: {{ xds_dir: "{xds}", admin: "{admin}", listener: "{listener}" }} }}
  substrate: {{ kubernetes: {{ kubeconfig: "{kubeconfig}", namespaces: [inference] }} }}
probes:
  - http: {{ every: 500ms }}
  - inference: {{ every: 1s }}
  - metrics: {{ every: 1s }}
  - events: {{ kubeconfig: "{kubeconfig}", namespace: inference, selector: "app=engine", every: 500ms }}
degradation:
  P0: {{ release: {{ hold: 200ms }} }}
drills:  # Two looks that are lost on a slow machine shall not end a drill that is not about its guards.
  monthly: {{ guards: {{ availability: {{ below: 99%, for: 120s }} }} }}
"""


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Lab, Node]]:
    """Run a control plane, two nodes and the network between them; gives the node of the primary pool."""
    with (
        own_network(f"lab{os.getpid()}"),
        Lab(folder, scheduler=True, silence="20s") as lab,
        Node(lab, "gpu-a", 1) as node,
        Node(lab, "gpu-b", 2),
        proxied(lab),
    ):
        yield lab, node


def install(lab: Lab, folder: Path) -> Path:
    """Make the namespaces, the account and its roles as they are deployed; return the account's kubeconfig."""
    hollow = Hollow(lab.admin)
    hollow.namespace(OURS)
    label = {"metadata": {"name": FLEET, "labels": {"controlplane.dev/chaos": "allowed"}}}
    lab.admin.must("POST", "/api/v1/namespaces", label)
    lab.admin.must("POST", f"/api/v1/namespaces/{OURS}/serviceaccounts", {"metadata": {"name": "controlplane"}})
    for name in ("read-only", "chaos", "chaos-nodes"):
        for found in component(name, folder / name):
            lab.admin.must("POST", collection(found), found)
    return lab.token("controlplane", OURS)


def run_pools(lab: Lab) -> dict[str, list[Place]]:
    """Run two pods on each node, a pool each; return the addresses of their Services."""
    places = {}
    for pool, replicas, node in (("primary", 2, "gpu-a"), ("standby", 2, "gpu-b")):
        made = deployment(pool, replicas, node, ENGINE, ENGINE_PORT)
        lab.admin.must("POST", f"/apis/apps/v1/namespaces/{FLEET}/deployments", made)
        spec = {"selector": {"pool": pool}, "ports": [{"port": ENGINE_PORT}]}
        service = {"metadata": {"name": pool}, "spec": spec}
        kept = lab.admin.must("POST", f"/api/v1/namespaces/{FLEET}/services", service)
        places[pool] = [Place(f"{pool}-0", kept["spec"]["clusterIP"], ENGINE_PORT)]
    until(lambda: len(ready_pods(lab, FLEET)) == 4, 90.0, "every pod is ready")
    return places


def write_page(folder: Path, kubeconfig: Path, gateway: Envoy) -> Path:
    page = folder / "plane" / "controlplane.yaml"
    page.parent.mkdir()
    page.write_text(
        PAGE.format(kubeconfig=kubeconfig, xds=gateway.xds, admin=gateway.admin, listener=gateway.listener),
        encoding="utf-8",
    )
    return page


def test_a_node_of_real_pods_is_killed_and_the_row_keeps_its_promise(tmp_path: Path) -> None:
    if why := missing() or missing_for_pods():
        pytest.skip(why)
    with cluster(tmp_path / "lab") as (lab, node):
        kubeconfig = install(lab, tmp_path)
        with envoy_to(run_pools(lab), POOLS, tmp_path / "gateway") as gateway:
            page = write_page(tmp_path, kubeconfig, gateway)
            with Plane(page, quick_experiments(tmp_path / "experiments", "12s")) as plane:
                plane.until_ready()
                a_drill_passes(plane, lab, tmp_path)
                a_power_cut_is_survived(plane, lab, node, gateway)


def a_drill_passes(plane: Plane, lab: Lab, folder: Path) -> None:
    """The node's pods are deleted and kept away, the standby serves, and other pods come back there."""
    plane.until(lambda: not plane.get("/api/v1/experiments/node-kill/preview")["refused"], "the drill may start")
    before = on_node(lab, "gpu-a")
    with Running(
        command("drill", "run", "node-kill", "--json", "--state-dir", plane.state), folder / "drill.json"
    ) as run:
        run.until(lambda: [x["state"] for x in plane.get("/api/v1/leases")] == ["proven"] * 2, "both pods are gone")
        assert [taint["key"] for taint in taints(lab)] == [DOWN]
        assert not on_node(lab, "gpu-a") & before
        status = run.process.wait(120)
    drill = json.loads(run.said)
    assert (status, drill["outcome"], drill["reasons"]) == (0, "passed", [])
    assert set(drill["phases"]) == {phase.value for phase in DrillPhase}
    until(lambda: len(on_node(lab, "gpu-a")) == 2, what="the pool has two pods again")
    assert not on_node(lab, "gpu-a") & before
    assert taints(lab) == []
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{FLEET}/leases"
    assert lab.admin.must("GET", leases)["items"] == []
    assert plane.rows("select distinct state from leases") == [("healed",)]


def a_power_cut_is_survived(plane: Plane, lab: Lab, node: Node, gateway: Envoy) -> None:
    """Everything on the node ends at once, with nobody told: the same row, before Kubernetes itself has noticed."""
    before = on_node(lab, "gpu-a")
    node.kill()
    assert plane.until_level("P0")["level"] == "P0"
    assert on_node(lab, "gpu-a") == before, "the API still takes them for ready"
    node.until_lost()
    plane.until(lambda: lacking(plane) == {"nodes_not_ready": 1, "pods_not_ready": 2}, "what it lacks is seen")
    node.start()
    plane.until_level("none", 90.0)
    until(lambda: set(gateway.answered(10)) == {(200, "primary-0")}, what="the primary pool answers")


def lacking(plane: Plane) -> dict[str, float | None]:
    """Return what Kubernetes says that the fleet lacks."""
    seen, labels = plane.metrics(), {"service": "chat", "pool": "standby"}
    names = ("nodes_not_ready", "pods_not_ready")
    return {name: seen.value("controlplane_signal_value", signal=name, **labels) for name in names}


def on_node(lab: Lab, node: str) -> set[str]:
    """Return the names of the pods there that are ready."""
    return {name for name, pod in ready_pods(lab, FLEET).items() if pod["spec"]["nodeName"] == node}


def taints(lab: Lab) -> list[Object]:
    return list(lab.admin.must("GET", "/api/v1/nodes/gpu-a")["spec"].get("taints") or ())
