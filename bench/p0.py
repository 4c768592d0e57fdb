"""P0 under load: from SIGKILL of the whole primary pool to a verified switch, and what users saw of it."""

import statistics
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure, below
from bench.fleet import get, kill_pool, process, running_fleet, wait_until
from controlplane.target.report import summarise

RUNS = 10
RATE_PER_S = 200
DOWN_S = 1.0
GOAL_S = 1.0
PHASES = ("detected", "decided", "intended", "applied", "verified")
COMMAND = "make bench ONLY=p0"
_QUICK_RELEASE = "\ndegradation:\n  max_switches_per_hour: 1000\n  P0: { release: { steps: [100%], hold: 500ms } }\n"


def run() -> list[Figure]:
    """Kill the primary pool again and again under 200 requests a second."""
    with running_fleet() as run_dir:
        page = run_dir / "controlplane.yaml"
        page.write_text(page.read_text().split("\ndegradation:")[0] + _QUICK_RELEASE)
        with process(run_dir / "serve.log", "serve", str(page), "--port", "0") as plane:
            url = wait_until(lambda: _read(run_dir / "state" / "url"), "the control plane serves", plane)
            wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it has seen the fleet", plane)
            gateway = f"http://{_read(run_dir / 'gateway' / 'listener')}"
            record = run_dir / "requests.jsonl"
            load = ("target", "load", gateway, "--rate", str(RATE_PER_S), "--out", str(record), "--quiet")
            with process(run_dir / "load.log", *load):
                time.sleep(3)
                runs = [_once(run_dir, url) for _ in range(RUNS)]
            whole = summarise(record, {"all": (0, time.time())})["all"]
    return _figures(runs, whole.requests, whole.failed, whole.p99_s)


def _once(run_dir: Path, url: str) -> dict[str, float]:
    """Kill, wait for the receipt and for the way back; return the seconds from the kill to each phase."""
    seen = len(get(f"{url}/api/v1/receipts?limit=500"))
    at = kill_pool(run_dir, "primary", DOWN_S)

    def back() -> Any:
        receipts = get(f"{url}/api/v1/receipts?limit=500") or []
        return receipts[0] if len(receipts) > seen and receipts[0]["state"] == "reverted" else None

    receipt = wait_until(back, "traffic is back")
    moments = {"detected": receipt["detected_at"], "decided": receipt["decided_at"], **receipt["times"]}
    time.sleep(3.0)  # The supervisor's back-off is for crash loops; the pool is to live for a while between two kills.
    return {phase: datetime.fromisoformat(moments[phase]).timestamp() - at for phase in PHASES}


def _figures(runs: list[dict[str, float]], requests: int, failed: int, p99_s: float) -> list[Figure]:
    verified = [r["verified"] for r in runs]
    figures = [below("SIGKILL to verified, median", verified, GOAL_S, COMMAND)]
    figures.append(Figure("SIGKILL to verified, worst", round(max(verified), 4), "s", len(runs), COMMAND))
    previous = dict.fromkeys(range(len(runs)), 0.0)
    for phase in PHASES:
        spent = [r[phase] - previous[i] for i, r in enumerate(runs)]
        previous = {i: r[phase] for i, r in enumerate(runs)}
        value = round(statistics.median(spent), 4)
        figures.append(Figure(f"of that, until {phase}", value, "s", len(runs), COMMAND))
    figures.append(Figure("failed client requests", failed, f"of {requests}", len(runs), COMMAND, "0", failed == 0))
    figures.append(Figure("client p99 over the whole run", round(p99_s, 4), "s", requests, COMMAND))
    return figures


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
