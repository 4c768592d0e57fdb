"""Discovery against a real API server: what is ready is in the fleet, wherever it is listed, and cuts are survived."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.fleet.kubernetes import KubernetesInventory
from controlplane.fleet.model import EndpointSource, FleetSpec, KubernetesEndpoints, PoolSpec
from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab, missing
from tests.support.waiting import eventually

until = partial(eventually, within_s=30.0)

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


DATA = Path(__file__).resolve().parents[1] / "data"


class Followed:
    """An inventory that is followed, with what it asked."""

    def __init__(self, inventory: KubernetesInventory) -> None:
        self.inventory = inventory
        self.asked: list[tuple[str, str, str]] = []
        self.told = 0

    def tell(self) -> None:
        self.told += 1

    @property
    def names(self) -> set[str]:
        return {endpoint.name for endpoint in self.inventory.read().endpoints}

    @property
    def problems(self) -> str:
        return " | ".join(self.inventory.read().problems)

    def count(self, verb: str, resource: str, code: str = "200") -> int:
        return self.asked.count((verb, resource, code))


@asynccontextmanager
async def following(**pools: KubernetesEndpoints) -> AsyncIterator[Followed]:
    spec = FleetSpec({name: PoolSpec(EndpointSource(kubernetes=where), "full") for name, where in pools.items()})
    found = Followed(KubernetesInventory(spec, Path("/")))
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(
            found.inventory.follow(session, lambda *asked: found.asked.append(asked), found.tell)
        )  # fmt: skip
        try:
            await found.inventory.tried()
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def place(kube_api: Path, namespace: str, **more: Any) -> KubernetesEndpoints:
    return KubernetesEndpoints(namespace=namespace, kubeconfig=str(kube_api), **more)


async def test_ready_pods_come_with_their_node_zone_and_gpus_and_go_when_they_end(
    hollow: Hollow, namespace: str, kube_api: Path
) -> None:
    hollow.node("disc-a", zone="eu-1", gpus=8, product="NVIDIA-H200")
    hollow.pod(namespace, "engine-0", "disc-a", ip="198.18.0.1", gpus=2)
    hollow.pod(namespace, "engine-1", "disc-a", ready=False)
    hollow.pod(namespace, "other-0", "disc-a", labels={"app": "other"})
    async with following(primary=place(kube_api, namespace, selector="app in (engine)")) as found:
        await until(lambda: found.names == {"engine-0"}, "the one that is ready")
        (one,) = found.inventory.read().endpoints
        assert (one.name, one.pool, one.url, one.model) == ("engine-0", "primary", "http://198.18.0.1:8000", "full")
        assert (one.node, one.zone, one.gpus, one.accelerator) == ("disc-a", "eu-1", 2, "NVIDIA-H200")
        assert one.pod == f"{namespace}/engine-0"
        told = found.told
        hollow.report(namespace, "engine-1", ip="198.18.0.2")
        await until(lambda: found.names == {"engine-0", "engine-1"}, "the second one is ready")
        await until(lambda: found.told > told, "whoever looks at the fleet is woken")
        hollow.report(namespace, "engine-1", ip="198.18.0.2", ready=False)
        await until(lambda: found.names == {"engine-0"}, "the second one is not ready any more")
        hollow.delete(namespace, "engine-0", grace_s=30)
        await until(lambda: found.names == set(), "one that was asked to end is out")
        assert found.problems == ""
        assert found.count("list", "pods") == found.count("watch", "pods") == 1


async def test_a_service_is_followed_by_its_slices(hollow: Hollow, namespace: str, kube_api: Path) -> None:
    ports = [{"port": 80, "targetPort": "http"}]
    service = {"metadata": {"name": "chat"}, "spec": {"selector": {"app": "engine"}, "ports": ports}}
    hollow.admin.must("POST", f"/api/v1/namespaces/{namespace}/services", service)
    hollow.node("disc-b", zone="eu-2")
    hollow.pod(namespace, "engine-0", "disc-b", ip="198.18.0.1", port=8080)
    async with following(primary=place(kube_api, namespace, service="chat")) as found:
        await until(lambda: found.names == {"engine-0"}, "the Service has an endpoint")
        (one,) = found.inventory.read().endpoints
        assert (one.url, one.node, one.zone) == ("http://198.18.0.1:8080", "disc-b", "eu-2")
        hollow.delete(namespace, "engine-0")
        await until(lambda: found.names == set(), "the pod is gone")
        assert found.count("list", "endpointslices", "404") == 1, "discovery/v1 is asked first; 1.20 has v1beta1 only"


async def test_an_inference_pool_is_followed_with_what_it_selects(
    hollow: Hollow, namespace: str, kube_api: Path
) -> None:
    definition = json.loads((DATA / "crds" / "inferencepools.inference.networking.k8s.io.json").read_text())
    hollow.admin.install(definition)
    at = f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace}/inferencepools"
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "chat"},
        "spec": {
            "selector": {"matchLabels": {"app": "engine"}}, "targetPorts": [{"number": 9000}],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    }  # fmt: skip
    hollow.admin.must("POST", at, pool)
    hollow.pod(namespace, "engine-0", "disc-c", ip="198.18.0.1")
    hollow.pod(namespace, "draft-0", "disc-c", ip="198.18.0.2", labels={"app": "draft"})
    async with following(primary=place(kube_api, namespace, inference_pool="chat")) as found:
        await until(lambda: found.names == {"engine-0"}, "what it selects")
        assert found.inventory.read().endpoints[0].url == "http://198.18.0.1:9000"
        changed = {"spec": {"selector": {"matchLabels": {"app": "draft"}}, "targetPorts": [{"number": 9001}]}}
        hollow.admin.must("PATCH", f"{at}/chat", changed, "application/merge-patch+json")
        await until(lambda: found.names == {"draft-0"}, "what it selects now")
        hollow.admin.must("DELETE", f"{at}/chat")
        await until(lambda: "no InferencePool" in found.problems, "it is gone, and that is said")


async def test_a_thousand_pods_come_page_by_page(hollow: Hollow, namespace: str, kube_api: Path) -> None:
    hollow.pods(namespace, 1000, "disc-d")
    async with following(primary=place(kube_api, namespace, selector="app=engine")) as found:
        await until(lambda: len(found.names) == 1000, "all are known")
        assert found.count("list", "pods") == 2, "500 a page"
        assert len([asked for asked in found.asked if asked[2] == "200"]) <= 5


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_what_rbac_denies_is_named_with_the_way_out(kube_lab: Lab, hollow: Hollow, namespace: str) -> None:
    services = {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]}
    blind = kube_lab.service_account("blind", namespace, [services])
    async with following(primary=place(blind, namespace, selector="app=engine")) as found:
        refused = f"the API server refuses to list pods in namespace {namespace} (403)"
        await until(lambda: refused in found.problems, "the refusal is told")
        assert f"system:serviceaccount:{namespace}:blind" in found.problems
        assert 'resources ["pods"], verbs ["list", "watch"]' in found.problems
        base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/blind"
        pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
        hollow.pod(namespace, "engine-0", "disc-e")
        hollow.admin.must("PATCH", base, {"rules": [pods]}, "application/merge-patch+json")
        await until(lambda: found.names == {"engine-0"}, "it goes on once it may")
        assert found.problems == "", "nodes are not needed: they only say where endpoints stand"
        assert found.count("list", "nodes", "403") >= 1


async def test_a_certificate_that_ended_is_said_to_have(kube_lab: Lab, namespace: str) -> None:
    old = kube_lab.account("expired", "/O=system:masters/CN=expired", days=-1)
    async with following(primary=place(old, namespace, selector="app=engine")) as found:
        await until(lambda: "(401)" in found.problems, "the refusal is told")
        assert "expired.crt ended at" in found.problems
        assert "renew the certificate" in found.problems


async def test_a_context_that_is_not_there_is_answered_with_those_that_are(kube_api: Path, namespace: str) -> None:
    async with following(primary=place(kube_api, namespace, selector="a=b", context="eu-west-1")) as found:
        assert f"no context `eu-west-1` in {kube_api}: its contexts: lab" in found.problems


# -- cuts --------------------------------------------------------------------------------------------------------------


async def test_an_api_server_that_dies_leaves_what_was_known_and_what_happened_meanwhile_is_caught_up(
    tmp_path: Path, clean_machine: None  # noqa: ARG001 - the check ends last
) -> None:  # fmt: skip
    why = missing()
    if why:
        pytest.skip(why)
    with Lab(tmp_path / "lab", controllers=False) as lab:
        hollow = Hollow(lab.admin)
        await asyncio.to_thread(hollow.namespace, "llm")
        for i in range(3):
            hollow.pod("llm", f"engine-{i}", "node-a", ip=f"198.18.0.{i + 1}")
        async with following(primary=place(lab.kubeconfig, "llm", selector="app=engine")) as found:
            await until(lambda: len(found.names) == 3, "all are known")
            lab.kill_api()
            await until(lambda: "3 endpoints known last stand in" in found.problems, "it is said that they are old")
            assert "cannot ask the API server" in found.problems
            assert len(found.names) == 3
            await asyncio.to_thread(lab.start_api)
            await until(lambda: found.problems == "", "it is followed again")
            hollow.delete("llm", "engine-2")
            await until(lambda: len(found.names) == 2, "what happens is told again")
            # A new server knows nothing of what happened before it: places from before other objects changed are lost.
            before = found.count("list", "pods")
            for i in range(3):
                hollow.admin.must("POST", "/api/v1/namespaces/llm/configmaps", {"metadata": {"name": f"c-{i}"}})
            lab.kill_api()
            await asyncio.to_thread(lab.start_api)
            await until(lambda: found.count("list", "pods") > before, "410 Gone: it is listed anew")
            hollow.delete("llm", "engine-1")
            await until(lambda: found.names == {"engine-0"}, "and watched from there")
