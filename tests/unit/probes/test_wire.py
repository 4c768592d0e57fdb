"""The wire tells every way of failing apart, in time, and no endpoint delays another."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes import connection
from controlplane.probes import wire as wires
from controlplane.probes.http import HttpProbe, InferenceProbe, MetricsProbe
from controlplane.probes.probe import Failure, HttpSpec, InferenceSpec, Look, MetricsSpec
from controlplane.probes.wheel import Lateness
from controlplane.probes.wire import Wire
from controlplane.signals.engines import VLLM
from tests.support.kube_lab.pki import Pki
from tests.support.wires import said, wired

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handle, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.02)


def answering(*answers: bytes, times: int = 1000) -> Handle:
    """Answer each request of a connection with the next of some answers, over and over, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for i in range(times):
            head = await reader.readuntil(b"\r\n\r\n")
            sized = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            if sized:
                await reader.readexactly(int(sized[0].split(b":")[1]))
            writer.write(answers[i % len(answers)])
            await writer.drain()

    return handle


def plain(body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(b"\r\n" + h for h in headers)
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d" % len(body) + lines + b"\r\n\r\n" + body


def endpoint(port: int, host: str = "127.0.0.1", scheme: str = "http") -> Endpoint:
    return Endpoint(f"e-{port}", "primary", f"{scheme}://{host}:{port}", model="full")


async def look(wire: Wire, port: int, host: str = "127.0.0.1", scheme: str = "http", **spec: object) -> Look:
    """Look until the look says something: on a busy machine the prober may not have run."""
    return await said(lambda: look_once(wire, port, host, scheme, **spec))


async def look_once(wire: Wire, port: int, host: str = "127.0.0.1", scheme: str = "http", **spec: object) -> Look:
    probe = HttpProbe(wire, HttpSpec(**({"timeout": timedelta(seconds=0.3)} | spec)))  # type: ignore[arg-type]
    return await probe.look(endpoint(port, host, scheme))


async def _until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - the connections make it true
        await asyncio.sleep(0.005)


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def test_a_connection_is_used_again_and_again() -> None:
    opened = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await answering(plain(b"ok", b"X-Served-By: e"))(reader, writer)

    async with wired() as wire, serving(handle) as port:
        looks = [await look(wire, port) for _ in range(5)]
    assert [(x.failure, x.served_by) for x in looks] == [(None, "e")] * 5
    assert opened == 1


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (plain(status=b"503 Busy"), Failure.STATUS),
        (plain(b"", b"Location: /again", status=b"302 Found"), Failure.STATUS),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Failure.ANSWER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", Failure.RESET),
        (plain(b"not gzip", b"Content-Encoding: gzip"), Failure.ANSWER),
        (plain(gzip.compress(b"ok")[:-6], b"Content-Encoding: gzip"), Failure.ANSWER),
        (plain(gzip.compress(b"ok"), b"Content-Encoding: gzip"), None),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(), None),
    ],
)
async def test_answers_are_told_apart(answer: bytes, failure: Failure | None) -> None:
    async with wired() as wire, serving(answering(answer, times=1)) as port:
        assert (await look(wire, port)).failure is failure


async def test_how_there_is_no_answer_is_told_apart() -> None:
    async with wired() as wire, serving(hang) as port:
        hanging = await said(lambda: look(wire, port))
        refused = await look(wire, closed_port())
        unknown = await look(wire, 80, "no-such-host.invalid", timeout=timedelta(seconds=5))
        no_tls = await look(wire, port, scheme="https")
    assert (hanging.failure, refused.failure) == (Failure.TIMEOUT, Failure.REFUSED)
    assert hanging.took_s >= 0.3
    assert unknown.failure in (Failure.DNS, Failure.TIMEOUT)
    assert no_tls.failure in (Failure.TIMEOUT, Failure.TLS)


async def test_plain_text_where_tls_is_wanted_is_a_failed_handshake() -> None:
    async with wired() as wire, serving(answering(plain())) as port:
        found = await look(wire, port, scheme="https", timeout=timedelta(seconds=2))
    assert found.failure in (Failure.TLS, Failure.NETWORK, Failure.TIMEOUT)


@pytest.mark.parametrize(("constant", "failed"), [("RENEW_AFTER_S", Failure.TLS), ("TLS_FOR_S", None)])
async def test_a_renewed_certificate_is_seen_on_the_next_look(
    constant: str, failed: Failure | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either because the old one was found too old, or because the connection was in use for long enough."""
    monkeypatch.setattr(wires, constant, 0.0)
    pki = Pki(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.sign("first", "/CN=a", days=10, hosts="IP:127.0.0.1"))
    wanted = 14 if failed else 0
    async with wired() as wire, serving(answering(plain()), tls=context) as port:
        wire.tls = ssl.create_default_context(cafile=str(pki.ca))
        probe = HttpProbe(wire, HttpSpec(timeout=timedelta(seconds=5), tls_days_left=wanted))
        first = await probe.look(endpoint(port, scheme="https"))
        context.load_cert_chain(*pki.sign("second", "/CN=a", days=100, hosts="IP:127.0.0.1"))
        second = await probe.look(endpoint(port, scheme="https"))
    assert first.failure is failed
    assert first.tls_days_left is not None
    assert first.tls_days_left < 14
    assert second.ok
    assert second.tls_days_left is not None
    assert second.tls_days_left > 90


async def test_endless_and_huge_bodies_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", 100_000)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    bomb = plain(gzip.compress(bytes(10_000_000)), b"Content-Encoding: gzip")
    async with wired() as wire, serving(endless) as port, serving(answering(bomb)) as second:
        for found in (await look(wire, port), await look(wire, second)):
            assert (found.failure, found.detail) == (Failure.ANSWER, "more than 100000 bytes")


def dated(second: int, body: bytes = b"ok", status: bytes = b"200 OK") -> bytes:
    return plain(body, b"date: Sat, 21 Nov 2026 12:00:%02d GMT" % second, b"x-served-by: e", status=status)


async def test_the_usual_answer_is_recognised_and_any_other_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    learn = connection.Connection._learn

    def spy(self: connection.Connection, request: bytes, data: bytes) -> None:
        read.append(data)
        learn(self, request, data)

    monkeypatch.setattr(connection.Connection, "_learn", spy)
    answers = (
        dated(0), dated(1), dated(2), dated(3, b"no"), dated(4, b"no", b"503 Busy"), dated(5, b"no", b"503 Busy"),
        dated(6), dated(7).replace(b"Content-Length: 2", b"Content-Length: 3") + b"k", dated(8),
    )  # fmt: skip
    async with wired() as wire, serving(answering(*answers)) as port:
        looks = [await look(wire, port, body="ok") for _ in answers]
    assert [x.failure for x in looks] == [
        None, None, None, Failure.ANSWER, Failure.STATUS, Failure.STATUS, None, None, None,
    ]  # fmt: skip
    assert {x.served_by for x in looks} == {"e"}
    assert [answers.index(data) for data in read] == [0, 3, 4, 6, 7, 8]


async def test_an_answer_is_usual_for_the_request_it_was_given_to() -> None:
    async with wired() as wire, serving(answering(plain(b"{}"), plain(b"{}"))) as port:
        assert (await look(wire, port)).ok
        found = await InferenceProbe(wire, InferenceSpec()).look(endpoint(port))
    assert found.failure is Failure.ANSWER


async def test_an_answer_with_something_behind_it_is_not_taken_for_the_usual_one() -> None:
    async with wired() as wire, serving(answering(plain(), plain() + plain(b"no"))) as port:
        assert (await look(wire, port)).ok
        assert (await look(wire, port)).ok
        assert (await look(wire, port)).ok


async def test_a_silent_endpoint_is_asked_again_on_other_connections_within_one_time_out() -> None:
    connections: list[int] = []

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.read()
        await asyncio.Event().wait()

    async with wired() as wire, serving(silent) as port:
        probe, at = HttpProbe(wire, HttpSpec(timeout=timedelta(seconds=0.3))), endpoint(port)
        first, second = await said(lambda: probe.look(at)), await said(lambda: probe.look(at))
    assert (first.failure, first.asked, first.detail) == (Failure.TIMEOUT, 3, "no answer within 0.3 s")
    assert (second.failure, second.asked) == (Failure.TIMEOUT, 1)
    assert len(connections) >= 4


async def test_one_that_answers_on_another_connection_is_well_and_the_stuck_one_is_given_up() -> None:
    connections: list[asyncio.StreamReader] = []

    async def stuck_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(reader)
        if len(connections) == 1:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()
        await answering(plain())(reader, writer)

    async with wired() as wire, serving(stuck_once) as port:
        probe = HttpProbe(wire, HttpSpec(timeout=timedelta(seconds=3)))
        found = await probe.look(endpoint(port))
        again = await probe.look(endpoint(port))
        assert (found.failure, found.asked) == (None, 1)
        assert found.took_s > 0.9
        assert again.ok
        assert len(connections) == 2
        assert connections[0].at_eof()


async def test_a_slow_endpoint_delays_no_other() -> None:
    async with wired() as wire, serving(hang) as slow, serving(answering(plain())) as quick:
        waiting = [asyncio.ensure_future(look(wire, slow, timeout=timedelta(seconds=9))) for _ in range(20)]
        assert (await look(wire, quick, timeout=timedelta(seconds=9))).ok
        assert not any(one.done() for one in waiting)
        for one in waiting:
            one.cancel()


async def test_a_server_that_closes_between_looks_is_asked_again_on_a_new_connection() -> None:
    async with wired() as wire, serving(answering(plain(), times=1)) as port:
        looks = [await look(wire, port) for _ in range(4)]
    assert all(x.ok for x in looks)


async def test_a_held_connection_tells_at_once_when_its_process_is_gone_and_when_it_is_back() -> None:
    seen: list[tuple[float, Failure | None]] = []
    async with wired() as wire:
        async with serving(hang) as port:
            release = wire.hold(endpoint(port), lambda x: seen.append((monotonic(), x.failure)))
            await asyncio.wait_for(_until(lambda: seen), 10)
            assert [f for _, f in seen] == [None]
        await asyncio.wait_for(_until(lambda: seen[-1][1] is Failure.REFUSED), 10)
        async with serving(hang, port):
            await asyncio.wait_for(_until(lambda: seen[-1][1] is None), 10)
            release()
    assert {f for _, f in seen} == {None, Failure.REFUSED}


async def test_a_server_that_drains_refuses_and_is_not_dead_while_it_still_serves() -> None:
    seen: list[Failure | None] = []
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answering(plain())(reader, writer)

    async with wired() as wire:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire.hold(endpoint(port), lambda x: seen.append(x.failure))
        await asyncio.wait_for(_until(lambda: seen and writers), 10)
        server.close()
        assert [(await look(wire, port)).failure for _ in range(3)] == [None] * 3
        busy = await asyncio.gather(*(look(wire, port) for _ in range(2)))
        assert sorted(str(x.failure) for x in busy) == ["None", "refused"]
        assert seen == [None]
        for writer in writers:
            writer.transport.abort()
        await asyncio.wait_for(_until(lambda: seen[-1] is Failure.REFUSED), 10)


async def test_a_time_out_while_the_prober_itself_did_not_run_says_nothing() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(plain())

    async def look_at_a_bad_time(port: int) -> Look:
        looking = asyncio.ensure_future(look_once(wire, port))
        await asyncio.sleep(0.03)
        sleep(0.4)  # noqa: ASYNC251 - the loop stands still: this is what the test is about
        return await looking

    async with wired() as wire, serving(late) as port, serving(hang) as dead:
        assert (await said(lambda: look_at_a_bad_time(port))).ok
        assert (await look_at_a_bad_time(dead)).says_nothing
        assert (await look(wire, dead)).failure is Failure.TIMEOUT


async def test_lateness_counts_only_what_lies_in_the_time_asked_for() -> None:
    lateness = Lateness()
    lateness.note(10.0, 0.001)
    lateness.note(11.0, 0.5)
    lateness.note(12.0, 0.2)
    assert lateness.stolen_since(9.0) == pytest.approx(0.7)
    assert lateness.stolen_since(11.5) == pytest.approx(0.2)
    assert lateness.stolen_since(11.9) == pytest.approx(0.1)


COMPLETION = b'{"choices": [{"text": "pong"}], "usage": {"completion_tokens": 4}}'
STREAM = (
    b'data: {"choices": [{"text": "po"}]}\n\ndata: {"choices": [{"text": "ng"}]}\n\n'
    b'data: {"choices": [], "usage": {"completion_tokens": 4}}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("body", "spec", "failure"),
    [
        (COMPLETION, InferenceSpec(), None),
        (COMPLETION, InferenceSpec(expect="pong"), None),
        (COMPLETION, InferenceSpec(expect="42"), Failure.ANSWER),
        (COMPLETION.replace(b"4", b"0"), InferenceSpec(), Failure.ANSWER),
        (b"[]", InferenceSpec(), Failure.ANSWER),
        (b"\xff", InferenceSpec(), Failure.ANSWER),
        (STREAM, InferenceSpec(stream=True, expect="pong"), None),
        (STREAM[:-20], InferenceSpec(stream=True), Failure.ANSWER),
        (b"data: 7\n\ndata: [DONE]\n\n", InferenceSpec(stream=True), Failure.ANSWER),
    ],
)
async def test_a_completion_must_have_tokens(body: bytes, spec: InferenceSpec, failure: Failure | None) -> None:
    async with wired() as wire, serving(answering(plain(body))) as port:
        found = await InferenceProbe(wire, spec).look(endpoint(port))
    assert found.failure is failure
    if failure is None:
        assert found.tokens == 4
        assert (found.first_token_s is not None) == spec.stream


async def test_an_endpoint_is_asked_once_which_model_it_serves() -> None:
    models, answer = plain(b'{"data": [{"id": "m"}]}'), plain(COMPLETION)
    async with wired() as wire, serving(answering(models, answer, answer)) as port:
        probe, unnamed = InferenceProbe(wire, InferenceSpec()), Endpoint("e", "primary", f"http://127.0.0.1:{port}")
        assert (await probe.look(unnamed)).ok
        assert (await probe.look(unnamed)).ok


PAGE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n"


@pytest.mark.parametrize(
    "body", [PAGE[:-5], b"\xff\xfe 1\n", b"<html>\n", PAGE + PAGE, b"", b"vllm:x{a=\n"], ids=lambda b: repr(b[:12])
)
async def test_a_bad_metrics_page_costs_one_look_and_the_next_is_read(body: bytes) -> None:
    async with wired() as wire, serving(answering(plain(PAGE), plain(body), plain(PAGE))) as port:
        probe = MetricsProbe(wire, MetricsSpec(), VLLM, lambda: "")
        looks = [await probe.look(endpoint(port)) for _ in range(3)]
    assert [x.failure for x in looks] == [None, Failure.ANSWER, None]
    assert looks[2].page
    assert looks[2].page.gauges["requests_running"] == 3.0
