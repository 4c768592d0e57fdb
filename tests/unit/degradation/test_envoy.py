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

from controlplane.degradation.action import Shed
from controlplane.degradation.actuator import RoutePlan, same_shed
from controlplane.degradation.actuators.envoy import EnvoyActuator
from controlplane.degradation.actuators.envoy_documents import set_cordons, set_plan, shed_of
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError, UnreachableError
from controlplane.probes.probe import InferenceSpec
from controlplane.wholefile import write_whole

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
    set_plan(doc, RoutePlan({"base": 50, "standby": 50}, Level.P0))
    assert weights(doc) == {"primary": 0, "standby": 50, "base": 50}
    config = doc["resources"][0]
    assert config["response_headers_to_add"][0]["header"]["value"] == "P0"
    assert config["virtual_hosts"][0]["routes"][1]["response_headers_to_add"][0]["header"]["value"] == "P0"


def test_a_plan_leaves_everything_else_as_it_was() -> None:
    doc, original = document(), document()
    set_plan(doc, P0_PLAN)
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
    set_plan(once, P0_PLAN)
    twice = copy.deepcopy(once)
    set_plan(twice, P0_PLAN)
    assert twice == once


def test_a_pool_without_an_entry_is_refused_unless_it_gets_nothing() -> None:
    with pytest.raises(LookupError, match="cache"):
        set_plan(document(), RoutePlan({"cache": 100}))
    set_plan(document(), RoutePlan({"cache": 0, "primary": 100}))


SHED = Shed(20.0, burst=30.0, floor=2)


def test_shedding_puts_a_bucket_on_the_split_and_a_floor_before_it_and_takes_both_away_again() -> None:
    doc, original = document(), document()
    set_plan(doc, RoutePlan({"primary": 100}, Level.P2, SHED))
    healthz, floor, split = doc["resources"][0]["virtual_hosts"][0]["routes"]
    assert healthz["match"] == {"path": "/healthz"}
    assert floor["direct_response"]["status"] == 429
    assert floor["match"]["headers"][0]["range_match"] == {"start": "3", "end": str(2**63 - 1)}
    bucket = split["typed_per_filter_config"]["envoy.filters.http.local_ratelimit"]["token_bucket"]
    assert bucket == {"max_tokens": 30, "tokens_per_fill": 2, "fill_interval": "0.100000s"}
    assert shed_of(doc["resources"][0]) == SHED
    set_plan(doc, RoutePlan({"primary": 100}, Level.P2, SHED))
    assert len(doc["resources"][0]["virtual_hosts"][0]["routes"]) == 3
    set_plan(doc, RoutePlan({"primary": 100}))
    set_plan(original, RoutePlan({"primary": 100}))
    assert doc == original


@pytest.mark.parametrize("rate", [0.2, 1.0, 7.0, 33.3, 1000.0, 12_345.6])
def test_the_rate_that_is_read_back_is_the_rate_that_was_asked_for(rate: float) -> None:
    doc = document()
    set_plan(doc, RoutePlan({"primary": 100}, shed=Shed(rate)))
    assert same_shed(shed_of(doc["resources"][0]), Shed(rate))
    assert not same_shed(shed_of(doc["resources"][0]), Shed(rate * 1.1))
    assert not same_shed(shed_of(doc["resources"][0]), None)


def test_a_rate_limit_of_somebody_elses_is_never_touched() -> None:
    doc = document()
    theirs = {"envoy.filters.http.local_ratelimit": {"stat_prefix": "theirs"}}
    doc["resources"][0]["virtual_hosts"][0]["routes"][1]["typed_per_filter_config"] = copy.deepcopy(theirs)
    with pytest.raises(ValueError, match="a rate limit of its own"):
        set_plan(doc, RoutePlan({"primary": 100}, shed=SHED))
    set_plan(doc, RoutePlan({"primary": 100}))
    assert doc["resources"][0]["virtual_hosts"][0]["routes"][1]["typed_per_filter_config"] == theirs


def test_a_bucket_that_would_let_nobody_in_is_refused() -> None:
    with pytest.raises(ValueError, match="let nobody in"):
        set_plan(document(), RoutePlan({"primary": 100}, shed=Shed(0.0)))


def places() -> dict[str, Any]:
    entries: list[dict[str, Any]] = [
        {"endpoint": {}, "metadata": {"filter_metadata": {"envoy.lb": {"endpoint": f"primary-{n}"}}}} for n in range(3)
    ]
    entries[2]["health_status"] = "DRAINING"
    return {"resources": [{"cluster_name": "primary", "endpoints": [{"lb_endpoints": entries}]}]}


def test_a_cordon_drains_one_endpoint_and_gives_back_only_what_it_took() -> None:
    doc = places()
    assert set_cordons(doc, ("primary-0",))
    entries = doc["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert [entry.get("health_status") for entry in entries] == ["DRAINING", None, "DRAINING"]
    assert not set_cordons(doc, ("primary-0",))
    assert set_cordons(doc, ())
    assert doc == places()


def test_the_last_endpoint_of_a_pool_is_not_cordoned() -> None:
    with pytest.raises(ValueError, match="without endpoints"):
        set_cordons(places(), ("primary-0", "primary-1"))


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    return EnvoyActuator(session, xds, lambda: url, Sampler(session, url, "full"))


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

    async def dump(request: web.Request) -> web.Response:
        endpoints = request.query.get("resource") == "dynamic_endpoint_configs"
        page = shown.get("endpoints", {}) if endpoints else shown["dump"]
        return web.Response(text=json.dumps(page), content_type="application/json")

    async def stats(_: web.Request) -> web.Response:
        found = [{"name": "http.gateway.rds.routes.update_rejected", "value": shown.get("rejected", 0)}]
        return web.json_response({"stats": [*found, {"histograms": {}}]})

    async def complete(request: web.Request) -> web.Response:
        shown["asked"] = await request.json()
        return web.json_response({}, status=shown["status"], headers=shown["headers"])

    app = web.Application()
    app.router.add_get("/config_dump", dump)
    app.router.add_get("/stats", stats)
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
    set_plan(doc, RoutePlan({"standby": 90, "primary": 10}, Level.P0))
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
    assert (shown["asked"]["prompt"], shown["asked"]["max_tokens"]) == ("ping", InferenceSpec().max_tokens)


async def test_the_proof_asks_what_the_probes_ask_so_that_a_cache_knows_its_answer(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown |= {"dump": dumped(document()), "headers": {}}
    asked = InferenceSpec(prompt="2 + 2", max_tokens=3)
    await EnvoyActuator(session, xds, lambda: url, Sampler(session, url, "full", asked)).sample(1)
    assert {k: shown["asked"][k] for k in ("prompt", "max_tokens", "temperature")} == {
        "prompt": "2 + 2", "max_tokens": 3, "temperature": 0,
    }  # fmt: skip


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
        await EnvoyActuator(session, xds, nowhere, Sampler(session, "http://127.0.0.1:1", "full")).configured()


async def test_an_envoy_that_is_not_there_is_an_actuator_error_with_the_way_out(
    session: aiohttp.ClientSession, xds: Path
) -> None:
    with pytest.raises(ActuatorError) as refused:
        await actuator(session, xds).configured()
    assert "check that Envoy runs" in refused.value.fix
    with pytest.raises(ActuatorError):
        await actuator(session, xds).sample(2)


async def test_an_unknown_pool_an_unknown_endpoint_and_a_deaf_envoy_are_refused_before_anything_is_touched(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown["dump"] = dumped(document())
    (xds / "eds-primary.json").write_text(json.dumps(places()), encoding="utf-8")
    before = held(xds)
    lever = actuator(session, xds, url)
    assert "cache" in (await lever.preflight(RoutePlan({"cache": 100}))).refusal
    assert "primary-9" in (await lever.preflight(RoutePlan({"primary": 100}, cordoned=("primary-9",)))).refusal
    assert "local_ratelimit" in (await lever.preflight(RoutePlan({"primary": 100}, shed=SHED))).refusal
    assert "cannot read" in (await actuator(session, xds).preflight(P0_PLAN)).refusal
    fine = await lever.preflight(RoutePlan({"standby": 100}, Level.P0, cordoned=("primary-0",)))
    assert fine.refusal == ""
    assert "standby" in fine.preview
    assert held(xds) == before


async def test_a_disk_that_fills_between_two_files_leaves_both_as_they_were(
    session: aiohttp.ClientSession, xds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (xds / "eds-primary.json").write_text(json.dumps(places()), encoding="utf-8")
    before = held(xds)

    def only_endpoints(path: Path, text: str) -> None:
        if path.name == "rds.json":
            raise OSError(28, "No space left on device")
        write_whole(path, text)

    monkeypatch.setattr("controlplane.degradation.actuators.envoy.write_whole", only_endpoints)
    with pytest.raises(ActuatorError, match=r"rds\.json"):
        await actuator(session, xds).apply(RoutePlan({"primary": 100}, cordoned=("primary-0",)), "k")
    assert held(xds) == before


async def test_an_envoy_that_refuses_the_new_file_is_seen_to_have_refused_it(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown["dump"] = dumped(document())
    lever = actuator(session, xds, url)
    assert (await lever.preflight(P0_PLAN)).refusal == ""
    await lever.apply(P0_PLAN, "k")
    assert (await lever.configured()).rejected == ""
    shown["rejected"] = 1
    assert "refused the newest configuration" in (await lever.configured()).rejected


async def test_a_refusal_that_the_gateway_signs_is_its_answer_and_one_of_an_endpoint_is_not(
    session: aiohttp.ClientSession, xds: Path, envoy: tuple[str, dict[str, Any]]
) -> None:
    url, shown = envoy
    shown |= {"dump": dumped(document()), "status": 429, "headers": {"x-served-by": "gateway"}}
    assert (await actuator(session, xds, url).sample(1)).answered_by == ("gateway",)
    shown["headers"] = {"x-served-by": "primary-0"}
    assert (await actuator(session, xds, url).sample(1)).answered_by == ("",)
