"""What a checked endpoint costs before anything is done with its answer: one write and one read on uvloop, paced.

`python -m bench.bare PORT ENDPOINTS SECONDS` holds a connection to each simulated endpoint, asks each once a second in
ticks of 10 ms, and prints its CPU seconds per 1,000 answers. No parser, no time-out, no window: a prober in Python
that shares this loop cannot cost less.
"""

import asyncio
import os
import resource
import subprocess
import sys
from time import process_time
from typing import cast

import uvloop

from bench.simulated import address

TICKS = 100
WARM_S = 2.0


class Line(asyncio.Protocol):
    """A connection of which only the answers are counted."""

    answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Count."""
        Line.answers += bool(data)


async def measure(port: int, endpoints: int, seconds: float) -> float:
    """Return CPU seconds per 1,000 answers."""
    loop = asyncio.get_running_loop()
    lines = [(await loop.create_connection(Line, address(i), port))[1] for i in range(endpoints)]
    asked = [
        (line.transport, f"GET /health HTTP/1.1\r\nHost: {address(i)}:{port}\r\nUser-Agent: bare\r\n\r\n".encode())
        for i, line in enumerate(lines)
    ]
    began, cpu, before, tick = loop.time(), 0.0, 0, 0
    while (now := loop.time() - began) < WARM_S + seconds:
        if not before and now >= WARM_S:
            cpu, before = process_time(), Line.answers
        for transport, request in asked[tick % TICKS :: TICKS]:
            transport.write(request)
        tick += 1
        await asyncio.sleep(max(0.0, began + tick / TICKS - loop.time()))
    return (process_time() - cpu) / (Line.answers - before) * 1e3


def bare(port: int, endpoints: int = 10_000, seconds: float = 5.0) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "bench.bare", str(port), str(endpoints), str(seconds)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {0})
    print(uvloop.run(measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
