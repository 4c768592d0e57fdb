"""The control plane's observing half by itself, for benches: wire, pace, windows, verdicts, over N simulated endpoints.

`python -m bench.prober JSON` runs it as a process of its own and prints what it measured of itself as JSON.
"""

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic, process_time, thread_time
from typing import Any

import psutil
import structlog
import uvloop

from bench.simulated import address
from controlplane.clock import utcnow
from controlplane.fleet.model import Endpoint, Inventory
from controlplane.flows.observe import ObservePorts, Observer
from controlplane.policy.load import loads
from controlplane.probes.http import HttpProbe, MetricsProbe
from controlplane.probes.probe import HELD, HttpSpec, MetricsSpec, Probe
from controlplane.probes.wire import Wire
from controlplane.runtime.collector import Collector
from controlplane.runtime.scheduler import Background, Pace
from controlplane.signals.engines import VLLM
from controlplane.slo.verdict import Evidence, Verdict
from controlplane.telemetry import Metrics

EVALUATE_S = 0.5
_PAGE = "service: bench\nfleet: { pools: { primary: { endpoints: { static: ['http://127.0.0.1:1'] } } } }\n"
LAG_TICK_S = 0.05


class Fixed:
    """An inventory that never changes."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._inventory = Inventory(endpoints)

    def read(self) -> Inventory:
        """Return it."""
        return self._inventory


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a while of looking took."""

    cpu_share: float
    """Of one core."""
    cpu_s: float
    wall_s: float
    made: dict[str, float]
    """Looks by result."""
    lags: list[float]
    """How late ticks of the event loop were, in seconds, ascending."""

    @property
    def lag_p99_s(self) -> float:
        """The 99th percentile of them."""
        return self.lags[int(len(self.lags) * 0.99)]


class Subject:
    """An observer with its probes, over endpoints at a port."""

    def __init__(self, plan: dict[str, Any], judged: Callable[[Mapping[str, Verdict]], None] = lambda _: None) -> None:
        pools = plan.get("pools", 1)
        hosts = plan.get("hosts") or [address(i) for i in range(plan["endpoints"])]
        ports = plan.get("ports") or [plan["port"]] * len(hosts)
        self.endpoints = tuple(
            Endpoint(f"e{i}", "primary" if pools == 1 else f"pool{i % pools}", f"http://{host}:{port}", model="full")
            for i, (host, port) in enumerate(zip(hosts, ports, strict=True))
        )
        self.background, self.metrics = Background(), Metrics()
        self.wire = Wire(self._spawn)
        policy = loads(_PAGE, Path("bench.yaml")).policy
        ports_of = ObservePorts(
            Fixed(self.endpoints), None, judged, self.wire.hold, self._spawn,
            lambda: None, self.metrics, utcnow,
        )  # fmt: skip
        self.observer = Observer("bench", policy.thresholds, ports_of)
        self.probes: list[Probe] = []
        if plan.get("http_s"):
            timeout = timedelta(seconds=plan["timeout_s"]) if "timeout_s" in plan else HttpSpec().timeout
            self.probes.append(HttpProbe(self.wire, HttpSpec(every=timedelta(seconds=plan["http_s"]), timeout=timeout)))
        if plan.get("metrics_s"):
            spec = MetricsSpec(every=timedelta(seconds=plan["metrics_s"]), timeout=timedelta(seconds=2))
            self.probes.append(MetricsProbe(self.wire, spec, VLLM, lambda: ""))
        self.paces: list[Pace] = []
        self.passes: list[float] = []
        self.verdicts: list[Evidence] = []

    def _spawn(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        return self.background.spawn(work)

    async def start(self, connected: int) -> None:
        """Hold the connections first, then look."""
        self.observer.follow_inventory()
        until = monotonic() + 60
        origins = self.wire._origins.values  # noqa: SLF001
        while sum(bool(o._live) for o in origins()) < connected and monotonic() < until:  # noqa: ASYNC110, SLF001
            await asyncio.sleep(0.05)
        for probe in self.probes:
            look = partial(self.observer.look, probe)
            self.paces.append(Pace(probe.name, probe.every, lambda: self.observer.targets, look))
            self.paces[-1].start()
        self._spawn(self._evaluate())

    async def _evaluate(self) -> None:
        collector = Collector(lambda: self.observer.targets)
        while True:
            collector.tick()
            began = thread_time()
            self.observer.follow_inventory()
            self.observer.evaluate()
            self.passes.append(thread_time() - began)
            for pool in self.observer._verdicts.values():  # noqa: SLF001
                self.verdicts += [e for e in pool.evidence if e.signal in _WELL]
            await asyncio.sleep(EVALUATE_S)

    async def measured(self, seconds: float) -> "Stretch":
        """Let it look for a while, and count what that took and how late the event loop was."""
        lags: list[float] = []

        async def lag() -> None:
            while True:
                before = monotonic()
                await asyncio.sleep(LAG_TICK_S)
                lags.append(max(0.0, monotonic() - before - LAG_TICK_S))

        self._spawn(lag())
        self.passes.clear()
        self.verdicts.clear()
        looks, cpu, wall = self.counted(), process_time(), monotonic()
        await asyncio.sleep(seconds)
        cpu, wall = process_time() - cpu, monotonic() - wall
        made = {result: count - looks.get(result, 0.0) for result, count in self.counted().items()}
        return Stretch(cpu / wall, cpu, wall, made, sorted(lags))

    async def end(self) -> None:
        """Stop looking, and let go of every connection."""
        for pace in self.paces:
            pace.stop()
        self.wire.close()
        await self.background.stop()

    def counted(self) -> dict[str, float]:
        """Return the looks so far, by result."""
        found: dict[str, float] = {}
        for (probe, result), count in self.metrics.looks.made.items():
            if probe != HELD:
                found[result] = found.get(result, 0) + count
        return found


_WELL = {"availability": 1.0, "endpoints_down": 0.0}


async def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Run, warm up, measure for a while."""
    subject = Subject(plan)
    await subject.start(len(subject.endpoints))
    await asyncio.sleep(plan["warm_s"])
    seen = await subject.measured(plan["seconds"])
    looks = sum(seen.made.values())
    verdicts = {e.signal: e.value for v in subject.observer._verdicts.values() for e in v.evidence}  # noqa: SLF001
    await subject.end()
    return {
        "endpoints": len(subject.endpoints), "cpu_share": seen.cpu_share, "looks": looks, "results": seen.made,
        "us_a_look": seen.cpu_s / max(1.0, looks) * 1e6, "rss_mib": psutil.Process().memory_info().rss / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "lag_p99_ms": seen.lag_p99_s * 1e3, "lag_worst_ms": seen.lags[-1] * 1e3,
        "pass_ms": statistics.median(subject.passes) * 1e3, "pass_worst_ms": max(subject.passes) * 1e3,
        "left_out": sum(p.left_out for p in subject.paces), "latency_p99": verdicts.get("latency_p99"),
        "stolen_s": subject.wire.lateness.stolen_since(monotonic() - seen.wall_s),
        "wrong": sum(e.value is not None and e.value != _WELL[e.signal] for e in subject.verdicts),
        "unknowns": sum(e.value is None for e in subject.verdicts), "verdicts": len(subject.verdicts),
    }  # fmt: skip


@contextmanager
def simulated(cpu: int = 1) -> Iterator[int]:
    """Run the simulated endpoints on a core; gives their port."""
    command = [sys.executable, "-m", "bench.simulated", str(cpu)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield int(child.stdout.readline()) if child.stdout else 0
        finally:
            child.kill()


def probed(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the observing half in a process of its own and return what it measured."""
    command = [sys.executable, "-m", "bench.prober", json.dumps(plan)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the plan in the first argument."""
    plan = json.loads(sys.argv[1])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else soft, hard))
    if "cpu" in plan:
        os.sched_setaffinity(0, {plan["cpu"]})
    print(json.dumps(uvloop.run(measure(plan))), flush=True)


if __name__ == "__main__":
    main()
