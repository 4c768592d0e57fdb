"""What the suites that start real programs share: a check that they leave nothing behind on this machine."""

from collections.abc import AsyncIterator, Iterator

import pytest

from controlplane.probes.wire import Wire
from controlplane.runtime import kubernetes_lease
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
def patient_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the API server answer slowly: how long a Lease waits for it matters to no suite that asks a real one."""
    for bound, seconds in (("CONNECT_WITHIN_S", 10.0), ("READ_WITHIN_S", 15.0), ("ANSWER_WITHIN_S", 18.0)):
        monkeypatch.setattr(kubernetes_lease, bound, seconds)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Give a wire of which nothing may fail."""
    async with wired() as opened:
        yield opened
