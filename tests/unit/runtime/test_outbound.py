"""The client of everything named on the page: real connections to real servers, and those that are not made."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.runtime.outbound import outbound_session
from controlplane.security.outbound import OutboundSpec


@asynccontextmanager
async def serving(onward: str = "") -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/onward":
            return web.Response(status=307, headers={"location": onward})
        return web.Response(text="here")

    runner = web.AppRunner(_app(answer), handle_signals=False, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener).start()
        try:
            yield listener.getsockname()[1]
        finally:
            await runner.cleanup()


def _app(answer: Any) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    return app


async def test_what_may_be_called_is_called() -> None:
    async with serving("/next") as port, outbound_session(OutboundSpec(), ()) as session:
        for path in ("/", "/onward"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                assert await response.text() == "here"


async def test_a_redirect_to_another_host_is_an_error_and_the_other_is_not_asked() -> None:
    async with (
        serving() as elsewhere,
        serving(f"http://localhost:{elsewhere}/") as port,
        outbound_session(OutboundSpec(), ()) as session,
    ):
        with pytest.raises(aiohttp.ClientError, match="another host"):
            await session.post(f"http://127.0.0.1:{port}/onward")


async def test_a_link_local_address_is_not_connected_to() -> None:
    async with outbound_session(OutboundSpec(), ()) as session:
        with pytest.raises(aiohttp.ClientError, match="link-local"):
            await session.get("http://169.254.169.254/latest/meta-data")


async def test_nor_is_a_name_that_leads_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def looked_up(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up, raising=False)
    async with outbound_session(OutboundSpec(), ()) as session:
        with pytest.raises(aiohttp.ClientError, match=r"link-local.*outbound\.link_local"):
            await session.get("http://innocent.example/")


async def test_hosts_beyond_the_list_are_not_called_and_the_fleets_own_are() -> None:
    async with serving() as port:
        async with outbound_session(OutboundSpec(hosts=("hooks.internal",)), ()) as session:
            with pytest.raises(aiohttp.ClientError, match=r"outbound\.hosts"):
                await session.get(f"http://127.0.0.1:{port}/")
        known = outbound_session(OutboundSpec(hosts=("hooks.internal",)), ("127.0.0.1",))
        async with known as session, session.get(f"http://127.0.0.1:{port}/") as response:
            assert response.status == 200
