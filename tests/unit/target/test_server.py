"""The endpoint's HTTP surface over a real socket: shapes, errors, deadlines, and what a leaving client frees."""

import asyncio
import json
import time

import pytest

from controlplane.target import protocol
from controlplane.target.app import DEAD
from tests.support.endpoints import (
    DEVICES,
    ENDLESS,
    ROOM,
    ask,
    at_rest,
    events,
    served,
    standing_still,
    until_running,
    value,
)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_completion_answers_in_openai_shape_and_echoes_the_request_id(device: str) -> None:
    async with served(device=device) as (client, _):
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


async def test_streams_give_one_event_a_token_and_the_same_text_as_the_whole_answer(device: str) -> None:
    wish = {"prompt": "hi", "max_tokens": 7, "temperature": 0, "ignore_eos": True}
    async with served(device=device) as (client, _):
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
    ({"prompt": [True]}, 400, "prompt"),
    ({"prompt": "half a pair \ud800"}, 400, "prompt"),
    ({"prompt": "x", "stop": ["\udfff"]}, 400, "stop"),
    ({"prompt": "x", "temperature": float("nan")}, 400, "temperature"),
    ({"prompt": "x", "stream": "yes"}, 400, "stream"),
    ({"prompt": "x", "stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"prompt": "x", "logprobs": 21}, 400, "logprobs"),
    ({"prompt": "x", "logit_bias": {"300": 1}}, 400, "logit_bias"),
    ({"prompt": "x", "logit_bias": {"65": "much"}}, 400, "65"),
    ({"prompt": "x", "presence_penalty": 3}, 400, "presence_penalty"),
    ({"prompt": "x", "repetition_penalty": 0}, 400, "repetition_penalty"),
    ({"prompt": "x", "stop_token_ids": "q"}, 400, "stop_token_ids"),
    ({"prompt": "x", "priority": 0.5}, 400, "priority"),
    ({"prompt": "x", "timeout": "soon"}, 400, "timeout"),
    ({"prompt": "x", "echo": True}, 400, "echo"),
    ({"prompt": "x", "response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"prompt": ["x"] * 100, "n": 2}, 400, "n"),
    (b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}", 400, None),
    (b"[" * 200_000, 400, None),
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
        with standing_still(endpoint.engine):
            slow = [asyncio.ensure_future(ask(client, "/v1/completions", wish))]
            await until_running(endpoint.engine)
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
    async with served(**ROOM) as (client, endpoint):
        task = asyncio.ensure_future(client.post("/v1/completions", json={**ENDLESS, "stream": stream}))
        await until_running(endpoint.engine)
        if stream:
            (await task).close()
        else:
            task.cancel()
        await at_rest(endpoint)
        assert await value(client, "vllm:request_success_total", finished_reason="abort") == 1


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
    assert (line["level"], line["msg"], line["path"]) == ("info", "request", "/v1/completions")
    assert len(line["trace_id"]) == 32


async def test_prompts_in_a_list_and_as_tokens_are_answered_one_choice_each() -> None:
    wish = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
    async with served() as (client, _):
        single = [(await ask(client, "/v1/completions", {**wish, "prompt": text}))[1] for text in ("one", "two")]
        _, both, _ = await ask(client, "/v1/completions", {**wish, "prompt": ["one", "two"]})
        _, tokens, _ = await ask(client, "/v1/completions", {**wish, "prompt": [256, *b"one"]})
        _, lists, _ = await ask(client, "/v1/completions", {**wish, "prompt": [[256, *b"one"], [256, *b"two"]]})
    texts = [answer["choices"][0]["text"] for answer in single]
    assert [choice["text"] for choice in both["choices"]] == texts
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["usage"]["prompt_tokens"] == 8
    assert tokens["choices"][0]["text"] == texts[0]
    assert [choice["text"] for choice in lists["choices"]] == texts


async def test_logprobs_come_in_the_shapes_of_completions_and_of_chat() -> None:
    wish = {"max_tokens": 3, "temperature": 0, "ignore_eos": True}
    async with served() as (client, _):
        _, whole, _ = await ask(client, "/v1/completions", {**wish, "prompt": "hi", "logprobs": 2})
        chunks = await events(client, "/v1/completions", {**wish, "prompt": "hi", "logprobs": 2})
        _, chat, _ = await ask(
            client, "/v1/chat/completions",
            {**wish, "messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2},
        )  # fmt: skip
    got = whole["choices"][0]["logprobs"]
    assert "".join(got["tokens"]) == whole["choices"][0]["text"]
    assert got["text_offset"] == [0, 1, 2]
    assert [len(top) for top in got["top_logprobs"]] == [2, 2, 2]
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    for field in got:
        assert [item for part in parts for item in part[field]] == got[field]
    content = chat["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in content) == chat["choices"][0]["message"]["content"]
    assert [bytes(one["bytes"]).decode() for one in content] == [one["token"] for one in content]
    assert {len(one["top_logprobs"]) for one in content} == {2}


@pytest.mark.parametrize("how", ["header", "envoy", "field"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_misses_its_deadline_is_told_so_counted_and_freed(how: str, stream: bool) -> None:  # noqa: FBT001
    async with served(max_num_seqs=1, **ROOM) as (client, endpoint):
        task = asyncio.ensure_future(client.post("/v1/completions", json=ENDLESS))
        await until_running(endpoint.engine)
        name = {"header": "x-request-timeout-ms", "envoy": "x-envoy-expected-rq-timeout-ms"}.get(how)
        late = {**ENDLESS, "stream": stream, **({} if name else {"timeout": 0.02})}
        status, body, _ = await ask(client, "/v1/completions", late, **({name: "20"} if name else {}))
        assert (status, body["error"]["type"], body["error"]["code"]) == (504, "Gateway Timeout", 504)
        assert await value(client, "controlplane_target_deadline_exceeded_total", model_name="base") == 1
        task.cancel()
        await at_rest(endpoint)


async def test_a_stream_that_misses_its_deadline_ends_with_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    wish, deadline = {**ENDLESS, "stream": True}, {"x-request-timeout-ms": "30000"}
    async with served(**ROOM) as (client, endpoint):
        async with client.post("/v1/completions", json=wish, headers=deadline) as response:
            first = await response.content.readuntil(b"\n\n")
            monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + 30.0)
            rest = await response.read()
        await at_rest(endpoint)
    assert "choices" in json.loads(first.removeprefix(b"data: "))
    *_, last, done = rest.removesuffix(b"\n\n").split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 504
    assert done == b"data: [DONE]"


async def test_a_draining_endpoint_finishes_what_runs_stays_healthy_and_sends_new_requests_away() -> None:
    async with served() as (client, endpoint):
        wish = {**ENDLESS, "max_tokens": 200}
        with standing_still(endpoint.engine):
            task = asyncio.ensure_future(ask(client, "/v1/completions", wish))
            await until_running(endpoint.engine)
            endpoint.draining = True
            status, body, headers = await ask(client, "/v1/completions", wish)
            assert (status, body["error"]["type"], headers["retry-after"]) == (503, "Service Unavailable", "1")
            async with client.get("/health") as response:
                assert response.status == 200
        assert (await task)[0] == 200


async def test_an_engine_that_dies_under_a_request_answers_500_in_vllms_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("device lost")

    async with served(**ROOM) as (client, endpoint):
        monkeypatch.setattr(endpoint.engine._model, "compute", break_down)
        for stream in (False, True):
            status, body, _ = await ask(client, "/v1/completions", {**ENDLESS, "stream": stream})
            assert (status, body["error"]["message"]) == (500, DEAD)
        async with client.get("/health") as response:
            assert response.status == 503


async def test_load_ping_and_version_answer_as_vllms_do() -> None:
    async with served(**ROOM) as (client, endpoint):
        task = asyncio.ensure_future(client.post("/v1/completions", json=ENDLESS))
        await until_running(endpoint.engine)
        async with client.get("/load") as response:
            assert await response.json() == {"server_load": 1}
        async with client.get("/ping") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get("/version") as response:
            assert await response.json() == {"version": "0.32.0"}
        task.cancel()


async def test_an_error_of_our_own_is_answered_in_openai_shape_without_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    async with served() as (client, _):
        monkeypatch.setattr(protocol, "parse", break_down)
        status, body, headers = await ask(client, "/v1/completions", ENDLESS)
    assert (status, body["error"]["type"], body["error"]["code"]) == (500, "InternalServerError", 500)
    assert "secret" not in json.dumps(body)
    assert "x-request-id" in headers
