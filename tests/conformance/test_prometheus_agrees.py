"""A real Prometheus and the windows answer alike on the same data: quantiles over merged histograms, and growth."""

import json
import random
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from controlplane.probes.promql import read_answer
from controlplane.signals.quantile import histogram_quantiles
from tests.support.processes import free_port

prometheus = pytest.mark.debian("prometheus")

EDGES = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, float("inf"))
HISTOGRAMS = 60
ENDPOINTS = 3
AT = 1_700_000_000


def observations(seed: int) -> list[list[list[int]]]:
    """Return cumulative counts by histogram and endpoint: empty ones, lonely ones, and ones beyond the last edge."""
    rnd = random.Random(seed)
    made = []
    for i in range(HISTOGRAMS):
        spread = [0] * len(EDGES) if i % 20 == 0 else [rnd.choice((0, 0, 1, 3, 50, 1000)) for _ in EDGES]
        if i % 7 == 0:
            spread = [0] * (len(EDGES) - 1) + [5]
        made.append([list(np.cumsum([rnd.randint(0, n) for n in spread])) for _ in range(ENDPOINTS)])
    return made


def openmetrics(data: list[list[list[int]]]) -> str:
    lines = ["# TYPE lat histogram"]
    for i, endpoints in enumerate(data):
        for e, cumulative in enumerate(endpoints):
            for edge, count in zip(EDGES, cumulative, strict=True):
                le = "+Inf" if edge == float("inf") else f"{edge}"
                lines.append(f'lat_bucket{{n="{i}",instance="{e}",le="{le}"}} {count} {AT}')
    return "\n".join([*lines, "# EOF", ""])


@contextmanager
def answering(data: str, directory: Path) -> Iterator[str]:
    """Run a Prometheus over the data, on the loopback address, and stop it again."""
    tool = shutil.which("prometheus")
    if tool is None:
        pytest.skip("needs the Debian package prometheus")
    page, tsdb = directory / "page", directory / "tsdb"
    page.write_text(data)
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(page), str(tsdb)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    (directory / "prometheus.yml").write_text("{}\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    running = subprocess.Popen(
        [
            tool, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={tsdb}",
            "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()  # noqa: S310 - loopback
                break
            except OSError:
                assert time.monotonic() < deadline, "Prometheus did not become ready"
                assert running.poll() is None, "Prometheus ended"
                time.sleep(0.1)
        yield url
    finally:
        running.terminate()
        running.wait(20)


def ask(url: str, query: str) -> bytes:
    asked = urllib.parse.urlencode({"query": query, "time": AT})
    with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=10) as response:  # noqa: S310 - loopback
        content: bytes = response.read()
    return content


@prometheus
def test_quantiles_of_merged_histograms_are_prometheus_own(tmp_path: Path) -> None:
    data = observations(7)
    merged = np.array([np.sum(endpoints, axis=0) for endpoints in data], np.float64)
    with answering(openmetrics(data), tmp_path) as url:
        for q in (0.5, 0.95, 0.99, 0.999):
            ours = histogram_quantiles(q, EDGES, merged)
            told = json.loads(ask(url, f"histogram_quantile({q}, sum by (n, le) (lat_bucket))"))["data"]["result"]
            theirs = {int(item["metric"]["n"]): float(item["value"][1]) for item in told}
            assert len(theirs) == HISTOGRAMS
            for i in range(HISTOGRAMS):
                mine = ours.at(i)
                if mine is None:
                    assert isnan(theirs[i])
                else:
                    assert theirs[i] == pytest.approx(mine.value, rel=1e-9), (q, i)
                    assert mine.low <= theirs[i] <= mine.high


@prometheus
def test_a_real_servers_answer_is_read(tmp_path: Path) -> None:
    with answering(openmetrics(observations(1)), tmp_path) as url:
        answer = read_answer(ask(url, 'sum by (instance) (lat_bucket{n="1", le="+Inf"})'))
        assert answer.failure is None
        assert {labels["instance"] for labels, _ in answer.series} == {"0", "1", "2"}
