"""The monthly drill: three faults one after another under 200 requests/s, every phase against its objective.

Users' figures are the load generator's own: success over the whole run, and P99 outside the time in which faults were
in force. Each drill is asked for as a person would; a gate that is closed for a moment is waited for, and said. The
error budget's gate is left out: the fleet is minutes old, and one failed request in a thousand of a minute pages.
"""

import json
import os
import re
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.fleet import get, process, running_fleet, wait_until

EXPERIMENTS = ("node-kill", "network-partition", "gpu-saturation")
RATE_PER_S = float(os.environ.get("DRILL_RATE", "200"))
COMMAND = "make bench ONLY=monthly-drill"
PHASES = ("detected", "decided", "acted", "verified", "healed", "recovered")
_OFFERED = re.compile(r"^# (?=  |thresholds:|drills:)", re.MULTILINE)
"""What the reference page offers in a comment to whose devices are CPUs: a P2 of their own, and all three drills."""
_NAMED, _GATED = "gpu-saturation] }", "gpu-saturation], gates: { error_budget_left: 0% } }"
WITHIN_S = 420.0
START_WITHIN_S = 120.0


def run() -> list[Figure]:
    """Run the three drills and read what users and the control plane say of them."""
    with running_fleet(apart=True) as run_dir:
        page, state = run_dir / "controlplane.yaml", run_dir / "state"
        page.write_text(rehearsed(page.read_text()))
        with process(run_dir / "serve.log", "serve", str(page), "--port", "0", apart=True) as plane:
            url = wait_until(lambda: _read(state / "url"), "the control plane serves", plane)
            wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it has seen the fleet", plane)
            gateway = f"http://{_read(run_dir / 'gateway' / 'listener')}"
            record = run_dir / "requests.jsonl"
            load = ("target", "load", gateway, "--rate", f"{RATE_PER_S:g}", "--out", str(record), "--quiet")
            with process(run_dir / "load.log", *load, apart=True):
                time.sleep(5)
                drills = [_drill(url, _read(state / "token"), name) for name in EXPERIMENTS]
        _print(drills)
        return [*_drill_figures(drills), *_user_figures(record, drills)]


def rehearsed(page: str) -> str:
    """Return the reference page with what it offers to a fleet of CPUs, and no gate on a budget that is minutes old."""
    return _OFFERED.sub("", page).replace(_NAMED, _GATED)


def _drill(url: str, token: str, experiment: str) -> dict[str, Any]:
    """Run one drill to its end; one that no gate lets start is `refused`, with the reasons."""
    deadline = time.monotonic() + START_WITHIN_S
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    started: dict[str, Any] = {}
    while not started:
        request = urllib.request.Request(  # noqa: S310 - always http://127.0.0.1
            f"{url}/api/v1/drills", json.dumps({"experiment": experiment}).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                started = json.load(answer)
        except urllib.error.HTTPError as error:
            if time.monotonic() > deadline:
                why = json.loads(error.read()).get("detail", "")
                return {"experiment": experiment, "outcome": "refused", "reasons": [why], "phases": {}, "objective": 0}
            time.sleep(2)
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        drill = get(f"{url}/api/v1/drills/{started['id']}", token)
        if drill and drill["outcome"] != "running":
            return dict(drill)
        time.sleep(0.5)
    return started


def _since_fault(drill: dict[str, Any], phase: str) -> float | None:
    phases = {name: datetime.fromisoformat(at).timestamp() for name, at in drill["phases"].items()}
    return phases[phase] - phases["fault"] if {"fault", phase} <= phases.keys() else None


def _print(drills: list[dict[str, Any]]) -> None:
    table = Table("experiment", "outcome", *PHASES, "objective", title="seconds since the fault")
    for drill in drills:
        times = [_since_fault(drill, phase) for phase in PHASES]
        table.add_row(
            drill["experiment"], drill["outcome"], *("-" if t is None else f"{t:.2f}" for t in times),
            f"{drill['objective']:g} s",
        )  # fmt: skip
    Console(width=140).print(table)
    for drill in drills:
        for reason in drill["reasons"]:
            print(f"{drill['experiment']}: {reason}")


def _drill_figures(drills: list[dict[str, Any]]) -> list[Figure]:
    passed = sum(drill["outcome"] == "passed" for drill in drills)
    figures = [
        Figure("drills that passed", passed, f"of {len(drills)}", len(drills), COMMAND, "all", passed == len(drills))
    ]
    for drill in drills:
        verified = _since_fault(drill, "verified")
        if verified is not None:
            goal = f"< {drill['objective']:g} s"
            figures.append(
                Figure(f"{drill['experiment']}: fault to verified", round(verified, 3), "s", 1, COMMAND, goal,
                       verified < drill["objective"])
            )  # fmt: skip
    return figures


def _user_figures(record: Path, drills: list[dict[str, Any]]) -> list[Figure]:
    """Return success over the run, and P99 outside the faults."""
    requests = [json.loads(line) for line in record.read_text().splitlines() if line.endswith("}")]
    failed = sum(1 for r in requests if r["status"] != 200 or r["error"])
    success = 1 - failed / len(requests)
    in_force = [
        tuple(datetime.fromisoformat(d["phases"][p]).timestamp() for p in ("fault", "healed"))
        for d in drills if {"fault", "healed"} <= d["phases"].keys()
    ]  # fmt: skip
    outside = sorted(
        r["done"] - r["intended"] for r in requests
        if not any(start <= r["done"] and r["intended"] <= end for start, end in in_force)
    )  # fmt: skip
    p99 = outside[int(len(outside) * 0.99)]
    return [
        Figure("client success over the run", round(success * 100, 4), f"% of {len(requests)}", len(requests), COMMAND,
               ">= 99.95 %", success >= 0.9995),
        Figure("client p99 outside the faults", round(p99, 4), "s", len(outside), COMMAND, "< 2 s", p99 < 2.0),
    ]  # fmt: skip


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
