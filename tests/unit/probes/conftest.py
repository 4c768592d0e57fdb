"""Looks run on uvloop when they are served, and on asyncio's own loop elsewhere: both are tested."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from controlplane.probes.wire import Wire
from tests.support.wires import wired


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name == "test_wire.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Give a wire of which nothing may fail."""
    async with wired() as opened:
        yield opened
