"""Envoy's split is changed by changing two things in its file, whole or not at all, and read back from Envoy itself."""

import copy
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.degradation.actuator import RoutePlan
from controlplane.degradation.envoy import EnvoyActuator, _set_plan
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError, UnreachableError

P0_PLAN = RoutePlan({"standby": 100}, Level.P0)


def document() -> dict[str, Any]:
    """A route file as somebody else wrote it: our route, theirs, and things we know nothing of."""
    return {
        "version_info": "7",
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": "service",
                "response_headers_to_add": [
                    {"header": {"key": "X-Degradation-Level", "value": "none"}, "append_action": "OVERWRITE"},
                    {"header": {"key": "x-team", "value": "inference"}},
                ],
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [
                            {"match": {"path": "/healthz"}, "direct_response": {"status": 200}},
                            {
                                "match": {"prefix": "/"},
                                "route": {
                                    "weighted_clusters": {
                                        "clusters": [
                                            {"name": "primary", "weight": 100, "typed_per_filter_config": {"a": 1}},
                                            {"name": "standby", "weight": 0},
                                            {"name": "base", "weight": 0},
                                        ]
                                    },
                                    "timeout": "30s",
                                },
                                "response_headers_to_add": [{"header": {"key": "x-degradation-level", "value": "?"}}],
                            },
                        ],
                    }
                ],
            }
        ],
    }


def weights(doc: dict[str, Any]) -> dict[str, int]:
    route = doc["resources"][0]["virtual_hosts"][0]["routes"][1]["route"]
    return {c["name"]: c["weight"] for c in route["weighted_clusters"]["clusters"]}


def test_a_plan_changes_the_weights_and_the_level_everywhere_they_stand() -> None:
    doc = document()
    _set_plan(doc, RoutePlan({"base": 50, "standby": 50}, Level.P0))
    assert weights(doc) == {"primary": 0, "standby": 50, "base": 50}
    config = doc["resources"][0]
    assert config["response_headers_to_add"][0]["header"]["value"] == "P0"
    assert config["virtual_hosts"][0]["routes"][1]["response_headers_to_add"][0]["header"]["value"] == "P0"


def test_a_plan_leaves_everything_else_as_it_was() -> None:
    doc, original = document(), document()
    _set_plan(doc, P0_PLAN)
    for each in (doc, original):
        config = each["resources"][0]
        route = config["virtual_hosts"][0]["routes"][1]
        for cluster in route["route"]["weighted_clusters"]["clusters"]:
            cluster.pop("weight")
        config["response_headers_to_add"][0]["header"].pop("value")
        route["response_headers_to_add"][0]["header"].pop("value")
    assert doc == original


def test_setting_a_plan_twice_is_setting_it_once() -> None:
    once = document()
    _set_plan(once, P0_PLAN)
    twice = copy.deepcopy(once)
    _set_plan(twice, P0_PLAN)
    assert twice == once


def test_a_pool_without_an_entry_is_refused_unless_it_gets_nothing() -> None:
    with pytest.raises(LookupError, match="cache"):
        _set_plan(document(), RoutePlan({"cache": 100}))
    _set_plan(document(), RoutePlan({"cache": 0, "primary": 100}))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def xds(tmp_path: Path) -> Path:
    (tmp_path / "rds.json").write_text(json.dumps(document()), encoding="utf-8")
    return tmp_path


def actuator(session: aiohttp.ClientSession, xds: Path, url: str = "http://127.0.0.1:1") -> EnvoyActuator:
    return EnvoyActuator(session, xds, lambda: url, url, "full")


async def test_applying_a_plan_rewrites_the_file_and_leaves_nothing_beside_it(
    session: aiohttp.ClientSession, xds: Path
) -> None:
    lever = actuator(session, xds)
    await lever.apply(P0_PLAN, "k")
    first = (xds / "rds.json").read_text(encoding="utf-8")
    assert weights(json.loads(first)) == {"primary": 0, "standby": 100, "base": 0}
    await lever.apply(P0_PLAN, "k")
    assert (xds / "rds.json").read_text(encoding="utf-8") == first
    assert names(xds) == ["rds.json"]


async def test_applying_the_plan_from_before_is_undoing(session: aiohttp.ClientSession, xds: Path) -> None:
    lever = actuator(session, xds)
    await lever.apply(P0_PLAN, "k")
    await lever.apply(RoutePlan({"primary": 100}), "k")
    assert weights(json.loads((xds / "rds.json").read_text(encoding="utf-8"))) == weights(document())


async def test_envoy_sees_a_new_file_and_never_a_half_written_one(session: aiohttp.ClientSession, xds: Path) -> None:
    before = (xds / "rds.json").stat().st_ino
    await actuator(session, xds).apply(P0_PLAN, "k")
    assert (xds / "rds.json").stat().st_ino != before


def fail(kind: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(28, kind)

    return refuse


@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
async def test_a_disk_that_refuses_leaves_the_old_file_byte_for_byte_and_nothing_beside_it(
    session: aiohttp.ClientSession, xds: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = (xds / "rds.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path if where == "replace" else os, where, fail("No space left on device"))
        with pytest.raises(ActuatorError, match=r"cannot write .*rds\.json") as refused:
            await actuator(session, xds).apply(P0_PLAN, "k")
    assert "No space left" in refused.value.why
    assert "free space" in refused.value.fix
    assert (xds / "rds.json").read_bytes() == before
    assert names(xds) == ["rds.json"]


async def test_a_plan_for_a_cluster_envoy_does_not_have_leaves_the_file_as_it_was(
    session: aiohttp.ClientSession, xds: Path
) -> None:
    before = (xds / "rds.json").read_bytes()
    with pytest.raises(ActuatorError) as refused:
        await actuator(session, xds).apply(RoutePlan({"cache": 100}), "k")
    assert "no weighted cluster named cache" in refused.value.why
    assert (xds / "rds.json").read_bytes() == before
    assert names(xds) == ["rds.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"5", b"null", b'{"resources": 5}', b'{"resources": [5]}', b'{"other": []}', b"\xff\xfe"],
)
async def test_a_file_of_another_shape_is_an_actuator_error_and_stays_as_it_is(
    session: aiohttp.ClientSession, xds: Path, content: bytes
) -> None:
    (xds / "rds.json").write_bytes(content)
    with pytest.raises(ActuatorError):
        await actuator(session, xds).apply(P0_PLAN, "k")
    assert (xds / "rds.json").read_bytes() == content
    assert names(xds) == ["rds.json"]


async def test_a_missing_directory_is_an_actuator_error(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    with pytest.raises(ActuatorError):
        await actuator(session, tmp_path / "absent").apply(P0_PLAN, "k")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ActuatorError):
        await actuator(session, tmp_path / "file").apply(P0_PLAN, "k")


@pytest.fixture
async def envoy() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A stand-in that shows the configuration it is given and answers completions as it is told."""
    shown: dict[str, Any] = {"dump": {}, "status": 200, "headers": {}}

    async def dump(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(shown["dump"]), content_type="application/json")

    async def complete(request: web.Request) -> web.Response:
        shown["asked"] = await request.json()
        return web.json_response({}, status=shown["status"], headers=shown["headers"])

    app = web.Application()
    app.router.add_get("/config_dump", dump)
    app.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", shown
    await runner.cleanup()


def dumped(doc: dict[str, Any]) -> dict[str, Any]:
    return {"configs": [{"version_info": "1", "route_config": config} for config in doc["resources"]]}


async def test_the_live_configuration_is_read_back_without_the_pools_that_get_nothing(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    doc = document()
    _set_plan(doc, RoutePlan({"standby": 90, "primary": 10}, Level.P0))
    shown["dump"] = dumped(doc)
    seen = await actuator(session, xds, url).configured()
    assert seen.weights == {"standby": 90, "primary": 10}
    assert seen.level == "P0"
    assert seen.answered_by == ()


async def test_a_sample_asks_for_completions_and_tells_who_answered_at_which_level(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown |= {"dump": dumped(document()), "headers": {"x-served-by": "standby-0", "x-degradation-level": "P0"}}
    seen = await actuator(session, xds, url).sample(3)
    assert seen.answered_by == ("standby-0",) * 3
    assert seen.answered_level == ("P0",) * 3
    assert shown["asked"]["model"] == "full"
    assert shown["asked"]["max_tokens"] == 1


async def test_a_request_that_fails_counts_as_answered_by_nobody(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown |= {"dump": dumped(document()), "status": 503, "headers": {"x-served-by": "standby-0"}}
    assert (await actuator(session, xds, url).sample(2)).answered_by == ("", "")


@pytest.mark.parametrize("dump", [{}, [], 5, {"configs": 5}, {"configs": [5]}, {"configs": [{"route_config": 5}]}])
async def test_an_admin_page_of_another_shape_is_an_actuator_error(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]], dump: object
) -> None:
    url, shown = envoy
    shown["dump"] = dump
    with pytest.raises(ActuatorError, match="cannot read Envoy's configuration"):
        await actuator(session, xds, url).configured()


async def test_an_admin_address_that_is_not_written_yet_is_an_actuator_error(
    session: aiohttp.ClientSession, xds: Path
) -> None:
    def nowhere() -> str:
        raise UnreachableError("no address in admin", "no such file")

    with pytest.raises(ActuatorError, match="cannot read Envoy's configuration"):
        await EnvoyActuator(session, xds, nowhere, "http://127.0.0.1:1", "full").configured()


async def test_an_envoy_that_is_not_there_is_an_actuator_error_with_the_way_out(
    session: aiohttp.ClientSession, xds: Path
) -> None:
    with pytest.raises(ActuatorError) as refused:
        await actuator(session, xds).configured()
    assert "check that Envoy runs" in refused.value.fix
    with pytest.raises(ActuatorError):
        await actuator(session, xds).sample(2)
