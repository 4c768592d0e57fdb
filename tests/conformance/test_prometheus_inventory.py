"""Pools as a real Prometheus lists them: the targets of a job, and the instances of a query."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta

import aiohttp
import pytest

from controlplane.fleet.model import EndpointSource, FleetSpec, PoolSpec, PrometheusEndpoints
from controlplane.fleet.prometheus import PrometheusInventory
from tests.support.processes import Running, ask, free_port, listens

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus")]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    here, port = tmp_path_factory.mktemp("prometheus"), free_port()
    jobs = [
        {
            "job_name": "vllm",
            "static_configs": [{"targets": ["127.0.0.1:1", "127.0.0.1:2"], "labels": {"node": "gpu-a"}}],
        },
        {"job_name": "node", "static_configs": [{"targets": ["127.0.0.1:3"]}]},
    ]
    page = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (here / "prometheus.yml").write_text(json.dumps(page), encoding="utf-8")
    line = [program, f"--config.file={here / 'prometheus.yml'}", f"--storage.tsdb.path={here / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with Running(line, here / "log") as running:
        running.until(lambda: listens(port), "it listens")

        def scraped() -> bool:
            answer = ask(f"{url}/api/v1/query?query=up")
            return answer.status == 200 and len(answer.json["data"]["result"]) == 3

        running.until(scraped, "all are scraped")
        yield url


@pytest.mark.parametrize(("job", "query"), [("vllm", ""), ("", 'up{job="vllm"}')], ids=["job", "query"])
async def test_what_it_scrapes_is_the_pool(prometheus: str, job: str, query: str) -> None:
    spec = PrometheusEndpoints(prometheus, job, query, timeout=timedelta(seconds=20))  # It is asked once.
    inventory = PrometheusInventory(FleetSpec({"primary": PoolSpec(EndpointSource(prometheus=spec))}))
    async with aiohttp.ClientSession() as session:
        following = asyncio.create_task(inventory.follow(session, lambda: None))
        await asyncio.wait_for(inventory.tried(), 30)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    found = inventory.read()
    assert found.problems == ()
    assert [(e.url, e.node) for e in found.endpoints] == [
        ("http://127.0.0.1:1", "gpu-a"),
        ("http://127.0.0.1:2", "gpu-a"),
    ]
