"""The official ``openai`` client drives the endpoint, as users and load tools do."""

from typing import TYPE_CHECKING

import aiohttp
import openai
import pytest

from tests.support.endpoints import port_of, served

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

PROMPT = "Why does a fleet of servers stay up?"


def client_of(session: aiohttp.ClientSession) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port_of(session)}/v1", api_key="none", max_retries=0)


async def test_completions_whole_and_streamed_give_the_same_text_and_usage() -> None:
    async with served() as (session, _), client_of(session) as client:
        whole = await client.completions.create(model="reference", prompt=PROMPT, max_tokens=12, seed=5)
        stream = await client.completions.create(
            model="reference", prompt=PROMPT, max_tokens=12, seed=5, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_chat_whole_and_streamed_give_the_same_text() -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT},
    ]  # fmt: skip
    async with served() as (session, _), client_of(session) as client:
        whole = await client.chat.completions.create(
            model="base", messages=messages, max_completion_tokens=12, temperature=0.8, seed=5, logprobs=True,
            top_logprobs=3,
        )  # fmt: skip
        stream = await client.chat.completions.create(
            model="base", messages=messages, max_completion_tokens=12, temperature=0.8, seed=5, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.content or []) == (whole.usage.completion_tokens if whole.usage else 0)


async def test_models_are_listed() -> None:
    async with served() as (session, _), client_of(session) as client:
        assert [model.id async for model in client.models.list()] == ["base", "reference"]


async def test_errors_become_the_clients_own_exceptions() -> None:
    async with served() as (session, _), client_of(session) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.completions.create(model="gpt-5", prompt="x")
        assert unknown.value.param == "model"
        with pytest.raises(openai.BadRequestError):
            await client.completions.create(model="base", prompt="x" * 3000)
        with pytest.raises(openai.InternalServerError) as late:
            await client.completions.create(model="base", prompt="x", max_tokens=1000, extra_body={"timeout": 0.01})
        assert late.value.status_code == 504


async def test_vllms_own_fields_travel_in_the_extra_body() -> None:
    async with served() as (session, _), client_of(session) as client:
        answer = await client.completions.create(
            model="base", prompt="x", max_tokens=9, extra_body={"ignore_eos": True, "priority": -1, "top_k": 3}
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9
