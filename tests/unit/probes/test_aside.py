"""Calls that hang: nobody waits for them, neither another call nor the end of the process."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from threading import Event

import pytest

from controlplane.probes.aside import Aside

HANGS = """
import asyncio, threading
from controlplane.probes.aside import Aside

async def main():
    try:
        async with asyncio.timeout(0.05):
            await Aside("hangs", threading.Event().wait).ask()
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


@pytest.fixture
def let_go() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


async def test_what_the_call_returns_or_raises_is_passed_on() -> None:
    answers = [2, 1]
    aside = Aside("pops", answers.pop)
    assert [await aside.ask(), await aside.ask()] == [1, 2]
    with pytest.raises(IndexError, match="pop from empty list"):
        await aside.ask()
    assert not aside.busy


async def test_a_call_that_hangs_is_not_made_again_before_it_returns(let_go: Event) -> None:
    calls: list[int] = []
    called = Event()

    def hang() -> bool:
        calls.append(1)
        called.set()
        return let_go.wait()

    aside = Aside("hangs", hang)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await aside.ask()
    assert await asyncio.to_thread(called.wait, 10)
    assert len(calls) == 1
    let_go.set()
    async with asyncio.timeout(10):
        while aside.busy:  # noqa: ASYNC110 - its thread tells nobody
            await asyncio.sleep(0.01)
        assert await aside.ask()
    assert len(calls) == 2


def test_a_process_ends_while_a_call_hangs() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "given up\n", "")
