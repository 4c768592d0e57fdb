"""The probe `tcp`: a connect a look; how it failed is told apart, and what is our own fault is said to be that."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes import tcp
from controlplane.probes.probe import Failure, Look, StartedProbe, TcpSpec
from controlplane.probes.tcp import TcpProbe
from controlplane.probes.wheel import Lateness
from controlplane.probes.wire import Wire
from tests.support.wires import said, wired

WITHIN = timedelta(milliseconds=300)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as one:
        yield one


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel answers no further one."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    where = listener.getsockname()
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(where)
        fillers.append(filler)
    yield where[1]
    for filler in fillers:
        filler.close()
    listener.close()


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def at(port: int, host: str = "127.0.0.1", scheme: str = "http") -> Endpoint:
    return Endpoint("e", "primary", f"{scheme}://{host}:{port}")


def probe(wire: Wire) -> TcpProbe:
    return TcpProbe(wire, TcpSpec(timeout=WITHIN))


@contextmanager
def names(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]) -> Iterator[list[str]]:
    """Have names resolved by the test; gives those that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> Sequence[Any]:
        asked.append(host)
        found = answer(host)
        if isinstance(found, asyncio.Event):
            await found.wait()
            found = ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    yield asked


async def test_a_connect_that_comes_to_stand_is_a_good_look_and_speaks_for_no_request(wire: Wire, port: int) -> None:
    look = await probe(wire).look(at(port))
    assert (look.probe, look.ok, look.detail, look.page) == ("tcp", True, "", None)
    assert not look.says_alive
    assert isinstance(probe(wire), StartedProbe)


async def test_tls_is_not_spoken(wire: Wire, port: int) -> None:
    assert (await probe(wire).look(at(port, scheme="https"))).ok


async def test_each_look_opens_a_connection_of_its_own_and_leaves_none(wire: Wire) -> None:
    met = asyncio.Queue[bytes]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.put_nowait(await reader.read())  # All that was said until it ended.
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        looker, endpoint = probe(wire), at(server.sockets[0].getsockname()[1])
        for _ in range(3):
            assert (await said(lambda: looker.look(endpoint))).ok
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await met.get() == b""


async def test_nothing_that_listens_is_a_refusal(wire: Wire, closed: int) -> None:
    look = await probe(wire).look(at(closed))
    assert (look.failure, look.detail) == (Failure.REFUSED, "connection refused")


async def test_a_queue_that_takes_no_connection_is_a_time_out(wire: Wire, silent: int) -> None:
    looker = probe(wire)
    look = await said(lambda: looker.look(at(silent)))
    assert (look.failure, look.detail) == (Failure.TIMEOUT, "no connection within 0.3 s")
    assert look.took_s >= WITHIN.total_seconds()


async def test_a_name_that_is_none_is_dns_and_so_is_one_that_nobody_answers(
    wire: Wire, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    def answer(host: str) -> object:
        if host == "none.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return never

    looker = probe(wire)
    with names(monkeypatch, answer):
        none = await looker.look(at(port, "none.invalid"))
        assert none.failure is Failure.DNS
        slow = await said(lambda: looker.look(at(port, "slow.invalid")))
        assert (slow.failure, slow.detail) == (Failure.DNS, "no address of slow.invalid within 0.3 s")
        assert (await looker.look(at(port))).ok  # Another endpoint does not wait for that name.
    never.set()


async def test_a_name_is_asked_for_once_by_all_who_wait_for_it(
    wire: Wire, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = probe(wire)
    with names(monkeypatch, lambda _: ["127.0.0.1"]) as asked:
        looks = await asyncio.gather(*(looker.look(at(port, "here.invalid")) for _ in range(5)))
        assert all(look.ok for look in looks)
        assert (await looker.look(at(port, "here.invalid"))).ok
    assert asked == ["here.invalid"]


async def test_the_next_address_of_a_name_is_tried(wire: Wire, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looker = probe(wire)
    with names(monkeypatch, lambda _: ["127.0.0.2", "127.0.0.1"]):  # Nothing listens at the first one.
        assert (await looker.look(at(port, "two.invalid"))).ok


@pytest.mark.parametrize("url", ["http://10.0.0.1:99999", "http://", "http://[", f"http://{'a' * 70}.invalid"])
async def test_an_address_that_is_none_is_a_failed_look(wire: Wire, url: str) -> None:
    look = await probe(wire).look(Endpoint("e", "primary", url))
    assert look.failure in (Failure.NETWORK, Failure.DNS)
    assert look.detail


async def test_a_time_out_while_the_prober_itself_did_not_run_says_nothing(
    wire: Wire, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lateness, "stolen_since", lambda *_: 0.2)
    look = await probe(wire).look(at(silent))
    assert (look.failure, look.says_nothing) == (Failure.PROBER, True)
    assert "the prober itself was late by 0.20 s" in look.detail
    assert look.took_s >= WITHIN.total_seconds() + 0.2  # What was stolen was given on top.


async def test_file_descriptors_that_ran_out_are_our_own_fault(
    wire: Wire, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    looker = probe(wire)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", none)
        assert (await looker.look(at(port))).failure is Failure.PROBER
    assert (await looker.look(at(port))).ok


async def test_connects_are_bounded_and_those_that_found_no_place_say_nothing(
    wire: Wire, silent: int, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "MAX_CONNECTING", 1)
    looker, in_place, behind = probe(wire), asyncio.Queue[Look](), asyncio.Queue[Look]()
    looker.start(at(silent), in_place.put_nowait)
    await asyncio.sleep(0.05)
    looker.start(at(port), behind.put_nowait)  # Its turn comes when the first one's time is over.
    async with asyncio.timeout(30):
        first, second = await in_place.get(), await behind.get()
    assert first.failure in (Failure.TIMEOUT, Failure.PROBER)
    assert second.ok or second.failure is Failure.PROBER
    assert (await said(lambda: looker.look(at(port)))).ok
