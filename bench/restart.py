"""How long the reference fleet takes: `up` to ready, and an endpoint's SIGKILL to its next first token."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from bench.figures import Figure, below
from bench.fleet import running_fleet

RUNS = 9
STARTS = 3
RESTART_GOAL_S = 1.0
START_GOAL_S = 6.0
COMMAND = "make bench ONLY=restart"


def run() -> list[Figure]:
    """Start fleets, and kill an endpoint of the first one again and again."""
    starts: list[float] = []
    restarts: list[float] = []
    for _ in range(STARTS):
        began = time.monotonic()
        with running_fleet() as run_dir:
            starts.append(time.monotonic() - began)
            restarts = restarts or [restart(run_dir) for _ in range(RUNS)]
    return [
        below("fleet start to ready", starts, START_GOAL_S, COMMAND),
        below("endpoint SIGKILL to first token", restarts, RESTART_GOAL_S, COMMAND),
    ]


def restart(run_dir: Path) -> float:
    """SIGKILL one endpoint; return the seconds until it gives a token again."""
    path = run_dir / "nodes" / "node-primary-0.json"
    node = json.loads(path.read_text())
    # The supervisor's back-off is for crash loops; an endpoint that has lived this long is no such thing.
    time.sleep(2.2)
    began = time.monotonic()
    os.killpg(node["pgid"], signal.SIGKILL)
    while json.loads(path.read_text())["pid"] == node["pid"]:
        time.sleep(0.001)
    while not answers(node["url"]):
        time.sleep(0.001)
    return time.monotonic() - began


def answers(url: str) -> bool:
    """Tell whether the endpoint gives one token."""
    body = json.dumps({"prompt": "ping", "max_tokens": 1}).encode()
    request = Request(f"{url}/v1/completions", data=body)  # noqa: S310 - always http://127.0.0.1
    with contextlib.suppress(URLError, OSError), urlopen(request, timeout=5) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False
