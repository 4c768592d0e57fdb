"""The endpoint's HTTP surface, driven over ASGI and over a real socket."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from controlplane.target.server import Endpoint, bind
from controlplane.target.spec import EndpointSpec

REQUEST_EDGES = (
    "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 1920.0 7680.0"
)
FIRST_TOKEN_EDGES = (
    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 640.0 2560.0"
)
TOKEN_EDGES = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0"
SIZE_EDGES = "1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 500.0 1000.0"
EDGES = {
    "vllm:time_to_first_token_seconds": FIRST_TOKEN_EDGES,
    "vllm:inter_token_latency_seconds": TOKEN_EDGES,
    "vllm:request_time_per_output_token_seconds": TOKEN_EDGES,
    "vllm:e2e_request_latency_seconds": REQUEST_EDGES,
    "vllm:request_queue_time_seconds": REQUEST_EDGES,
    "vllm:request_inference_time_seconds": REQUEST_EDGES,
    "vllm:request_prefill_time_seconds": REQUEST_EDGES,
    "vllm:request_decode_time_seconds": REQUEST_EDGES,
    "vllm:request_prompt_tokens": SIZE_EDGES,
    "vllm:request_generation_tokens": SIZE_EDGES,
    "vllm:request_max_num_generation_tokens": SIZE_EDGES,
    "vllm:request_params_max_tokens": SIZE_EDGES,
    "vllm:request_prefill_kv_computed_tokens": SIZE_EDGES,
    "vllm:request_params_n": "1.0 2.0 5.0 10.0 20.0",
    "vllm:request_num_preemptions": "1.0 2.0 3.0 4.0 5.0 10.0 20.0",
    "vllm:iteration_tokens_total": "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 8192.0 16384.0",
    "http_request_duration_seconds": "0.1 0.5 1.0",
}
ALWAYS = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
    "vllm:engine_sleep_state", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total", "vllm:external_prefix_cache_hits_total",
    "vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total", "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total", "vllm:prompt_tokens_by_source_total", "vllm:prompt_tokens_cached_total",
    "vllm:prompt_tokens_cached_by_source_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    "vllm:admission_rejections_total", "vllm:cache_config_info", "vllm:estimated_flops_per_gpu_total",
    "process_cpu_seconds_total", "process_resident_memory_bytes",
}  # fmt: skip


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, Endpoint]]:
    endpoint = Endpoint(EndpointSpec(model="base", **settings))
    endpoint.engine.start()
    config = uvicorn.Config(endpoint.app, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with bind(EndpointSpec(port=0)) as listener:
        async with asyncio.TaskGroup() as group:
            # serve() would take over the test process's signals; _serve is the same without them.
            task = group.create_task(server._serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110 - another thread makes it true
                await asyncio.sleep(0.001)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client, endpoint
            server.should_exit = True
            await task
    endpoint.engine.close()


async def ask(client: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with client.post(path, data=data, headers=headers) as response:
        return response.status, json.loads(await response.read()), response.headers


async def page(client: aiohttp.ClientSession) -> dict[str, list[Any]]:
    async with client.get("/metrics") as response:
        text = await response.text()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


async def value(client: aiohttp.ClientSession, name: str, **labels: str) -> float:
    samples = [sample for family in (await page(client)).values() for sample in family]
    return sum(float(s.value) for s in samples if s.name == name and labels.items() <= s.labels.items())


async def events(client: aiohttp.ClientSession, path: str, body: Any) -> list[Any]:
    async with client.post(path, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.read()).decode()
    parts = text.removesuffix("\n\n").split("\n\n")
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]


async def test_a_completion_answers_in_openai_shape_and_echoes_the_request_id() -> None:
    async with served() as (client, _):
        status, body, headers = await ask(
            client, "/v1/completions", {"model": "reference", "prompt": "hi", "max_tokens": 5, "ignore_eos": True},
            **{"x-request-id": "abc"},
        )  # fmt: skip
    assert status == 200
    assert headers["x-request-id"] == "abc"
    assert (body["object"], body["model"], body["id"]) == ("text_completion", "base", "cmpl-abc")
    assert len(body["choices"][0]["text"]) == 5
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


async def test_streams_give_one_event_a_token_and_the_same_text_as_the_whole_answer() -> None:
    wish = {"prompt": "hi", "max_tokens": 7, "temperature": 0, "ignore_eos": True}
    async with served() as (client, _):
        _, whole, _ = await ask(client, "/v1/completions", wish)
        chunks = await events(client, "/v1/completions", {**wish, "stream_options": {"include_usage": True}})
    assert len(chunks) == 8
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole["choices"][0]["text"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 7


async def test_chat_streams_start_with_the_role_and_count_usage_in_every_event_when_asked() -> None:
    wish = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "n": 2, "seed": 1, "ignore_eos": True}
    async with served() as (client, _):
        _, whole, _ = await ask(client, "/v1/chat/completions", wish)
        chunks = await events(
            client, "/v1/chat/completions", {**wish, "stream_options": {"continuous_usage_stats": True}}
        )
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"]["content"]
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert texts[0] != texts[1]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 4, 5, 6]


BAD = [
    (b"{", 400, None),
    ([], 400, None),
    ({"prompt": "x", "model": "gpt"}, 404, "model"),
    ({}, 400, "prompt"),
    ({"prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
    ({"prompt": "x", "max_tokens": "many"}, 400, "max_tokens"),
    ({"prompt": "x", "max_tokens": 2000}, 400, "max_tokens"),
    ({"prompt": "x" * 2000}, 400, "prompt"),
    ({"prompt": [999]}, 400, "prompt"),
    ({"prompt": "x", "temperature": -1}, 400, "temperature"),
    ({"prompt": "x", "stop": 3}, 400, "stop"),
    ({"prompt": "x", "n": 0}, 400, "n"),
    ({"prompt": "x" * 1_100_000}, 413, None),
]


async def test_bad_requests_get_openai_shaped_errors_that_name_the_parameter() -> None:
    async with served() as (client, endpoint):
        for body, status, param in BAD:
            got, content, _ = await ask(client, "/v1/completions", body)
            assert (got, content["error"]["param"], content["error"]["code"]) == (status, param, status)
        assert (await ask(client, "/v1/chat/completions", {"messages": "hi"}))[0] == 400
        assert (await ask(client, "/nowhere", {}))[0] == 404
        assert endpoint.engine.pool.used == 0


async def test_a_full_queue_answers_503_with_retry_after_and_counts_the_rejection() -> None:
    async with served(max_queue=1, max_num_seqs=1) as (client, endpoint):
        wish = {"prompt": "x", "max_tokens": 500, "ignore_eos": True}
        slow = [asyncio.ensure_future(ask(client, "/v1/completions", wish))]
        while endpoint.engine.running == 0:  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)
        slow.append(asyncio.ensure_future(ask(client, "/v1/completions", wish)))
        while endpoint.engine.waiting == 0:  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.001)
        status, body, headers = await ask(client, "/v1/completions", wish)
        assert (status, body["error"]["type"]) == (503, "Service Unavailable")
        assert headers["retry-after"] == "1"
        assert await value(client, "vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
        assert await value(client, "http_requests_total", handler="/v1/completions", status="5xx") == 1
        assert [(await task)[0] for task in slow] == [200, 200]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_what_its_request_held(stream: bool) -> None:  # noqa: FBT001
    async with served() as (client, endpoint):
        wish = {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "stream": stream}
        task = asyncio.ensure_future(client.post("/v1/completions", json=wish))
        while endpoint.engine.running == 0:  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)
        if stream:
            (await task).close()
        else:
            task.cancel()
        while endpoint.engine.running:  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)
        assert endpoint.engine.pool.used == 0
        assert await value(client, "vllm:request_success_total", finished_reason="abort") == 1


async def test_the_metrics_page_has_vllms_families_labels_and_edges() -> None:
    async with served() as (client, _):
        await ask(client, "/v1/completions", {"prompt": "hi", "max_tokens": 3, "ignore_eos": True})
        families = await page(client)
    samples = [sample for family in families.values() for sample in family]
    assert {sample.name for sample in samples} >= ALWAYS
    for name, edges in EDGES.items():
        found = [
            s.labels["le"]
            for s in samples
            if s.name == f"{name}_bucket" and s.labels.get("handler") in {None, "/v1/completions"}
        ]
        assert " ".join(found) == f"{edges} +Inf", name
    for sample in samples:
        if sample.name.startswith("vllm:") and "admission" not in sample.name:
            assert sample.labels["engine"] == "0", sample.name
            assert "model_name" in sample.labels or sample.name == "vllm:cache_config_info"
    assert not [name for name in families if name.startswith("DCGM")]


async def test_models_name_the_model_its_alias_its_root_and_its_length() -> None:
    async with served() as (client, _), client.get("/v1/models") as response:
        cards = (await response.json())["data"]
    assert [(card["id"], card["root"], card["max_model_len"]) for card in cards] == [
        ("base", "base", 1024), ("reference", "base", 1024),
    ]  # fmt: skip


async def test_health_turns_503_when_the_engine_has_died() -> None:
    async with served() as (client, endpoint):
        async with client.get("/health") as response:
            assert response.status == 200
        endpoint.engine.failure = RuntimeError("device lost")
        async with client.get("/health") as response:
            assert response.status == 503


async def test_every_completion_leaves_a_json_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with served() as (client, _):
        await ask(client, "/v1/completions", {"prompt": "hi", "max_tokens": 3, "ignore_eos": True})
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"ts", "request_id", "queue_depth", "processing_time", "ttft", "tokens", "status"} <= line.keys()
    assert (line["tokens"], line["status"], line["queue_depth"]) == (3, 200, 0)
    assert 0 < line["ttft"] <= line["processing_time"]
