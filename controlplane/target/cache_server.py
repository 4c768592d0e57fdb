"""The response cache as an endpoint of the fleet: OpenAI-compatible like the others, but it answers from its store.

``serve_cache`` runs one until SIGTERM or SIGINT. Each answer says in ``x-cache`` where it came from: ``hit``, ``near``
(with ``x-cache-similarity``), ``miss`` (asked the fleet, and stored), ``bypass`` (may not be stored) or ``shed``.
"""

import asyncio
import hmac
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from controlplane.target.cache import Near, ResponseCache
from controlplane.target.cache_fill import Fleet, FullError, LostError, Reply
from controlplane.target.cache_key import Question, question
from controlplane.target.cache_metrics import PAGE_TYPE, CacheMetrics
from controlplane.target.cache_replay import Collector, again, events
from controlplane.target.cache_tiers import open_tiers
from controlplane.target.connection import Connection
from controlplane.target.errors import TargetError
from controlplane.target.forked import run_forked
from controlplane.target.listening import bind
from controlplane.target.spec import CacheSpec

COMPLETIONS = ("/v1/completions", "/v1/chat/completions")
MAX_BODY_BYTES = 1024 * 1024
MAX_PUBLISHED_BYTES = 16 * 1024 * 1024
"""Longest batch of published answers."""
DISCARDED = 16
"""How many times the longest body is still read: a client that is cut off while it sends never sees the answer."""
BODY_TIMEOUT_S = 30.0
"""Longest time for the whole body to arrive."""
RETRY_AFTER_S = 1
NO_RETRY = {"x-envoy-ratelimited": "true"}
"""Tells the gateway not to take a 503 to the next pool: what a cache sheds must not reach the fleet it protects."""
KEEP_ALIVE_S = 75
"""Longer than the gateway keeps idle connections, so that the gateway, not the cache, closes them."""
SAVE_S = 15.0
"""How often the counted questions are saved."""
WARM_AT_ONCE = 4
"""Questions that ``warm`` asks the fleet at once: it runs beside users."""


class CacheEndpoint:
    """The HTTP routes of one cache."""

    def __init__(self, spec: CacheSpec, cache: ResponseCache, fleet: Fleet, metrics: CacheMetrics) -> None:
        """Make the routes; ``cache`` and ``fleet`` are the caller's to open and close."""
        self._spec = spec
        self._cache = cache
        self._fleet = fleet
        self._metrics = metrics
        self._created = int(time.time())
        metrics.watch("entries", "Answers in memory", lambda: len(cache))
        metrics.watch("fills_under_way", "Requests that wait for the fleet", lambda: fleet.under_way)
        routes = [
            *(Route(path, self._answer, methods=["POST"]) for path in COMPLETIONS),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/version", self._version),
            Route("/metrics", self._page),
            Route("/cache/answers", self._published, methods=["POST"]),
            Route("/cache/warm", self._warm, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})

    async def _models(self, _: Request) -> Response:
        names = (self._spec.model, *self._spec.aliases)
        data = [{"id": name, "object": "model", "created": self._created, "owned_by": "controlplane"} for name in names]
        return _json({"object": "list", "data": data})

    async def _health(self, _: Request) -> Response:
        return Response()

    async def _version(self, _: Request) -> Response:
        return _json({"version": "response-cache"})

    async def _page(self, _: Request) -> Response:
        return Response(self._metrics.page(), headers={"content-type": PAGE_TYPE})

    async def _answer(self, request: Request) -> Response:
        began = time.perf_counter()
        headers = {**request.headers, "x-request-id": _request_id(request)}
        asked = question(request.url.path, await _body(request, MAX_BODY_BYTES), headers)
        if asked.storable:
            self._cache.note(asked)
            found = None if asked.fresh else await self._cache.find(asked)
            if found is not None:
                near = found.ratio < 1.0
                self._metrics.hit(found.tier, near=near)
                said = {"x-cache": "near" if near else "hit", "x-cache-tier": found.tier}
                said["age"] = str(max(round(time.time() - found.entry.stored_at), 0))
                if near:
                    said["x-cache-similarity"] = f"{found.ratio:.2f}"
                self._metrics.took(said["x-cache"], time.perf_counter() - began)
                return _replayed(asked, found.entry.answer, headers["x-request-id"], said)
            self._metrics.misses.inc()
        else:
            self._metrics.bypassed.inc()
        said = {"x-cache": "miss" if asked.storable else "bypass", "x-request-id": headers["x-request-id"]}
        try:
            response = await (self._streamed if asked.stream else self._filled)(asked, headers, said)
        except FullError:
            return self._shed(headers["x-request-id"])
        except LostError as error:
            return _error(f"The fleet did not answer: {error}", "Service Unavailable", 503, {**said, **NO_RETRY})
        self._metrics.took(said["x-cache"], time.perf_counter() - began)
        return response

    def _shed(self, request_id: str) -> Response:
        self._metrics.shed()
        said = {"x-cache": "shed", "retry-after": str(RETRY_AFTER_S), "x-request-id": request_id, **NO_RETRY}
        return _error("The answer is not stored, and too many requests wait for the fleet.", "Overloaded", 503, said)

    async def _filled(self, asked: Question, headers: Mapping[str, str], said: dict[str, str]) -> Response:
        """Ask the fleet for a whole answer."""
        reply, shared = await self._fleet.ask(asked, headers)
        answer = reply.answer()
        if asked.storable and answer is not None and not shared:
            self._cache.store(asked, answer)
        return _passed_back(reply, said)

    async def _streamed(self, asked: Question, headers: Mapping[str, str], said: dict[str, str]) -> Response:
        """Ask the fleet for a stream, and pass it on as it comes; its first sign of life decides the status."""
        opened = self._fleet.stream(asked, headers)
        answer, collector = await opened.__aenter__()
        said["x-cache-filled-by"] = answer.headers.get("x-served-by", "")
        for name in ("content-type", "retry-after"):
            if name in answer.headers:
                said[name] = answer.headers[name]
        if answer.status == 503:
            said.update(NO_RETRY)
        return StreamingResponse(self._passing(asked, opened, answer, collector), answer.status, said)

    async def _passing(
        self, asked: Question, opened: Any, answer: aiohttp.ClientResponse, collector: Collector
    ) -> AsyncIterator[bytes]:
        error: BaseException | None = None
        try:
            async for data in answer.content.iter_any():
                collector.feed(data)
                yield data
        except BaseException as caught:
            error = caught
            raise
        finally:
            with suppress(LostError):
                await opened.__aexit__(type(error) if error else None, error, None)
        whole = collector.whole()
        if asked.storable and answer.status == 200 and whole is not None:
            self._cache.store(asked, whole)

    async def _published(self, request: Request) -> Response:
        """Store answers that endpoints have finished."""
        self._check_token(request)
        batch = await _body(request, MAX_PUBLISHED_BYTES)
        stored = 0
        for item in batch.get("answers", ()):
            asked = _published_question(item)
            if asked is None or not asked.storable:
                self._metrics.published("refused")
                continue
            self._cache.note(asked)
            self._cache.store(asked, item["answer"])
            self._metrics.published("stored")
            stored += 1
        return _json({"stored": stored})

    async def _warm(self, request: Request) -> Response:
        """Bring the answers to the most asked questions, and to those in the body, into memory."""
        self._check_token(request)
        body = await _body(request, MAX_PUBLISHED_BYTES)
        wanted = [
            *((str(item.get("path", COMPLETIONS[0])), item["body"]) for item in body.get("requests", ())),
            *self._cache.most_asked(int(body.get("top", 100))),
        ]
        counts = {"asked": len(wanted), "known": 0, "filled": 0, "failed": 0, "refused": 0}
        gate = asyncio.Semaphore(WARM_AT_ONCE)

        async def one(path: str, wish: Mapping[str, Any]) -> None:
            async with gate:
                counts[await self._warm_one(path, wish)] += 1

        async with asyncio.TaskGroup() as group:
            for path, wish in wanted:
                group.create_task(one(path, wish))
        return _json(counts)

    async def _warm_one(self, path: str, wish: Mapping[str, Any]) -> str:
        asked = question(path, {**wish, "stream": False}, {"x-cache-allow": "exact"})
        if path not in COMPLETIONS or not asked.storable:
            return "refused"
        if await self._cache.find(asked) is not None:
            return "known"
        try:
            reply, _ = await self._fleet.ask(asked, {})
        except (FullError, LostError):
            return "failed"
        answer = reply.answer()
        if answer is None:
            return "failed"
        self._cache.store(asked, answer)
        return "filled"

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not self._spec.token or not hmac.compare_digest(given.encode(), f"Bearer {self._spec.token}".encode()):
            raise HTTPException(401, "This needs the cache's token.")


def _published_question(item: Any) -> Question | None:
    """Read one published answer; None when it has not the right form."""
    try:
        answer, path = item["answer"], item["path"]
        if path not in COMPLETIONS or not answer["choices"]:
            return None
        return question(path, item["request"], {"x-cache-allow": str(item.get("allow", ""))})
    except (TypeError, KeyError, AttributeError):
        return None


def _replayed(asked: Question, answer: Mapping[str, Any], request_id: str, said: dict[str, str]) -> Response:
    said["x-request-id"] = request_id
    fresh = again(answer, request_id, int(time.time()))
    if not asked.stream:
        return _json(fresh, 200, said)
    options = asked.body.get("stream_options")
    usage = isinstance(options, dict) and options.get("include_usage") is True
    content = b"".join(events(fresh, include_usage=usage))
    return Response(content, 200, said, media_type="text/event-stream")


def _passed_back(reply: Reply, said: dict[str, str]) -> Response:
    if reply.served_by:
        said["x-cache-filled-by"] = reply.served_by
    if reply.status == 503:
        said.update(NO_RETRY)
    return Response(reply.body, reply.status, {**reply.headers, **said})


async def _body(request: Request, most: int) -> dict[str, Any]:
    raw = bytearray()
    total = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                total += len(part)
                if total <= most:
                    raw += part
                elif total > DISCARDED * most:
                    break
    except ClientDisconnect:
        raise HTTPException(499, "The client left before it sent its request.") from None
    except TimeoutError:
        raise HTTPException(408, "The request body did not arrive in time.", {"connection": "close"}) from None
    if total > most:
        raise HTTPException(413, f"The request body may have at most {most} bytes.", {"connection": "close"})
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The request body is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "The request body must be a JSON object.")
    return found


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if 0 < len(given) <= 128 else uuid.uuid4().hex


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), status, headers, media_type="application/json")


def _error(message: str, kind: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": {"message": message, "type": kind, "param": None, "code": status}}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind = {401: "AuthenticationError", 404: "NotFoundError"}.get(error.status_code, "BadRequestError")
    return _error(str(error.detail), kind, error.status_code, error.headers)


def _near(spec: CacheSpec) -> Near | None:
    if not spec.near:
        return None
    try:
        from controlplane.target.similarity import NearIndex  # noqa: PLC0415 - needs an optional, heavy library
    except ImportError as error:
        raise TargetError(
            "cannot match nearly equal prompts", "datasketch is missing", "pip install 'controlplane[target]'."
        ) from error
    return NearIndex(spec.near_ratio)


@asynccontextmanager
async def opened(spec: CacheSpec) -> AsyncIterator[CacheEndpoint]:
    """Open a cache with its tiers and its way to the fleet; yield its routes.

    Raises:
        TargetError: when a library is missing or an address makes no sense.
    """
    metrics = CacheMetrics()
    cache = ResponseCache(
        open_tiers(spec, metrics.skipped),
        entries=spec.memory_entries,
        first_ttl_s=spec.ttl_s,
        longest_ttl_s=spec.longest_ttl_s,
        near=_near(spec),
        now=time.time,
        dropped=metrics.dropped,
    )
    await cache.load()
    timeout = aiohttp.ClientTimeout(total=spec.fill_timeout_s, connect=1.0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(spec.upstream, connector=connector, timeout=timeout) as session:
        endpoint = CacheEndpoint(spec, cache, Fleet(session, spec.max_fills, metrics.filled), metrics)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.write_behind()), group.create_task(_save_often(cache))]
            try:
                yield endpoint
            finally:
                for task in tasks:
                    task.cancel()
    await cache.close()


async def _save_often(cache: ResponseCache) -> None:
    while True:
        await asyncio.sleep(SAVE_S)
        await cache.save_asked()


def run(spec: CacheSpec, log_path: Path) -> None:
    """Serve one cache in this forked process; never returns."""
    run_forked(lambda: serve_cache(spec), log_path, spec.cpus, spec.netns)


def serve_cache(spec: CacheSpec) -> int:
    """Serve one cache until SIGTERM or SIGINT.

    Returns:
        The process's exit code: 0 after a clean stop.

    Raises:
        TargetError: when the port is taken, a library is missing or an address makes no sense.
    """
    with bind(spec.host, spec.port) as listener, _signals_answered_by_uvicorn():
        uvloop.run(_serve(spec, listener))
    return 0


@contextmanager
def _signals_answered_by_uvicorn() -> Iterator[None]:
    """Make uvicorn's stop a clean exit: it raises the signal again when it has stopped."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with suppress(KeyboardInterrupt):
        yield


async def _serve(spec: CacheSpec, listener: Any) -> None:
    async with opened(spec) as endpoint:
        config = uvicorn.Config(
            endpoint.app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        host, port = listener.getsockname()[:2]
        sys.stdout.write(json.dumps({"event": "ready", "url": f"http://{host}:{port}", "model": spec.model}) + "\n")
        sys.stdout.flush()
        await uvicorn.Server(config).serve(sockets=[listener])
