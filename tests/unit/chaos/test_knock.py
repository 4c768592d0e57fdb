"""A knock at an endpoint's door: what is said of it is the endpoint's doing, and never our own."""

import asyncio
import socket
import time

import pytest

from controlplane.chaos.substrates.knock import Door, door


def stand_still(after: int) -> None:
    """Have the loop stand still for longer than a knock may take, so many of its turns from now."""
    if after:
        asyncio.get_running_loop().call_soon(stand_still, after - 1)
    else:
        time.sleep(0.1)


@pytest.mark.parametrize("after", range(4))
async def test_a_door_is_open_although_our_own_loop_stands_still_while_we_knock(after: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.get_running_loop().call_soon(stand_still, after)
        assert await door(f"http://127.0.0.1:{listening.getsockname()[1]}", within_s=0.05) is Door.OPEN


async def test_a_door_that_nobody_keeps_is_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert await door(f"http://127.0.0.1:{bound.getsockname()[1]}") is Door.REFUSED


async def test_a_door_from_which_nothing_comes_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    over = []

    async def nothing(*_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.append(True)

    monkeypatch.setattr(asyncio, "open_connection", nothing)
    assert await door("http://127.0.0.1:1", within_s=0.01) is Door.SILENT
    assert over == [True]


async def test_a_knock_that_the_kernel_gives_up_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def given_up(*_: object, **__: object) -> None:
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(asyncio, "open_connection", given_up)
    assert await door("http://127.0.0.1:1") is Door.SILENT
