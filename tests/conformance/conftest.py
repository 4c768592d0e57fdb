"""What the suites that start real programs share: a check that they leave nothing behind on this machine."""

from collections.abc import AsyncIterator, Iterator

import pytest

from controlplane.probes.wire import Wire
from tests.support.processes import nothing_left_behind
from tests.support.wires import wired


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """Fail the session when a process, a port or a half-written file of its suites is left."""
    with nothing_left_behind():
        yield


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Give a wire of which nothing may fail."""
    async with wired() as opened:
        yield opened
