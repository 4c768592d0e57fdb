"""What every HTTP answer leaves behind: its request id, a count, and one JSON log line. An ASGI wrapper."""

import json
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.target.engine import Engine, Generation
from controlplane.target.metrics import Metrics
from controlplane.target.spec import EndpointSpec

UNCOUNTED = frozenset({"/metrics", "/health", "/version"})
"""Paths that leave no count and no log line, as on a vLLM server."""
SCOPE_KEY = "controlplane.account"
MAX_REQUEST_ID = 128
"""Longest request id taken from a client, in bytes."""


@dataclass(slots=True)
class Account:
    """What is known of one request by the time it is logged."""

    request_id: str
    queue_depth: int
    """Requests that waited when this one came."""
    status: int = 500
    prompt_tokens: int = 0
    tokens: int = 0
    """Tokens of the answer."""
    ttft_s: float | None = None
    """Seconds from arrival to the first token."""

    def note(self, generations: Iterable[Generation]) -> None:
        """Take the time to first token from the engine's record."""
        times = [
            generation.timeline.first_token - generation.timeline.arrived
            for generation in generations
            if generation.timeline.first_token
        ]
        self.ttft_s = min(times, default=None)


def account_of(scope: Scope) -> Account:
    """Return the account that ``Accounting`` opened for this request."""
    account: Account = scope[SCOPE_KEY]
    return account


class Accounting:
    """Wraps the application: opens an account, echoes the request id, counts and logs the answer."""

    def __init__(
        self, inner: ASGIApp, metrics: Metrics, engine: Engine, spec: EndpointSpec, handlers: frozenset[str]
    ) -> None:
        """Wrap ``inner``; ``handlers`` are the paths that have a route."""
        self._inner = inner
        self._metrics = metrics
        self._engine = engine
        self._spec = spec
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        account = Account(_request_id(scope), self._engine.waiting)
        scope[SCOPE_KEY] = account

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                account.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", account.request_id.encode("latin-1"))]
            await send(message)

        began = time.perf_counter()
        try:
            await self._inner(scope, receive, sending)
        finally:
            self._close(scope, account, time.perf_counter() - began)

    def _close(self, scope: Scope, account: Account, seconds: float) -> None:
        path = scope["path"]
        if path in UNCOUNTED:
            return
        handler = path if path in self._handlers else "none"
        self._metrics.answered(handler, scope["method"], account.status, seconds)
        self.log(
            {
                "event": "request",
                "request_id": account.request_id,
                "path": handler,
                "status": account.status,
                "queue_depth": account.queue_depth,
                "processing_time": round(seconds, 6),
                "ttft": None if account.ttft_s is None else round(account.ttft_s, 6),
                "prompt_tokens": account.prompt_tokens,
                "tokens": account.tokens,
            }
        )

    def log(self, fields: dict[str, Any]) -> None:
        """Write one JSON line to standard output, stamped in RFC 3339 UTC."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"ts": stamp, "level": "info", "endpoint": self._spec.name, "model": self._spec.model, **fields}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and 0 < len(value) <= MAX_REQUEST_ID:
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex
