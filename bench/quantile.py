"""1,000 P99s over 12 buckets each, a tick: our windows against Prometheus' recording rules, in the same run.

Ours is one tick of a fleet of 1,000 endpoints, each a pool of its own: taking in a scrape of each, the growth over the
window (12 samples an endpoint) and the quantile with its bounds. Prometheus' figure is the CPU of an evaluation of
1,000 rules `histogram_quantile(0.99, sum by (le) (rate(...)))` over the same number of samples: it selects the series
and stores the results besides. Its scrapes are measured in a run without rules, and taken off.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path

import numpy as np
import psutil

from bench.figures import Figure
from controlplane.signals.quantile import histogram_quantiles
from controlplane.signals.window import CounterMatrix

COMMAND = "make bench ONLY=quantile"
SERIES = 1_000
EDGES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, inf)
SAMPLES = 12
SCRAPE_S, EVALUATE_S = 2, 5
MEASURE_S = 20
TICKS = 50
GOAL_S = 0.010


def run() -> list[Figure]:
    """Measure ours and, where it is installed, Prometheus."""
    whole, arithmetic = _ours()
    ours = statistics.median(whole)
    figures = [
        Figure("quantile and bounds alone", round(statistics.median(arithmetic) * 1e3, 3), "ms of CPU", TICKS, COMMAND)
    ]
    peer = _prometheus()
    what = f"{SERIES} P99s over {len(EDGES)} buckets, a tick"
    figures.append(
        Figure(what, round(ours * 1e3, 2), "ms of CPU", TICKS, COMMAND, f"<= {GOAL_S * 1e3:g} ms", ours <= GOAL_S,
               "Prometheus, an evaluation, ms" if peer else "", round(peer * 1e3, 1) if peer else None,
               ours / peer if peer else None)
    )  # fmt: skip
    return figures


def _ours() -> tuple[list[float], list[float]]:
    random = np.random.default_rng(7)
    window = CounterMatrix(SAMPLES * SCRAPE_S, len(EDGES))
    counts = np.zeros((SERIES, len(EDGES)))
    whole, arithmetic = [], []
    for tick in range(SAMPLES + TICKS):
        counts += random.integers(0, 20, counts.shape).cumsum(axis=1)
        scraped = [tuple(row) for row in counts.tolist()]
        now = 100.0 + tick * SCRAPE_S
        began = time.process_time()
        for row, values in enumerate(scraped):
            window.add(row, now, values)
        grown = window.increase(now).grown
        between = time.process_time()
        histogram_quantiles(0.99, EDGES, grown)
        ended = time.process_time()
        if tick >= SAMPLES:
            whole.append(ended - began)
            arithmetic.append(ended - between)
    return whole, arithmetic


class _Page(BaseHTTPRequestHandler):
    """A page of every histogram, which grows with time."""

    def do_GET(self) -> None:
        """Give the page."""
        grown = int(time.monotonic() * 100)
        bounds = [f"{edge:g}" if edge != inf else "+Inf" for edge in EDGES]
        lines = ["# TYPE x histogram"]
        for i in range(SERIES):
            lines += [f'x_bucket{{n="{i}",le="{le}"}} {grown * (k + 1) // 12}' for k, le in enumerate(bounds)]
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _prometheus() -> float | None:
    """Return Prometheus' CPU seconds an evaluation of the rules; None when it is not installed."""
    if not shutil.which("prometheus"):
        print("NOT INSTALLED: prometheus - left out", file=sys.stderr)
        return None
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        alone = _cpu_share(server.server_port, rules=False)
        both = _cpu_share(server.server_port, rules=True)
    finally:
        server.shutdown()
    return (both - alone) * EVALUATE_S


def _cpu_share(exporter: int, *, rules: bool) -> float:
    with _running(exporter, rules=rules) as process:
        time.sleep((SAMPLES + 3) * SCRAPE_S)
        before, began = process.cpu_times(), time.monotonic()
        time.sleep(MEASURE_S)
        after, took = process.cpu_times(), time.monotonic() - began
    return float(after.user + after.system - before.user - before.system) / took


@contextmanager
def _running(exporter: int, *, rules: bool) -> Iterator[psutil.Process]:
    expression = f'histogram_quantile(0.99, sum by (le) (rate(x_bucket{{n="%d"}}[{SAMPLES * SCRAPE_S}s])))'
    each = "".join(
        f"  - {{ record: 'r:p99', labels: {{ n: '{i}' }}, expr: '{expression % i}' }}\n" for i in range(SERIES)
    )
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        (Path(folder) / "r.yml").write_text(f"groups:\n- name: g\n  interval: {EVALUATE_S}s\n  rules:\n{each}")
        page = f"global: {{ scrape_interval: {SCRAPE_S}s }}\n" + ("rule_files: [ r.yml ]\n" if rules else "")
        page += f"scrape_configs:\n- job_name: x\n  static_configs: [ {{ targets: [ '127.0.0.1:{exporter}' ] }} ]\n"
        (Path(folder) / "p.yml").write_text(page)
        command = ["taskset", "-c", "0", "prometheus", f"--config.file={folder}/p.yml"]
        command += [f"--storage.tsdb.path={folder}/d", f"--web.listen-address={listen}", "--log.level=error"]
        with subprocess.Popen(command) as child:
            try:
                yield psutil.Process(child.pid)
            finally:
                child.kill()
