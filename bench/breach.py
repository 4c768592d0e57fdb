"""How soon a P99 in breach is known: from the moment at which it is true of the data, plus its `for`, to the verdict.

Simulated endpoints finish 20 requests a second each and count every one at its own moment, in vLLM's histogram. In
each pool, at a moment drawn by chance, one request in five begins to take 4 s. *True of the data* is the first
millisecond at which the P99 over the exact last 30 s of all requests of the pool, by the same buckets, is at the breach
level of 2 s with at least 50 samples; nobody has to have looked yet. What comes after that and its `for` (5 s) is ours:
waiting for the next scrape (every 2 s by default), for the next evaluation (0.5 s), and a `for` that ends between two
evaluations. Reported beside it: how long the window took to become true once the latency rose; no prober shortens that.

The prober runs as in production: wire, pace, windows, verdicts, default thresholds, health checks every 500 ms. The
verdict is timed where whoever decides gets it, and the default row P1 (`latency_p99: breach`) is advanced by it there.
Pools of one endpoint are the hard case; with four, scraped in turns, the first scrape that shows it comes sooner.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, cast

import numpy as np
import structlog
import uvloop

from bench.figures import Figure
from bench.prober import Subject
from bench.simulated import EDGES, address, written
from controlplane.degradation import turn
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level
from controlplane.degradation.turn import Facts
from controlplane.policy.load import loads
from controlplane.signals.quantile import histogram_quantiles
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Verdict

COMMAND = "make bench ONLY=breach"
RUNS = 10
SIZES = (1, 4)
"""Endpoints a pool."""
RATE_PER_S = 20.0
SLOW_SHARE = 0.2
SLOW_S = 4.0
FILL_S = 35.0
"""The window is full of good requests before anything rises."""
SPREAD_S = 10.0
GOAL_S = 2.0
_UPPER = (*EDGES, float("inf"))
_USUAL = np.minimum(1.0, (np.array(_UPPER) / 0.95) ** 0.5)
_PAGE = """
service: bench
fleet:
  pools:
    primary: { endpoints: { static: ["http://127.0.0.1:1"] } }
    standby: { endpoints: { static: ["http://127.0.0.1:2"] } }
    cache: { endpoints: { static: ["http://127.0.0.1:3"] } }
"""


def counted(at: float, began: float, rises: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return one endpoint's cumulative buckets at a moment; all three in monotonic seconds."""
    slow = int(max(0.0, at - rises) * RATE_PER_S * SLOW_SHARE)
    requests = max(0, int((at - began) * RATE_PER_S))
    buckets: np.ndarray[tuple[int], np.dtype[np.float64]] = np.floor((requests - slow) * _USUAL)
    return buckets + slow * (np.array(_UPPER) >= SLOW_S)


def true_at(began: list[float], rises: float, window_s: float, level: float, wanted: int) -> float:
    """Return the first millisecond at which the P99 of all endpoints' last requests is in breach."""
    for step in range(60_000):
        at = rises + step / 1000
        grown = sum(counted(at, one, rises) - counted(at - window_s, one, rises) for one in began)
        seen = histogram_quantiles(0.99, _UPPER, np.array([grown]))
        if seen.samples[0] >= wanted and seen.value[0] >= level:
            return at
    raise SystemExit("the latency rose, and the P99 never did")


# --- the endpoints, in a process of their own --------------------------------------------------------------------


class _Serving(asyncio.Protocol):
    """One connection to one of the endpoints, which is told by the address that was connected to."""

    of: Mapping[str, tuple[float, float]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection to an endpoint there is; cut any other."""
        self._transport = cast("asyncio.Transport", transport)
        here = transport.get_extra_info("sockname")[0]
        if here in self.of:
            self._began, self._rises = self.of[here]
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer a request with what is true at this moment."""
        if not data.startswith(b"GET /metrics"):
            self._transport.write(written(b'{"status":"ok"}'))
            return
        buckets = counted(monotonic(), self._began, self._rises)
        name, labels = "vllm:e2e_request_latency_seconds", 'engine="0",model_name="full"'
        edges = [*(str(edge) for edge in EDGES), "+Inf"]
        lines = [f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{{labels},le="{e}"}} {n}' for e, n in zip(edges, buckets, strict=True)]
        lines += [f"{name}_count{{{labels}}} {buckets[-1]}", f"{name}_sum{{{labels}}} {buckets[-1]}", ""]
        self._transport.write(written("\n".join(lines).encode()))


async def _serve(plan: dict[str, Any]) -> None:
    _Serving.of = {host: (began, rises) for host, began, rises in plan["endpoints"]}
    server = await asyncio.get_running_loop().create_server(_Serving, "0.0.0.0", 0)  # noqa: S104 - others are cut
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


# --- the prober --------------------------------------------------------------------------------------------------


class Watch:
    """Notes when each pool's verdict says breach, and when row P1 of a matrix of its own is tripped by it."""

    def __init__(self) -> None:
        policy = loads(_PAGE, Path("bench.yaml")).policy
        self.threshold = policy.thresholds["latency_p99"]
        self._matrix = policy.degradation
        self._states = {f"pool{i}": turn.begin(self._matrix) for i in range(RUNS)}
        self.known: dict[str, float] = {}
        self.tripped: dict[str, float] = {}

    def judged(self, verdicts: Mapping[str, Verdict]) -> None:
        """Take what whoever decides is given."""
        for pool, verdict in verdicts.items():
            evidence = {e.signal: e for e in verdict.evidence}
            if evidence["latency_p99"].band is Band.BREACH:
                self.known.setdefault(pool, monotonic())
            taken = turn.advance(self._matrix, self._states[pool], Facts(evidence), monotonic())
            self._states[pool] = taken.state
            if taken.state.rows[Level.P1].state.phase not in (Phase.IDLE, Phase.PENDING):
                self.tripped.setdefault(pool, monotonic())


async def _watched(plan: dict[str, Any], until: float) -> Watch:
    watch = Watch()
    subject = Subject(plan, watch.judged)
    await subject.start(len(subject.endpoints))
    while len(watch.tripped) < RUNS and monotonic() < until:  # noqa: ASYNC110 - the watch itself must not be delayed
        await asyncio.sleep(0.1)
    for pace in subject.paces:
        pace.stop()
    subject.wire.close()
    await subject.background.stop()
    return watch


def _measured(size: int) -> list[tuple[float, float, float]]:
    """Return for each pool the seconds until it was true; then, beyond its `for`, until known and until tripped."""
    now, chance = monotonic(), random.Random(size)
    rises = [now + FILL_S + chance.uniform(0, SPREAD_S) for _ in range(RUNS)]
    began = [now - 100 - chance.uniform(0, 1 / RATE_PER_S) for _ in range(RUNS * size)]
    hosts = [address(i) for i in range(RUNS * size)]
    endpoints = [(host, began[i], rises[i % RUNS]) for i, host in enumerate(hosts)]
    command = [sys.executable, "-m", "bench.breach", json.dumps({"endpoints": endpoints})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            port = int(child.stdout.readline()) if child.stdout else 0
            plan = {"endpoints": len(hosts), "port": port, "pools": RUNS, "http_s": 0.5, "metrics_s": 2}
            watch = uvloop.run(_watched(plan, max(rises) + 30))
        finally:
            child.kill()
    limit, found = watch.threshold, []
    for i, rose in enumerate(rises):
        pool = f"pool{i}"
        if pool not in watch.tripped:
            raise SystemExit(f"{pool}: the breach was not known, or tripped no row, in 30 s")
        if watch.known[pool] < rose:
            raise SystemExit(f"{pool} was in breach before its latency rose")
        true = true_at(began[i::RUNS], rose, limit.window.total_seconds(), limit.breach, limit.min_samples)
        due = true + limit.dwell.total_seconds()
        found.append((true - rose, watch.known[pool] - due, watch.tripped[pool] - due))
    return found


def run() -> list[Figure]:
    """Measure pools of each size."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    figures = []
    for size in SIZES:
        true, known, tripped = (sorted(column) for column in zip(*_measured(size), strict=True))
        what = f"{size} endpoint{'s' if size > 1 else ''} a pool"
        median = statistics.median(known)
        goal = f"< {GOAL_S:g} s"
        figures += [
            Figure(f"{what}: latency rises to P99 in breach in the data", round(statistics.median(true), 2), "s", RUNS,
                   COMMAND),
            Figure(f"{what}: that, plus `for`, to the verdict, median", round(median, 2), "s", RUNS, COMMAND, goal,
                   median < GOAL_S),
            Figure(f"{what}: the same, worst", round(known[-1], 2), "s", RUNS, COMMAND),
            Figure(f"{what}: that, plus `for`, to row P1 tripped, median", round(statistics.median(tripped), 2), "s",
                   RUNS, COMMAND),
        ]  # fmt: skip
    return figures


if __name__ == "__main__":
    uvloop.run(_serve(json.loads(sys.argv[1])))
