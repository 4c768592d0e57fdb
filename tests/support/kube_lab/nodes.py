"""Real nodes of a lab: containerd, a kubelet and pods that run, in namespaces that end with the node.

A node is one process tree in a process and a mount namespace of its own: killing its first process is a power cut, and
takes every container along. Its network is that of whoever starts it (see `network.py`), where each node has a bridge.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controlplane.chaos.substrates.kube_objects import is_ready
from tests.support.kube_lab.api import Object
from tests.support.kube_lab.images import busybox_image
from tests.support.kube_lab.lab import CACHE, SERVERS, Lab
from tests.support.kube_lab.network import ip
from tests.support.processes import Running, free_port, until

RUNTIME = CACHE / "runtime"
IMAGE = "docker.io/lab/busybox:1"
ENGINE_PORT = 8000
ENGINE = [
    sys.executable, "-m", "controlplane", "target", "serve", "--model", "base", "--port", str(ENGINE_PORT),
    "--host", "0.0.0.0",  # noqa: S104 - a pod's own address
]  # fmt: skip
"""What a pod runs: the reference engine of this machine."""
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
HERE = Path(__file__).parent
NEEDED = (SERVERS / "kubelet", SERVERS / "kube-proxy", RUNTIME / "usr" / "bin" / "containerd")


def missing_for_pods() -> str:
    """Return why no real pods can be run here; empty when they can."""
    if os.geteuid() != 0:
        return "real pods need root"
    if not (CGROUPS / "memory").is_dir():
        return "this kubelet needs control groups of version 1"
    gone = [str(path) for path in NEEDED if not os.access(path, os.X_OK)]
    gone += [name for name in ("ip", "iptables", "unshare") if shutil.which(name) is None]
    return f"{gone[0]} is not there: run `make kubelab`" if gone else ""


class Node:
    """One node, from its start to its end."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        """Prepare a node; entering it starts it.

        Args:
            lab: its control plane, with `heartbeats`.
            name: of the node.
            number: 1 to 250, another one for each node of a lab: its addresses.
        """
        self.name = name
        self.address = f"192.0.2.{number + 10}"
        self._lab = lab
        self._folder = lab.folder / name
        self._group = f"lab-{os.getpid()}-{name}"
        self._subnet = f"198.18.{number}.0/24"
        self._bridge = f"lab{number}"
        self._running: Running | None = None
        (self._folder / "cni").mkdir(parents=True)
        self._write()

    def _write(self) -> None:
        folder, pki = self._folder, self._lab.pki
        busybox_image(RUNTIME / "bin" / "busybox", IMAGE, folder / "image.tar")
        kubeconfig = self._lab.account(f"kubelet-{self.name}", f"/O=system:nodes/CN=system:node:{self.name}")
        kubeconfig.rename(folder / "kubelet.conf")
        network = {
            "cniVersion": "0.4.0", "name": f"lab-{self.name}",
            "plugins": [{
                "type": "bridge", "bridge": self._bridge, "isGateway": True, "ipMasq": False, "hairpinMode": True,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": self._subnet}]],
                         "routes": [{"dst": "0.0.0.0/0"}]},
            }],
        }  # fmt: skip
        (folder / "cni" / "10-lab.conflist").write_text(json.dumps(network), encoding="utf-8")
        (folder / "containerd.toml").write_text(CONTAINERD.format(
            image=IMAGE, plugins=RUNTIME / "usr" / "lib" / "cni", network=folder / "cni"
        ), encoding="utf-8")  # fmt: skip
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": self.address, "port": free_port(), "healthzPort": 0, "readOnlyPort": 0,
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(pki.ca)}},
            "authorization": {"mode": "Webhook"}, "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self._group}",
            "cgroupsPerQOS": True, "enforceNodeAllocatable": ["pods"], "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi"}, "resolvConf": "/dev/null", "clusterDomain": "cluster.local",
            "nodeStatusUpdateFrequency": "2s", "nodeLeaseDurationSeconds": 4, "syncFrequency": "5s",
        }  # fmt: skip
        (folder / "kubelet.json").write_text(json.dumps(settings), encoding="utf-8")

    def __enter__(self) -> Self:
        ip("address", "add", f"{self.address}/32", "dev", "lo")
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until the control plane knows it as ready."""
        _make_groups(self._group)
        path = f"{RUNTIME / 'usr' / 'bin'}:{RUNTIME / 'usr' / 'sbin'}:{SERVERS}:{os.environ['PATH']}"
        self._running = Running(
            [
                "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--propagation", "private",
                "bash", HERE / "node.sh", self.name, self.address, self._folder,
            ],
            self._folder / "node.log", env={"PATH": path},
        )  # fmt: skip
        self._running.until(lambda: self._is("True"), f"node {self.name} is ready", 90.0)

    def kill(self) -> None:
        """Cut its power: nothing on it lives on, and nobody is told."""
        if self._running is not None:
            self._running.kill()
            self._running = None
        until(lambda: _drop_groups(self._group), 20.0, f"the control groups of {self.name} are gone")

    def until_lost(self, within_s: float = 60.0) -> None:
        """Wait until the control plane has noticed that nothing is heard of it."""
        until(lambda: self._is("Unknown"), within_s, f"node {self.name} is lost")

    def _is(self, ready: str) -> bool:
        status, node = self._lab.admin.ask("GET", f"/api/v1/nodes/{self.name}")
        said = node["status"].get("conditions", ()) if status == 200 else ()
        return any(one["type"] == "Ready" and one["status"] == ready for one in said)


@contextmanager
def proxied(lab: Lab) -> Iterator[None]:
    """Run the proxy that leads a Service's address to its pods, for the network that this thread is in."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
        "clientConnection": {"kubeconfig": str(lab.kubeconfig)}, "clusterCIDR": "198.18.0.0/16",
        "bindAddress": "127.0.0.1", "healthzBindAddress": "", "metricsBindAddress": "",
        "featureGates": {"EndpointSliceProxying": False},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "10s"},
    }  # fmt: skip
    page = lab.folder / "proxy.json"
    page.write_text(json.dumps(settings), encoding="utf-8")
    with Running([SERVERS / "kube-proxy", f"--config={page}"], lab.folder / "proxy.log"):
        yield


def deployment(name: str, replicas: int, node: str, command: list[str], port: int) -> Object:
    """Return a Deployment whose pods run a command of this machine, at addresses of their own, on one node.

    They see this machine's files, and cannot change them.
    """
    labels = {"app": "engine", "pool": name}
    container: Mapping[str, Any] = {
        "name": "engine", "image": IMAGE, "command": ["chroot", "/host", *command], "ports": [{"containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 1},
        "volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": True}],
    }  # fmt: skip
    spec = {
        "containers": [container], "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "nodeSelector": {"kubernetes.io/hostname": node}, "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
    }  # fmt: skip
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }  # fmt: skip


def ready_pods(lab: Lab, namespace: str) -> dict[str, Object]:
    """Return the pods that are ready and were not asked to end, by name."""
    return {
        pod["metadata"]["name"]: pod
        for pod in lab.admin.must("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        if is_ready(pod)
    }


CONTAINERD = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _make_groups(name: str) -> None:
    for controller in CONTROLLERS:
        (CGROUPS / controller / name).mkdir(exist_ok=True)
    for setting in ("cpuset.cpus", "cpuset.mems"):  # Nothing runs in a set that has none.
        everything = (CGROUPS / "cpuset" / setting).read_text(encoding="ascii")
        (CGROUPS / "cpuset" / name / setting).write_text(everything, encoding="ascii")


def _drop_groups(name: str) -> bool:
    """Remove them with everything in them; tell whether they are gone."""
    for controller in (*CONTROLLERS, "unified"):  # runc makes one there, too.
        top = CGROUPS / controller / name
        with suppress(OSError):  # Those who were killed may still be on their way out.
            for path, _, _ in os.walk(top, topdown=False):
                Path(path).rmdir()
    return not list(CGROUPS.glob(f"*/{name}"))
