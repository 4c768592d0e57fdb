"""Pools that a Prometheus-compatible server lists: its targets or the series of a query, kept while it is silent."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.fleet.model import EndpointSource, FleetSpec, PoolSpec, PrometheusEndpoints, Scheme
from controlplane.fleet.prometheus import PrometheusInventory
from controlplane.fleet.targets import read_series, read_targets
from tests.support.waiting import eventually

until = partial(eventually, within_s=10.0)

JOB = PrometheusEndpoints("http://prom:9090", job="vllm")
QUERY = PrometheusEndpoints("http://prom:9090", query="up", scheme=Scheme.HTTPS)


def target(address: str, job: str = "vllm", **labels: str) -> dict[str, Any]:
    found = {"instance": address, "job": job} | labels
    return {"labels": found, "scrapePool": job, "scrapeUrl": f"http://{address}/metrics", "health": "down"}


def success(data: object, **more: object) -> dict[str, object]:
    return {"status": "success", "data": data, **more}


def targets(*found: dict[str, Any]) -> dict[str, object]:
    return success({"activeTargets": list(found)})


def vector(*instances: str, **more: object) -> dict[str, object]:
    result = [{"metric": {"instance": i, "node": "gpu-a", "zone": "eu-1"}, "value": [0, "1"]} for i in instances]
    return success({"resultType": "vector", "result": result}, **more)


def test_the_targets_of_a_job_are_endpoints_whether_they_are_up_or_not() -> None:
    answer = targets(
        target("10.0.0.2:8000"), target("10.0.0.1:8000", pod="vllm-0", namespace="llm"), target("x:1", "node")
    )
    first, second = read_targets("primary", "full", JOB, answer).endpoints
    assert (first.name, first.url, first.pod, first.model) == ("vllm-0", "http://10.0.0.1:8000", "llm/vllm-0", "full")
    assert (second.name, second.node) == ("10.0.0.2:8000", "10.0.0.2")


def test_a_pod_that_is_scraped_at_several_ports_is_called_by_its_addresses() -> None:
    answer = targets(target("10.0.0.1:8000", pod="vllm-0"), target("10.0.0.1:8001", pod="vllm-0"))
    names = [endpoint.name for endpoint in read_targets("primary", "", JOB, answer).endpoints]
    assert names == ["10.0.0.1:8000", "10.0.0.1:8001"]


def test_the_instances_of_a_query_are_endpoints() -> None:
    listed = read_series("primary", "", QUERY, vector("b:1", "a:1", "a:1", warnings=["one store is away"]))
    assert [(e.url, e.node, e.zone) for e in listed.endpoints] == [
        ("https://a:1", "gpu-a", "eu-1"), ("https://b:1", "gpu-a", "eu-1"),
    ]  # fmt: skip
    assert listed.partial == "one store is away"


@pytest.mark.parametrize(
    "answer",
    [
        None, [], {}, {"status": "error", "error": "parse error"}, success([]), success({}), success({"result": 1}),
        success({"result": [{"metric": {}}]}), success({"result": [{"value": 1}]}),
        success({"result": [{"metric": {"instance": ":"}}]}),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_refused(answer: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        read_series("primary", "", QUERY, answer)


class Server:
    """A server that answers one thing to everything."""

    def __init__(self) -> None:
        self.answer: object = vector("a:1", "b:1")
        self.status = 200
        self.asked: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return web.Response(status=self.status, text=json.dumps(self.answer))


@asynccontextmanager
async def followed(job: str = "", query: str = "") -> AsyncIterator[tuple[Server, PrometheusInventory]]:
    server, app = Server(), web.Application()
    app.router.add_get("/{path:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    spec = PrometheusEndpoints(url, job, query, every=timedelta(milliseconds=10), timeout=timedelta(minutes=1))
    inventory = PrometheusInventory(FleetSpec({"primary": PoolSpec(EndpointSource(prometheus=spec))}))
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(inventory.follow(session, lambda: None))
        try:
            await inventory.tried()
            yield server, inventory
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await runner.cleanup()


def urls(inventory: PrometheusInventory) -> list[str]:
    return [endpoint.url for endpoint in inventory.read().endpoints]


def problems(inventory: PrometheusInventory) -> str:
    return " ".join(inventory.read().problems)


async def test_a_query_is_asked_again_and_again() -> None:
    async with followed(query='up{job="vllm"} == 1') as (server, inventory):
        assert urls(inventory) == ["http://a:1", "http://b:1"]
        assert server.asked[0].startswith("/api/v1/query?query=up%7Bjob")
        server.answer = vector("c:1")
        await until(lambda: urls(inventory) == ["http://c:1"])
        assert problems(inventory) == ""


@pytest.mark.parametrize("status", [200, 503])
async def test_what_was_known_stands_in_for_an_answer_that_is_none_or_names_nobody(status: int) -> None:
    async with followed(query="up") as (server, inventory):
        server.answer, server.status = vector(), status
        await until(lambda: "the 2 endpoints known last stand in" in problems(inventory))
        assert len(urls(inventory)) == 2
        server.answer, server.status = vector("a:1"), 200
        await until(lambda: urls(inventory) == ["http://a:1"])


async def test_what_an_answer_lacks_that_is_not_whole_stands_in() -> None:
    async with followed(query="up") as (server, inventory):
        server.answer = vector("c:1", warnings=["a store is away"])
        await until(lambda: "http://c:1" in urls(inventory))
        assert sorted(urls(inventory)) == ["http://a:1", "http://b:1", "http://c:1"]
        assert "a store is away" in problems(inventory)


async def test_a_job_is_asked_of_the_targets() -> None:
    async with followed(job="vllm") as (server, inventory):
        assert "activeTargets" in problems(inventory), "a vector is no list of targets"
        server.answer = targets(target("10.0.0.1:8000"))
        await until(lambda: urls(inventory) == ["http://10.0.0.1:8000"])
        assert server.asked[0] == "/api/v1/targets?state=active&scrapePool=vllm"
