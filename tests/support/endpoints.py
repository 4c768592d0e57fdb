"""One endpoint in this process, on a real socket, for tests that speak HTTP to it."""

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import aiohttp
import torch
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from controlplane.target.app import Endpoint
from controlplane.target.connection import Connection
from controlplane.target.engine import Engine
from controlplane.target.listening import bind
from controlplane.target.logs import Log
from controlplane.target.model import Chunk, Transformer, device_named
from controlplane.target.server import KEEP_ALIVE_S
from controlplane.target.spec import EndpointSpec
from controlplane.target.tracing import PassOn, Tracer

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
"""Where the same tests run."""
POLL_S = 0.001
ROOM: dict[str, Any] = {"max_len": 32_768, "num_blocks": 2_048}
"""Settings of an endpoint that takes `ENDLESS`."""
ENDLESS = {"prompt": "x", "max_tokens": 32_000, "ignore_eos": True}
"""A request that nobody waits for: it runs for many seconds, however late its test gets its turn."""


@asynccontextmanager
async def served(
    tracer: Tracer | None = None, **settings: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, Endpoint]]:
    """Serve the small model; on the way out nothing may be held any more."""
    torch.set_num_threads(1)
    spec = EndpointSpec(**{"model": "base", "port": 0, **settings})
    model = Transformer(spec.shape, spec.num_blocks, spec.seed, device_named(spec.device), spec.precision)
    endpoint = Endpoint(spec, model, Log(endpoint=spec.name), tracer or PassOn())
    endpoint.engine.start()
    config = uvicorn.Config(
        endpoint.app, http=Connection, ws="none", lifespan="off", log_config=None, timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with bind(spec.host, 0) as listener:
        async with asyncio.TaskGroup() as group:
            # serve() would take over the test process's signals; _serve is the same without them.
            task = group.create_task(server._serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110 - another task makes it true
                await asyncio.sleep(POLL_S)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client, endpoint
            await at_rest(endpoint)
            server.should_exit = True
            await task
    endpoint.engine.close()


def port_of(client: aiohttp.ClientSession) -> int:
    """Return the endpoint's port."""
    assert client._base_url is not None
    assert client._base_url.port is not None
    return client._base_url.port


@contextmanager
def standing_still(engine: Engine) -> Iterator[None]:
    """Let the engine end no step that it begins in the block: what is in the batch stays there, what comes waits."""
    go_on, compute = threading.Event(), engine._model.compute

    def computed_later(chunks: Sequence[Chunk]) -> torch.Tensor:
        go_on.wait()
        return compute(chunks)

    with patch.object(engine._model, "compute", computed_later):
        try:
            yield
        finally:
            go_on.set()


async def at_rest(endpoint: Endpoint) -> None:
    """Wait until the engine holds nothing; what never lets go runs into the test's timeout."""
    while not (endpoint.engine.idle and endpoint.engine.pool.used == 0):  # noqa: ASYNC110 - a thread makes it true
        await asyncio.sleep(POLL_S)
    assert (endpoint.engine.running, endpoint.engine.waiting, endpoint.app.in_flight) == (0, 0, 0)


async def until_running(engine: Engine) -> None:
    """Wait until a request is in the batch; one that may have left it by then is never seen."""
    while not engine.running:  # noqa: ASYNC110 - another thread makes it true
        await asyncio.sleep(POLL_S)


async def ask(client: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """POST a body, as JSON unless it is bytes; return status, decoded answer and headers."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with client.post(path, data=data, headers=headers) as response:
        return response.status, json.loads(await response.read()), response.headers


async def page(client: aiohttp.ClientSession) -> dict[str, list[Any]]:
    """Read the Prometheus page: family -> samples."""
    async with client.get("/metrics") as response:
        text = await response.text()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


async def value(client: aiohttp.ClientSession, name: str, **labels: str) -> float:
    """Sum the samples of this name that have these labels."""
    samples = [sample for family in (await page(client)).values() for sample in family]
    return sum(float(s.value) for s in samples if s.name == name and labels.items() <= s.labels.items())


async def events(client: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> list[Any]:
    """Ask for a stream and return its decoded events; the last one must be the end marker."""
    async with client.post(path, json={**body, "stream": True}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.read()).decode()
    parts = text.removesuffix("\n\n").split("\n\n")
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]
