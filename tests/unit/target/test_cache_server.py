"""The response cache over HTTP: the fleet behind it can be slow, full or dead; Redis is real where it is installed."""

import asyncio
import io
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from controlplane.target.cache_server import KEEP_ALIVE_S, opened
from controlplane.target.listening import bind
from controlplane.target.rundir import free_ports
from controlplane.target.spec import CacheSpec
from tests.support import processes
from tests.support.traffic import served

BODY = {"model": "reference", "prompt": "why", "max_tokens": 4, "temperature": 0}
TOKEN = {"authorization": "Bearer secret"}
PATIENT_S = 30.0
"""A tier's timeout where its answer counts: longer than a machine stands still."""


@dataclass
class Upstream:
    """A fleet that counts what it is asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 200
    cut: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await self.gate.wait()
        if self.status != 200:
            return web.json_response({"error": {"message": "full"}}, status=self.status, headers={"retry-after": "7"})
        head = {"id": "cmpl-up", "created": 1, "model": "full", "object": "text_completion"}
        choice = {"index": 0, "text": f"answer to {body['prompt']}", "logprobs": None, "finish_reason": "length"}
        if not body.get("stream"):
            content = {**head, "choices": [choice], "usage": {"total_tokens": 8}}
            return web.json_response(content, headers={"x-served-by": "primary-0"})
        stream = web.StreamResponse(headers={"content-type": "text/event-stream", "x-served-by": "primary-0"})
        await stream.prepare(request)
        for text, reason in (("answer to ", None), (body["prompt"], "length")):
            event = {**head, "choices": [{**choice, "text": text, "finish_reason": reason}]}
            await stream.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if self.cut and request.transport:
                request.transport.abort()
                return stream
        await stream.write(b"data: [DONE]\n\n")
        return stream


@asynccontextmanager
async def fleet() -> AsyncIterator[tuple[Upstream, str]]:
    upstream = Upstream()
    upstream.gate.set()
    app = web.Application()
    app.router.add_post("/v1/completions", upstream.answer)
    async with served(app) as url:
        try:
            yield upstream, url
        finally:
            upstream.gate.set()


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - another task makes it true, or the test times out
        await asyncio.sleep(0.005)


@asynccontextmanager
async def cached(spec: CacheSpec) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a cache; yield a client of it."""
    with bind("127.0.0.1", 0) as listener:
        async with opened(spec) as endpoint, asyncio.TaskGroup() as group:
            config = uvicorn.Config(
                endpoint.app, http="httptools", ws="none", lifespan="off", log_config=None,
                timeout_keep_alive=KEEP_ALIVE_S,
            )  # fmt: skip
            server = uvicorn.Server(config)
            serving = group.create_task(server._serve([listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with aiohttp.ClientSession(url) as client:
                await until(lambda: server.started)
                yield client
            server.should_exit = True
            await serving


@asynccontextmanager
async def cache(**settings: Any) -> AsyncIterator[tuple[Upstream, aiohttp.ClientSession]]:
    async with (
        fleet() as (upstream, url),
        cached(replace(CacheSpec(upstream=url, token="secret"), **settings)) as client,
    ):
        yield upstream, client


async def asked(client: aiohttp.ClientSession, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, str, str, str]:  # noqa: E501  # fmt: skip
    """Ask; return the status, the text of the answer, what x-cache says, and the tier."""
    async with client.post("/v1/completions", json={**BODY, **body}, headers=headers) as answer:
        content = await answer.text()
        said = answer.headers
    if said["content-type"].startswith("text/event-stream"):
        lines = [line[6:] for line in content.splitlines() if line.startswith("data: {")]
        text = "".join(choice["text"] for line in lines for choice in json.loads(line)["choices"])
        text += "" if content.endswith("data: [DONE]\n\n") else " CUT"
    else:
        decoded = json.loads(content)
        text = decoded["choices"][0]["text"] if "choices" in decoded else decoded["error"]["message"]
    return answer.status, text, said.get("x-cache", ""), said.get("x-cache-tier", "")


async def metric(client: aiohttp.ClientSession, name: str) -> float:
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def test_the_first_ask_is_a_miss_and_the_second_a_hit() -> None:
    async with cache() as (upstream, client):
        assert await asked(client) == (200, "answer to why", "miss", "")
        assert await asked(client) == (200, "answer to why", "hit", "memory")
        assert len(upstream.asked) == 1
        assert await metric(client, 'response_cache_hits_total{match="exact",tier="memory"}') == 1
        assert await metric(client, "response_cache_misses_total") == 1


async def test_a_stream_is_passed_on_stored_and_replayed_whole_or_as_a_stream() -> None:
    async with cache() as (upstream, client):
        assert await asked(client, stream=True) == (200, "answer to why", "miss", "")
        assert await asked(client, stream=True) == (200, "answer to why", "hit", "memory")
        assert await asked(client) == (200, "answer to why", "hit", "memory")
        assert len(upstream.asked) == 1


async def test_a_stream_that_was_cut_is_not_stored() -> None:
    async with cache() as (upstream, client):
        upstream.cut = True
        with pytest.raises(aiohttp.ClientError):
            await asked(client, stream=True)
        upstream.cut = False
        assert (await asked(client))[2] == "miss"


async def test_a_sampled_answer_is_asked_for_every_time() -> None:
    async with cache() as (upstream, client):
        for _ in range(2):
            assert (await asked(client, temperature=0.8))[2] == "bypass"
        assert len(upstream.asked) == 2
        allowed = {"x-cache-allow": "store"}
        assert [(await asked(client, allowed, temperature=0.8))[2] for _ in range(2)] == ["miss", "hit"]


async def test_many_who_ask_the_same_at_once_cost_the_fleet_one_request() -> None:
    async with cache() as (upstream, client), asyncio.TaskGroup() as group:
        upstream.gate.clear()
        tasks = [group.create_task(asked(client)) for _ in range(10)]
        await until(lambda: upstream.asked)
        await asyncio.sleep(0.05)
        upstream.gate.set()
        assert {(await task)[:2] for task in tasks} == {(200, "answer to why")}
        assert len(upstream.asked) == 1


async def test_beyond_the_cap_misses_are_shed_and_hits_are_still_answered() -> None:
    async with cache(max_fills=2) as (upstream, client), asyncio.TaskGroup() as group:
        await asked(client)
        upstream.gate.clear()
        waiting = [group.create_task(asked(client, prompt=f"slow {number}")) for number in range(2)]
        await until(lambda: len(upstream.asked) == 3)
        async with client.post("/v1/completions", json={**BODY, "prompt": "one more"}) as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-cache"] == "shed"
            assert (await answer.json())["error"]["code"] == 503
        assert (await asked(client))[2] == "hit"
        upstream.gate.set()
        assert [(await task)[0] for task in waiting] == [200, 200]
        assert await metric(client, "response_cache_sheds_total") == 1


async def test_the_fleets_refusal_is_passed_back_and_not_stored() -> None:
    async with cache() as (upstream, client):
        upstream.status = 503
        async with client.post("/v1/completions", json=BODY) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "7")
        upstream.status = 200
        assert (await asked(client))[2] == "miss"


async def test_a_dead_fleet_is_a_503_and_stored_answers_outlive_it() -> None:
    async with cached(CacheSpec(upstream=f"http://127.0.0.1:{free_ports(1)[0]}", token="secret")) as client:
        assert (await asked(client))[0] == 503
        answer = {"object": "text_completion", "choices": [{"index": 0, "text": "kept", "finish_reason": "stop"}]}
        batch = {"answers": [{"path": "/v1/completions", "request": BODY, "answer": answer}]}
        async with client.post("/cache/answers", json=batch, headers=TOKEN) as published:
            assert await published.json() == {"stored": 1}
        assert await asked(client) == (200, "kept", "hit", "memory")


async def test_nobody_plants_answers_without_the_token() -> None:
    async with cache() as (_, client):
        for path in ("/cache/answers", "/cache/warm"):
            for headers in ({}, {"authorization": "Bearer guess"}):
                async with client.post(path, json={}, headers=headers) as answer:
                    assert answer.status == 401
    async with (
        cached(CacheSpec()) as client,
        client.post("/cache/warm", headers={"authorization": "Bearer "}) as answer,
    ):
        assert answer.status == 401


async def test_published_rubbish_is_refused_and_counted() -> None:
    rubbish: list[Any] = [None, 1, {}, {"path": "/x"}, {"path": "/v1/completions", "request": 3, "answer": {"choices": [1]}}]  # noqa: E501  # fmt: skip
    sampled = {"path": "/v1/completions", "request": {**BODY, "temperature": 1}, "answer": {"choices": [1]}}
    async with cache() as (_, client):
        async with client.post("/cache/answers", json={"answers": [*rubbish, sampled]}, headers=TOKEN) as answer:
            assert await answer.json() == {"stored": 0}
        assert await metric(client, 'response_cache_published_total{outcome="refused"}') == 6


async def test_warm_fetches_what_is_asked_most_and_what_it_is_told() -> None:
    async with cache(memory_entries=1) as (upstream, client):
        for prompt in ("often", "often", "seldom"):
            await asked(client, prompt=prompt)
        told = [{"path": "/v1/completions", "body": {**BODY, "prompt": "told"}}, {"body": {**BODY, "temperature": 1}}]
        async with client.post("/cache/warm", json={"top": 1, "requests": told}, headers=TOKEN) as answer:
            assert await answer.json() == {"asked": 3, "known": 0, "filled": 2, "failed": 0, "refused": 1}
        assert [body["prompt"] for body in upstream.asked[-2:]] == ["told", "often"]


@pytest.mark.parametrize(("raw", "status"), [(b"{", 400), (b"[]", 400), (b"\xff", 400), (b" " * 1_048_577, 413)])
async def test_bad_bodies_give_errors_in_openais_shape(raw: bytes, status: int) -> None:
    async with cache() as (_, client):
        async with client.post("/v1/completions", data=io.BytesIO(raw)) as answer:
            assert answer.status == status
            assert (await answer.json())["error"]["code"] == status
        async with client.get("/health") as answer:
            assert answer.status == 200


async def test_what_only_the_fleet_can_judge_is_left_to_it() -> None:
    async with cache() as (upstream, client):
        upstream.status = 400
        async with client.post("/v1/completions", json={"model": "reference"}) as answer:
            assert (answer.status, answer.headers["x-cache"]) == (400, "bypass")


async def test_it_looks_like_any_other_endpoint() -> None:
    async with cache() as (_, client):
        async with client.get("/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["full", "reference"]
        async with client.get("/nothing") as answer:
            assert answer.status == 404
        async with client.post("/v1/completions", json=BODY, headers={"x-request-id": "mine"}) as answer:
            assert answer.headers["x-request-id"] == "mine"


async def test_the_gateways_deadline_and_the_callers_trace_reach_the_fleet() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with cache() as (upstream, client):
        await asked(client, {"x-envoy-expected-rq-timeout-ms": "1500", "traceparent": trace, "x-request-id": "mine"})
        sent = upstream.headers[0]
        assert (sent["x-envoy-upstream-rq-timeout-ms"], sent["traceparent"], sent["x-request-id"]) == (
            "1500",
            trace,
            "mine",
        )


async def test_nearly_equal_prompts_are_marked_with_their_similarity() -> None:
    long = "explain to a new engineer why the fleet stays up while one server fails and what to look at first"
    async with cache(near=True, near_ratio=0.6) as (_, client):
        await asked(client, prompt=long)
        async with client.post("/v1/completions", json={**BODY, "prompt": f"{long} please"}) as answer:
            assert answer.headers["x-cache"] == "near"
            assert 0.6 <= float(answer.headers["x-cache-similarity"]) < 1.0


async def test_answers_survive_a_restart_on_disk(tmp_path: Path) -> None:
    async with cache(directory=tmp_path, tier_timeout_s=PATIENT_S) as (_, client):
        await asked(client)
    async with cache(directory=tmp_path, tier_timeout_s=PATIENT_S) as (upstream, client):
        assert (await asked(client))[:3] == (200, "answer to why", "hit")
        assert upstream.asked == []


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    (port,) = free_ports(1)
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        processes.until(lambda: processes.listens(port), 60.0, "Redis listens")
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


@pytest.mark.debian("redis-server")
async def test_redis_shares_answers_between_caches(redis: tuple[str, "subprocess.Popen[bytes]"]) -> None:
    url, _ = redis
    async with cache(redis_url=url, tier_timeout_s=PATIENT_S) as (_, client):
        await asked(client)
    async with cache(redis_url=url, tier_timeout_s=PATIENT_S, memory_entries=1) as (upstream, client):
        await asked(client, prompt="another")
        assert await asked(client) == (200, "answer to why", "hit", "redis")
        assert len(upstream.asked) == 1


@pytest.mark.debian("redis-server")
async def test_a_redis_that_hangs_or_dies_is_skipped_and_answers_go_on(
    redis: tuple[str, "subprocess.Popen[bytes]"],
) -> None:
    url, process = redis
    async with cache(redis_url=url, tier_timeout_s=0.05) as (_, client):
        process.send_signal(signal.SIGSTOP)
        assert [(await asked(client))[2] for _ in range(2)] == ["miss", "hit"]
        assert await metric(client, 'response_cache_tier_skipped_total{reason="timeout",tier="redis"}') >= 1
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)
        for number in range(6):
            assert (await asked(client, prompt=f"later {number}"))[:2] == (200, f"answer to later {number}")
        assert await metric(client, "response_cache_tier_skipped_total") >= 4
