"""How far one process reaches, and what is beyond: 100, 1,000, 10,000 endpoints; 100,000 in shards; PromQL instead.

Measured are single processes. Each looks at N simulated endpoints: a health check a second and a metrics page every 5 s
from each, over held connections; then 5 of them are killed and 5 others stopped, and it is timed until each is known
down. Two of the ten shards of 100,000 endpoints are run for real, one after the other; that ten of them stand side by
side is arithmetic. `bench.reach` is the process that measures itself.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from time import monotonic, perf_counter, process_time, sleep
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np

from bench.figures import Figure
from bench.prober import simulated
from bench.simulated import EDGES, address
from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Fetched, PromqlSpec
from controlplane.probes.promql import PromqlProbe
from controlplane.signals.quantile import histogram_quantiles

COMMAND = "make bench ONLY=scale"
SIZES = (100, 1_000, 10_000)
FLEET, SHARDS = 100_000, 10
RUN_SHARDS = (0, 7)
"""Which of them are run."""
SERIES = (1_000, 10_000, 100_000)
SCRAPED = 500
"""Endpoints that a real Prometheus scrapes here."""
QUERIES = ("latency_p99", "error_rate", "queue_depth", "kv_cache_utilization", "tokens_per_s")


def shard_of(name: str, shards: int) -> int:
    """Return whose an endpoint is: the shard that wins a draw by the hash of both names (rendezvous hashing)."""
    return max(range(shards), key=lambda number: blake2b(f"{number}/{name}".encode(), digest_size=8).digest())


def run() -> list[Figure]:
    """Measure sizes, shards, and PromQL."""
    figures: list[Figure] = []
    reached = {size: reach([address(i) for i in range(size)]) for size in SIZES}
    for size, found in reached.items():
        figures += _figures(f"{size} endpoints", found)
    return [*figures, *_shards(), *_merged(), *_promql(), *_prometheus()]


def reach(hosts: list[str]) -> dict[str, Any]:
    """Run a process that looks at these addresses, and at ten that die and hang; return what it measured of itself."""
    with simulated() as port, _victim() as killed, _victim() as hung:
        plan = {"hosts": hosts, "port": port, "killed": killed, "hung": hung, "warm_s": 8, "seconds": 8}
        line = [sys.executable, "-m", "bench.reach"]
        done = subprocess.run(line, input=json.dumps(plan), stdout=subprocess.PIPE, text=True, check=True, timeout=200)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _victim() -> Iterator[dict[str, int]]:
    """Run simulated endpoints of their own, to be killed or stopped."""
    line = [sys.executable, "-m", "bench.simulated"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield {"port": int(child.stdout.readline()) if child.stdout else 0, "pid": child.pid}
        finally:
            child.kill()


def _figures(what: str, found: dict[str, Any]) -> list[Figure]:
    def figure(name: str, value: float, unit: str, n: int = 1) -> Figure:
        return Figure(f"{what}: {name}", round(value, 2), unit, n, COMMAND)

    return [
        figure("share of one core", found["cpu_share"] * 100, "%"),
        figure("resident memory", found["rss_mib"], "MiB"),
        figure("verdict pass, CPU", found["pass_ms"], "ms", found["passes"]),
        figure("loop lag, p99", found["lag_p99_ms"], "ms"),
        figure("start until every connection is held", found["connected_s"], "s"),
        figure("SIGKILL of 5 -> the last is known down", found["killed_ms"], "ms"),
        figure("SIGSTOP of 5 -> the last is known down", found["hung_ms"], "ms (15 s: given up)"),
        figure("looks that failed while all was well", found["failed"], f"of {found['looks']:g}"),
    ]


def _shards() -> list[Figure]:
    """Deal 100,000 endpoints to ten shards; run two of the ten."""
    began = process_time()
    hosts = [address(i) for i in range(FLEET)]
    dealt: list[list[str]] = [[] for _ in range(SHARDS)]
    for host in hosts:
        dealt[shard_of(host, SHARDS)].append(host)
    took = process_time() - began
    moved = sum(shard_of(host, SHARDS + 1) == SHARDS for host in hosts) / FLEET
    largest = max(map(len, dealt))
    figures = [
        Figure(
            "100,000 dealt to 10 shards: the largest", largest, "endpoints", 1, COMMAND, "< 10,500", largest < 10_500
        ),
        Figure("dealing them, CPU", round(took, 2), "s", 1, COMMAND),
        Figure("an eleventh shard: share of endpoints that move", round(moved * 100, 2), "%", 1, COMMAND),
    ]
    found = [reach(dealt[number]) for number in RUN_SHARDS]
    for number, one in zip(RUN_SHARDS, found, strict=True):
        figures += _figures(f"shard {number} of 10 ({len(dealt[number])} endpoints)", one)
    whole = statistics.mean(one["cpu_share"] / one["endpoints"] for one in found) * FLEET
    memory = statistics.mean(one["rss_mib"] for one in found) * SHARDS
    return [
        *figures,
        Figure("arithmetic: 10 shards together", round(whole, 2), "cores", len(found), COMMAND),
        Figure("arithmetic: 10 shards together, memory", round(memory), "MiB", len(found), COMMAND),
    ]


def _merged() -> list[Figure]:
    """Take the P99 of 100,000 histograms at once, of ten shards' sums, and as a mean of ten P99s; one shard is slow."""
    drawn = np.random.default_rng(7)
    seconds = np.where(np.arange(FLEET) % SHARDS == 0, 2.0, 0.3)  # The mean of an endpoint's own latencies.
    shares = 1.0 - np.exp(-np.array([*EDGES, np.inf]) / seconds[:, None])
    counts = np.round(drawn.poisson(600, FLEET)[:, None] * shares)
    edges = [*EDGES, float("inf")]
    whole = float(histogram_quantiles(0.99, edges, counts.sum(axis=0, keepdims=True)).value[0])
    sums = counts.reshape(-1, SHARDS, len(edges)).sum(axis=0)
    began = perf_counter()
    merged = float(histogram_quantiles(0.99, edges, sums.sum(axis=0, keepdims=True)).value[0])
    took = perf_counter() - began
    mean = float(histogram_quantiles(0.99, edges, sums).value.mean())
    off = abs(merged / whole - 1)
    return [
        Figure("P99 of ten shards' sums, off that of the whole", round(off * 100, 6), "%", 1, COMMAND, "0 %", off == 0),
        Figure("merging ten shards' sums", round(took * 1e6), "us", 1, COMMAND),
        Figure("the mean of ten P99s instead, off", round((mean / whole - 1) * 100, 1), "%", 1, COMMAND),
    ]


def _promql() -> list[Figure]:
    """Read answers of a PromQL server with a series an endpoint, five signals, as the probe does every 5 s."""
    figures = []
    for count in SERIES:
        endpoints = [Endpoint(f"e{i}", "primary", f"http://{address(i)}:8000", model="full") for i in range(count)]
        rows = ",".join(
            f'{{"metric":{{"instance":"{address(i)}:8000","pool":"primary"}},"value":[1700000000.1,"0.{i % 10}"]}}'
            for i in range(count)
        )
        body = f'{{"status":"success","data":{{"resultType":"vector","result":[{rows}]}}}}'.encode()
        cpu = asyncio.run(_answered(body, endpoints))
        figures.append(
            Figure(f"PromQL, {count} series x 5 signals: read and dealt, CPU", round(cpu * 1e3, 1), "ms", 1, COMMAND)
        )
    return figures


async def _answered(body: bytes, endpoints: list[Endpoint]) -> float:
    async def fetch(url: str, within: timedelta) -> Fetched:  # noqa: ARG001 - everybody gets the same
        return Fetched(body)

    spec = PromqlSpec("http://127.0.0.1:9", {name: name for name in QUERIES}, every=timedelta(minutes=10))
    probe = PromqlProbe(spec, fetch)
    began = process_time()
    looks = [await probe.look(endpoint) for endpoint in endpoints]
    took = process_time() - began
    if not all(look.page and len(look.page.gauges) == len(QUERIES) for look in looks):
        raise SystemExit("an endpoint got no answer")
    return took


def _prometheus() -> list[Figure]:
    """Ask a real Prometheus that scrapes 500 endpoints for a P99 over all of them, and an endpoint each."""
    with simulated() as port, tempfile.TemporaryDirectory() as folder, _scraping(Path(folder), port) as url:
        inner = "rate(vllm:e2e_request_latency_seconds_bucket[20s])"
        asked = {
            "the pool's P99": f"histogram_quantile(0.99,sum by (le)({inner}))",
            "a P99 an endpoint": f"histogram_quantile(0.99,sum by (le,instance)({inner}))",
        }
        figures = []
        for what, query in asked.items():
            took = [_ask(url, query) for _ in range(5)]
            name = f"Prometheus, {SCRAPED} endpoints: answer to {what}"
            figures.append(Figure(name, round(statistics.median(took) * 1e3, 1), "ms", len(took), COMMAND))
    return figures


def _ask(url: str, query: str) -> float:
    began = monotonic()
    with urlopen(f"{url}/api/v1/query?query={quote(query)}", timeout=30) as answer:  # noqa: S310 - loopback
        found = json.load(answer)["data"]["result"]
    if not found:
        raise SystemExit(f"no answer to {query}")
    return monotonic() - began


@contextmanager
def _scraping(folder: Path, port: int) -> Iterator[str]:
    """Run Debian's Prometheus over the simulated endpoints, and give its URL once it has two scrapes of each."""
    from bench.classic import free_ports  # noqa: PLC0415

    (own,) = free_ports(1)
    targets = [f"{address(i)}:{port}" for i in range(SCRAPED)]
    page = {
        "global": {"scrape_interval": "5s"},
        "scrape_configs": [{"job_name": "fleet", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(page), encoding="utf-8")
    line = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"]  # fmt: skip
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as child:
        try:
            sleep(20)
            yield f"http://127.0.0.1:{own}"
        finally:
            child.terminate()
