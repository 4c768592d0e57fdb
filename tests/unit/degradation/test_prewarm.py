"""Every endpoint of a pool is warmed, once for each time it is asked."""

from collections import Counter

import aiohttp
import pytest
from aiohttp import web

from controlplane.degradation.action import Prewarm
from controlplane.degradation.actuators.prewarm import PrewarmHand, completions_over
from controlplane.errors import ActuatorError
from controlplane.fleet.model import Endpoint
from tests.support.traffic import served

ENDPOINTS = tuple(Endpoint(f"standby-{n}", "standby", f"http://10.0.0.{n}:8000", model="full") for n in range(2))
WARM = Prewarm("standby", completions=3, prompt="hello", max_tokens=7)


class Engines:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.cold: set[str] = set()

    async def complete(self, endpoint: Endpoint, prompt: str, max_tokens: int) -> str:
        assert (prompt, max_tokens) == ("hello", 7)
        self.asked[endpoint.name] += 1
        return "it answered 503" if endpoint.name in self.cold else ""

    def hand(self) -> PrewarmHand:
        return PrewarmHand(lambda pool: tuple(e for e in ENDPOINTS if e.pool == pool), self.complete)


async def test_every_endpoint_gets_its_completions_and_a_repeated_key_none_more() -> None:
    engines = Engines()
    hand = engines.hand()
    assert "3 completions to each" in (await hand.preflight(WARM)).preview
    assert engines.asked == {}
    for _ in range(2):
        assert await hand.apply(WARM, "k") == "3 completions each from standby-0, standby-1"
    assert engines.asked == {"standby-0": 3, "standby-1": 3}
    await hand.apply(WARM, "another")
    assert engines.asked == {"standby-0": 6, "standby-1": 6}


async def test_the_proof_is_another_completion_of_each() -> None:
    engines = Engines()
    assert await engines.hand().observe(WARM, "k", "") == "standby-0, standby-1 complete"
    engines.cold = {"standby-1"}
    assert await engines.hand().observe(WARM, "k", "") == ""


async def test_an_endpoint_that_stays_cold_is_named() -> None:
    engines = Engines()
    engines.cold = {"standby-1"}
    with pytest.raises(ActuatorError, match="standby is not warm") as failed:
        await engines.hand().apply(WARM, "k")
    assert failed.value.why == "standby-1: it answered 503"


async def test_a_pool_without_endpoints_is_refused_and_undoing_does_nothing() -> None:
    engines = Engines()
    assert "no endpoints" in (await engines.hand().preflight(Prewarm("base"))).refusal
    assert "cools by itself" in await engines.hand().revert(WARM, "k", {})
    assert engines.asked == {}


async def test_completions_go_over_http_and_say_why_there_was_none() -> None:
    asked: list[object] = []

    async def complete(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.Response(status=200 if len(asked) == 1 else 503)

    app = web.Application()
    app.router.add_post("/v1/completions", complete)
    async with served(app) as url, aiohttp.ClientSession() as session:
        ask = completions_over(session)
        endpoint = Endpoint("standby-0", "standby", url, model="full")
        assert await ask(endpoint, "hello", 7) == ""
        assert asked == [{"prompt": "hello", "max_tokens": 7, "model": "full"}]
        assert await ask(endpoint, "hello", 7) == "it answered 503"
        assert "Connect" in await ask(Endpoint("gone", "standby", "http://127.0.0.1:1"), "hello", 7)
