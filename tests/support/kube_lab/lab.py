"""A real Kubernetes control plane on this machine: etcd, API server, controllers and scheduler, on free ports.

Nodes and the states of pods are written by `hollow`, or there are real ones (`nodes`). `build.sh` makes the programs
once a machine.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.kube_lab.api import Admin
from tests.support.kube_lab.pki import Pki, kubeconfig
from tests.support.processes import MARK, Running, free_port, until

Rule = Mapping[str, Sequence[str]]

CACHE = Path(os.environ.get("KUBE_LAB") or Path.home() / ".cache" / "kube-lab")
SERVERS = CACHE / "kubernetes-1.20.2"
CRDSERVER = CACHE / "crdserver"
MISSING = "is not built: run `make kubelab` (4 to 10 minutes, once a machine)"
HOSTS = "IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
API_FLAGS = (
    "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1",
    "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true", "--profiling=false",
    "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
    "--default-not-ready-toleration-seconds=10", "--default-unreachable-toleration-seconds=10",
)  # fmt: skip
CONTROLLER_FLAGS = (
    "--leader-elect=false", "--use-service-account-credentials", "--port=0", "--secure-port=0",
    "--node-monitor-period=1s", "--pod-eviction-timeout=10s",
)  # fmt: skip
NOT_ADMITTING = (
    "NamespaceLifecycle", "MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
)  # fmt: skip
"""Plugins that ask for namespaces and webhooks, which a server of custom resources alone does not have."""
SCHEDULER_FLAGS = ("--leader-elect=false", "--port=0", "--secure-port=0")
DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
"""Controllers make it anew as soon as they have read what there is."""


def missing(*, crds: bool = False) -> str:
    """Return why a lab cannot be run; empty when it can."""
    if shutil.which("etcd") is None:
        return "etcd is not installed: apt-get install etcd-server"
    wanted = [CRDSERVER] if crds else [SERVERS / name for name in ("kube-apiserver", "kube-controller-manager")]
    gone = [path for path in wanted if not os.access(path, os.X_OK)]
    return f"{gone[0]} {MISSING}" if gone else ""


def attributes(rule: Rule, namespace: str) -> Iterator[Mapping[str, str]]:
    """Give everything that a rule of a role allows, as an access review asks for it."""
    for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
        kind, _, part = resource.partition("/")
        yield {"verb": verb, "group": group, "resource": kind, "subresource": part, "namespace": namespace}


class Lab:
    """One API server with all that belongs to it, in a directory of its own."""

    def __init__(
        self, folder: Path, *, crds: bool = False, controllers: bool = True, scheduler: bool = False,
        silence: str = "3h",
    ) -> None:  # fmt: skip
        """Prepare the lab; entering it starts it.

        Args:
            folder: gets certificates, logs, kubeconfigs and etcd's data.
            crds: run the present-day server of custom resources alone, which knows no pods.
            controllers: run the controller manager (service accounts, endpoints, taints, disruption budgets).
            scheduler: run the scheduler; without it a pod needs `spec.nodeName`.
            silence: after how long without a heartbeat a node is lost. Nobody renews a hollow node's: it is ready until
                somebody writes that it is not. What follows from that (taints, evictions of pods) is the real
                controllers' doing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.pki = Pki(folder / "pki")
        self.server = f"https://127.0.0.1:{free_port()}"
        self.etcd = f"http://127.0.0.1:{free_port()}"
        self._peers = f"http://127.0.0.1:{free_port()}"
        self._crds = crds
        self._silence = silence
        self._parts = (*(["controllers"] if controllers else []), *(["scheduler"] if scheduler else []))
        self._running: dict[str, Running] = {}
        # What is started again later belongs to who opened the lab, not to the suite that is under way by then.
        self._mark = os.environ.get(MARK, "")
        self.pki.sign("server", "/CN=kube-apiserver", hosts=HOSTS)
        self.kubeconfig = self.account("admin", "/O=system:masters/CN=admin")
        """Of the administrator."""
        self.admin = Admin(self.kubeconfig)

    def account(self, name: str, subject: str, days: int = 2, context: str = "lab") -> Path:
        """Write the kubeconfig of somebody with a certificate, and return it."""
        certificate, key = self.pki.sign(name, subject, days)
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        return kubeconfig(self.folder / f"{name}.conf", self.server, self.pki.ca, user, context)

    def service_account(self, name: str, namespace: str, rules: Sequence[Rule], *, cluster: bool = False) -> Path:
        """Make a service account that may do what the rules of a role say, and return a kubeconfig with its token.

        The authorizer reads roles from a copy of its own: it is asked until it knows of these.

        Args:
            name: of the account, and of all that belongs to it.
            namespace: where it lives.
            rules: as a `Role` has them: groups, resources and verbs.
            cluster: they hold in every namespace, and for what has none.
        """
        base = f"/apis/rbac.authorization.k8s.io/v1{'' if cluster else f'/namespaces/{namespace}'}"
        kind = "ClusterRole" if cluster else "Role"
        self.admin.must("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        self.admin.must("POST", f"{base}/{kind.lower()}s", {"metadata": {"name": name}, "rules": list(rules)})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        self.admin.must("POST", f"{base}/{kind.lower()}bindings", binding)
        wanted = [asked for rule in rules for asked in attributes(rule, "" if cluster else namespace)]
        account = f"{namespace}:{name}"
        until(lambda: all(self.admin.allows(account, asked) for asked in wanted), what=f"{account} has its role")
        return self.token(name, namespace)

    def token(self, name: str, namespace: str) -> Path:
        """Return a kubeconfig with a token of a service account that is there."""
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        at = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = self.admin.must("POST", at, asked)["status"]["token"]
        return kubeconfig(self.folder / f"{namespace}-{name}.conf", self.server, self.pki.ca, {"token": token})

    # -- starting and stopping -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and wait until pods can be made."""
        self._start("etcd", [
            "etcd", "--name", "lab", "--data-dir", self.folder / "etcd", "--log-level", "warn", "--unsafe-no-fsync",
            "--listen-client-urls", self.etcd, "--advertise-client-urls", self.etcd,
            "--listen-peer-urls", self._peers, "--initial-advertise-peer-urls", self._peers,
            "--initial-cluster", f"lab={self._peers}",
        ])  # fmt: skip
        self.start_api()

    def start_api(self, within_s: float = 90.0) -> None:
        """Start the API server and, anew, those who watch it; wait until pods can be made.

        Left alone, controllers find each kind of object again in its own time: after half a minute without a server
        their pauses have grown to half a minute more.
        """
        self._start("api", self._crd_line() if self._crds else self._api_line())
        self._until(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions" if self._crds else "/readyz", "it", within_s
        )
        if not self._crds:
            self._start_parts()

    def _start_parts(self) -> None:
        for part in self._parts:
            if part in self._running:
                self._running.pop(part).kill()
        if "controllers" in self._parts:
            self.admin.ask("DELETE", DEFAULT_ACCOUNT)  # An earlier life's would be no sign of this one.
        for part in self._parts:
            self._start(part, self._line(part))
        if "controllers" in self._parts:
            self._until(DEFAULT_ACCOUNT, "the default account")

    def kill_api(self) -> None:
        """SIGKILL the API server; nothing else ends."""
        self._running.pop("api").kill()

    def stop(self) -> None:
        """End everything, those who watch first."""
        self.admin.close()
        # Whoever watches goes before whom it watches, also where the API server was started again and is the youngest:
        # it would wait for its watchers for a minute.
        order = ("scheduler", "controllers", "api", "etcd")
        for name in sorted(self._running, key=order.index):
            self._running.pop(name).stop()

    def _start(self, name: str, line: Sequence[str | Path]) -> None:
        self._running[name] = Running(line, self.folder / f"{name}.log", env={MARK: self._mark})

    def _until(self, path: str, what: str, within_s: float = 90.0) -> None:
        def answers() -> bool:
            for name, running in self._running.items():
                assert not running.ended, f"{name} ended:\n{running.said[-3000:]}"
            try:
                return self.admin.ask("GET", path)[0] == 200
            except OSError:
                return False

        until(answers, within_s, f"{what} is ready: {self.folder}")

    def _api_line(self) -> list[str | Path]:
        pki = self.pki.folder
        return [
            SERVERS / "kube-apiserver", *API_FLAGS, f"--etcd-servers={self.etcd}",
            f"--secure-port={self.server.rpartition(':')[2]}", f"--tls-cert-file={pki / 'server.crt'}",
            f"--tls-private-key-file={pki / 'server.key'}", f"--client-ca-file={self.pki.ca}",
            f"--service-account-key-file={pki / 'sa.pub'}", f"--service-account-signing-key-file={pki / 'sa.key'}",
        ]  # fmt: skip

    def _crd_line(self) -> list[str | Path]:
        pki, own = self.pki.folder, self.kubeconfig
        return [
            CRDSERVER, f"--etcd-servers={self.etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self.server.rpartition(':')[2]}", f"--tls-cert-file={pki / 'server.crt'}",
            f"--tls-private-key-file={pki / 'server.key'}", f"--client-ca-file={self.pki.ca}",
            "--authentication-skip-lookup", f"--authentication-kubeconfig={own}", f"--authorization-kubeconfig={own}",
            f"--kubeconfig={own}", "--enable-priority-and-fairness=false",
            f"--disable-admission-plugins={','.join(NOT_ADMITTING)}",
        ]  # fmt: skip

    def _line(self, part: str) -> list[str | Path]:
        program = {"controllers": "kube-controller-manager", "scheduler": "kube-scheduler"}[part]
        own = self.account(part, f"/CN=system:{program}")
        line: list[str | Path] = [
            SERVERS / program, f"--kubeconfig={own}", f"--authentication-kubeconfig={own}",
            f"--authorization-kubeconfig={own}",
        ]  # fmt: skip
        if part == "scheduler":
            return [*line, *SCHEDULER_FLAGS]
        pki = self.pki.folder
        return [
            *line, *CONTROLLER_FLAGS, f"--node-monitor-grace-period={self._silence}",
            f"--service-account-private-key-file={pki / 'sa.key'}", f"--root-ca-file={self.pki.ca}",
        ]  # fmt: skip
