"""How soon the response cache answers what it has stored: through the gateway, at 500 requests a second.

Open loop: latency counts from the moment a request should have left, so a stall cannot hide. The stock of prompts is
smaller than the cache's memory and is warmed before; every answer must be a hit.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.target.fleet import fleet, route
from controlplane.target.cache_warm import WarmSpec, run_warm
from controlplane.target.prompts import Prompts
from controlplane.target.report import percentile

COMMAND = "make bench ONLY=cache"
POOLS = '{"pools": {"primary": PoolSpec(1, "base"), "cache": PoolSpec(1, "base", serves="cache")}}'
RATE = 500.0
SECONDS = 3.0
RUNS = 3
STOCK = 400
SHORTEST, LONGEST = 16, 96
MAX_TOKENS = 8
GOAL_MS = 5.0
LOAD = """
import sys
from pathlib import Path
from controlplane.target.load import run_load
from controlplane.target.spec import LoadSpec
sys.exit(run_load(LoadSpec(sys.argv[1], Path(sys.argv[2]), quiet=True, **eval(sys.argv[3]))))
"""


def run() -> list[Figure]:
    """Warm a cache, switch to it, and load it."""
    with fleet(POOLS) as (run_dir, ready), tempfile.TemporaryDirectory() as folder:
        _warm(run_dir, Path(folder))
        route(run_dir, "cache")
        _drive(ready["gateway"], Path(folder) / "first.jsonl", 0.5)
        runs = [_drive(ready["gateway"], Path(folder) / f"{number}.jsonl", SECONDS) for number in range(RUNS)]
    p50, p99 = (1000 * median(percentile(latencies, share) for latencies in runs) for share in (0.5, 0.99))
    requests = sum(len(latencies) for latencies in runs)
    return [
        Figure(f"cache hit p99 through the gateway at {RATE:g}/s", round(p99, 3), "ms", requests, COMMAND,
               f"< {GOAL_MS:g} ms", p99 < GOAL_MS),
        Figure(f"cache hit p50 through the gateway at {RATE:g}/s", round(p50, 3), "ms", requests, COMMAND),
    ]  # fmt: skip


def _warm(run_dir: Path, folder: Path) -> None:
    """Have the cache fetch every prompt of the stock that the load will draw from."""
    stock = Prompts("loguniform", SHORTEST, LONGEST, STOCK, seed=0)
    bodies = [
        {"model": "reference", "max_tokens": MAX_TOKENS, "temperature": 0, "prompt": prompt} for prompt in stock.stock
    ]
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, bodies)))
    found = run_warm(WarmSpec(run_dir, top=0, prompts=file))
    if found["failed"] or found["refused"]:
        raise SystemExit(f"the cache could not be warmed: {found}")


def _drive(gateway: str, out: Path, seconds: float) -> list[float]:
    """Load the gateway; return the latencies in seconds, in order of size."""
    load = {
        "rate_per_s": RATE, "duration_s": seconds, "prompts": STOCK, "max_tokens": MAX_TOKENS,
        "prompt_bytes": (SHORTEST, LONGEST),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", LOAD, gateway, str(out), repr(load)], check=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    if missed := [line for line in lines if line["cache"] != "hit" and seconds == SECONDS]:
        raise SystemExit(f"{len(missed)} of {len(lines)} answers were no hits: {missed[0]}")
    return sorted(line["latency_s"] for line in lines)
