"""No false alarm when the prober itself is starved: both cores loaded eightfold, every endpoint well.

100 endpoints, checked every second by default, for 2 minutes of wall time (200 healthy endpoint-minutes), while 16
busy processes share the two cores with the prober and the simulated endpoints. Every verdict that is not 100 %
availability and 0 % endpoints down counts as a false alarm, which is stricter than any threshold; `unknown` is the
honest answer and is counted, too.
"""

import os
import subprocess
import sys

from bench.figures import Figure
from bench.prober import probed, simulated

COMMAND = "make bench ONLY=starved"
ENDPOINTS = 100
SECONDS = 120
LOAD = 8
"""Busy processes a core."""


def run() -> list[Figure]:
    """Load the machine, watch, count."""
    plan = {"http_s": 1, "metrics_s": 2, "warm_s": 2, "seconds": SECONDS, "endpoints": ENDPOINTS}
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(LOAD * (os.cpu_count() or 1))]
    try:
        with simulated(0) as port:
            found = probed({**plan, "port": port})
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    minutes = f"{ENDPOINTS * SECONDS // 60} healthy endpoint-minutes at {LOAD}x load"
    failed = {k: v for k, v in found["results"].items() if k not in ("ok", "prober")}
    return [
        Figure(f"false verdicts in {minutes}", found["wrong"], "verdicts", found["verdicts"], COMMAND, "0",
               found["wrong"] == 0),
        Figure("verdicts that said unknown", found["unknowns"], "verdicts", found["verdicts"], COMMAND),
        Figure("looks", found["looks"], "looks", 1, COMMAND),
        Figure("looks that failed", sum(failed.values()), str(failed) if failed else "looks", 1, COMMAND),
        Figure("looks discarded as our own fault", found["results"].get("prober", 0), "looks", 1, COMMAND),
        Figure("time stolen from the prober's loop", round(found["stolen_s"], 1), "s of the last 60", 1, COMMAND),
        Figure("loop lag, p99", round(found["lag_p99_ms"], 1), "ms", 1, COMMAND),
    ]  # fmt: skip
