"""A fleet of hollow pods in a real API server, and what breaks it: for tests of faults in a cluster."""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.parameters import settled
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_objects import CUT_OFF, DOWN, is_ready
from controlplane.chaos.substrates.kube_reaper import KubeReaper
from controlplane.chaos.substrates.registry import Faults, kubernetes_faults
from controlplane.clock import utcnow
from controlplane.errors import FaultError
from controlplane.fleet.cluster import Cluster
from controlplane.fleet.model import BurnerSpec, Endpoint, KubernetesSubstrateSpec
from tests.support.kube_lab.api import MERGE, Admin, Object
from tests.support.kube_lab.hollow import Hollow
from tests.support.processes import until

OPTED_IN = ("controlplane.dev/chaos", "allowed")
LONG = timedelta(seconds=90)


class Rig:
    """One namespace with a fleet of pods, and the driver of everything that can be done to it."""

    def __init__(self, hollow: Hollow, kubeconfig: Path, namespace: str, *, chaos_mesh: bool = False) -> None:
        self.hollow = hollow
        self.admin = hollow.admin
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.spec = KubernetesSubstrateSpec(
            (namespace,), str(kubeconfig), chaos_mesh=chaos_mesh, burner=BurnerSpec("controlplane:test")
        )
        self.ground = Ground(Cluster(str(kubeconfig), "", FaultError), self.spec, utcnow)
        self.driver: Faults = kubernetes_faults(self.ground)
        self.nodes = tuple(f"{namespace}-{letter}" for letter in "ab")

    def opt_in(self, namespace: str = "") -> None:
        """Allow faults in the namespace."""
        path = f"/api/v1/namespaces/{namespace or self.namespace}"
        self.admin.must("PATCH", path, {"metadata": {"labels": dict([OPTED_IN])}}, MERGE)

    def make_nodes(self) -> None:
        for name in self.nodes:
            self.hollow.calm_node(name)

    def fleet(self, replicas: int = 2, name: str = "chat") -> Endpoint:
        """Make a fleet of a ReplicaSet, and return its first endpoint once all are ready."""
        labels = {"app": name}
        body = {
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "terminationGracePeriodSeconds": 0, "containers": [{"name": "engine", "image": "engine:1"}],
                }},
            },
        }  # fmt: skip
        self.admin.must("POST", f"/apis/apps/v1/namespaces/{self.namespace}/replicasets", body)
        return self.endpoint(min(self.until_ready(replicas, name)))

    def until_ready(self, replicas: int = 2, name: str = "chat", but: Collection[str] = ()) -> dict[str, Object]:
        """Wait until a fleet is so many pods, each ready by its own word: its ReplicaSet's count lags behind.

        Args:
            replicas: how many.
            name: of the fleet.
            but: identities of pods that have to be gone.

        Returns:
            The pods by name.
        """

        def all_ready() -> dict[str, Object]:
            pods = self.pods(name)
            well = all(is_ready(pod) and pod["metadata"]["uid"] not in but for pod in pods.values())
            return pods if well and len(pods) == replicas else {}

        return until(all_ready, what=f"{replicas} pods of {name} are ready")

    def pods(self, app: str = "chat") -> dict[str, Object]:
        listed = self.admin.must("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{app}")
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def endpoint(self, pod: str) -> Endpoint:
        found = self.admin.must("GET", f"/api/v1/namespaces/{self.namespace}/pods/{pod}")
        host = found["status"].get("podIP", "127.0.0.1")
        return Endpoint(pod, "primary", f"http://{host}:8000", found["spec"].get("nodeName", ""))

    def lease(
        self, kind: FaultKind, endpoint: Endpoint, lasts: timedelta = LONG, name: str = "", **given: object
    ) -> Lease:
        """Promise a fault that ends."""
        now = datetime.now(UTC)
        lease_id = name or f"drill-{endpoint.name}-{uuid4().hex[:6]}"
        return Lease(
            lease_id, "drill", kind, endpoint, now + lasts, LeaseState.INTENDED, now, parameters=settled(kind, given)
        )

    def reaper(self) -> KubeReaper:
        """Return a reaper that knows nothing but the page: another process's."""
        return KubeReaper(Ground(Cluster(str(self.kubeconfig), "", FaultError), self.spec, utcnow))

    def ours(self) -> list[str]:
        """Return everything that faults have made here, as the administrator sees it."""
        kinds = {
            "leases": "/apis/coordination.k8s.io/v1", "networkpolicies": "/apis/networking.k8s.io/v1",
            "jobs": "/apis/batch/v1", "pods": "/api/v1",
        }  # fmt: skip
        found = []
        for plural, at in kinds.items():
            path = f"{at}/namespaces/{self.namespace}/{plural}?labelSelector=controlplane.dev%2Flease"
            found += [f"{plural}/{one['metadata']['name']}" for one in self.admin.must("GET", path)["items"]]
        cut = self.admin.must("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={CUT_OFF}")["items"]
        found += [f"label of {pod['metadata']['name']}" for pod in cut]
        for name in self.nodes:
            node = self.admin.ask("GET", f"/api/v1/nodes/{name}")[1]
            said = json.dumps([node.get("metadata", {}).get(k) for k in ("labels", "annotations")])
            tainted = any(one["key"] == DOWN for one in node.get("spec", {}).get("taints") or ())
            found += [f"node {name}"] if DOWN in said or tainted else []
        return found

    def taints(self, node: str) -> list[str]:
        """Return the effects of our taints on a node."""
        found = self.admin.must("GET", f"/api/v1/nodes/{node}")["spec"].get("taints") or ()
        return [one["effect"] for one in found if one["key"] == DOWN]


class Looping:
    """Something that is done again and again in a thread of its own while it is open."""

    def __init__(self, name: str, admin: Admin, turn: Callable[[], None]) -> None:
        self._admin = admin
        self._turn = turn
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.1):
                try:
                    self._turn()
                except (OSError, HTTPException, AssertionError):
                    continue  # What it writes of has just gone.
        finally:
            self._admin.close()


def tending(rig: Rig) -> Looping:
    """Do what a scheduler and kubelets do in a namespace: pods get a node that is not down, run, and end.

    Nobody takes connections at the addresses that they get.
    """
    numbers = count(1)

    def turn() -> None:
        pods = rig.admin.must("GET", f"/api/v1/namespaces/{rig.namespace}/pods")["items"]
        for pod in pods:
            name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
            path = f"/api/v1/namespaces/{rig.namespace}/pods/{name}"
            if pod["metadata"].get("deletionTimestamp"):
                rig.admin.ask("DELETE", path, {"gracePeriodSeconds": 0})
            elif not node:
                up = next(name for name in rig.nodes if not rig.taints(name))
                to = {"apiVersion": "v1", "kind": "Node", "name": up}
                rig.admin.must("POST", f"{path}/binding", {"metadata": {"name": name}, "target": to})
            elif pod["status"].get("phase") == "Pending" and pod["metadata"]["labels"].get("app") != "engine":
                rig.hollow.report(rig.namespace, name, ip=f"127.0.78.{next(numbers) % 250 + 1}")

    return Looping("tending", rig.admin, turn)


class Listener:
    """An engine at an address of its own on this machine, which can be cut off as a network would."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.open()

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def open(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = ThreadingHTTPServer((self._address, self.port), _Healthy)
            self._server.daemon_threads = True
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Take none."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listener(address: str) -> Iterator[Listener]:
    """Run an engine."""
    made = Listener(address)
    try:
        yield made
    finally:
        made.close()


def chaos_mesh(rig: Rig, engine: Listener) -> Looping:
    """Do what Chaos Mesh does: say that its objects are in force, and cut off what a partition selects."""

    def turn() -> None:
        partitions = False
        for plural in ("podchaos", "networkchaos", "stresschaos"):
            path = f"/apis/chaos-mesh.org/v1alpha1/namespaces/{rig.namespace}/{plural}"
            for found in rig.admin.must("GET", path)["items"]:
                partitions = partitions or found["spec"].get("action") == "partition"
                if partitions and engine.is_open:
                    engine.close()
                said = [{"type": kind, "status": "True"} for kind in ("Selected", "AllInjected")]
                status = {"status": {"conditions": said, "experiment": {"desiredPhase": "Run"}}}
                if not found.get("status"):
                    rig.admin.must("PATCH", f"{path}/{found['metadata']['name']}", status, MERGE)
        if not partitions and not engine.is_open:
            engine.open()

    return Looping("chaos mesh", rig.admin, turn)


def enforcing(rig: Rig, engine: Listener) -> Looping:
    """Do what a network plugin does: a pod that an empty policy selects is not reached."""

    def turn() -> None:
        path = f"/apis/networking.k8s.io/v1/namespaces/{rig.namespace}/networkpolicies"
        marks = [
            p["spec"]["podSelector"].get("matchLabels", {}).get(CUT_OFF) for p in rig.admin.must("GET", path)["items"]
        ]
        pods = rig.admin.must("GET", f"/api/v1/namespaces/{rig.namespace}/pods?labelSelector={CUT_OFF}")["items"]
        cut = any(pod["metadata"]["labels"][CUT_OFF] in marks for pod in pods)
        if cut and engine.is_open:
            engine.close()
        elif not cut and not engine.is_open:
            engine.open()

    return Looping("enforcing", rig.admin, turn)
