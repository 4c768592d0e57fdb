"""How long a person waits: `controlplane --help`, and `controlplane serve` until it says it is ready."""

import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Figure, below
from bench.fleet import get, process, running_fleet, wait_until

HELP_RUNS = 11
SERVE_RUNS = 5
HELP_GOAL_S = 0.2
SERVE_GOAL_S = 3.0
COMMAND = "make bench ONLY=startup"


def run() -> list[Figure]:
    """Measure both, and Chaos Toolkit's own `--help` in the same run."""
    script = Path(sys.executable).parent / "controlplane"
    chaos = Path(sys.executable).parent / "chaos"
    helps, peers = [], []
    for _ in range(HELP_RUNS):  # Interleaved: a busy machine is busy for both.
        helps.append(_seconds([str(script), "--help"]))
        peers.append(_seconds([str(chaos), "--help"]))
    ours = below("controlplane --help", helps, HELP_GOAL_S, COMMAND)
    peer = below("chaos --help", peers, None, COMMAND)
    against = Figure(
        ours.figure, ours.value, "s", ours.n, COMMAND, ours.goal, ours.met, peer.figure, peer.value,
        round(ours.value / peer.value, 3),
    )  # fmt: skip
    with running_fleet() as run_dir:
        serves = [_serve(run_dir) for _ in range(SERVE_RUNS)]
    return [against, below("controlplane serve, start to ready", serves, SERVE_GOAL_S, COMMAND)]


def _seconds(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _serve(run_dir: Path) -> float:
    """Start a control plane; return the seconds until `/readyz` says that it has seen the whole fleet."""
    began = time.monotonic()
    address = run_dir / "state" / "url"
    with process(run_dir / "serve.log", "serve", str(run_dir / "controlplane.yaml"), "--port", "0") as plane:
        url = wait_until(lambda: address.exists() and address.read_text().strip(), "it serves", plane)
        wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it is ready", plane)
        return time.monotonic() - began
