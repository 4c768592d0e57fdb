"""An API server that refuses, breaks or makes no sense is named with the way out, and what is known is kept."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.errors import UnreachableError
from controlplane.fleet.certificate import ends_at
from controlplane.fleet.following import PAGE
from controlplane.fleet.kubeconfig import settings_of
from controlplane.fleet.kubernetes import KubernetesInventory
from controlplane.fleet.model import EndpointSource, FleetSpec, KubernetesEndpoints, PoolSpec
from tests.support import kube
from tests.support.kube_lab.pki import Pki, kubeconfig
from tests.support.waiting import eventually

until = partial(eventually, within_s=20.0)

Handler = Callable[[web.Request], Any]


def pod(i: int, version: int = 5) -> dict[str, Any]:
    return {
        "metadata": {"name": f"engine-{i:03}", "labels": {"app": "engine"}, "resourceVersion": str(version)},
        "spec": {"containers": [{"ports": [{"containerPort": 8000}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Api:
    """Lists some pods and no node; what it does to watches and lists of pods can be put in its place."""

    def __init__(self) -> None:
        self.pods = [pod(0)]
        self.lists: Handler = self.list_pods
        self.watches: Handler = self.hold
        self.asked: list[tuple[str, str, str]] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        watches = "watch" in request.query
        if not request.path.endswith("/pods"):
            found: Handler = self.hold if watches else self.empty
        else:
            found = self.watches if watches else self.lists
        answer: web.StreamResponse = await found(request)
        return answer

    async def empty(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": []})

    async def list_pods(self, request: web.Request) -> web.Response:
        first, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        meta = {"resourceVersion": "5"}
        if first + limit < len(self.pods):
            meta["continue"] = str(first + limit)
        return web.json_response({"metadata": meta, "items": self.pods[first : first + limit]})

    async def hold(self, request: web.Request) -> web.StreamResponse:
        return await self.tell(request)

    async def tell(self, request: web.Request, *lines: object, ends: bool = False) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n")
        if not ends:
            await asyncio.sleep(60)
        return response

    def count(self, verb: str, code: str = "200") -> int:
        return self.asked.count((verb, "pods", code))


def lead(config: Path, url: str) -> None:
    config.write_text(config.read_text().replace("SERVER", url))


@asynccontextmanager
async def followed(
    tmp_path: Path, api: Api, config: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[KubernetesInventory]:
    app = web.Application()
    app.router.add_get("/{path:.*}", api.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    if config:
        await asyncio.to_thread(lead, config, url)
    spec = KubernetesEndpoints(selector="app=engine", kubeconfig=str(config or kube.kubeconfig(tmp_path, url)))
    inventory = KubernetesInventory(FleetSpec({"primary": PoolSpec(EndpointSource(kubernetes=spec))}), tmp_path)
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(
            inventory.follow(session, lambda *asked: api.asked.append(asked), lambda: None)
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                await inventory.tried()
            yield inventory
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await runner.cleanup()


def names(inventory: KubernetesInventory) -> list[str]:
    return [endpoint.name for endpoint in inventory.read().endpoints]


def problems(inventory: KubernetesInventory) -> str:
    return " ".join(inventory.read().problems)


async def test_a_list_is_asked_for_page_by_page(tmp_path: Path) -> None:
    api = Api()
    api.pods = [pod(i) for i in range(2 * PAGE + 1)]
    async with followed(tmp_path, api) as inventory:
        assert len(names(inventory)) == 2 * PAGE + 1
        assert api.count("list") == 3


async def test_a_page_that_is_lost_begins_the_list_again(tmp_path: Path) -> None:
    api = Api()
    api.pods = [pod(i) for i in range(PAGE + 1)]
    gone = iter([True])

    async def lists(request: web.Request) -> web.Response:
        if "continue" in request.query and next(gone, False):
            return web.json_response({"code": 410, "message": "the continue parameter is too old"}, status=410)
        return await api.list_pods(request)

    api.lists = lists
    async with followed(tmp_path, api) as inventory:
        assert len(names(inventory)) == PAGE + 1
        assert api.count("list", "410") == 1


@pytest.mark.parametrize(
    "line",
    [
        "no json", {"odd": True}, {"type": "ERROR", "object": {"code": 500, "message": "etcd"}},
        {"type": "ADDED", "object": None},
    ],
)  # fmt: skip
async def test_a_watch_that_makes_no_sense_is_begun_again_where_it_was(tmp_path: Path, line: object) -> None:
    api, places = Api(), []

    async def watches(request: web.Request) -> web.StreamResponse:
        places.append(request.query["resourceVersion"])
        if len(places) > 1:
            return await api.hold(request)
        return await api.tell(request, {"type": "ADDED", "object": pod(1, 9)}, line)

    api.watches = watches
    async with followed(tmp_path, api) as inventory:
        await until(lambda: len(places) == 2)
        assert places == ["5", "9"]
        assert names(inventory) == ["engine-000", "engine-001"]
        assert api.count("list") == 1


async def test_a_pod_that_makes_no_sense_is_left_out_and_costs_nothing_else(tmp_path: Path) -> None:
    api = Api()
    api.pods += [pod(1) | {"status": {"conditions": 5}}, {"spec": {}}]
    async with followed(tmp_path, api) as inventory:
        assert names(inventory) == ["engine-000"]
        assert api.count("list") == 1


async def test_what_was_known_stands_in_while_lists_are_refused_and_its_age_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.fleet.kubernetes.STALE_AFTER_S", 0.0)
    api = Api()

    async def busy(_: web.Request) -> web.Response:
        return web.json_response({"message": "too many requests"}, status=429, headers={"retry-after": "1"})

    async def gone(request: web.Request) -> web.StreamResponse:
        api.lists = busy
        return await api.tell(request, {"type": "ERROR", "object": {"code": 410}}, ends=True)

    api.watches = gone
    async with followed(tmp_path, api) as inventory:
        await until(lambda: "the 1 endpoints known last stand in" in problems(inventory))
        assert "refuses to list pods in namespace default (429): too many requests" in problems(inventory)
        assert names(inventory) == ["engine-000"]
        assert api.count("list", "429") == 1, "it waits for as long as the server asks"


async def test_an_answer_that_is_no_json_is_said_to_be(tmp_path: Path) -> None:
    api = Api()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    api.lists = page
    async with followed(tmp_path, api) as inventory:
        assert "answer about pods in namespace default makes no sense" in problems(inventory)


# -- certificates and kubeconfigs --------------------------------------------------------------------------------------


def tls_of(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    ("days", "says"), [(-1, "its certificate has expired"), (2, "")]
)  # fmt: skip
async def test_a_server_whose_certificate_has_expired_is_said_to(tmp_path: Path, days: int, says: str) -> None:
    pki = Pki(tmp_path / "pki")
    tls = tls_of(*pki.sign("server", "/CN=server", days, "IP:127.0.0.1"))
    config = kubeconfig(tmp_path / "config", "SERVER", pki.ca, {"token": "t"})
    async with followed(tmp_path, Api(), config, tls) as inventory:
        assert says in problems(inventory)
        assert bool(names(inventory)) is not bool(says)


def test_the_end_of_a_certificate_is_read(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    ended, valid = (ends_at(pki.sign(f"c{days}", "/CN=x", days)[0].read_text()) for days in (-1, 2))
    assert ended is not None
    assert valid is not None
    assert 2.9 < (valid - ended).total_seconds() / 86400 < 3.1


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "x"])
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    assert ends_at(text) is None


def test_a_context_that_is_missing_is_answered_with_those_there_are(tmp_path: Path) -> None:
    file = kube.kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(UnreachableError, match="no context `eu-west-1`") as refused:
        settings_of(str(file), "eu-west-1")
    assert refused.value.why == "its contexts: test"
    with pytest.raises(UnreachableError, match="no kubeconfig at"):
        settings_of(str(tmp_path / "absent"))
    file.write_text("clusters: [")
    with pytest.raises(UnreachableError, match="cannot use"):
        settings_of(str(file))


def test_pods_of_another_place_have_names_of_their_own(tmp_path: Path) -> None:
    specs = {
        "primary": KubernetesEndpoints(selector="app=a", context="one"),
        "base": KubernetesEndpoints(selector="app=b", context="one"),
        "standby": KubernetesEndpoints(selector="app=a", context="two"),
    }
    pools = {name: PoolSpec(EndpointSource(kubernetes=spec)) for name, spec in specs.items()}
    inventory = KubernetesInventory(FleetSpec(pools), tmp_path)
    assert [pool.naming.prefix for pool in inventory._pools] == ["", "", "standby."]
    assert len(inventory._clusters) == 2, "one watch for pools that share a namespace"
