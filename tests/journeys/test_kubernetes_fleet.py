"""A control plane whose fleet lives in Kubernetes: pods come and go, and so do their endpoints."""

import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.kube_lab.engines import engines
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab
from tests.support.kube_lab.pki import merged
from tests.support.processes import Plane

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

PAGE = """
service: chat
fleet:
  pools:
    primary:
      endpoints:
        kubernetes: {{ kubeconfig: "{kubeconfig}", namespace: {namespace}, selector: "app=engine", port: {port} }}
probes:
  - http: {{ every: 200ms }}
  - events: {{ kubeconfig: "{kubeconfig}", context: lab, namespace: {namespace}, selector: "app=engine", every: 200ms }}
"""


def written(folder: Path, page: str) -> Path:
    path = folder / "plane" / "controlplane.yaml"
    path.parent.mkdir()
    path.write_text(page, encoding="utf-8")
    return path


def endpoints(plane: Plane) -> dict[str, bool | None]:
    """Return the endpoints of the fleet, and whether each is up."""
    return {e["endpoint"]["name"]: e["up"] for pool in plane.standing()["pools"] for e in pool["endpoints"]}


def test_endpoints_follow_their_pods_and_what_befalls_them_is_seen(
    hollow: Hollow, namespace: str, kube_api: Path, tmp_path: Path
) -> None:
    hollow.node("gpu-a", zone="eu-1", gpus=8)
    with engines() as port:
        for i in range(2):
            hollow.pod(namespace, f"engine-{i}", "gpu-a", ip=f"127.0.2.{i + 1}", gpus=1)
        with Plane(written(tmp_path, PAGE.format(kubeconfig=kube_api, namespace=namespace, port=port))) as plane:
            plane.until_ready()
            up = partial(endpoints, plane)
            plane.until(lambda: up() == {"engine-0": True, "engine-1": True}, "both are known, and well")
            hollow.delete(namespace, "engine-1")
            plane.until(lambda: up() == {"engine-0": True}, "the pod that was killed is out of the fleet")
            hollow.pod(namespace, "engine-1", "gpu-a", ip="127.0.2.2")
            plane.until(lambda: up() == {"engine-0": True, "engine-1": True}, "it is back")
            killed = {"service": "chat", "pool": "primary", "signal": "pods_oom_killed"}

            def kills() -> float | None:
                return plane.metrics().value("controlplane_signal_value", **killed)

            plane.until(lambda: kills() == 0, "kills of its pods are counted from now on")
            hollow.report(namespace, "engine-0", ip="127.0.2.1", restarts=1, ended="OOMKilled")
            plane.until(lambda: kills() == 1, "the kill is counted")
            asked = {"verb": "list", "resource": "pods", "code": "200"}
            assert plane.metrics().value("controlplane_kubernetes_requests_total", **asked) == 2, "pool and probe"


TWO_CLUSTERS = """
service: chat
fleet:
  pools:
    primary:
      endpoints:
        kubernetes: {{ kubeconfig: "{kubeconfig}", context: here, namespace: {namespace}, selector: "app=engine", port: {port} }}
    standby:
      endpoints:
        kubernetes: {{ kubeconfig: "{kubeconfig}", context: there, namespace: llm, selector: "app=engine", port: {port} }}
probes:
  - http: {{ every: 200ms }}
"""  # noqa: E501


def test_an_api_server_that_is_gone_for_half_a_minute_changes_nothing_but_what_is_not_known(
    kube_lab: Lab, hollow: Hollow, namespace: str, tmp_path: Path
) -> None:
    with engines() as port, Lab(tmp_path / "there", controllers=False) as other:
        there = Hollow(other.admin)
        there.namespace("llm")
        hollow.node("gpu-a")
        there.node("gpu-b")
        for i in range(2):
            hollow.pod(namespace, f"here-{i}", "gpu-a", ip=f"127.0.3.{i + 1}")
            there.pod("llm", f"there-{i}", "gpu-b", ip=f"127.0.4.{i + 1}")
        contexts = merged(tmp_path / "contexts.conf", here=kube_lab.kubeconfig, there=other.kubeconfig)
        page = written(tmp_path, TWO_CLUSTERS.format(kubeconfig=contexts, namespace=namespace, port=port))
        with Plane(page) as plane:
            plane.until_ready()
            up = partial(endpoints, plane)
            everyone = {"here-0": True, "here-1": True, "standby.there-0": True, "standby.there-1": True}
            plane.until(lambda: up() == everyone, "all are known, and well")
            kube_lab.kill_api()
            try:
                gone_until = time.monotonic() + 30.0
                there.delete("llm", "there-1")
                left = {name: True for name in everyone if name != "standby.there-1"}
                plane.until(lambda: up() == left, "the other cluster is followed as before", 15.0)
                while time.monotonic() < gone_until:
                    standing = plane.standing()
                    assert standing["level"] == "none"
                    assert set(up()) == set(left), "those known last stand in"
                    # On a slow machine a look may come too late; one that nobody looks at would stay unknown.
                    plane.until(lambda: up() == left, "those known last are looked at, and well", 5.0)
                    time.sleep(0.5)
            finally:
                kube_lab.start_api()
            hollow.delete(namespace, "here-1")
            plane.until(
                lambda: up() == {"here-0": True, "standby.there-0": True}, "what happens is followed again", 20.0
            )
