"""Following a Kubernetes API server: list, watch, resume, 410."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes.events import EventsProbe
from controlplane.probes.probe import EventsSpec, Failure, Page
from tests.support.fake_api import FakeApi, event, fake_api, node, pod
from tests.support.waiting import eventually

until = partial(eventually, within_s=5.0)

ENDPOINT = Endpoint("vllm-0", "primary", "http://10.1.2.3:8000", "node-a")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with fake_api() as running:
        running.put("pods", pod("vllm-0", ip="10.1.2.3", node="node-a", restarts=1))
        running.put("nodes", node("node-a"))
        yield running


@pytest.fixture
async def probe(api: FakeApi, tmp_path: Path) -> AsyncIterator[EventsProbe]:
    token = tmp_path / "token"
    token.write_text("secret\n")
    spec = EventsSpec(api.url, selector="app=vllm", token_file=str(token), ca_file="", every=timedelta(seconds=1))
    async with aiohttp.ClientSession() as session:
        made = EventsProbe(session, spec)
        following = asyncio.create_task(made.follow())
        await until(lambda: api.watched() == 3)
        yield made
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def page(probe: EventsProbe, endpoint: Endpoint = ENDPOINT) -> Page:
    look = await probe.look(endpoint)
    assert look.ok, look.detail
    assert look.page is not None
    return look.page


async def test_a_list_tells_what_there_is(probe: EventsProbe, api: FakeApi) -> None:
    seen = await page(probe)
    assert seen.counters == {"pod_restarts": 1, "pods_oom_killed": 0}
    assert seen.gauges == {"pods_unschedulable": 0, "pods_not_ready": 0, "nodes_not_ready": 0}
    assert api.tokens == {"Bearer secret"}


async def test_a_pod_is_found_by_its_address_too(probe: EventsProbe) -> None:
    assert (await page(probe, Endpoint("other", "primary", "http://10.1.2.3:9000"))).counters["pod_restarts"] == 1
    assert (await page(probe, Endpoint("none", "primary", "http://10.9.9.9:9000"))).counters == {}


async def test_an_oom_kill_counts_once_when_it_happens(probe: EventsProbe, api: FakeApi) -> None:
    api.put("pods", pod("vllm-0", ip="10.1.2.3", restarts=2, ended="OOMKilled"), "MODIFIED")
    await until(lambda: probe.cluster.pods["vllm-0"].restarts == 2)
    api.put("pods", pod("vllm-0", ip="10.1.2.3", restarts=2, ended="OOMKilled"), "MODIFIED")
    api.put("pods", pod("vllm-1"))
    await until(lambda: "vllm-1" in probe.cluster.pods)
    seen = await page(probe)
    assert seen.counters == {"pod_restarts": 2, "pods_oom_killed": 1}
    assert seen.notes == ("OOMKilled vllm-0",)
    assert (await page(probe)).notes == ()


async def test_a_node_that_is_not_ready_and_a_pod_without_a_place_are_told(probe: EventsProbe, api: FakeApi) -> None:
    api.put("nodes", node("node-a", ready=False), "MODIFIED")
    api.put("pods", pod("vllm-9", placed=False))
    api.put("events", event("e1", "FailedScheduling", "vllm-9", "0/5 nodes: Insufficient nvidia.com/gpu"))
    api.put("events", event("e2", "Pulled", "vllm-9"))
    await until(lambda: probe.cluster.count == 2 and "vllm-9" in probe.cluster.pods)
    seen = await page(probe)
    assert seen.gauges == {"pods_unschedulable": 1, "pods_not_ready": 1, "nodes_not_ready": 1}
    assert sorted(seen.notes) == [
        "FailedScheduling vllm-9: 0/5 nodes: Insufficient nvidia.com/gpu",
        "NodeNotReady node-a",
    ]


async def test_an_event_that_was_over_long_before_is_not_told(probe: EventsProbe, api: FakeApi) -> None:
    old = event("e1", "FailedScheduling", "vllm-9") | {"lastTimestamp": "2020-01-01T00:00:00Z"}
    api.put("events", old)
    api.put("events", event("e2", "Unhealthy", "vllm-9"))
    await until(lambda: probe.cluster.count > 0)
    assert (await page(probe)).notes == ("Unhealthy vllm-9: ",)


async def test_a_watch_that_ends_is_begun_again_without_a_list(probe: EventsProbe, api: FakeApi) -> None:
    assert len(api.lists) == 3
    api.end_watches()
    await until(lambda: api.watched() == 3)
    api.put("pods", pod("vllm-0", ip="10.1.2.3", restarts=5), "MODIFIED")
    await until(lambda: probe.cluster.pods["vllm-0"].restarts == 5)
    assert len(api.lists) == 3


async def test_a_watch_that_is_told_gone_lists_anew(probe: EventsProbe, api: FakeApi) -> None:
    api.objects["pods"]["vllm-0"] = pod("vllm-0", ip="10.1.2.3", restarts=7)
    api.version += 1000
    api.oldest = api.version
    api.end_watches()
    await until(lambda: len(api.lists) == 6)
    await until(lambda: api.watched() == 3)
    assert (await page(probe)).counters["pod_restarts"] == 7


async def test_gone_in_the_middle_of_a_stream_lists_anew_too(probe: EventsProbe, api: FakeApi) -> None:
    api.say("pods", {"type": "ERROR", "object": {"kind": "Status", "code": 410}})
    await until(lambda: api.lists.count("pods") == 2)
    assert (await page(probe)).counters["pod_restarts"] == 1


async def test_a_bookmark_moves_the_version_and_nothing_else(probe: EventsProbe, api: FakeApi) -> None:
    api.version += 50
    for kind in ("pods", "nodes", "events"):
        api.say(kind, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(api.version)}}})
    api.oldest = api.version
    api.end_watches()
    await until(lambda: api.watched() == 3)
    assert len(api.lists) == 3
    assert (await page(probe)).counters["pod_restarts"] == 1


async def test_a_line_that_is_no_event_costs_one_watch(probe: EventsProbe, api: FakeApi) -> None:
    api.say("pods", {"odd": True})
    await asyncio.sleep(0.02)
    await until(lambda: api.watched() == 3)
    assert (await page(probe)).counters["pod_restarts"] == 1


async def test_without_an_api_server_everything_is_unknown() -> None:
    async with aiohttp.ClientSession() as session:
        probe = EventsProbe(session, EventsSpec("http://127.0.0.1:1", token_file="", ca_file=""))
        following = asyncio.create_task(probe.follow())
        await until(lambda: probe._pods.trouble)
        look = await probe.look(ENDPOINT)
        assert look.failure is Failure.NETWORK
        assert "cannot ask the API server http://127.0.0.1:1" in look.detail
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
