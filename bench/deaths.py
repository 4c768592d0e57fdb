"""How soon the prober knows that an endpoint's process was killed, or hangs. Used by the bench `probes`."""

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
from time import monotonic

import structlog
import uvloop

from bench.figures import Figure
from bench.prober import Subject
from controlplane.flows.records import EndpointRecord

KILLS, HANGS = 15, 15


def _known(stop: signal.Signals, runs: int, plan: dict[str, object]) -> list[float]:
    """Stop processes one after another; return the seconds from the signal until the record says down."""
    command = [sys.executable, "-m", "bench.simulated"]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(runs)]
    try:
        ports = [int(child.stdout.readline()) for child in children if child.stdout]
        plan = {**plan, "hosts": ["127.0.0.1"] * runs, "ports": ports}
        return uvloop.run(_watched(stop, [child.pid for child in children], plan))
    finally:
        for child in children:
            child.kill()
            child.communicate()


async def _watched(stop: signal.Signals, pids: list[int], plan: dict[str, object]) -> list[float]:
    subject = Subject(plan)
    await subject.start(len(pids))
    await asyncio.sleep(2.0)
    took = []
    for pid, endpoint in zip(pids, subject.endpoints, strict=True):
        record = subject.observer._records.find(endpoint)  # noqa: SLF001
        if record is None or record.down:
            raise SystemExit("an endpoint was down before it was killed")
        await asyncio.sleep(random.uniform(0.1, 0.6))
        at = monotonic()
        os.kill(pid, stop)
        took.append(await _noticed(record, at))
    for pace in subject.paces:
        pace.stop()
    subject.wire.close()
    await subject.background.stop()
    return took


async def _noticed(record: EndpointRecord, at: float) -> float:
    while not record.down:
        await asyncio.sleep(0.0005)
        if monotonic() - at > 10:
            raise SystemExit("not noticed in 10 s")
    return monotonic() - at


def deaths(command: str) -> list[Figure]:
    """SIGKILL: the held connection ends, and the reconnect is refused."""
    took = _run(signal.SIGKILL, KILLS, {"http_s": 1})
    median = statistics.median(took)
    return [
        Figure("SIGKILL to known dead, median", round(median * 1e3, 2), "ms", KILLS, command, "< 50 ms", median < 0.05),
        Figure("SIGKILL to known dead, worst", round(max(took) * 1e3, 2), "ms", KILLS, command),
    ]


def hangs(command: str) -> list[Figure]:
    """SIGSTOP: nothing is answered within one time-out, on three connections; every 250 ms and by default."""
    quick = _run(signal.SIGSTOP, HANGS, {"http_s": 0.25, "timeout_s": 0.2})
    usual = _run(signal.SIGSTOP, HANGS, {"http_s": 0.5})
    found = {"every 250 ms, time-out 200 ms": quick, "every 500 ms, time-out 600 ms (default)": usual}
    figures = []
    for how, took in found.items():
        median = statistics.median(took)
        what = f"hang to known down, {how}"
        figures += [
            Figure(f"{what}, median", round(median, 3), "s", HANGS, command, "< 1 s", median < 1),
            Figure(f"{what}, worst", round(max(took), 3), "s", HANGS, command),
        ]
    return figures


def _run(stop: signal.Signals, runs: int, plan: dict[str, object]) -> list[float]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    return _known(stop, runs, plan)
