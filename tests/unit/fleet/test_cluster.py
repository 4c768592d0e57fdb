"""A cluster is asked by many at once, each in a thread of its own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import UnreachableError
from controlplane.fleet.cluster import Cluster, Kind, RefusedError
from tests.support import kube
from tests.support.kube import Api

DEPLOYMENTS = Kind("apps", "v1", "deployments")


@pytest.fixture
def api() -> Iterator[Api]:
    with kube.api_server() as running:
        yield running


class GivenUp(Cluster):
    """One whose connection another request gives up while one reads its settings."""

    def _connect(self) -> Any:
        client = super()._connect()
        known = client.configuration.auth_settings

        def meanwhile() -> Any:
            self._client = None
            return known()

        client.configuration.auth_settings = meanwhile
        return client


async def test_a_request_keeps_its_connection_when_another_one_gives_it_up(api: Api, tmp_path: Path) -> None:
    api.put("deployments", kube.deployment())
    cluster = GivenUp(str(kube.kubeconfig(tmp_path, api.url)))
    asked = (cluster.read(DEPLOYMENTS, "default", "engine") for _ in range(4))
    for found in await asyncio.gather(*asked):
        assert found["metadata"]["name"] == "engine"


async def test_a_request_counts_by_its_answer(api: Api, tmp_path: Path) -> None:
    api.put("deployments", kube.deployment())
    counted: list[tuple[str, str, str]] = []

    def count(*answer: str) -> None:
        counted.append((answer[0], answer[1], answer[2]))

    cluster = Cluster(str(kube.kubeconfig(tmp_path, api.url)), count=count)
    await cluster.read(DEPLOYMENTS, "default", "engine")
    with pytest.raises(RefusedError):
        await cluster.read(DEPLOYMENTS, "default", "nobody")
    nowhere = Cluster(str(kube.kubeconfig(tmp_path, "http://127.0.0.1:1")), count=count)
    with pytest.raises(UnreachableError):
        await nowhere.read(DEPLOYMENTS, "default", "engine")
    assert counted == [("get", "deployments.apps", code) for code in ("200", "404", "unreachable")]


async def test_a_request_that_got_no_answer_is_not_counted_as_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    cluster = Cluster(str(tmp_path / "absent"), count=lambda *answer: counted.append(answer[2]))

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(cluster, "_call", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await cluster.read(DEPLOYMENTS, "default", "engine")
    assert counted == []
