"""What the suites that start real programs share: a check that they leave nothing behind on this machine."""

from collections.abc import AsyncIterator, Iterator

import pytest

from controlplane.probes.wire import Wire
from tests.support.processes import nothing_left_behind
from tests.support.real_kube import REAL
from tests.support.wires import wired


def pytest_report_header() -> str:
    """Say aloud which API servers the Kubernetes levers are held to."""
    real = f"the one of {REAL} too" if REAL else "none that is real: CONTROLPLANE_TEST_CRDSERVER names no kubeconfig"
    return f"kubernetes: routes are applied to an API server in this process, and to {real}"


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
