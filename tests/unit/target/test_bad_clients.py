"""Clients that are slow, half gone or too talkative: they get an answer or are cut off, and nothing leaks."""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from controlplane.target import app, connection
from controlplane.target.app import Endpoint
from tests.support.endpoints import ENDLESS, ROOM, ask, at_rest, port_of, served, until_running, value


def posted(body: object, length: int | None = None) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length or len(data)}\r\n\r\n"
    return head.encode() + data


def held() -> tuple[int, int]:
    """Count this process's file descriptors and the loop's tasks."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())


@asynccontextmanager
async def connected(
    session: aiohttp.ClientSession, endpoint: Endpoint
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection; when it is over, the endpoint holds no more than it held before."""
    await ask(session, "/v1/completions", {"prompt": "x", "max_tokens": 1})
    before = held()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(session))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    await at_rest(endpoint)
    while any(now > then for now, then in zip(held(), before, strict=True)):  # noqa: ASYNC110 - the loop tidies up
        await asyncio.sleep(0.005)


async def test_a_half_closed_connection_is_closed_and_its_request_dropped() -> None:
    async with served(**ROOM) as (session, endpoint), connected(session, endpoint) as (reader, writer):
        writer.write(posted(ENDLESS))
        await until_running(endpoint.engine)
        writer.write_eof()
        await reader.read()
        await at_rest(endpoint)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_that_is_reset_frees_its_request(stream: bool) -> None:  # noqa: FBT001
    async with served(**ROOM) as (session, endpoint), connected(session, endpoint) as (_, writer):
        writer.write(posted({**ENDLESS, "stream": stream}))
        await until_running(endpoint.engine)
        writer.transport.abort()


async def test_a_body_that_never_arrives_is_answered_408_and_the_connection_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as (session, endpoint), connected(session, endpoint) as (reader, writer):
        monkeypatch.setattr(app, "BODY_TIMEOUT_S", 0.05)
        writer.write(posted({"prompt": "x"}, length=5000))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 408


@pytest.mark.parametrize("sent", [b"", b"POST /v1/completions HTTP/1.1\r\nhost"])
async def test_a_head_that_never_arrives_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    async with served() as (session, endpoint):
        await ask(session, "/v1/completions", {"prompt": "x", "max_tokens": 1})  # The session has its connection.
        monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
        async with connected(session, endpoint) as (reader, writer):
            writer.write(sent)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


async def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.05)
    async with served(**ROOM) as (session, endpoint), connected(session, endpoint) as (_, writer):
        writer.write(posted({**ENDLESS, "n": 64, "stream": True, "logprobs": 20}))
        await until_running(endpoint.engine)
        await at_rest(endpoint)
        assert await value(session, "vllm:request_success_total", finished_reason="abort") == 64


async def test_a_body_much_too_large_is_read_to_its_end_and_answered_413() -> None:
    async with served() as (session, endpoint), connected(session, endpoint) as (reader, writer):
        writer.write(posted({"prompt": "x" * 6_000_000}))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer


async def test_pipelined_rubbish_is_refused() -> None:
    async with served() as (session, endpoint), connected(session, endpoint) as (reader, writer):
        writer.write(os.urandom(64) + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")


async def test_many_clients_that_leave_at_every_moment_leave_nothing_behind() -> None:
    async with served(num_blocks=80, max_num_seqs=8) as (session, endpoint):
        before = held()

        async def hurried(number: int) -> None:
            try:
                async with asyncio.timeout(0.004 * number):
                    wish = {**ENDLESS, "max_tokens": 1000, "stream": number % 2 == 0, "n": 1 + number % 3}
                    await ask(session, "/v1/completions", wish)
            except (TimeoutError, ValueError):
                pass

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(hurried(number))
        await at_rest(endpoint)
        while held()[1] > before[1]:  # noqa: ASYNC110 - the loop tidies up
            await asyncio.sleep(0.005)
