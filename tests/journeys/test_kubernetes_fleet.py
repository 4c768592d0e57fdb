"""A control plane whose fleet lives in Kubernetes: pods come and go, and so do their endpoints."""

from pathlib import Path

import pytest

from tests.support.kube_lab.engines import engines
from tests.support.kube_lab.hollow import Hollow
from tests.support.processes import Plane

pytestmark = pytest.mark.journey

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


def test_endpoints_follow_their_pods_and_what_befalls_them_is_seen(
    hollow: Hollow, namespace: str, kube_api: Path, tmp_path: Path
) -> None:
    hollow.node("gpu-a", zone="eu-1", gpus=8)
    with engines() as port:
        for i in range(2):
            hollow.pod(namespace, f"engine-{i}", "gpu-a", ip=f"127.0.2.{i + 1}", gpus=1)
        page = tmp_path / "plane" / "controlplane.yaml"
        page.parent.mkdir()
        page.write_text(PAGE.format(kubeconfig=kube_api, namespace=namespace, port=port), encoding="utf-8")
        with Plane(page) as plane:
            plane.until_ready()

            def up() -> dict[str, bool | None]:
                return {e["endpoint"]["name"]: e["up"] for pool in plane.standing()["pools"] for e in pool["endpoints"]}

            assert up() == {"engine-0": True, "engine-1": True}
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
