"""Deciding for 1,000 services of three rows each: the machine's steps alone, and whole evaluations of the matrix.

`step` is what every row costs at every evaluation once its trigger has been answered. A whole evaluation asks the
triggers besides (eight conditions and an alert a service, by the default rows), joins the rows and keeps the brake.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.figures import Figure
from controlplane.degradation import turn
from controlplane.degradation.machine import Reading, RowState, step
from controlplane.degradation.matrix import Mode, Truth
from controlplane.degradation.turn import Facts
from controlplane.policy.load import loads
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

COMMAND = "make bench ONLY=step"
SERVICES = 1_000
RUNS = 50
CHANGING = 10
"""Of so many services, one changes at each evaluation."""
GOAL_S = 0.005
_PAGE = """
service: bench
fleet:
  pools:
    primary: { endpoints: { static: ["http://127.0.0.1:1"] } }
    standby: { endpoints: { static: ["http://127.0.0.1:2"] } }
    base: { endpoints: { static: ["http://127.0.0.1:3"] } }
    cache: { endpoints: { static: ["http://127.0.0.1:4"] } }
"""
_SIGNALS = {
    "availability": 1.0, "endpoints_down": 0.0, "error_rate": 0.0, "latency_p99": 0.2, "queue_depth": 3.0,
    "kv_cache_utilization": 0.5, "inter_token_latency_p99": 0.02, "gpu_utilization": 0.7,
}  # fmt: skip


def run() -> list[Figure]:
    """Measure the steps, then whole evaluations."""
    matrix = loads(_PAGE, Path("bench.yaml")).policy.degradation
    rows = list(matrix.rows.values())
    well = Reading(Truth.NO, primary_well=True)
    dwells = replace(well, trigger=Truth.DWELLING)
    states = [[RowState(well_since=0.0) for _ in rows] for _ in range(SERVICES)]
    changing = [dwells if i % CHANGING == 0 else well for i in range(SERVICES)]

    def steady() -> None:
        for service in states:
            for row, state in zip(rows, service, strict=True):
                step(state, well, row, Mode.AUTO, 100.0)

    def some() -> None:
        for reading, service in zip(changing, states, strict=True):
            for row, state in zip(rows, service, strict=True):
                step(state, reading, row, Mode.AUTO, 100.0)

    evidence = {name: Evidence(name, value, Band.OK) for name, value in _SIGNALS.items()}
    facts = Facts(evidence)
    wholes = [turn.advance(matrix, turn.begin(matrix), facts, 0.0).state for _ in range(SERVICES)]

    def whole() -> None:
        for state in wholes:
            turn.advance(matrix, state, facts, 100.0)

    what = f"{SERVICES} services x {len(rows)} rows"
    return [
        _figure(f"step, {what}, nothing changes", steady, GOAL_S),
        _figure(f"step, {what}, one service in {CHANGING} changes", some, GOAL_S),
        _figure(f"whole evaluation, {what}, triggers asked", whole, None),
    ]


def _figure(name: str, work: Callable[[], None], goal_s: float | None) -> Figure:
    took = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    value = statistics.median(took)
    goal = "" if goal_s is None else f"< {goal_s * 1e3:g} ms"
    return Figure(
        name, round(value * 1e3, 3), "ms of CPU", RUNS, COMMAND, goal, None if goal_s is None else value < goal_s
    )
