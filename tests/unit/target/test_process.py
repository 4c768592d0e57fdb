"""A served endpoint as a process: it drains on SIGTERM, keeps health at 200 meanwhile, and exits with 0."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.endpoints import ENDLESS, ROOM

ROOT = Path(__file__).resolve().parents[3]
SERVE = """
import json, sys
from controlplane.target.server import serve_endpoint
from controlplane.target.spec import EndpointSpec
sys.exit(serve_endpoint(EndpointSpec(model="base", port=0, **json.loads(sys.argv[1]))))
"""
LONG = {"prompt": "x", "max_tokens": 1000, "ignore_eos": True}


HELD = (
    """
import signal, threading
from controlplane.target.model import Transformer
go_on, compute = threading.Event(), Transformer.compute
def held(*given):
    go_on.wait()
    return compute(*given)
Transformer.compute = held
signal.signal(signal.SIGUSR1, lambda *_: go_on.set())
"""
    + SERVE
)
"""Computes nothing before it gets a SIGUSR1."""
DYING = (
    """
from controlplane.target.model import Transformer
def lost(*_):
    raise RuntimeError("device lost")
Transformer.compute = lost
"""
    + SERVE
)


@asynccontextmanager
async def process(
    script: str = SERVE, **settings: Any
) -> AsyncIterator[tuple[asyncio.subprocess.Process, aiohttp.ClientSession]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, json.dumps(settings), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    try:
        ready = json.loads(await child.stdout.readline())
        async with aiohttp.ClientSession(ready["url"]) as client:
            yield child, client
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def begun(group: asyncio.TaskGroup, client: aiohttp.ClientSession, wish: Any) -> "asyncio.Task[tuple[int, Any]]":
    """Begin a request; return it once the endpoint works on it."""

    async def whole() -> tuple[int, Any]:
        async with client.post("/v1/completions", json=wish) as response:
            return response.status, await response.json()

    task = group.create_task(whole())
    while True:
        async with client.get("/load") as response:
            if (await response.json())["server_load"]:
                return task


async def test_sigterm_lets_what_runs_finish_and_health_stays_200() -> None:
    async with process(HELD, drain_timeout_s=100) as (child, client), asyncio.TaskGroup() as group:
        task = await begun(group, client, LONG)
        child.send_signal(signal.SIGTERM)
        for _ in range(10):  # It looks ten times a second whether to stop, and would be gone before the last of these.
            await asyncio.sleep(0.05)
            async with client.get("/health") as response:
                assert response.status == 200
        assert not task.done()
        child.send_signal(signal.SIGUSR1)
        status, body = await task
        assert (status, body["usage"]["completion_tokens"]) == (200, 1000)
        assert await asyncio.wait_for(child.wait(), 60) == 0


async def test_what_does_not_finish_in_time_is_told_that_the_endpoint_stops() -> None:
    async with process(drain_timeout_s=0, **ROOM) as (child, client), asyncio.TaskGroup() as group:
        task = await begun(group, client, ENDLESS)
        child.send_signal(signal.SIGTERM)
        status, body = await task
        assert (status, body["error"]["type"]) == (503, "Service Unavailable")
        assert await asyncio.wait_for(child.wait(), 60) == 0


async def test_a_dead_engine_answers_500_leaves_its_stack_trace_in_the_log_and_ends_the_process() -> None:
    async with process(DYING) as (child, client):
        async with client.post("/v1/completions", json=LONG) as response:
            assert response.status == 500
        output, _ = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 1
    lines = [json.loads(line) for line in output.splitlines()]
    (fatal,) = [line for line in lines if line["msg"] == "EngineCore encountered a fatal error."]
    assert "RuntimeError: device lost" in fatal["exception"]
    assert lines[-1]["event"] == "stopped"
