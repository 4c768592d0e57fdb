"""A held connection tells within milliseconds that nothing listens any more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes import wire
from controlplane.probes.probe import Failure, Look
from tests.support.wires import wired


class Listener:
    """A server that accepts and keeps its connections until it stops."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._held: list[asyncio.StreamWriter] = []
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._held.append(writer)

    def drop(self) -> None:
        """Close the connections there are, and go on listening."""
        for writer in self._held:
            writer.close()
        self._held.clear()

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            self.drop()
            await self._server.wait_closed()


@asynccontextmanager
async def held_at(url: str) -> AsyncIterator[tuple["asyncio.Queue[Look]", Callable[[], None]]]:
    """Hold a connection; give what is reported and what lets go. Nothing that was started may have failed."""
    seen: asyncio.Queue[Look] = asyncio.Queue()
    async with wired() as connections:
        yield seen, connections.hold(Endpoint("primary-0", "primary", url), seen.put_nowait)


@asynccontextmanager
async def held(port: int) -> AsyncIterator["asyncio.Queue[Look]"]:
    async with held_at(f"http://127.0.0.1:{port}") as (seen, _):
        yield seen


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RETRY_S", 0.01)
    monkeypatch.setattr(wire, "RETRY_AT_MOST_S", 0.02)


async def within(seen: "asyncio.Queue[Look]") -> Look:
    async with asyncio.timeout(5):
        return await seen.get()


async def until(seen: "asyncio.Queue[Look]", failure: Failure | None) -> Look:
    while (look := await within(seen)).failure is not failure:
        pass
    return look


async def test_an_endpoint_is_up_then_refused_when_it_dies_then_up_when_it_is_back() -> None:
    listener = Listener()
    await listener.start()
    async with held(listener.port) as seen:
        first = await within(seen)
        assert (first.probe, first.ok, first.says_alive) == ("held", True, False)
        await listener.stop()
        refused = await within(seen)
        assert refused.failure is Failure.REFUSED
        await listener.start()
        assert (await until(seen, None)).at > refused.at
        await listener.stop()


async def test_a_connection_that_is_closed_by_a_server_that_lives_is_no_proof_of_anything() -> None:
    listener = Listener()
    await listener.start()
    async with held(listener.port) as seen:
        for _ in range(3):
            assert (await within(seen)).ok
            listener.drop()
        assert (await within(seen)).ok
        await listener.stop()


async def test_nothing_is_reported_while_the_connection_is_held() -> None:
    listener = Listener()
    await listener.start()
    async with held(listener.port) as seen:
        await within(seen)
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen.empty()
        await listener.stop()


async def test_a_name_that_does_not_resolve_is_no_proof_that_the_process_is_gone() -> None:
    async with held_at("http://no-such-host.invalid:80") as (seen, _):
        assert (await within(seen)).failure is not Failure.REFUSED


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:99999", "http://", "http://[", f"http://{'a' * 70}.invalid", "https://.x"]
)
async def test_an_address_that_is_none_is_reported_and_does_not_end_the_holding(url: str) -> None:
    async with held_at(url) as (seen, release):
        for _ in range(3):
            look = await within(seen)
            assert not look.ok
            assert look.failure is not Failure.REFUSED
            assert look.detail
        release()
        await asyncio.sleep(0.1)
        told = seen.qsize()
        await asyncio.sleep(0.1)
        assert seen.qsize() == told
