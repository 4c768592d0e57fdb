"""Publishing finished answers never holds up an endpoint: a dead cache and a full queue cost a count."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from controlplane.target import publisher as publishing
from controlplane.target.publisher import BATCH, MOST_WAITING, Finished, Publisher, publisher_for, wanted
from controlplane.target.rundir import free_ports
from controlplane.target.spec import EndpointSpec
from tests.support.traffic import served


def finished(number: int = 0, **body: Any) -> Finished:
    asked = {"prompt": f"p{number}", "temperature": 0, **body}
    return Finished("/v1/completions", asked, "", b'{"choices":[{"text":"x"}]}')


def count(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("response_cache_publications_total", {"outcome": outcome}) or 0.0


async def reached(registry: CollectorRegistry, outcome: str, at_least: int) -> None:
    while count(registry, outcome) < at_least:  # noqa: ASYNC110 - another task counts, or the test times out
        await asyncio.sleep(0.005)


async def test_answers_go_to_the_cache_in_batches_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "TIMEOUT_S", 60.0)
    batches: list[tuple[str, list[Any]]] = []

    async def take(request: web.Request) -> web.Response:
        batches.append((request.headers["authorization"], (await request.json())["answers"]))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/cache/answers", take)
    registry = CollectorRegistry()
    async with (
        served(app) as url,
        publisher_for(EndpointSpec(publish_url=url, publish_token="secret"), registry) as publisher,
    ):
        assert publisher is not None
        for number in range(BATCH + 3):
            publisher.offer(finished(number))
        publisher.offer(finished(99, temperature=0.9))
        await reached(registry, "sent", BATCH + 3)
    assert [len(answers) for _, answers in batches] == [BATCH, 3]
    assert batches[0][0] == "Bearer secret"
    assert batches[1][1][0] == {
        "path": "/v1/completions", "request": {"prompt": f"p{BATCH}", "temperature": 0}, "allow": "",
        "answer": {"choices": [{"text": "x"}]},
    }  # fmt: skip


async def test_a_dead_cache_is_counted_and_left_alone() -> None:
    registry = CollectorRegistry()
    spec = EndpointSpec(publish_url=f"http://127.0.0.1:{free_ports(1)[0]}")
    async with publisher_for(spec, registry) as publisher:
        assert publisher is not None
        publisher.offer(finished())
        await reached(registry, "failed", 1)


async def test_what_has_no_room_to_wait_is_dropped_and_counted() -> None:
    registry = CollectorRegistry()
    async with aiohttp.ClientSession() as session:
        publisher = Publisher(session, registry)
        for number in range(MOST_WAITING + 5):
            publisher.offer(finished(number))
    assert count(registry, "dropped") == 5


async def test_without_a_cache_nothing_is_published() -> None:
    async with publisher_for(EndpointSpec(), CollectorRegistry()) as publisher:
        assert publisher is None


def test_sampled_answers_are_published_only_with_the_clients_leave() -> None:
    assert not wanted({"temperature": 0.7}, "")
    assert wanted({"temperature": 0.7}, "store")
    assert wanted({"seed": 1}, "")
