"""Asking over HTTP: health checks, real completions and metrics pages, through the wire's held connections.

Each probe has two doors: `start` calls back and costs no task, for the thousands of looks of `flows/observe`; `look`
can be awaited, for one look that something waits for.
"""

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

import controlplane
from controlplane.errors import UnreachableError
from controlplane.fleet.model import GATEWAY_POOL, Endpoint
from controlplane.probes.exchange import Answer
from controlplane.probes.exposition import Layout, Layouts
from controlplane.probes.gateway_counts import Counts, read_counts
from controlplane.probes.metrics import is_wanted, read_scrape, whose
from controlplane.probes.probe import Failure, HttpSpec, InferenceSpec, Look, MetricsSpec, Page
from controlplane.probes.wire import Origin, Wire, address, awaited
from controlplane.signals.engines import ENVOY, EngineNames

DAY_S = 86_400.0
ASKED_AT_MOST = 3
"""How many times a silent endpoint is asked in one look."""
REMEMBERED = 32_768
"""How many addresses' requests and pages are remembered; endpoints come and go under new addresses for ever."""
_MISREAD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a document that is not the one expected raises; the last one when it is nested without end."""
_COUNTS_WITHIN = timedelta(seconds=1)
_AGENT = f"controlplane/{controlplane.__version__}"

Report = Callable[[Look], None]


class Requests:
    """Whole requests for one path of many endpoints, written once: what is sent to one is the same every time."""

    def __init__(self, wire: Wire, within: timedelta, path: str, *headers: str) -> None:
        self._wire = wire
        self._within_s = within.total_seconds()
        self._path = path
        self._headers = "".join(f"{h}\r\n" for h in (f"User-Agent: {_AGENT}", *headers))
        self._known: dict[str | tuple[str, bytes], tuple[Origin, bytes]] = {}

    def ask(
        self,
        url: str,
        done: Callable[[Answer], None],
        body: bytes = b"",
        within_s: float | None = None,
        times: int = 1,
    ) -> None:
        """Send a GET, or a POST when there is a body; a URL that leads nowhere is answered with that, at once.

        Args:
            url: whom to ask; the path is put behind it.
            done: called with the answer, once, whatever happens.
            body: what to send.
            within_s: less time than these requests have otherwise.
            times: how many times to ask in that time while nothing is answered.
        """
        known = self._known.get((url, body) if body else url)
        if known is None or known[0].gone:
            try:
                known = self._remembered(url, body)
            except ValueError as error:
                done(Answer(monotonic(), 0.0, Failure.NETWORK, str(error)))
                return
        known[0].ask(known[1], self._within_s if within_s is None else within_s, done, times)

    def renew(self, url: str) -> None:
        """Ask the next time with a new handshake; one that was made just now stays."""
        known = self._known.get(url)
        if known is not None:
            known[0].renew()

    def _remembered(self, url: str, body: bytes) -> tuple[Origin, bytes]:
        whole = url + self._path
        known = self._known[(url, body) if body else url] = (
            self._wire.origin(address(whole)),
            self._written(whole, body),
        )
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return known

    def _written(self, url: str, body: bytes) -> bytes:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        sized = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        method = "POST" if body else "GET"
        return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{self._headers}{sized}\r\n".encode() + body


def _problem(answer: Answer, status: int = 0) -> tuple[Failure | None, str]:
    """Tell what is wrong with an answer below its content; `status` 0 takes any 2xx."""
    if answer.failure:
        return answer.failure, answer.detail
    if answer.status != status if status else answer.status // 100 != 2:
        return Failure.STATUS, f"HTTP {answer.status}: {answer.body[:120]!r}"
    return None, ""


def _look(endpoint: Endpoint, probe: str, answer: Answer, failure: Failure | None, detail: str, **more: Any) -> Look:
    if answer.certificate_ends is not None:
        more["tls_days_left"] = (answer.certificate_ends - time()) / DAY_S
    if answer.asked > 1:
        more["asked"] = answer.asked
    if not more:
        return Look(endpoint, probe, answer.at, answer.took_s, failure, detail, None, answer.served_by)
    return Look(endpoint, probe, answer.at, answer.took_s, failure, detail, served_by=answer.served_by, **more)


class HttpProbe:
    """Ask a path and want a status, a text in the body, and a certificate that lasts."""

    name = "http"

    def __init__(self, wire: Wire, spec: HttpSpec) -> None:
        self._requests = Requests(wire, spec.timeout, spec.path)
        self._spec = spec
        self._body = spec.body.encode()
        self._plain = not (spec.status or spec.body)
        """Any 2xx is well."""
        self._times = min(spec.failures, ASKED_AT_MOST)
        self._silent: set[str] = set()
        """Endpoints that did not answer when they were last asked."""
        self.every = spec.every

    def start(self, endpoint: Endpoint, report: Report) -> None:
        """Look once and report.

        An endpoint that is silent is asked again within the same time-out, as many times as make it count as down:
        a hang costs one time-out and not one a look. One that was silent before is asked once.
        """
        times = 1 if self._silent and endpoint.url in self._silent else self._times
        self._requests.ask(endpoint.url, lambda answer: report(self._judged(endpoint, answer)), times=times)

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        return await awaited(self.start, endpoint)

    def _judged(self, endpoint: Endpoint, answer: Answer) -> Look:
        spec = self._spec
        if (
            self._plain
            and answer.status // 100 == 2
            and not (answer.failure or self._silent or answer.certificate_ends)
        ):
            return Look(endpoint, "http", answer.at, answer.took_s, None, "", None, answer.served_by)
        failure, detail = _problem(answer, spec.status)
        if failure is Failure.TIMEOUT:
            if len(self._silent) > REMEMBERED:
                self._silent.clear()
            self._silent.add(endpoint.url)
        elif self._silent and failure is not Failure.PROBER:
            self._silent.discard(endpoint.url)
        if failure is None and self._body and self._body not in answer.body:
            failure, detail = Failure.ANSWER, f"without {spec.body!r}: {answer.body[:80]!r}"
        if failure is None and answer.certificate_ends is not None and spec.tls_days_left:
            days = (answer.certificate_ends - time()) / DAY_S
            if days < spec.tls_days_left:
                failure, detail = Failure.TLS, f"the certificate ends in {days:.1f} days"
                self._requests.renew(endpoint.url)  # It may have been renewed since this connection was opened.
        return _look(endpoint, self.name, answer, failure, detail)


class InferenceProbe:
    """Ask for a real completion and want tokens: a live `/health` says nothing about a stalled engine."""

    name = "inference"

    def __init__(self, wire: Wire, spec: InferenceSpec) -> None:
        self._models_of = Requests(wire, spec.timeout, "/v1/models")
        self._requests = Requests(wire, spec.timeout, "/v1/completions")
        self._spec = spec
        self._models: dict[str, str] = {}
        self.every = spec.every

    def start(self, endpoint: Endpoint, report: Report) -> None:
        """Look once and report; the first time, the endpoint is asked which model it serves.

        Both questions together take no longer than the time-out: the first one may use half of it.
        """
        within_s = self._spec.timeout.total_seconds()
        model = endpoint.model or self._models.get(endpoint.url)
        if model is not None:
            self._complete(endpoint, model, report, within_s)
            return

        def named(answer: Answer) -> None:
            left_s = max(within_s / 2, within_s - answer.took_s)
            self._complete(endpoint, self._first_model(endpoint, answer), report, left_s)

        self._models_of.ask(endpoint.url, named, within_s=within_s / 2)

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        return await awaited(self.start, endpoint)

    def _first_model(self, endpoint: Endpoint, answer: Answer) -> str:
        """Return the first model listed; an endpoint that does not say is asked for its default one."""
        try:
            listed = str(json.loads(answer.body or b"{}")["data"][0]["id"])
        except _MISREAD:
            return ""
        self._models[endpoint.url] = listed
        return listed

    def _complete(self, endpoint: Endpoint, model: str, report: Report, within_s: float) -> None:
        spec = self._spec
        body: dict[str, Any] = {"model": model, "prompt": spec.prompt, "max_tokens": spec.max_tokens, "temperature": 0}
        if spec.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        written = json.dumps(body).encode()
        self._requests.ask(endpoint.url, lambda answer: report(self._judged(endpoint, answer)), written, within_s)

    def _judged(self, endpoint: Endpoint, answer: Answer) -> Look:
        failure, detail = _problem(answer)
        tokens, text = 0, ""
        if failure is None:
            read = _streamed if self._spec.stream else _completed
            tokens, text, detail = read(answer.body)
            if not detail and self._spec.expect and self._spec.expect not in text:
                detail = f"without {self._spec.expect!r}: {text[:80]!r}"
            failure = Failure.ANSWER if detail else None
        first_s = answer.first_s if self._spec.stream and failure is None else None
        return _look(endpoint, self.name, answer, failure, detail, first_token_s=first_s, tokens=tokens)


def _completed(content: bytes) -> tuple[int, str, str]:
    """Return a completion's tokens and text, and what is wrong with it."""
    try:
        answer = json.loads(content)
        tokens = _count(answer["usage"]["completion_tokens"])
        text = str(answer["choices"][0].get("text", "")) if answer.get("choices") else ""
    except _MISREAD:
        return 0, "", f"not a completion: {content[:80]!r}"
    return tokens, text, "" if tokens > 0 else "a completion without tokens"


def _count(tokens: object) -> int:
    """Read a number of tokens.

    Raises:
        ValueError: when it is none: a text, a fraction, a boolean.
    """
    if type(tokens) is not int:
        raise ValueError(f"{tokens!r} is no number of tokens")
    return tokens


def _streamed(content: bytes) -> tuple[int, str, str]:
    """Return a streamed completion's tokens and text, and what is wrong with it (server-sent events)."""
    chunks = [line[5:].strip() for line in content.splitlines() if line.startswith(b"data:")]
    if not chunks or chunks[-1] != b"[DONE]":
        return 0, "", f"the stream breaks off: {content[-80:]!r}"
    counted, pieces = 0, []
    try:
        for chunk in map(json.loads, chunks[:-1]):
            pieces += [str(choice.get("text", "")) for choice in chunk.get("choices", ())]
            counted = _count((chunk.get("usage") or {}).get("completion_tokens", counted))
    except _MISREAD:
        return 0, "", f"not a stream of completions: {content[:80]!r}"
    tokens = counted or len(pieces)
    return tokens, "".join(pieces), "" if tokens > 0 else "a completion without tokens"


class MetricsProbe:
    """Scrape an engine's page; the gateway's is at its admin address."""

    name = "metrics"

    def __init__(self, wire: Wire, spec: MetricsSpec, engine: EngineNames | None, gateway: Callable[[], str]) -> None:
        """Take the page's settings.

        Args:
            wire: the connections to use.
            spec: path, interval and timeout.
            engine: the names on the endpoints' pages; None lets each page say whose it is.
            gateway: gives the address of the gateway's own page as it is now.
        """
        # Compression is not asked for: packing a page costs an engine's API process milliseconds, in which it answers
        # nobody. A page that comes packed is unpacked.
        self._requests = Requests(wire, spec.timeout, "", "Accept: text/plain;version=0.0.4;q=0.9,*/*;q=0.1")
        self._spec = spec
        self._engine = engine
        self._gateway_page = gateway
        self._layouts = Layouts(is_wanted)
        self._looks: dict[str, Layout] = {}
        self.every = spec.every

    def start(self, endpoint: Endpoint, report: Report) -> None:
        """Look once and report."""
        try:
            url = self._gateway_page() if endpoint.pool == GATEWAY_POOL else endpoint.url + self._spec.path
        except UnreachableError as error:
            why = f"{error.what}: {error.why}"
            report(Look(endpoint, self.name, monotonic(), 0.0, Failure.NETWORK, why))
            return
        if not url:  # A gateway without counters of its own: looks through it say how users fare.
            report(Look(endpoint, self.name, monotonic(), 0.0, page=Page()))
            return
        self._requests.ask(url, lambda answer: report(self._judged(endpoint, url, answer)))

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        return await awaited(self.start, endpoint)

    def _judged(self, endpoint: Endpoint, url: str, answer: Answer) -> Look:
        failure, detail = _problem(answer)
        if failure:
            return _look(endpoint, self.name, answer, failure, detail)
        try:
            scrape = self._layouts.read(answer.body, self._looks.get(url))
            self._looks[url] = scrape.layout
            if len(self._looks) > REMEMBERED:
                del self._looks[next(iter(self._looks))]
            names = ENVOY if endpoint.pool == GATEWAY_POOL else self._engine
            if names is None:
                names = scrape.layout.memo.get("whose")
                if names is None:
                    names = scrape.layout.memo["whose"] = whose(answer.body, None)
            page = read_scrape(scrape, names)
        except _MISREAD as error:
            self._looks.pop(url, None)
            return _look(endpoint, self.name, answer, Failure.ANSWER, f"not a metrics page: {error}")
        return Look(endpoint, self.name, answer.at, answer.took_s, page=page)


class GatewayCounts:
    """Reads the counters of one gateway."""

    def __init__(self, wire: Wire, page: Callable[[], str], pools: Iterable[str]) -> None:
        """Take whom to ask.

        Args:
            wire: the connections to use.
            page: gives the address of the counters as it is now; an empty text where there are none.
            pools: the names of the fleet's pools.
        """
        self._requests = Requests(wire, _COUNTS_WITHIN, "")
        self._page = page
        self._pools = sorted(pools, key=len, reverse=True)

    def ask(self, report: Callable[[float, Counts], None]) -> None:
        """Read once; report when it was asked (monotonic seconds) and what, or nothing where it could not be read."""
        try:
            url = self._page()
        except UnreachableError:
            return
        if url:
            self._requests.ask(url, lambda answer: self._read(answer, report))

    def _read(self, answer: Answer, report: Callable[[float, Counts], None]) -> None:
        if answer.failure is not None or answer.status != 200:
            return
        try:
            counts = read_counts(answer.body, self._pools)
        except _MISREAD:
            return
        # It counted then or later. When the answer is read depends on us: it may be old by the time we get round to it.
        report(answer.at - answer.took_s, counts)
