"""What every HTTP answer leaves behind: its ids, its counts, one JSON log line and one span. An ASGI wrapper."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.target.engine import Engine, Generation
from controlplane.target.logs import Log
from controlplane.target.metrics import Metrics
from controlplane.target.protocol import Ask
from controlplane.target.tracing import Span, Tracer, parse_traceparent

UNCOUNTED = frozenset({"/metrics", "/health", "/ping", "/load", "/version"})
"""Paths that leave no count, no log line and no span, as on a vLLM server."""
SCOPE_KEY = "controlplane.account"
MAX_REQUEST_ID = 128
"""Longest request id taken from a client, in bytes."""
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted under their own name; a label that clients can invent would grow without bound."""


@dataclass(slots=True)
class Account:
    """What is known of one request by the time it is logged."""

    request_id: str
    queue_depth: int
    """Requests that waited when this one came."""
    span: Span | None = None
    status: int = 500
    error: str | None = None
    """What broke an answer off whose status had been sent."""
    tokens: int = 0
    """Tokens of the answer."""
    cached_tokens: int = 0
    """Prompt tokens that were in the KV cache."""
    ttft_s: float | None = None
    """Seconds from arrival to the first token."""
    queue_s: float | None = None
    """Seconds from arrival to the first step that worked on it."""
    body_bytes: list[int] = field(default_factory=lambda: [0, 0])
    """Content lengths of the request and of the answer; 0 where a header names none."""
    ask: Ask | None = None

    def note(self, generations: Iterable[Generation]) -> None:
        """Take the times from the engine's record."""
        times = [generation.timeline for generation in generations]
        self.ttft_s = min((at.first_token - at.arrived for at in times if at.first_token), default=None)
        self.queue_s = min((at.scheduled - at.arrived for at in times if at.scheduled), default=None)


def account_of(scope: Scope) -> Account:
    """Return the account that ``Accounting`` opened for this request."""
    account: Account = scope[SCOPE_KEY]
    return account


class Accounting:
    """Wraps the application: opens an account, passes ids on, counts, logs and traces the answer."""

    def __init__(
        self, inner: ASGIApp, *, metrics: Metrics, engine: Engine, log: Log, tracer: Tracer, handlers: frozenset[str]
    ) -> None:
        """Wrap ``inner``; ``handlers`` are the paths that have a route."""
        self._inner = inner
        self._metrics = metrics
        self._engine = engine
        self._log = log
        self._tracer = tracer
        self._handlers = handlers
        self.in_flight = 0
        """Counted requests that have no whole answer yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        account = self._open(scope)
        scope[SCOPE_KEY] = account
        counted = scope["path"] not in UNCOUNTED
        passed_on = [(b"x-request-id", account.request_id.encode("latin-1"))]
        if account.span is not None:
            passed_on.append((b"traceparent", account.span.context.header.encode()))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                account.status = message["status"]
                account.body_bytes[1] = _content_length(message["headers"])
                message["headers"] = [*message["headers"], *passed_on]
            await send(message)

        began = time.perf_counter()
        self.in_flight += counted
        try:
            await self._inner(scope, receive, sending)
        finally:
            self.in_flight -= counted
            if counted:
                self._close(scope, account, time.perf_counter() - began)

    def _open(self, scope: Scope) -> Account:
        account = Account("", self._engine.waiting)
        parent = None
        for name, value in scope["headers"]:
            if name == b"x-request-id" and 0 < len(value) <= MAX_REQUEST_ID:
                account.request_id = value.decode("latin-1")
            elif name == b"traceparent":
                parent = parse_traceparent(value.decode("latin-1"))
            elif name == b"content-length":
                account.body_bytes[0] = _content_length([(name, value)])
        account.request_id = account.request_id or uuid.uuid4().hex
        if scope["path"] not in UNCOUNTED:
            account.span = self._tracer.begin(parent)
        return account

    def _close(self, scope: Scope, account: Account, seconds: float) -> None:
        path = scope["path"]
        handler = path if path in self._handlers else "none"
        method = scope["method"] if scope["method"] in HTTP_METHODS else "OTHER"
        sizes = (account.body_bytes[0], account.body_bytes[1])
        self._metrics.answered(handler, method, account.status, seconds, sizes)
        failed = account.error or (str(account.status) if account.status >= 500 else None)
        facts = {
            "request_id": account.request_id, "status": account.status, "queue_depth": account.queue_depth,
            "processing_time": round(seconds, 6), "ttft": _rounded(account.ttft_s),
            "queue_time": _rounded(account.queue_s), "tokens": account.tokens,
            "prompt_tokens": account.ask.prompt_tokens if account.ask else 0, "cached_tokens": account.cached_tokens,
            "priority": account.ask.priority if account.ask else 0, "error": account.error,
        }  # fmt: skip
        ids = {}
        if account.span is not None:
            ids = {"trace_id": account.span.context.trace_id, "span_id": account.span.context.span_id}
            account.span.end(_attributes(account, handler, method, seconds), failed)
        level = "error" if failed else "info"
        self._log.write(level, "request", event="request", path=handler, method=method, **facts, **ids)


def _attributes(account: Account, handler: str, method: str, seconds: float) -> dict[str, str | int | float]:
    """Name what is known as OpenTelemetry's semantic conventions and vLLM's spans do."""
    facts: dict[str, str | int | float] = {
        "http.request.method": method, "http.route": handler, "http.response.status_code": account.status,
        "gen_ai.request.id": account.request_id, "gen_ai.usage.completion_tokens": account.tokens,
        "gen_ai.latency.e2e": seconds,
    }  # fmt: skip
    if account.ttft_s is not None:
        facts["gen_ai.latency.time_to_first_token"] = account.ttft_s
    if account.queue_s is not None:
        facts["gen_ai.latency.time_in_queue"] = account.queue_s
    ask = account.ask
    if ask is not None:
        facts |= {
            "gen_ai.usage.prompt_tokens": ask.prompt_tokens, "gen_ai.request.n": ask.n,
            "gen_ai.request.max_tokens": ask.max_tokens, "gen_ai.request.temperature": ask.sampling.temperature,
            "gen_ai.request.top_p": ask.sampling.top_p,
        }  # fmt: skip
    return facts


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
