"""A held connection tells within milliseconds that nothing listens any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes import tcp
from controlplane.probes.probe import Failure, Look
from controlplane.probes.tcp import hold


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
async def held(port: int) -> AsyncIterator["asyncio.Queue[Look]"]:
    seen: asyncio.Queue[Look] = asyncio.Queue()
    task = asyncio.create_task(hold(Endpoint("primary-0", "primary", f"http://127.0.0.1:{port}"), seen.put_nowait))
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "RETRY_S", 0.01)


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
        assert (first.probe, first.ok, first.says_alive) == ("tcp", True, False)
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
    seen: asyncio.Queue[Look] = asyncio.Queue()
    task = asyncio.create_task(hold(Endpoint("a", "primary", "http://no-such-host.invalid:80"), seen.put_nowait))
    assert (await within(seen)).failure is not Failure.REFUSED
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_an_address_that_is_none_is_reported_and_does_not_end_the_holding() -> None:
    seen: asyncio.Queue[Look] = asyncio.Queue()
    task = asyncio.create_task(hold(Endpoint("a", "primary", "http://10.0.0.1:99999"), seen.put_nowait))
    reported = asyncio.create_task(within(seen))
    await asyncio.wait((task, reported), return_when=asyncio.FIRST_COMPLETED)
    ended = task.done()
    reported.cancel()
    task.cancel()
    await asyncio.gather(task, reported, return_exceptions=True)
    assert not ended
