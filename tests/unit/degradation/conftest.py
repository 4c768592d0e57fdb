"""What tests of levers and hands share: a machine that stands still for seconds takes no answer from them."""

import aiohttp
import pytest

from controlplane.degradation.actuators import envoy, post, sample
from controlplane.fleet import cluster

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the servers in this process for longer than the machine stands still."""
    for module, name in (
        (post, "ONCE_S"), (post, "ALL_S"), (cluster, "CONNECT_TIMEOUT_S"), (cluster, "READ_TIMEOUT_S"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, PATIENCE_S)
    for module, name in ((envoy, "_ADMIN_TIMEOUT"), (sample, "_SAMPLE_TIMEOUT")):
        monkeypatch.setattr(module, name, aiohttp.ClientTimeout(total=PATIENCE_S))
