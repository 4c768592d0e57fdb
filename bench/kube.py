"""Discovery in a real Kubernetes: how soon a pod that ends is out of the fleet, and one that is ready is in it.

An API server with etcd on this machine (`make kubelab`), `controlplane serve` on a page whose pool is a label selector.
The pods are objects without containers; what answers at their addresses is one server. Then a thousand pods, found by
one inventory in this process, with the requests that this takes. Last, where this machine can (root, control groups),
two real pods with the reference engine behind a real kubelet: the same, with everything that takes part.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp

from bench.figures import Figure, below
from controlplane.fleet.kubernetes import KubernetesInventory
from controlplane.fleet.model import EndpointSource, FleetSpec, KubernetesEndpoints, PoolSpec
from tests.support.kube_lab.engines import engines
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab, missing
from tests.support.kube_lab.network import own_network
from tests.support.kube_lab.nodes import ENGINE, ENGINE_PORT, Node, deployment, missing_for_pods, ready_pods
from tests.support.processes import Plane

RUNS = 20
REAL_PODS, REAL_RUNS = 2, 10
PODS = 4
MANY = 1000
MANY_RUNS = 5
OUT_GOAL_S, BACK_GOAL_S, FOUND_GOAL_S = 1.0, 2.0, 3.0
COMMAND = "make bench ONLY=kube"
PAGE = """
service: chat
fleet:
  pools:
    primary:
      endpoints:
        kubernetes: {{ kubeconfig: "{kubeconfig}", namespace: llm, selector: "app=engine", port: {port} }}
"""


def run() -> list[Figure]:
    """Measure; nothing where there is no Kubernetes to measure with."""
    why = missing()
    if why:
        print(f"kube: {why}", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory(prefix="bench-kube-") as folder, engines() as port:
        here = Path(folder)
        with Lab(here / "lab", controllers=False) as lab:
            hollow = Hollow(lab.admin)
            hollow.node("gpu-a", zone="eu-1", gpus=8)
            hollow.namespace("llm")
            figures = comes_and_goes(here, lab, hollow, port)
            hollow.namespace("many")
            hollow.pods("many", MANY, "gpu-a")
            figures += asyncio.run(many(lab))
        return [*figures, *real(here)]


def comes_and_goes(here: Path, lab: Lab, hollow: Hollow, port: int) -> list[Figure]:
    """Delete a pod and make it ready again, again and again, under a control plane that serves."""
    for i in range(PODS):
        hollow.pod("llm", f"engine-{i}", "gpu-a", ip=f"127.0.1.{i + 1}")
    out: list[float] = []
    back: list[float] = []
    with Plane(written(here / "plane", lab, port)) as plane:

        def up() -> dict[str, bool | None]:
            return {e["endpoint"]["name"]: e["up"] for pool in plane.standing()["pools"] for e in pool["endpoints"]}

        def gone(name: str) -> bool:
            return name not in up()

        def there(name: str) -> bool:
            return up().get(name) is True

        waited(lambda: list(up().values()) == [True] * PODS)
        before = requests(plane)
        began = time.monotonic()
        for i in range(RUNS):
            name = f"engine-{i % PODS}"
            at = time.monotonic()
            hollow.delete("llm", name)
            out.append(waited(partial(gone, name), at))
            hollow.pod("llm", name, "gpu-a", ready=False)
            at = time.monotonic()
            hollow.report("llm", name, ip=f"127.0.1.{i % PODS + 1}")
            back.append(waited(partial(there, name), at))
        minutes = (time.monotonic() - began) / 60.0
        asked = requests(plane) - before
    return [
        below("pod killed to endpoint out of the fleet", out, OUT_GOAL_S, COMMAND),
        Figure("the slowest of them", round(max(out), 4), "s", RUNS, COMMAND),
        below("pod ready to endpoint up in the fleet", back, BACK_GOAL_S, COMMAND),
        Figure("the slowest of them", round(max(back), 4), "s", RUNS, COMMAND),
        Figure(f"API requests in {minutes:.1f} minutes of {2 * RUNS} such changes", asked, "requests", 1, COMMAND),
    ]  # fmt: skip


def real(here: Path) -> list[Figure]:
    """Delete real pods, again and again; their kubelet ends them, and runs those that take their place."""
    why = missing_for_pods()
    if why:
        print(f"kube: {why}", file=sys.stderr)
        return []
    with own_network(f"bench{os.getpid()}"), Lab(here / "real", scheduler=True) as lab, Node(lab, "gpu-a", 1):
        Hollow(lab.admin).namespace("llm")
        made = deployment("engine", REAL_PODS, "gpu-a", ENGINE, ENGINE_PORT)
        lab.admin.must("POST", "/apis/apps/v1/namespaces/llm/deployments", made)

        def serving() -> set[str]:
            return set(ready_pods(lab, "llm"))

        waited(lambda: len(serving()) == REAL_PODS)
        out: list[float] = []
        back: list[float] = []
        with Plane(written(here / "real-plane", lab, ENGINE_PORT)) as plane:

            def up() -> set[str]:
                return {e["endpoint"]["name"] for p in plane.standing()["pools"] for e in p["endpoints"] if e["up"]}

            waited(lambda: up() == serving())
            for _ in range(REAL_RUNS):
                before = serving()
                victim = min(before)
                at = time.monotonic()
                lab.admin.must("DELETE", f"/api/v1/namespaces/llm/pods/{victim}", {"gracePeriodSeconds": 0})
                out.append(waited(lambda: victim not in up(), at))  # noqa: B023 - asked at once
                waited(lambda: len(serving() - before) == 1)  # noqa: B023 - asked at once
                at = time.monotonic()
                back.append(waited(lambda: up() == serving(), at))
    return [
        below("real pod deleted to endpoint out of the fleet", out, OUT_GOAL_S, COMMAND),
        Figure("the slowest of them", round(max(out), 4), "s", REAL_RUNS, COMMAND),
        below("real pod that takes its place: ready to endpoint up", back, BACK_GOAL_S, COMMAND),
        Figure("the slowest of them", round(max(back), 4), "s", REAL_RUNS, COMMAND),
    ]  # fmt: skip


def written(folder: Path, lab: Lab, port: int) -> Path:
    """Write the page of a control plane, and return it."""
    folder.mkdir()
    page = folder / "controlplane.yaml"
    page.write_text(PAGE.format(kubeconfig=lab.kubeconfig, port=port), encoding="utf-8")
    return page


def requests(plane: Plane) -> float:
    """Return how many requests the control plane has sent to the API server."""
    samples = plane.metrics().samples
    return sum(value for (name, _), value in samples.items() if name == "controlplane_kubernetes_requests_total")


async def many(lab: Lab) -> list[Figure]:
    """Find a thousand pods, from nothing."""
    spec = KubernetesEndpoints(selector="app=engine", namespace="many", kubeconfig=str(lab.kubeconfig))
    fleet = FleetSpec({"primary": PoolSpec(EndpointSource(kubernetes=spec))})
    took: list[float] = []
    asked: list[tuple[str, str, str]] = []
    for _ in range(MANY_RUNS):
        asked.clear()
        inventory = KubernetesInventory(fleet, Path("/"))
        async with aiohttp.ClientSession() as session:
            began = time.monotonic()
            following = asyncio.create_task(
                inventory.follow(session, lambda *request: asked.append(request), lambda: None)
            )  # fmt: skip
            while len(inventory.read().endpoints) < MANY:  # noqa: ASYNC110 - read as the observer reads it
                await asyncio.sleep(0.002)
            took.append(time.monotonic() - began)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    lists = statistics.median([sum(verb == "list" for verb, _, _ in asked)])
    return [
        below(f"{MANY} pods discovered", took, FOUND_GOAL_S, COMMAND),
        Figure(f"lists for {MANY} pods and their nodes", lists, "requests", MANY_RUNS, COMMAND),
    ]


def waited(holds: Callable[[], bool], since: float | None = None) -> float:
    """Wait until something holds; return the seconds since then."""
    began = time.monotonic() if since is None else since
    while not holds():
        if time.monotonic() > began + 60.0:
            raise TimeoutError("not within a minute")
        time.sleep(0.003)
    return time.monotonic() - began
