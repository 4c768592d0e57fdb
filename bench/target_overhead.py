"""What the server adds to a request: CPU time of everything but the model, at 50 concurrent streams on one core.

The model call alone is replaced, by one that returns the same logits at once; HTTP, JSON, the queue, the scheduler,
sampling, metrics and the log line are the real ones, in a process of their own pinned to one CPU. Clients run on the
other CPUs. CPU time, not waiting time, since 50 streams that share a core wait for each other by definition.
"""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import aiohttp
import psutil
import torch

from bench.figures import Figure
from controlplane.target.listening import bind
from controlplane.target.model import Chunk, Transformer
from controlplane.target.server import serve_endpoint
from controlplane.target.spec import EndpointSpec
from controlplane.target.tokenizer import VOCABULARY

COMMAND = "make bench ONLY=target-overhead"
STREAMS = 50
REQUESTS = 1500
RUNS = 5
TOKENS = 16
"""OpenAI's default answer length."""
GOAL_MS = 1.0
PORT_TRIES = 200
BODY = {"prompt": "Why does a fleet of servers stay up?", "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}


def run() -> list[Figure]:
    """Measure streamed and whole answers."""
    with bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_serve, args=(port,), daemon=True)
    server.start()
    try:
        return asyncio.run(_measure(f"http://127.0.0.1:{port}", psutil.Process(server.pid)))
    finally:
        server.terminate()
        server.join(5)


def _serve(port: int) -> None:
    """Serve with a model that does nothing; its log goes where nobody reads it."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    logits = torch.zeros(STREAMS, VOCABULARY)
    logits[:, 65] = 1.0

    def compute(_: Transformer, chunks: Sequence[Chunk]) -> torch.Tensor:
        return logits[: len(chunks)]

    Transformer.compute = compute  # type: ignore[method-assign, assignment]
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - a file descriptor is what is wanted
        os.dup2(nothing.fileno(), 1)
    serve_endpoint(EndpointSpec(model="base", port=port, max_num_seqs=STREAMS, drain_timeout_s=0))


async def _measure(url: str, server: psutil.Process) -> list[Figure]:
    others = os.sched_getaffinity(0) - {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, others or os.sched_getaffinity(0))
    connector = aiohttp.TCPConnector(limit=STREAMS)
    async with aiohttp.ClientSession(url, connector=connector) as client:
        await _ready(client)
        await _cpu_ms(client, server, stream=True)
        streamed, whole = [], []
        for _ in range(RUNS):
            streamed.append(await _cpu_ms(client, server, stream=True))
            whole.append(await _cpu_ms(client, server, stream=False))
    return [
        _figure(f"server CPU time per streamed request of {TOKENS} tokens, {STREAMS} at once", streamed),
        _figure(f"server CPU time per whole answer of {TOKENS} tokens, {STREAMS} at once", whole),
    ]


def _figure(name: str, times_ms: list[float]) -> Figure:
    value = median(times_ms)
    return Figure(name, round(value, 3), "ms", len(times_ms), COMMAND, f"< {GOAL_MS:g} ms", value < GOAL_MS)


async def _ready(client: aiohttp.ClientSession) -> None:
    for _ in range(PORT_TRIES):
        try:
            async with client.get("/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
    raise TimeoutError("the endpoint did not start")


async def _cpu_ms(client: aiohttp.ClientSession, server: psutil.Process, *, stream: bool) -> float:
    """Send the requests over ``STREAMS`` connections; return the server's CPU milliseconds per request."""
    data = json.dumps({**BODY, "stream": stream}).encode()
    left = iter(range(REQUESTS))
    before = server.cpu_times()
    began = time.perf_counter()

    async def worker() -> None:
        for _ in left:
            async with client.post("/v1/completions", data=data) as response:
                answer = await response.read()
                _check(answer, stream=stream)

    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(worker())
    after: Any = server.cpu_times()
    spent = after.user + after.system - before.user - before.system
    print(f"{'stream' if stream else 'whole'}: {REQUESTS / (time.perf_counter() - began):.0f} requests/s")
    return float(spent / REQUESTS * 1000)


def _check(answer: bytes, *, stream: bool) -> None:
    events = answer.count(b"data: ") - 1 if stream else TOKENS
    if events != TOKENS or b"A" * (1 if stream else TOKENS) not in answer:
        raise ValueError(f"not the answer that was asked for: {answer[:200]!r}")
