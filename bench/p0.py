"""P0 under load: the whole primary pool killed, or hung, until the switch is verified; and what users saw of it.

The same kills are told to Debian's Prometheus and Alertmanager, which end at their webhook: nothing has moved by then.
"""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.classic import Hook, classic, installed
from bench.figures import Figure, below
from bench.fleet import get, kill_pool, pool_groups, process, running_fleet, wait_until
from controlplane.target.report import Line, good, percentile, read

RUNS = 10
RATE_PER_S = 200
STREAMS_PER_S = 4
DOWN_S = 1.0
LEASED_S = 60.0
KILL_GOAL_S = 0.5
HANG_GOAL_S = 1.5
CLIENT_TIMEOUT_S = 5.0
PHASES = ("detected", "decided", "intended", "applied", "verified")
COMMAND = "make bench ONLY=p0"
_QUICK_RELEASE = "\ndegradation:\n  max_switches_per_hour: 1000\n  P0: { release: { steps: [100%], hold: 500ms } }\n"

Runs = list[dict[str, float]]


def run() -> list[Figure]:
    """Kill and hang the primary pool again and again under 200 requests a second."""
    told: list[float] = []
    with watched_fleet(_QUICK_RELEASE) as (run_dir, url), ExitStack() as beside:
        pipeline = classic(run_dir / "classic", run_dir / "sd" / "primary.json")
        hook = beside.enter_context(pipeline) if installed() else None
        short, streams = run_dir / "requests.jsonl", run_dir / "streams.jsonl"
        beside.enter_context(load(run_dir, short, RATE_PER_S))
        beside.enter_context(load(run_dir, streams, STREAMS_PER_S, "--stream", "--max-tokens", "48"))
        time.sleep(3)
        began = time.time()
        kills = [_once(run_dir, url, _kill, hook, told) for _ in range(RUNS)]
        between = time.time()
        hangs = [_once(run_dir, url, _hang, None, told) for _ in range(RUNS)]
        time.sleep(CLIENT_TIMEOUT_S)
        ended = time.time()
        figures = _phases("SIGKILL", kills, KILL_GOAL_S)
        figures += _beside(kills, told)
        figures += _seen_by_users("SIGKILL", read(short), read(streams), began, between)
        figures += _phases("SIGSTOP", hangs, HANG_GOAL_S)
        figures += _seen_by_users("SIGSTOP", read(short), read(streams), between, ended)
    return figures


@contextmanager
def watched_fleet(rows: str) -> Iterator[tuple[Path, str]]:
    """Run the reference fleet and a control plane on it, with these rows on its page; give its directory and URL."""
    with running_fleet() as run_dir:
        page = run_dir / "controlplane.yaml"
        page.write_text(page.read_text().split("\ndegradation:")[0] + rows)
        with process(run_dir / "serve.log", "serve", str(page), "--port", "0") as plane:
            url = wait_until(lambda: text(run_dir / "state" / "url"), "the control plane serves", plane)
            wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it has seen the fleet", plane)
            yield run_dir, url


def load(run_dir: Path, record: Path, rate_per_s: float, *more: str) -> AbstractContextManager[Any]:
    """Send requests through the gateway at a rate, each on record."""
    gateway = f"http://{text(run_dir / 'gateway' / 'listener')}"
    arguments = ("target", "load", gateway, "--rate", str(rate_per_s), "--out", str(record), "--quiet", *more)
    return process(record.with_suffix(".log"), *arguments)


def _kill(run_dir: Path) -> tuple[float, Callable[[], None]]:
    """SIGKILL every endpoint of the primary pool, and keep them down until the classic pipeline has noticed, too."""
    at = kill_pool(run_dir, "primary", LEASED_S)

    def release() -> None:
        time.sleep(max(0.0, at + DOWN_S - time.time()))
        for hold in (run_dir / "nodes").glob("node-primary-*.hold"):
            hold.unlink(missing_ok=True)

    return at, release


def _hang(run_dir: Path) -> tuple[float, Callable[[], None]]:
    """SIGSTOP every endpoint of the primary pool: connections stay open, nothing is answered."""
    groups = pool_groups(run_dir, "primary")
    at = time.time()
    for group in groups:
        os.killpg(group, signal.SIGSTOP)

    def wake() -> None:
        for group in groups:
            os.killpg(group, signal.SIGCONT)

    return at, wake


def _once(
    run_dir: Path, url: str, break_it: Callable[[Path], tuple[float, Callable[[], None]]], hook: Hook | None,
    told: list[float],
) -> dict[str, float]:  # fmt: skip
    """Break the pool, wait for the receipt and for the way back; return the seconds from the break to each phase."""
    token = text(run_dir / "state" / "token")
    seen = len(get(f"{url}/api/v1/receipts?limit=500", token))
    at, mend = break_it(run_dir)

    def reached(*states: str) -> Any:
        receipts = get(f"{url}/api/v1/receipts?limit=500", token) or []
        return receipts[0] if len(receipts) > seen and receipts[0]["state"] in states else None

    try:
        wait_until(lambda: reached("verified", "reverting", "reverted"), "the switch is verified")
        if hook:
            told.append(wait_until(lambda: hook.first_firing(at), "the webhook is called") - at)
    finally:
        mend()
    receipt = wait_until(lambda: reached("reverted"), "traffic is back")
    if hook:
        wait_until(hook.quiet, "the classic pipeline says that all is well")
    moments = {"detected": receipt["detected_at"], "decided": receipt["decided_at"], **receipt["times"]}
    time.sleep(3.0)  # The supervisor's back-off is for crash loops; the pool is to live for a while between two kills.
    return {phase: datetime.fromisoformat(moments[phase]).timestamp() - at for phase in PHASES}


def _phases(what: str, runs: Runs, goal_s: float) -> list[Figure]:
    verified = sorted(r["verified"] for r in runs)
    figures = [below(f"{what} to verified, median", verified, goal_s, COMMAND)]
    figures.append(Figure(f"{what} to verified, worst", round(verified[-1], 4), "s", len(runs), COMMAND))
    previous = dict.fromkeys(range(len(runs)), 0.0)
    for phase in PHASES:
        spent = [r[phase] - previous[i] for i, r in enumerate(runs)]
        previous = {i: r[phase] for i, r in enumerate(runs)}
        value = round(statistics.median(spent), 4)
        figures.append(Figure(f"of that, until {phase}", value, "s", len(runs), COMMAND))
    moved = [r["applied"] - r["decided"] for r in runs]
    return [*figures, below("decision to the lever moved, median", moved, None, COMMAND)]


def _beside(kills: Runs, told: Sequence[float]) -> list[Figure]:
    """Set the classic pipeline's webhook beside our proof of the same kills."""
    if not told:
        return []
    ours, theirs = statistics.median(r["verified"] for r in kills), statistics.median(told)
    return [
        Figure(
            "SIGKILL to verified, beside Prometheus + Alertmanager (1 s, group_wait 0) to its webhook",
            round(ours, 4), "s", len(told), COMMAND, "", None, "classic", round(theirs, 3), round(ours / theirs, 3),
        ),
        Figure("  classic, worst", round(max(told), 3), "s", len(told), COMMAND),
    ]  # fmt: skip


def _seen_by_users(
    what: str, short: Sequence[Line], streams: Sequence[Line], began: float, ended: float
) -> list[Figure]:
    """Count what clients with a 5 s time-out got; streams that were cut in the middle apart."""
    mine = [line for line in short if began <= line.intended < ended]
    failed = sum(not good(line) or line.latency_s > CLIENT_TIMEOUT_S for line in mine)
    flows = [line for line in streams if began <= line.intended < ended]
    cut = sum(not good(line) for line in flows)
    p99 = percentile(sorted(line.latency_s for line in mine), 0.99)
    worst = max((line.latency_s for line in mine), default=0.0)
    return [
        Figure(f"{what}: failed client requests", failed, f"of {len(mine)}", RUNS, COMMAND, "0", failed == 0),
        Figure(f"{what}: streams cut or failed", cut, f"of {len(flows)}", RUNS, COMMAND),
        Figure(f"{what}: client p99", round(p99, 4), "s", len(mine), COMMAND),
        Figure(f"{what}: slowest client", round(worst, 4), "s", len(mine), COMMAND),
    ]


def text(path: Path) -> str:
    """Return what a file says; an empty string while it is not there."""
    return path.read_text().strip() if path.exists() else ""
