"""A wire for a test: what it started ends with it, and none of that may have failed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

from controlplane.probes.probe import Look
from controlplane.probes.wire import Wire


@asynccontextmanager
async def wired() -> AsyncIterator[Wire]:
    """Give a wire, and close it; a task of its own that failed fails the test."""
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks.add(task)
        return task

    wire = Wire(spawn)
    try:
        yield wire
    finally:
        wire.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)  # Transports that were aborted close in the next turns of the loop.
    assert [e for e in ended if isinstance(e, Exception)] == []


async def said(look: Callable[[], Awaitable[Look]]) -> Look:
    """Look until a look says something: on a busy machine the prober is late itself at times, and then says so."""
    while (found := await look()).says_nothing:
        pass
    return found
