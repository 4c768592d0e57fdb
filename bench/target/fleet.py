"""A reference fleet for benches: started in a process of its own, stopped by its process id."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UP = """
import sys
from pathlib import Path
from controlplane.target.fleet import run_fleet
from controlplane.target.spec import CacheSpec, FleetSpec, GatewaySpec, PoolSpec
sys.exit(run_fleet(FleetSpec(Path(sys.argv[1]), **eval(sys.argv[2]))))
"""
START_S = 60.0
STEP_S = 0.02


@contextmanager
def fleet(settings: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run a fleet; yield its run directory and what its ready file says.

    Args:
        settings: Python text of a dict of ``FleetSpec`` fields.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", UP, folder, settings]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_S
            while not (run_dir / "ready.json").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the fleet did not start")
                time.sleep(STEP_S)
            yield run_dir, json.loads((run_dir / "ready.json").read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


def route(run_dir: Path, pool: str) -> None:
    """Send all traffic to one pool, as the control plane would."""
    path = run_dir / "gateway" / "xds" / "rds.json"
    document = json.loads(path.read_text())
    (host,) = document["resources"][0]["virtual_hosts"]
    for entry in host["routes"][0]["route"]["weighted_clusters"]["clusters"]:
        entry["weight"] = 100 if entry["name"] == pool else 0
    beside = path.with_name(".rds.part")
    beside.write_text(json.dumps(document))
    beside.replace(path)
