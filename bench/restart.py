"""How long the reference fleet takes: ``up`` to ready, and an endpoint's SIGKILL to its next first token.

Run: python bench/restart.py [--runs 15]. Prints a table of medians and writes bench/out/restart.json.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
UP = """
import sys
from pathlib import Path
from controlplane.target.fleet import run_fleet
from controlplane.target.spec import FleetSpec
sys.exit(run_fleet(FleetSpec(Path(sys.argv[1]))))
"""
RESTART_GOAL_S = 1.0
START_GOAL_S = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="restarts to measure")
    parser.add_argument("--starts", type=int, default=3, help="fleet starts to measure")
    arguments = parser.parse_args()
    command = f"python bench/restart.py --runs {arguments.runs} --starts {arguments.starts}"
    starts, restarts = [], []
    for number in range(arguments.starts):
        with tempfile.TemporaryDirectory() as folder:
            fleet, seconds = start(Path(folder))
            starts.append(seconds)
            try:
                if number == 0:
                    restarts = [restart(Path(folder)) for _ in range(arguments.runs)]
            finally:
                fleet.send_signal(signal.SIGTERM)
                fleet.wait(10)
    figures = [
        figure("fleet start to ready, median", starts, START_GOAL_S, command),
        figure("endpoint SIGKILL to first token, median", restarts, RESTART_GOAL_S, command),
    ]
    write(figures)
    return 0


def start(run_dir: Path) -> tuple["subprocess.Popen[bytes]", float]:
    """Start a fleet; return it and the seconds to ready.json."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    fleet = subprocess.Popen([sys.executable, "-c", UP, str(run_dir)], env=environment, stdout=subprocess.DEVNULL)
    while not (run_dir / "ready.json").exists():
        if fleet.poll() is not None:
            sys.exit("the fleet did not start")
        time.sleep(0.005)
    return fleet, time.monotonic() - began


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


def figure(name: str, seconds: list[float], goal_s: float, command: str) -> dict[str, Any]:
    value = statistics.median(seconds)
    return {
        "figure": name, "value": round(value, 4), "unit": "s", "goal": f"< {goal_s:g} s", "met": value < goal_s,
        "peer": None, "peer_value": None, "ratio": None, "n": len(seconds), "command": command,
    }  # fmt: skip


def write(figures: list[dict[str, Any]]) -> None:
    out = ROOT / "bench" / "out" / "restart.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table("figure", "value", "goal", "met", "n", title="restart")
    for row in figures:
        table.add_row(row["figure"], f"{row['value']:.3f} s", row["goal"], "yes" if row["met"] else "no", str(row["n"]))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
