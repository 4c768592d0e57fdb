"""Policies and drills that the golden files, and other tests of what is rendered, are made from."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.policy.load import load
from controlplane.policy.model import Policy

HERE = Path(__file__).parent
NAMES = ("minimal", "full", "kubernetes")
HOSTILE = (
    'x"} or vector(1) {{ .Labels }} {% raw %}{{ 7*7 }}<img src=x onerror=alert(1)>|`a`\n## head\r--> $(touch pwned) '
    "'; rm -rf / \u202egnp 😀 " + "ä" * 10_000
)


@cache
def policy(name: str) -> Policy:
    """Return one of the policies in `policies/`."""
    return load(HERE / "policies" / f"{name}.yaml").policy


def hostile_policy() -> Policy:
    """Return a policy whose names try to break out of every page."""
    full = policy("full")
    pools = {("primary" if name == "primary" else name): pool for name, pool in full.fleet.pools.items()}
    return replace(full, service=HOSTILE, fleet=replace(full.fleet, pools=pools))


def drill(day: int, outcome: Outcome, *reasons: str, row: str = "P0", **seconds: float) -> Drill:
    """Return a drill of November 2026 whose phases came so many seconds after the fault."""
    fault = datetime(2026, 11, day, 2, 0, tzinfo=UTC)
    phases = {DrillPhase.FAULT: fault} | {DrillPhase(k): fault + timedelta(seconds=v) for k, v in seconds.items()}
    return Drill(
        id=f"node-kill-2026-11-{day:02}",
        experiment="node-kill",
        row=row,
        objective=timedelta(minutes=3),
        requested_by="schedule",
        started_at=fault,
        outcome=outcome,
        reasons=reasons,
        ended_at=fault + timedelta(minutes=2),
        phases=phases if seconds else {},
    )


DRILLS = (
    drill(17, Outcome.REFUSED, "1 incident is open"),
    drill(10, Outcome.PASSED, detected=0.05, decided=0.26, acted=0.33, verified=0.68, healed=31.2, recovered=62.5),
    drill(
        3, Outcome.FAILED, "objective missed: 312.0 s from detected to verified", "no recovered",
        detected=0.06, decided=0.3, acted=3.1, verified=312.06, healed=31.2,
    ),
)  # fmt: skip
"""Newest first."""
