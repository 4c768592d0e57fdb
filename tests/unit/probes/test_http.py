"""Every way an endpoint can fail an HTTP look is told apart, and none of them raises."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from time import monotonic

import pytest
from aiohttp import web

from controlplane.errors import UnreachableError
from controlplane.fleet.model import GATEWAY_POOL, Endpoint
from controlplane.probes import connection
from controlplane.probes.http import GatewayCounts, HttpProbe, InferenceProbe, MetricsProbe
from controlplane.probes.probe import Failure, HttpSpec, InferenceSpec, Look, MetricsSpec, Page
from controlplane.probes.wire import Wire
from controlplane.signals.engines import ENGINES
from tests.support.wires import said

WITHIN = timedelta(seconds=5)
HASTE = timedelta(milliseconds=100)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that answers everything with one handler; give its URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def serve_raw() -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
    """Start a server that sends these bytes to whoever asks and hangs up."""
    servers: list[asyncio.Server] = []

    async def start(content: bytes) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await reader.read(1000)
                writer.write(content)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def endpoint(url: str, model: str = "full") -> Endpoint:
    return Endpoint("primary-0", "primary", url, model=model)


def replies(text: str = "", status: int = 200, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers=headers)

    return handler


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def health(wire: Wire, url: str, within: timedelta = WITHIN) -> Look:
    return await said(lambda: HttpProbe(wire, HttpSpec(timeout=within)).look(endpoint(url)))


async def completion(wire: Wire, url: str, model: str = "full") -> Look:
    return await said(lambda: InferenceProbe(wire, InferenceSpec(timeout=WITHIN)).look(endpoint(url, model)))


async def test_a_2xx_is_well_and_names_who_served_it(wire: Wire, serve: Serve) -> None:
    look = await health(wire, await serve(replies("ok", 200, **{"x-served-by": "standby-0"})))
    assert look.ok
    assert (look.probe, look.served_by, look.detail) == ("http", "standby-0", "")
    assert 0 <= look.took_s < 5


async def test_nothing_that_listens_is_refused(wire: Wire) -> None:
    assert (await health(wire, f"http://127.0.0.1:{free_port()}")).failure is Failure.REFUSED


async def test_a_name_that_does_not_resolve_is_a_dns_failure(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)  # A real server's answer may be late.
    assert (await health(wire, "http://no-such-host.invalid:80")).failure is Failure.DNS


async def test_a_server_that_says_nothing_is_a_timeout_that_names_the_wait(wire: Wire, serve: Serve) -> None:
    never = asyncio.Event()

    async def stall(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    url = await serve(stall)
    look = await health(wire, url, HASTE)
    assert look.failure is Failure.TIMEOUT
    assert look.detail == "no answer within 0.1 s"


async def test_a_body_that_never_ends_is_a_timeout_too(wire: Wire, serve: Serve) -> None:
    never = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        await never.wait()
        return response

    url = await serve(drip)
    assert (await health(wire, url, HASTE)).failure is Failure.TIMEOUT


@pytest.mark.parametrize("status", [301, 302, 307, 404, 429, 500, 503])
async def test_another_status_is_told_and_no_redirect_is_followed(wire: Wire, serve: Serve, status: int) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, text="why", headers={"location": "/elsewhere"})

    look = await health(wire, await serve(handler))
    assert look.failure is Failure.STATUS
    assert f"HTTP {status}" in look.detail
    assert asked == ["/health"]


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"])
async def test_a_connection_that_breaks_before_the_answer_is_whole_is_a_reset(
    wire: Wire, serve_raw: Callable[[bytes], Awaitable[str]], content: bytes
) -> None:
    assert (await health(wire, await serve_raw(content))).failure is Failure.RESET


async def test_a_server_that_does_not_speak_http_is_a_failure_and_not_a_crash(
    wire: Wire, serve_raw: Callable[[bytes], Awaitable[str]]
) -> None:
    look = await health(wire, await serve_raw(b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert look.failure is Failure.ANSWER
    assert look.detail.startswith("not HTTP")


async def test_an_address_that_is_none_is_a_failure_and_not_a_crash(wire: Wire) -> None:
    assert not (await health(wire, "http://")).ok
    assert not (await health(wire, "http://10.0.0.1:99999999")).ok


async def test_a_body_larger_than_we_read_is_cut_and_told(
    wire: Wire, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", 100_000)
    url = await serve(replies("x" * 1_000_000))
    look = await health(wire, url)
    assert look.failure is Failure.ANSWER
    assert look.detail == "more than 100000 bytes"
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", 1_000_000)
    assert (await health(wire, url)).ok


COMPLETION = '{"id": "x", "choices": [{"text": "pong"}], "usage": {"completion_tokens": 4}}'


async def test_a_completion_with_tokens_is_well(wire: Wire, serve: Serve) -> None:
    asked: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.method, request.path, await request.json()))
        return web.Response(text=COMPLETION)

    assert (await completion(wire, await serve(handler))).ok
    body = {"model": "full", "prompt": "ping", "max_tokens": 4, "temperature": 0}
    assert asked == [("POST", "/v1/completions", body)]


@pytest.mark.parametrize(
    "text",
    [
        "", "pong", "<html>", "null", "5", "[]", "{}", '{"usage": {}}', '{"usage": null}', '{"usage": []}',
        '{"usage": {"completion_tokens": 0}}', '{"usage": {"completion_tokens": -1}}',
        '{"usage": {"completion_tokens": null}}', '{"usage": {"completion_tokens": "4"}}',
        '{"usage": {"completion_tokens": NaN}}', "[" * 100_000,
    ],
)  # fmt: skip
async def test_a_200_without_tokens_is_a_wrong_answer(wire: Wire, serve: Serve, text: str) -> None:
    assert (await completion(wire, await serve(replies(text)))).failure is Failure.ANSWER


async def test_a_model_nobody_named_is_asked_for_once(wire: Wire, serve: Serve) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            asked.append("models")
            return web.Response(text='{"data": [{"id": "deepseek"}, {"id": "other"}]}')
        asked.append((await request.json())["model"])
        return web.Response(text=COMPLETION)

    probe, target = InferenceProbe(wire, InferenceSpec(timeout=WITHIN)), endpoint(await serve(handler), model="")
    assert (await probe.look(target)).ok
    assert (await probe.look(target)).ok
    assert asked == ["models", "deepseek", "deepseek"]


@pytest.mark.parametrize("models", ["", "[]", '{"data": []}', '{"data": 5}', '{"data": [{}]}', "[" * 100_000])
async def test_an_endpoint_that_does_not_say_its_models_is_still_asked_for_a_completion(
    wire: Wire, serve: Serve, models: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=models if request.path == "/v1/models" else COMPLETION)

    assert (await completion(wire, await serve(handler), model="")).ok


def scraper(wire: Wire, gateway: str = "") -> MetricsProbe:
    return MetricsProbe(wire, MetricsSpec(timeout=WITHIN), ENGINES["vllm"], lambda: gateway)


async def test_a_metrics_page_is_read(wire: Wire, serve: Serve) -> None:
    look = await scraper(wire).look(endpoint(await serve(replies("vllm:num_requests_waiting 3\n"))))
    assert look.page is not None
    assert look.page.gauges == {"queue_depth": 3.0}
    assert not look.says_alive


@pytest.mark.parametrize("text", ["vllm:num_requests_waiting many\n", "vllm:e2e_request_latency_seconds_bucket 1\n"])
async def test_a_page_that_is_none_is_a_wrong_answer(wire: Wire, serve: Serve, text: str) -> None:
    look = await scraper(wire).look(endpoint(await serve(replies(text))))
    assert look.failure is Failure.ANSWER
    assert look.page is None


async def test_a_page_that_breaks_the_parser_costs_one_look(wire: Wire, serve: Serve) -> None:
    pages = iter(['vllm:x{a="1", ="2"} 1\n', "vllm:num_requests_waiting 3\n"])

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=next(pages))

    probe, target = scraper(wire), endpoint(await serve(handler))
    async with asyncio.timeout(10):
        assert (await probe.look(target)).failure is Failure.ANSWER
        assert (await probe.look(target)).ok


async def test_the_gateway_is_scraped_at_its_admin_address_by_envoys_names(wire: Wire, serve: Serve) -> None:
    line = 'envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="service"} 2\n'
    url = await serve(replies(line))
    gateway = Endpoint("gateway", GATEWAY_POOL, "http://127.0.0.1:1")
    look = await scraper(wire, f"{url}/stats/prometheus").look(gateway)
    assert look.page is not None
    assert look.page.counters == {"requests": 2.0, "server_errors": 2.0}


async def test_a_gateway_without_a_page_of_its_own_says_nothing_by_it(wire: Wire) -> None:
    look = await scraper(wire, "").look(Endpoint("gateway", GATEWAY_POOL, "http://127.0.0.1:1"))
    assert look.ok
    assert look.page == Page()


async def test_a_gateway_whose_admin_address_is_not_known_is_a_failed_look(wire: Wire) -> None:
    def nowhere() -> str:
        raise UnreachableError("no address in admin", "no such file")

    probe = MetricsProbe(wire, MetricsSpec(), ENGINES["vllm"], nowhere)
    look = await probe.look(Endpoint("gateway", GATEWAY_POOL, "http://127.0.0.1:1"))
    assert look.failure is Failure.NETWORK
    assert "no such file" in look.detail


async def test_asking_for_the_model_and_for_a_completion_takes_no_longer_than_the_timeout_in_all(
    wire: Wire, serve: Serve
) -> None:
    never = asyncio.Event()
    asked: list[str] = []
    started = 0.0

    async def stall(request: web.Request) -> web.Response:
        asked.append(request.path)
        await never.wait()
        return web.Response()

    async def look() -> Look:
        nonlocal started
        asked.clear()
        started = monotonic()
        return await probe.look(target)

    probe, target = (
        InferenceProbe(wire, InferenceSpec(timeout=timedelta(seconds=0.4))),
        endpoint(await serve(stall), ""),
    )
    assert (await said(look)).failure is Failure.TIMEOUT
    took_s = monotonic() - started
    assert asked == ["/v1/models", "/v1/completions"]
    assert took_s > 0.35
    assert took_s - wire.lateness.stolen_since(started) < 0.7, "twice the whole of it is 0.8 s"


@pytest.mark.parametrize("tokens", ["0", "-1", "null", '"4"', "4.0", "true", "NaN"])
async def test_a_stream_whose_tokens_are_no_number_is_a_wrong_answer(wire: Wire, serve: Serve, tokens: str) -> None:
    counted = f'data: {{"choices": [], "usage": {{"completion_tokens": {tokens}}}}}\n\ndata: [DONE]\n\n'
    look = await InferenceProbe(wire, InferenceSpec(timeout=WITHIN, stream=True)).look(
        endpoint(await serve(replies(counted)))
    )
    assert look.failure is Failure.ANSWER


async def test_what_a_gateway_counted_is_as_old_as_the_question(wire: Wire, serve: Serve) -> None:
    arrived = []

    async def late(_: web.Request) -> web.Response:
        arrived.append(monotonic())
        await asyncio.sleep(0.05)
        return web.json_response({"stats": []})

    url = await serve(late)
    read = asyncio.get_running_loop().create_future()
    GatewayCounts(wire, lambda: url, ["primary"]).ask(lambda at, counts: read.set_result((at, counts)))
    at, counts = await asyncio.wait_for(read, 5)
    assert (at <= arrived[0], counts) == (True, {})
