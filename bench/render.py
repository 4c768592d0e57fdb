"""All artefacts of 50 services rendered from their pages and a year of drills; the same bytes from any process.

Each service has a page of its own with every pool, so that every row, alert, panel and runbook there can be is made.
`python -m bench.render` prints the digest of everything rendered: two processes with different hash seeds are compared.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figures import Figure, below
from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.policy.load import Loaded, loads
from controlplane.render.artefacts import render

COMMAND = "make bench ONLY=render"
SERVICES = 50
RUNS = 7
DRILLS = 36
"""A year of monthly drills of three rows."""
GOAL_S = 3.0
_PAGE = """
service: chat-{n}
fleet:
  pools:
    primary: {{ endpoints: {{ static: ["http://10.0.{n}.1:8000", "http://10.0.{n}.2:8000"] }} }}
    standby: {{ endpoints: {{ static: ["http://10.1.{n}.1:8000"] }} }}
    base: {{ endpoints: {{ static: ["http://10.2.{n}.1:8000"] }} }}
    cache: {{ endpoints: {{ static: ["http://10.3.{n}.1:8000"] }} }}
  gateway:
    envoy: {{ xds_dir: xds, admin: "http://127.0.0.1:9901", listener: "http://127.0.0.1:8080" }}
  engine: vllm
"""


def run() -> list[Figure]:
    """Render everything a few times in this process, then once in each of two others."""
    pages, drills = _pages(), _drills()
    took, cpu, sizes = [], [], []
    for _ in range(RUNS):
        began, busy = time.perf_counter(), time.process_time()
        made = [render(page.policy, drills, page.path.name) for page in pages]
        took.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
        sizes = [len(text.encode()) for files in made for text in files.values()]
    digests = {_elsewhere(seed) for seed in ("0", "1", "4711")}
    many = f"{SERVICES} services"
    return [
        below(f"{many}, all artefacts rendered", took, GOAL_S, COMMAND),
        below(f"{many}, CPU time of that", cpu, None, COMMAND),
        Figure(f"{many}, files / their size", round(sum(sizes) / 1e6, 2), f"MB in {len(sizes)} files", 1, COMMAND),
        Figure("different renderings in 3 processes of other hash seeds", len(digests), "", 3, COMMAND, "1",
               len(digests) == 1),
    ]  # fmt: skip


def digest() -> str:
    """Return the digest of everything rendered, file by file."""
    drills, found = _drills(), hashlib.sha256()
    for page in _pages():
        for path, text in render(page.policy, drills, page.path.name).items():
            found.update(f"{path}\0{text}\0".encode())
    return found.hexdigest()


def _pages() -> list[Loaded]:
    return [loads(_PAGE.format(n=n), Path(f"chat-{n}.yaml")) for n in range(SERVICES)]


def _drills() -> Sequence[Drill]:
    return tuple(_drill(n) for n in range(DRILLS))


def _drill(n: int) -> Drill:
    fault = datetime(2026, 11, 1, 2, tzinfo=UTC) - timedelta(days=10 * n)
    seconds = (0.0, 0.05, 0.21, 0.34, 0.68 + n / 100, 31.2, 62.5)
    return Drill(
        id=f"drill-{n}", experiment=("node-kill", "gpu-saturation", "queue-flood")[n % 3], row=f"P{n % 3}",
        objective=timedelta(minutes=5), requested_by="schedule", started_at=fault, outcome=Outcome.PASSED,
        ended_at=fault + timedelta(minutes=2),
        phases={phase: fault + timedelta(seconds=s) for phase, s in zip(DrillPhase, seconds, strict=True)},
    )  # fmt: skip


def _elsewhere(seed: str) -> str:
    """Render in another process, whose sets and dictionaries are hashed otherwise."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.render"],
        env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout.strip()


if __name__ == "__main__":
    print(digest())
