"""Serving from the cache: endpoints fill it while they serve, and a switch finds it warm, with the fleet behind it."""

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from controlplane.target.cache_warm import WarmSpec, run_warm
from tests.support.fleets import SMALL, complete, fleet, kill, metric, node, page, route, write
from tests.support.processes import until

pytestmark = pytest.mark.journey
WITH_FAILOVER = '{"primary": PoolSpec(1, "base"), "cache": PoolSpec(1, "base", ("primary",), serves="cache")}'


def served_by(url: str, prompt: str = "why") -> str:
    return complete(url, prompt=prompt)[1].get("x-served-by", "")


def stores(cache: str, gateway: str, prompt: str = "why") -> bool:
    """Ask the fleet once more, and tell whether the cache has stored an answer: one that it has no time for is lost."""
    complete(gateway, prompt=prompt)
    return metric(page(f"{cache}/metrics"), "response_cache_published_total", "stored") >= 1


def test_a_switch_finds_the_cache_warm_and_its_misses_go_to_the_fleet(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL) as (_, ready):
        gateway, cache = ready["gateway"], ready["endpoints"]["cache-0"]
        _, headers, from_fleet = complete(gateway, prompt="asked before")
        assert headers["x-served-by"] == "primary-0"
        until(lambda: stores(cache, gateway, "asked before"))
        route(tmp_path, cache=100)
        until(lambda: served_by(gateway, prompt="asked before") == "cache-0")
        status, headers, from_cache = complete(gateway, prompt="asked before")
        assert (status, headers["x-cache"], headers["x-cache-tier"]) == (200, "hit", "memory")
        assert from_cache["choices"] == from_fleet["choices"]
        status, headers, _ = complete(gateway, prompt="never asked")
        assert (status, headers["x-cache"], headers["x-cache-filled-by"]) == (200, "miss", "primary-0")
        assert headers["x-degradation-level"] == "none"
        assert complete(gateway, prompt="never asked")[1]["x-cache"] == "hit"


def test_stored_answers_outlive_the_whole_fleet_and_the_caches_own_death(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL) as (_, ready):
        gateway, cache = ready["gateway"], ready["endpoints"]["cache-0"]
        until(lambda: stores(cache, gateway))
        route(tmp_path, cache=100)
        until(lambda: served_by(gateway) == "cache-0")
        write(tmp_path / "nodes" / "node-primary-0.hold", {"until": time.time() + 60, "lease": "test"})
        kill(node(tmp_path, "primary-0"))
        assert complete(gateway)[1]["x-cache"] == "hit"
        status, headers, _ = complete(gateway, prompt="new")
        assert (status, headers["x-cache"]) == (503, "miss")
        before = node(tmp_path, "cache-0")
        kill(before)
        until(lambda: node(tmp_path, "cache-0")["pid"] != before["pid"])
        until(lambda: complete(gateway)[0] == 200)
        assert complete(gateway)[1]["x-cache"] == "hit"


def test_warm_fetches_the_most_asked_and_a_file_of_prompts(tmp_path: Path) -> None:
    run_dir, prompts = tmp_path / "run", tmp_path / "prompts.jsonl"
    bodies = [{"model": "reference", "prompt": f"question {n}", "max_tokens": 2, "temperature": 0} for n in range(3)]
    prompts.write_text("\n".join(map(json.dumps, bodies)) + "\n")
    with fleet(run_dir, pools=SMALL) as (_, ready):
        assert run_warm(WarmSpec(run_dir, prompts=prompts))["filled"] == 3
        assert run_warm(WarmSpec(run_dir, prompts=prompts))["known"] >= 3
        headers = complete(ready["endpoints"]["cache-0"], prompt="question 1", max_tokens=2)[1]
        assert headers["x-cache"] == "hit"


def test_users_behind_the_gateway_cannot_plant_answers(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL) as (_, ready):
        assert (tmp_path / "cache" / "token").stat().st_mode & 0o077 == 0
        route(tmp_path, cache=100)
        until(lambda: served_by(ready["gateway"]) == "cache-0")
        request = Request(f"{ready['gateway']}/cache/answers", b"{}")  # noqa: S310
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=5)  # noqa: S310
        assert refused.value.code == 401
        refused.value.close()


def test_a_full_cache_sheds_what_is_not_stored_and_the_gateway_does_not_take_it_to_the_fleet(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=WITH_FAILOVER, cache="CacheSpec(max_fills=0)") as (_, ready):
        gateway, cache = ready["gateway"], ready["endpoints"]["cache-0"]
        until(lambda: stores(cache, gateway))
        route(tmp_path, cache=100)
        until(lambda: served_by(gateway) == "cache-0")
        assert complete(gateway)[1]["x-cache"] == "hit"
        status, headers, _ = complete(gateway, prompt="new")
        assert (status, headers["x-cache"], headers["retry-after"]) == (503, "shed", "1")
        assert headers["x-served-by"] == "cache-0"


def test_a_dead_cache_is_failed_over_to_the_fleet(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=WITH_FAILOVER) as (_, ready):
        route(tmp_path, cache=100)
        until(lambda: served_by(ready["gateway"]) == "cache-0")
        write(tmp_path / "nodes" / "node-cache-0.hold", {"until": time.time() + 60, "lease": "test"})
        kill(node(tmp_path, "cache-0"))
        for _ in range(20):
            status, headers, _ = complete(ready["gateway"])
            assert (status, headers["x-served-by"]) == (200, "primary-0")
