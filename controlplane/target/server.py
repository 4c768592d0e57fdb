"""The OpenAI-compatible HTTP endpoint around one engine: Starlette routes on uvicorn with uvloop and httptools.

``serve_endpoint`` runs one endpoint in this process until SIGTERM or SIGINT. It only translates: what a request means
is ``protocol``'s business, when it runs is ``engine``'s.
"""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import torch
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from controlplane.target import gpu, protocol
from controlplane.target.accounting import Account, Accounting, account_of
from controlplane.target.engine import Engine, Generation, QueueFullError
from controlplane.target.errors import TargetError
from controlplane.target.metrics import PAGE_TYPE, Metrics
from controlplane.target.model import Transformer
from controlplane.target.protocol import Answer, Ask, BadRequestError
from controlplane.target.sequence import Request as EngineRequest
from controlplane.target.spec import PRESETS, EndpointSpec

VERSION = "0.32.0"
"""The vLLM version whose surface this endpoint shows at ``/version``."""
MAX_BODY_BYTES = 1024 * 1024
RETRY_AFTER_S = 1
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
KEEP_ALIVE_S = 75
"""Longer than the gateway keeps idle connections, so that the gateway, not the endpoint, closes them."""
SWITCH_INTERVAL_S = 0.0005
"""How soon the worker thread gets the interpreter back from the event loop; Python's 5 ms would show as latency."""


class Endpoint:
    """The HTTP routes of one engine."""

    def __init__(self, spec: EndpointSpec) -> None:
        """Build the model, the engine and the routes; ``engine.start`` is the caller's."""
        shape = PRESETS[spec.model]
        self.limits = protocol.Limits((spec.model, *spec.aliases), shape.max_len)
        self.metrics = Metrics(spec.model, shape.max_len)
        gpu.register(self.metrics.registry)
        self.engine = Engine(
            Transformer(shape, spec.num_blocks, spec.seed),
            self.metrics,
            max_queue=spec.max_queue,
            max_num_seqs=spec.max_num_seqs,
            num_blocks=spec.num_blocks,
        )
        self.metrics.watch(self.engine)
        self._created = int(time.time())
        routes = [
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/version", self._version),
            Route("/metrics", self._metrics),
        ]
        inner = Starlette(routes=routes, exception_handlers={HTTPException: _refused, BadRequestError: _refused})
        self.app = Accounting(inner, self.metrics, self.engine, spec, frozenset(route.path for route in routes))

    async def _models(self, _: Request) -> Response:
        return _json(protocol.model_list(self.limits, self._created))

    async def _health(self, _: Request) -> Response:
        return Response(status_code=503 if self.engine.failure else 200)

    async def _version(self, _: Request) -> Response:
        return _json({"version": VERSION})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.page(), headers={"content-type": PAGE_TYPE})

    async def _completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        account = account_of(request.scope)
        ask = protocol.parse(await _body(request), chat=chat, limits=self.limits)
        account.prompt_tokens = ask.prompt_tokens
        if self.engine.failure:
            return _error("The engine has died.", "InternalServerError", 500)
        try:
            generations = self._submit(ask, account.request_id)
        except QueueFullError:
            self.metrics.rejected()
            busy = _error(BUSY, "Service Unavailable", 503)
            busy.headers["retry-after"] = str(RETRY_AFTER_S)
            return busy
        answer = Answer(ask, account.request_id, self.limits.models[0], int(time.time()))
        if ask.stream:
            return StreamingResponse(_events(answer, generations, account), media_type="text/event-stream")
        return await _whole(request, answer, generations, account)

    def _submit(self, ask: Ask, request_id: str) -> list[Generation]:
        """Queue every choice, or none: when one finds the queue full, those before it are dropped."""
        generations: list[Generation] = []
        choices = [(prompt, number) for prompt in ask.prompts for number in range(ask.n)]
        try:
            for number, (prompt, repeat) in enumerate(choices):
                wanted = EngineRequest(
                    request_id=f"{request_id}-{number}",
                    prompt=prompt,
                    max_tokens=ask.max_tokens,
                    sampling=ask.sampling.repeated(repeat),
                    stop=ask.stop,
                    ignore_eos=ask.ignore_eos,
                    min_tokens=ask.min_tokens,
                    stream=ask.stream,
                )
                generations.append(self.engine.submit(wanted))
        except QueueFullError:
            _abort(generations)
            raise
        return generations


async def _whole(request: Request, answer: Answer, generations: list[Generation], account: Account) -> Response:
    """Wait for every choice, unless the client leaves first."""
    work = asyncio.ensure_future(_collect(generations))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)
        texts, reasons, tokens = work.result()
    finally:
        _abort(generations)
        work.cancel()
        leaving.cancel()
        account.note(generations)
    account.tokens = tokens
    if "error" in reasons:
        return _error("The engine died while it answered.", "InternalServerError", 500)
    if "abort" in reasons:
        return _error("The endpoint is stopping.", "Service Unavailable", 503)
    return _json(answer.whole(texts, reasons, tokens))


async def _collect(generations: list[Generation]) -> tuple[list[str], list[str], int]:
    texts, reasons, tokens = [], [], 0
    for generation in generations:
        parts = [piece async for piece in generation.pieces()]
        texts.append("".join(piece.text for piece in parts))
        reasons.append(parts[-1].finish_reason or "error")
        tokens += parts[-1].tokens
    return texts, reasons, tokens


async def _left(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(answer: Answer, generations: list[Generation], account: Account) -> AsyncIterator[bytes]:
    """Yield server-sent events, one a token; a client that leaves aborts the request."""
    counts = [0] * len(generations)
    first = [True] * len(generations)
    try:
        async for number, piece in _interleaved(generations):
            counts[number] = piece.tokens
            shaped = answer.chunk(
                number, piece.text, piece.finish_reason, first=first[number], completion_tokens=sum(counts)
            )
            first[number] = False
            yield _event(shaped)
        if answer.ask.include_usage:
            yield _event(answer.last_chunk(sum(counts)))
        yield b"data: [DONE]\n\n"
    finally:
        _abort(generations)
        account.tokens = sum(counts)
        account.note(generations)


async def _interleaved(generations: list[Generation]) -> AsyncIterator[tuple[int, Any]]:
    """Yield (choice, piece) from all generations as they come."""
    if len(generations) == 1:
        async for piece in generations[0].pieces():
            yield 0, piece
        return
    merged: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def pump(number: int, generation: Generation) -> None:
        async for piece in generation.pieces():
            merged.put_nowait((number, piece))

    async with asyncio.TaskGroup() as group:
        for number, generation in enumerate(generations):
            group.create_task(pump(number, generation))
        left = len(generations)
        while left:
            number, piece = await merged.get()
            left -= piece.finish_reason is not None
            yield number, piece


def _abort(generations: list[Generation]) -> None:
    for generation in generations:
        generation.abort()


async def _body(request: Request) -> Any:
    """Read and decode the JSON body, at most ``MAX_BODY_BYTES``."""
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > MAX_BODY_BYTES:
                raise BadRequestError(f"The request body may have at most {MAX_BODY_BYTES} bytes.", status=413)
    except ClientDisconnect:
        raise BadRequestError("The client left before it sent its request.", status=499) from None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.") from None


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), status, media_type="application/json")


def _event(content: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(content, separators=(",", ":")).encode()


def _error(message: str, kind: str, status: int, param: str | None = None) -> Response:
    return _json(protocol.error_body(message, kind, status, param), status)


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, BadRequestError):
        return _error(error.message, error.kind, error.status, error.param)
    if isinstance(error, HTTPException):
        return _error(
            str(error.detail), "NotFoundError" if error.status_code == 404 else "BadRequestError", error.status_code
        )
    raise error


def bind(spec: EndpointSpec) -> socket.socket:
    """Take the endpoint's port.

    Raises:
        TargetError: when it is taken.
    """
    # The protocol is named because asyncio turns Nagle off only where it is; with Nagle, answers wait 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((spec.host, spec.port))
    except OSError as error:
        listener.close()
        raise TargetError(
            f"cannot listen on {spec.host}:{spec.port}",
            str(error.strerror),
            "Choose another port, or 0 for a free one.",
        ) from error
    return listener


def serve_endpoint(spec: EndpointSpec) -> int:
    """Serve one endpoint until SIGTERM or SIGINT.

    Returns:
        The process's exit code: 0 after a clean stop.

    Raises:
        TargetError: when the port is taken or the model unknown.
    """
    if spec.model not in PRESETS:
        raise TargetError(
            f"unknown model {spec.model!r}", "no preset has this name", f"Choose one of {', '.join(PRESETS)}."
        )
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with bind(spec) as listener:
        # uvicorn raises the signal again when it has stopped; answering it with nothing makes that a clean exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with suppress(KeyboardInterrupt):
            uvloop.run(_serve(spec, listener))
    return 0


async def _serve(spec: EndpointSpec, listener: socket.socket) -> None:
    endpoint = Endpoint(spec)
    config = uvicorn.Config(
        endpoint.app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    endpoint.engine.start()
    host, port = listener.getsockname()[:2]
    endpoint.app.log({"event": "ready", "url": f"http://{host}:{port}", "model": spec.model})
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        endpoint.engine.close()
