"""Asking over HTTP: health checks, real completions and metrics pages, through one pool of keep-alive connections."""

import json
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

import aiohttp

from controlplane.errors import UnreachableError
from controlplane.fleet.model import GATEWAY_POOL, Endpoint
from controlplane.probes.metrics import read_page
from controlplane.probes.probe import Failure, HttpSpec, InferenceSpec, Look, MetricsSpec
from controlplane.signals.sample import ENVOY, EngineNames

MAX_PAGE_BYTES = 16 * 1024 * 1024
"""A metrics page larger than this is not read: it costs one endpoint one look, and nothing else."""

SERVED_BY = "x-served-by"


class _Asker:
    """One exchange, bounded in time and size, with every way of failing told apart."""

    def __init__(self, session: aiohttp.ClientSession, probe: str) -> None:
        self._session = session
        self._probe = probe

    async def ask(self, endpoint: Endpoint, method: str, url: str, within: timedelta, body: Any = None) -> "_Answer":
        started = monotonic()
        limit = aiohttp.ClientTimeout(total=within.total_seconds())
        try:
            async with self._session.request(method, url, json=body, timeout=limit, allow_redirects=False) as response:
                content = await response.content.read(MAX_PAGE_BYTES + 1)
                while len(content) <= MAX_PAGE_BYTES and not response.content.at_eof():
                    content += await response.content.read(MAX_PAGE_BYTES + 1 - len(content))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure, detail = explain(error, within)
            return _Answer(Look(endpoint, self._probe, monotonic(), monotonic() - started, failure, detail))
        served_by = response.headers.get(SERVED_BY, "")
        look = Look(endpoint, self._probe, monotonic(), monotonic() - started, served_by=served_by)
        if len(content) > MAX_PAGE_BYTES:
            return _Answer(_failed(look, Failure.ANSWER, f"more than {MAX_PAGE_BYTES} bytes"))
        if response.status // 100 != 2:
            return _Answer(_failed(look, Failure.STATUS, f"HTTP {response.status}: {content[:120]!r}"))
        return _Answer(look, content)


class _Answer:
    """A look, and the body when there is one worth reading."""

    def __init__(self, look: Look, content: bytes | None = None) -> None:
        self.look = look
        self.content = content


def _failed(look: Look, failure: Failure, detail: str) -> Look:
    return Look(look.endpoint, look.probe, look.at, look.took_s, failure, detail, served_by=look.served_by)


def explain(error: BaseException, within: timedelta) -> tuple[Failure, str]:
    """Tell how an exchange failed: name resolution, connecting, the wait, or the middle of the answer."""
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT, f"no answer within {within.total_seconds():g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Failure.DNS, str(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return (Failure.REFUSED if refused else Failure.NETWORK), str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionResetError):
        return Failure.RESET, "the connection broke before the answer was whole"
    return Failure.NETWORK, f"{type(error).__name__}: {error}"


class HttpProbe:
    """Ask a path and want a 2xx."""

    name = "http"

    def __init__(self, session: aiohttp.ClientSession, spec: HttpSpec) -> None:
        self._asker = _Asker(session, self.name)
        self._spec = spec
        self.every = spec.every

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        answer = await self._asker.ask(endpoint, "GET", endpoint.url + self._spec.path, self._spec.timeout)
        return answer.look


class InferenceProbe:
    """Ask for a real completion and want tokens: a live `/health` says nothing about a stalled engine."""

    name = "inference"

    def __init__(self, session: aiohttp.ClientSession, spec: InferenceSpec) -> None:
        self._asker = _Asker(session, self.name)
        self._spec = spec
        self._models: dict[str, str] = {}
        self.every = spec.every

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        started = monotonic()
        model = endpoint.model or self._models.get(endpoint.url) or await self._first_model(endpoint)
        body = {"model": model, "prompt": self._spec.prompt, "max_tokens": self._spec.max_tokens, "temperature": 0}
        url = f"{endpoint.url}/v1/completions"
        left = self._spec.timeout - timedelta(seconds=monotonic() - started)
        answer = await self._asker.ask(endpoint, "POST", url, left, body)
        if answer.content is None:
            return answer.look
        problem = _no_tokens(answer.content)
        return _failed(answer.look, Failure.ANSWER, problem) if problem else answer.look

    async def _first_model(self, endpoint: Endpoint) -> str:
        """Ask which model is served; an endpoint that does not say is asked for its default one."""
        answer = await self._asker.ask(endpoint, "GET", f"{endpoint.url}/v1/models", self._spec.timeout / 2)
        try:
            listed = json.loads(answer.content or b"{}")["data"][0]["id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        self._models[endpoint.url] = str(listed)
        return str(listed)


def _no_tokens(content: bytes) -> str:
    """Return what is wrong with a completion, or an empty string when it has tokens."""
    try:
        answer = json.loads(content)
        tokens = answer["usage"]["completion_tokens"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"not a completion: {content[:80]!r}"
    return "" if type(tokens) is int and tokens > 0 else "a completion without tokens"


class MetricsProbe:
    """Scrape an engine's page; the gateway's is at its admin address."""

    name = "metrics"

    def __init__(
        self, session: aiohttp.ClientSession, spec: MetricsSpec, engine: EngineNames, gateway: Callable[[], str]
    ) -> None:
        """Take the page's settings.

        Args:
            session: the HTTP connections to use.
            spec: path, interval and timeout.
            engine: the names on the endpoints' pages.
            gateway: gives the address of the gateway's own page as it is now.
        """
        self._asker = _Asker(session, self.name)
        self._spec = spec
        self._engine = engine
        self._gateway_page = gateway
        self.every = spec.every

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        is_gateway = endpoint.pool == GATEWAY_POOL
        try:
            url = self._gateway_page() if is_gateway else endpoint.url + self._spec.path
        except UnreachableError as error:
            return Look(endpoint, self.name, monotonic(), 0.0, Failure.NETWORK, f"{error.what}: {error.why}")
        answer = await self._asker.ask(endpoint, "GET", url, self._spec.timeout)
        look = answer.look
        if answer.content is None:
            return look
        try:
            page = read_page(answer.content, ENVOY if is_gateway else self._engine)
        except ValueError as error:
            return _failed(look, Failure.ANSWER, f"not a metrics page: {error}")
        return Look(look.endpoint, look.probe, look.at, look.took_s, page=page)
