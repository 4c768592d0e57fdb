"""What tests of inventories share: a machine that stands still for seconds takes no answer from them."""

import pytest

from controlplane.fleet import apiserver, cluster


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the servers in this process for longer than the machine stands still."""
    for module, name in (
        (apiserver, "CONNECT_TIMEOUT_S"), (apiserver, "LIST_TIMEOUT_S"), (cluster, "CONNECT_TIMEOUT_S"),
        (cluster, "READ_TIMEOUT_S"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 60.0)
