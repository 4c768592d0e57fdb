"""One process of the bench `scale`: looks at a fleet, measures itself, and times how soon it knows who died or hangs.

`python -m bench.reach` reads its plan (JSON) from its standard input.
"""

import asyncio
import json
import os
import resource
import signal
import statistics
import sys
from time import monotonic
from typing import Any

import psutil
import structlog
import uvloop

from bench.prober import Subject

VICTIMS = 5
"""Addresses that one process answers for, which is then killed or stopped."""

GIVEN_UP_S = 15.0
"""What is not known by then is not: a starved prober takes silence for its own fault, and says `unknown`."""


async def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Look, warm up, measure for a while, then kill and stop."""
    hosts, killed, hung = plan["hosts"], plan["killed"], plan["hung"]
    dying = [f"127.250.0.{number}" for number in range(1, VICTIMS + 1)]
    watched = {
        "hosts": [*hosts, *dying, *dying], "http_s": 1, "metrics_s": 5, "endpoints": 0,
        "ports": [plan["port"]] * len(hosts) + [killed["port"]] * VICTIMS + [hung["port"]] * VICTIMS,
    }  # fmt: skip
    began = monotonic()
    subject = Subject(watched)
    await subject.start(len(subject.endpoints))
    connected_s = monotonic() - began
    await asyncio.sleep(plan["warm_s"])
    seen = await subject.measured(plan["seconds"])
    looks = sum(seen.made.values())
    found = {
        "endpoints": len(hosts), "cpu_share": seen.cpu_share, "rss_mib": psutil.Process().memory_info().rss / 2**20,
        "pass_ms": statistics.median(subject.passes) * 1e3, "passes": len(subject.passes),
        "lag_p99_ms": seen.lag_p99_s * 1e3, "connected_s": connected_s,
        "looks": looks, "failed": looks - seen.made.get("ok", 0.0),
    }  # fmt: skip
    first = len(hosts)
    found["killed_ms"] = 1e3 * await _known(subject, killed["pid"], signal.SIGKILL, first)
    found["hung_ms"] = 1e3 * await _known(subject, hung["pid"], signal.SIGSTOP, first + VICTIMS)
    await subject.end()
    return found


async def _known(subject: Subject, pid: int, sign: signal.Signals, first: int) -> float:
    """Signal a process; return the seconds until every endpoint of its own is known down."""
    records = [subject.observer._records.find(one) for one in subject.endpoints[first : first + VICTIMS]]  # noqa: SLF001
    if any(record is None or record.down for record in records):
        raise SystemExit("an endpoint was down before its process was")
    at = monotonic()
    os.kill(pid, sign)
    while not all(record and record.down for record in records):
        await asyncio.sleep(0.0005)
        if monotonic() - at > GIVEN_UP_S:
            break
    return monotonic() - at


def main() -> None:
    """Run the plan."""
    plan = json.load(sys.stdin)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else soft, hard))
    print(json.dumps(uvloop.run(measure(plan))), flush=True)


if __name__ == "__main__":
    main()
