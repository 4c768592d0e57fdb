"""P1 and P2 from the breach to the proof: an overload fills the queues, and the rows answer it.

The rows stand here and not on the reference page, so that their `for` is short and the same in every run: what is
measured is what comes after it.
"""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure, below
from bench.fleet import get, wait_until
from bench.p0 import load, text, watched_fleet

RUNS = 10
FOR_S = 1.0
OVERLOAD_PER_S = 400
GOAL_S = 3.0
BACK_WITHIN_S = 180.0
COMMAND = "make bench ONLY=p1p2"
ROWS = """
thresholds:
  error_rate: {{ window: 10s }}
  latency_p99: {{ window: 10s }}
degradation:
  max_switches_per_hour: 1000
  P0: {{ when: {{ endpoints_down: {{ above: 100% }} }} }}
  {other}: {{ when: {{ endpoints_down: {{ above: 100% }} }} }}
  {level}:
    when: {{ queue_depth: {{ above: 20, for: 1s }} }}
    do: {do}
    release: {{ steps: [100%], hold: 500ms }}
"""
"""The other rows look at what an overload leaves alone: one that eased it first would be measured instead."""
OTHER = {"P1": "P2", "P2": "P1"}
DO = {"P1": "[ { serve_from_cache: {} } ]", "P2": "[ { use_pool: { pool: base, share: 100% } } ]"}


def run() -> list[Figure]:
    """Overload the primary pool again and again, once with each row."""
    figures = []
    for level, do in DO.items():
        with watched_fleet(ROWS.format(level=level, other=OTHER[level], do=do)) as (run_dir, url):
            runs = [_once(run_dir, url, level, i) for i in range(RUNS)]
        print(level, [round(took, 3) for took in runs])
        figures += [
            below(f"{level}: breach to verified, after its `for`", runs, GOAL_S, COMMAND),
            Figure(f"{level}: worst", round(max(runs), 4), "s", RUNS, COMMAND),
            Figure(f"{level}: quickest", round(min(runs), 4), "s", RUNS, COMMAND),
        ]
    return figures


def _once(run_dir: Path, url: str, level: str, i: int) -> float:
    """Overload until the row is engaged, then let it go; return the seconds from the breach, less the row's `for`."""
    token = text(run_dir / "state" / "token")
    seen = len(get(f"{url}/api/v1/receipts?limit=500", token))

    def reached(*states: str) -> Any:
        receipts = get(f"{url}/api/v1/receipts?limit=500", token) or []
        return receipts[0] if len(receipts) > seen and receipts[0]["state"] in states else None

    with load(run_dir, run_dir / f"overload-{level}-{i}.jsonl", OVERLOAD_PER_S, "--max-tokens", "48"):
        receipt = wait_until(lambda: reached("verified", "reverting", "reverted"), f"{level} is verified")
    # The errors of the overload must first leave their windows.
    wait_until(lambda: reached("reverted"), "traffic is back", within_s=BACK_WITHIN_S)
    time.sleep(1.0)
    breach, verified = receipt["detected_at"], receipt["times"]["verified"]
    took = datetime.fromisoformat(verified) - datetime.fromisoformat(breach)
    return took.total_seconds() - FOR_S
