"""The OpenAI-compatible HTTP routes around one engine. ``server`` runs them.

They only translate: what a request means is ``protocol``'s business, how its answer looks is ``answers``', when it runs
is ``engine``'s. However a request ends, its generations are aborted on the way out, which frees what they hold.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from controlplane.target import gpu, protocol
from controlplane.target.accounting import Account, Accounting, account_of
from controlplane.target.answers import DONE, Answer, Choice, error_event
from controlplane.target.cache_key import ALLOW_HEADER
from controlplane.target.engine import Engine, EngineStoppedError, Generation, Model, QueueFullError, merged
from controlplane.target.kv import BLOCK_TOKENS
from controlplane.target.logs import Log
from controlplane.target.metrics import PAGE_TYPE, Metrics
from controlplane.target.protocol import Ask, BadRequestError
from controlplane.target.publisher import Finished
from controlplane.target.scheduler import Batching
from controlplane.target.sequence import Piece, Siblings
from controlplane.target.sequence import Request as EngineRequest
from controlplane.target.spec import EndpointSpec
from controlplane.target.tracing import Tracer

VERSION = "0.32.0"
"""The vLLM version whose surface this endpoint shows at ``/version``."""
MAX_BODY_BYTES = 1024 * 1024
DISCARDED_BYTES = 16 * MAX_BODY_BYTES
"""How much of a body that is too large is still read: a client that is cut off while it sends never sees the answer."""
BODY_TIMEOUT_S = 30.0
"""Longest time for the whole body to arrive."""
RETRY_AFTER_S = 1
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
STOPPING = "The endpoint is stopping and takes no new requests. Please try again on a different instance."
LATE = "The request was not answered by its deadline."
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
"""vLLM's words for a dead engine, which log rules and clients match."""
DEADLINE_HEADERS = ("x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms")
"""Milliseconds that the client, or Envoy in its place, will wait for the answer; the shortest counts."""


class ClientLeftError(Exception):
    """The client closed its connection."""


class Endpoint:
    """The HTTP routes of one engine."""

    def __init__(self, spec: EndpointSpec, model: Model, log: Log, tracer: Tracer) -> None:
        """Build the engine and the routes; ``engine.start`` is the caller's."""
        shape = spec.shape
        self.limits = protocol.Limits((spec.model, *spec.aliases), min(shape.max_len, spec.num_blocks * BLOCK_TOKENS))
        self.metrics = Metrics(spec.model, self.limits.max_len)
        gpu.register(self.metrics.registry)
        batching = Batching(spec.max_num_seqs, max(spec.max_num_batched_tokens, spec.max_num_seqs))
        self.engine = Engine(
            model, self.metrics, max_queue=spec.max_queue, num_blocks=spec.num_blocks, batching=batching
        )
        self.metrics.watch(self.engine)
        self.draining = False
        """Set on SIGTERM: what runs goes on, new requests are sent elsewhere, and health stays 200 as vLLM's does."""
        self.on_finished: Callable[[Finished], None] | None = None
        """Told of every whole answer; it may not block."""
        self._created = int(time.time())
        routes = [
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/ping", self._health, methods=["GET", "POST"]),
            Route("/load", self._load),
            Route("/version", self._version),
            Route("/metrics", self._metrics),
        ]
        refusals = {HTTPException: _refused, BadRequestError: _refused, Exception: _broken}
        inner = Starlette(routes=routes, exception_handlers=refusals)
        self.app = Accounting(
            inner,
            metrics=self.metrics,
            engine=self.engine,
            log=log,
            tracer=tracer,
            handlers=frozenset(route.path for route in routes),
        )

    async def _models(self, _: Request) -> Response:
        return _json(protocol.model_list(self.limits, self._created))

    async def _health(self, _: Request) -> Response:
        return Response(status_code=503 if self.engine.failure else 200)

    async def _load(self, _: Request) -> Response:
        return _json({"server_load": self.app.in_flight})

    async def _version(self, _: Request) -> Response:
        return _json({"version": VERSION})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.page(), headers={"content-type": PAGE_TYPE})

    async def _completions(self, request: Request) -> Any:
        return await self._answer(request, chat=False)

    async def _chat(self, request: Request) -> Any:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, *, chat: bool) -> "Response | EventStream":
        account = account_of(request.scope)
        body = await _body(request)
        ask = protocol.parse(body, chat=chat, limits=self.limits)
        account.ask = ask
        if self.draining:
            return _unavailable(STOPPING)
        try:
            generations = self._submit(ask, account.request_id)
        except QueueFullError:
            self.metrics.rejected()
            return _unavailable(BUSY)
        except EngineStoppedError:
            return _error(DEAD, "InternalServerError", 500) if self.engine.failure else _unavailable(STOPPING)
        answer = Answer(
            ask, account.request_id, self.limits.models[0], int(time.time()), [Choice() for _ in generations]
        )
        reply = Reply(answer, generations, account, self.metrics, _deadline_s(request, ask))
        if self.on_finished is not None and not (ask.stream and ask.logprobs is not None):
            reply.tell = _teller(self.on_finished, request, body)
        return EventStream(reply) if ask.stream else await reply.whole(request.receive)

    def _submit(self, ask: Ask, request_id: str) -> list[Generation]:
        """Queue every choice, or none: when one finds the queue full, those before it are dropped."""
        generations: list[Generation] = []
        try:
            for prompt in ask.prompts:
                siblings = Siblings(ask.n) if ask.n > 1 else None
                for repeat in range(ask.n):
                    name = f"{request_id}-{len(generations)}"
                    generations.append(self.engine.submit(_wanted(ask, name, prompt, repeat, siblings)))
        except (QueueFullError, EngineStoppedError):
            _abort(generations)
            raise
        return generations


def _teller(on_finished: Callable[[Finished], None], request: Request, body: Any) -> Callable[[bytes], None]:
    """Return what tells of the whole answer to one request."""
    path, allow = request.url.path, request.headers.get(ALLOW_HEADER, "")
    return lambda whole: on_finished(Finished(path, body, allow, whole))


def _wanted(ask: Ask, name: str, prompt: tuple[int, ...], repeat: int, siblings: Siblings | None) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt=prompt,
        max_tokens=ask.max_tokens,
        sampling=ask.sampling.repeated(repeat),
        stop=ask.stop,
        ignore_eos=ask.ignore_eos,
        min_tokens=ask.min_tokens,
        stream=ask.stream,
        priority=ask.priority,
        stop_tokens=ask.stop_tokens,
        keep_stop=ask.keep_stop,
        logprobs=ask.logprobs,
        siblings=siblings,
    )


class Reply:
    """The generations of one request on their way to its client."""

    def __init__(
        self, answer: Answer, generations: list[Generation], account: Account, metrics: Metrics, timeout_s: float | None
    ) -> None:
        """Answer within ``timeout_s`` seconds, or as long as it takes when None."""
        self.answer = answer
        self.tell: Callable[[bytes], None] | None = None
        """Told of the whole answer, also of one that was streamed."""
        self._generations = generations
        self._account = account
        self._metrics = metrics
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def attended(self, receive: Receive) -> AsyncIterator[None]:
        """Run the block while the client stays and its deadline has not passed; abort and account on every way out.

        Raises:
            ClientLeftError: the client closed its connection.
            TimeoutError: the deadline has passed.
        """
        try:
            async with asyncio.timeout(self._timeout_s), asyncio.TaskGroup() as group:
                watch = group.create_task(_until_left(receive))
                yield
                watch.cancel()
        except TimeoutError:
            self._metrics.timed_out()
            raise
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            _abort(self._generations)
            choices = self.answer.choices
            self._account.tokens = sum(choice.tokens for choice in choices)
            self._account.cached_tokens = sum(choice.cached_tokens for choice in choices)
            self._account.note(self._generations)

    async def whole(self, receive: Receive) -> Response:
        """Wait for every choice."""
        try:
            async with self.attended(receive):
                async for number, piece in self.pieces():
                    self.answer.choices[number].add(piece)
        except ClientLeftError:
            return Response(status_code=499)
        except TimeoutError:
            return _error(LATE, "Gateway Timeout", 504)
        for choice in self.answer.choices:
            if choice.finish_reason in BROKEN:
                return _error(*BROKEN[choice.finish_reason])
        whole = self.answer.whole()
        if self.tell is not None:
            self.tell(whole)
        return Response(whole, media_type="application/json")

    def streamed(self) -> None:
        """Note that the whole answer has been sent as a stream."""
        if self.tell is not None:
            self.tell(self.answer.whole())

    def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield (choice, piece) as they come."""
        return merged(self._generations)

    def broke_off(self, why: str) -> None:
        """Note that the answer ended early although its status had been sent."""
        self._account.error = why


class EventStream:
    """A streamed answer: server-sent events, one a token.

    The status is sent with the first token, so that a request which fails before it can still be told so, and tried
    again elsewhere by the gateway.
    """

    def __init__(self, reply: Reply) -> None:
        """Stream one reply."""
        self._reply = reply
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the answer is whole, the client leaves, or the deadline passes."""
        try:
            async with self._reply.attended(receive):
                broken = await self._stream(send)
        except ClientLeftError:
            if not self._started:
                await Response(status_code=499)(scope, receive, send)
            return
        except TimeoutError:
            broken = (LATE, "Gateway Timeout", 504)
        if broken is None:
            return
        if not self._started:
            await _error(*broken)(scope, receive, send)
            return
        self._reply.broke_off(broken[0])
        await self._send(send, error_event(*broken))
        await self._send(send, DONE, last=True)

    async def _stream(self, send: Send) -> tuple[str, str, int] | None:
        answer = self._reply.answer
        async for number, piece in self._reply.pieces():
            if piece.finish_reason in BROKEN:
                return BROKEN[piece.finish_reason]
            answer.choices[number].text += piece.text
            await self._send(send, answer.event(number, piece))
        last = answer.usage_event() + DONE if answer.ask.include_usage else DONE
        await self._send(send, last, last=True)
        self._reply.streamed()
        return None

    async def _send(self, send: Send, body: bytes, *, last: bool = False) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": body, "more_body": not last})


STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
BROKEN = {"error": (DEAD, "InternalServerError", 500), "abort": (STOPPING, "Service Unavailable", 503)}
"""What to say when the engine ended a generation that nobody asked it to end."""


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeftError


def _abort(generations: Iterable[Generation]) -> None:
    for generation in generations:
        generation.abort()


def _deadline_s(request: Request, ask: Ask) -> float | None:
    """Return the seconds that the client waits, from the body's ``timeout`` and the headers; None without limit."""
    asked = [] if ask.timeout_s is None else [ask.timeout_s]
    for name in DEADLINE_HEADERS:
        value = request.headers.get(name, "")
        if value.isascii() and value.isdigit() and len(value) <= 9:
            asked.append(int(value) / 1000)
    return min(asked, default=None)


async def _body(request: Request) -> Any:
    """Read and decode the JSON body, at most ``MAX_BODY_BYTES``."""
    raw = bytearray()
    total = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                total += len(part)
                if total <= MAX_BODY_BYTES:
                    raw += part
                elif total > DISCARDED_BYTES:
                    break
    except ClientDisconnect:
        raise BadRequestError("The client left before it sent its request.", status=499) from None
    except TimeoutError:
        raise BadRequestError(
            f"The request body did not arrive within {BODY_TIMEOUT_S:g} seconds.", status=408, kind="Request Timeout"
        ) from None
    if total > MAX_BODY_BYTES:
        raise BadRequestError(f"The request body may have at most {MAX_BODY_BYTES} bytes.", status=413)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.") from None


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), status, media_type="application/json")


def _error(message: str, kind: str, status: int, param: str | None = None) -> Response:
    return _json(protocol.error_body(message, kind, status, param), status)


def _unavailable(message: str) -> Response:
    busy = _error(message, "Service Unavailable", 503)
    busy.headers["retry-after"] = str(RETRY_AFTER_S)
    return busy


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, BadRequestError):
        answer = _error(error.message, error.kind, error.status, error.param)
        if error.status in {408, 413}:
            # The rest of the body may still be on its way; it must not be taken for the next request.
            answer.headers["connection"] = "close"
        return answer
    if isinstance(error, HTTPException):
        kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
        return _error(str(error.detail), kind, error.status_code)
    raise error


async def _broken(_: Request, __: Exception) -> Response:
    return _error("The server met an error of its own.", "InternalServerError", 500)
