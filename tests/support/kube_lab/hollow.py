"""Nodes and pods that exist in the API only: what a kubelet would report of them is written here."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from types import TracebackType
from typing import Self

from tests.support.kube_lab.api import STRATEGIC, Admin, Object
from tests.support.processes import until

INFO = (
    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
    "kubeProxyVersion", "operatingSystem", "architecture",
)  # fmt: skip
ZONE = "topology.kubernetes.io/zone"
GPU = "nvidia.com/gpu"
AT_ONCE = 4
"""Connections with which many pods are made."""


def now() -> str:
    """Return this second as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Hollow:
    """Writes hollow nodes and pods into one API server."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    def namespace(self, name: str) -> str:
        """Make a namespace in which pods can be made, and return its name."""
        self.admin.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        account = {"metadata": {"name": "default"}}
        status, _ = self.admin.ask("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
        assert status in (201, 409)  # The controllers may have been faster.
        return name

    def node(
        self, name: str, *, zone: str = "", gpus: int = 0, allocatable: int | None = None, product: str = "",
        ready: bool = True,
    ) -> None:  # fmt: skip
        """Make a node, or change what it reports.

        Args:
            name: of the node.
            zone: where it stands.
            gpus: how many GPUs it has.
            allocatable: how many of them can be given to pods; all where it is not said.
            product: the GPUs' name, as NVIDIA's feature discovery labels it.
            ready: its `Ready` condition.
        """
        labels = {"kubernetes.io/hostname": name, **({ZONE: zone} if zone else {})}
        labels |= {"nvidia.com/gpu.product": product} if product else {}
        room = {"cpu": "64", "memory": "512Gi", "pods": "2000"}
        usable = gpus if allocatable is None else allocatable
        status = {
            "capacity": {**room, GPU: str(gpus)} if gpus else room,
            "allocatable": {**room, GPU: str(usable)} if gpus else room,
            "nodeInfo": dict.fromkeys(INFO, "hollow"),
            "conditions": [_condition("Ready", ready, "KubeletReady" if ready else "KubeletNotReady")],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        # With its state from the start, as kubelets do: one that says nothing yet is tainted as one that is lost.
        self.admin.ask("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}, "status": status})
        self.admin.must("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, STRATEGIC)

    def calm_node(self, name: str) -> None:
        """Make a node, and wait until the controllers have no more to write on it.

        They taint a new one until they have read its status, and write the whole list of taints when they take that
        back: one that somebody else had added meanwhile would be lost.
        """
        self.node(name)
        until(lambda: not self.admin.must("GET", f"/api/v1/nodes/{name}")["spec"].get("taints"), what=f"{name} is calm")

    def pod(
        self, namespace: str, name: str, node: str = "", *, ip: str = "127.0.0.1", port: int = 8000, gpus: int = 0,
        labels: Mapping[str, str] | None = None, ready: bool = True, grace_s: int = 0,
    ) -> None:  # fmt: skip
        """Make a pod, on a node where one is named, and report it ready where it shall be.

        Args:
            namespace: where.
            name: of the pod.
            node: it is bound to; without one it waits for a scheduler.
            ip: its address.
            port: of its container `engine`, named `http`.
            gpus: how many it asks for.
            labels: `app: engine` where none are given.
            ready: report that it runs and is ready.
            grace_s: how long it takes to end when it is deleted.
        """
        container: Object = {"name": "engine", "image": "engine:1", "ports": [{"name": "http", "containerPort": port}]}
        container |= {"resources": {"limits": {GPU: str(gpus)}}} if gpus else {}
        spec: Object = {
            "containers": [container], "terminationGracePeriodSeconds": grace_s, "automountServiceAccountToken": False,
        }  # fmt: skip
        spec |= {"nodeName": node} if node else {}
        meta = {"name": name, "labels": dict(labels or {"app": "engine"})}
        self.admin.must("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": meta, "spec": spec})
        if ready:
            self.report(namespace, name, ip=ip)

    def report(
        self, namespace: str, name: str, *, ip: str = "127.0.0.1", ready: bool = True, restarts: int = 0,
        waiting: str = "", ended: str = "",
    ) -> None:  # fmt: skip
        """Report a pod's state.

        Args:
            namespace: where.
            name: of the pod.
            ip: its address.
            ready: whether it takes requests.
            restarts: how often its container was started again.
            waiting: why its container does not run, such as `CrashLoopBackOff`.
            ended: how its container ended last, such as `OOMKilled`.
        """
        state = {"waiting": {"reason": waiting}} if waiting else {"running": {"startedAt": now()}}
        last = {"terminated": {"reason": ended, "exitCode": 137, "finishedAt": now()}} if ended else {}
        container = {
            "name": "engine", "image": "engine:1", "imageID": "", "ready": ready, "restartCount": restarts,
            "state": state, "lastState": last,
        }  # fmt: skip
        whole = [_condition(kind, ready) for kind in ("Ready", "ContainersReady")]
        status = {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "127.0.0.1", "startTime": now(),
            "conditions": [*whole, *(_condition(kind, True) for kind in ("Initialized", "PodScheduled"))],
            "containerStatuses": [container],
        }  # fmt: skip
        self.admin.must("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status}, STRATEGIC)

    def pods(self, namespace: str, count: int, node: str, prefix: str = "engine") -> None:
        """Make many ready pods, `PREFIX-0` to `PREFIX-(count - 1)`, each with its own address in 198.18.0.0/15."""

        def make(i: int) -> None:
            self.pod(namespace, f"{prefix}-{i}", node, ip=f"198.18.{i // 250}.{i % 250 + 1}")

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hollow") as pool:
            list(pool.map(make, range(count)))

    def delete(self, namespace: str, name: str, grace_s: int = 0) -> None:
        """Delete a pod; with a grace it is only asked to end."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        self.admin.must("DELETE", path, {"gracePeriodSeconds": grace_s})

    def event(self, namespace: str, name: str, reason: str, kind: str, about: str, message: str = "") -> None:
        """Say something of an object, as a controller does."""
        said = {
            "metadata": {"name": name}, "reason": reason, "message": message, "type": "Warning", "count": 1,
            "involvedObject": {"kind": kind, "name": about, "namespace": "" if kind == "Node" else namespace},
            "firstTimestamp": now(), "lastTimestamp": now(),
        }  # fmt: skip
        self.admin.must("POST", f"/api/v1/namespaces/{namespace}/events", said)


class Kubelets:
    """While it is open, what kubelets do: bound pods run and become ready; deleted ones go away."""

    def __init__(self, admin: Admin) -> None:
        self._hollow = Hollow(admin)
        self._admin = admin
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelets", daemon=True)
        self._made = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except (OSError, HTTPException, AssertionError):
                self._ended.wait(0.1)  # The API server is away, or a pod went while it was written of.

    def _follow(self) -> None:
        listed = self._admin.must("GET", "/api/v1/pods")
        for pod in listed["items"]:
            self._tend(pod)
        for event in self._admin.watch("/api/v1/pods", listed["metadata"]["resourceVersion"], 1.0):
            if event["type"] in ("ADDED", "MODIFIED"):
                self._tend(event["object"])
            if self._ended.is_set():
                return

    def _tend(self, pod: Object) -> None:
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            return
        if meta.get("deletionTimestamp"):
            self._admin.ask("DELETE", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", NO_GRACE)
        elif pod["status"].get("phase") == "Pending":
            self._made += 1
            ip = f"198.19.{self._made // 250 % 250}.{self._made % 250 + 1}"
            self._hollow.report(meta["namespace"], meta["name"], ip=ip)


NO_GRACE: Object = {"gracePeriodSeconds": 0}


def _condition(kind: str, holds: bool, reason: str = "") -> Object:  # noqa: FBT001 - a condition's status
    at = now()
    return {
        "type": kind, "status": str(holds), "reason": reason, "lastHeartbeatTime": at, "lastTransitionTime": at,
    } if kind == "Ready" and reason else {"type": kind, "status": str(holds), "lastTransitionTime": at}  # fmt: skip
