"""The control plane is killed (SIGKILL) before and after every write of a receipt's life; what does it leave?

A process walks through one whole life: gate, intent, errands and split, proof, two steps back, close. It is killed at
one point more each time; a fresh process then does what every start does. At the end the gateway, the errands and the
receipts must agree: untouched, or in force and proven.
"""

import asyncio
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.paper import NORMAL, SERVICE, SEVERAL, SWITCHED, errands_done, paper_plane, shown
from controlplane.degradation.actuator import ReceiptState
from controlplane.flows import switch

COMMAND = "make bench ONLY=receipt-crash"
PERIOD_S = 2.0
"""How often a living control plane looks for what is half done (`runtime.server.RECOVER_EVERY`)."""
WRITES = {
    "receipts": ("intend", "move", "note_steps"),
    "incidents": ("begin", "note", "move"),
    "actuator": ("apply",),
    "hand": ("apply", "revert"),
}
TTL_S = 60.0
"""How long the lease holds: the walker never renews it, and whoever starts anew takes it over as the same holder."""
CRASH_AT = "BENCH_CRASH_AT"
"""Environment variable: the point, counted from 0, at which the walking process kills itself."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What one crash left, after the recovery."""

    point: str
    left: str
    """The receipt's state when the process was killed; `none` before there was one."""
    ended: str
    """`untouched`, `in force`, or what is wrong."""
    took_s: float
    """What the recovery took."""


def run() -> list[Figure]:
    """Kill at every point; print the matrix."""
    endings = matrix()
    table = Table("killed", "receipt then", "after recovery", "took", title="every write of a receipt's life")
    for ending in endings:
        table.add_row(ending.point, ending.left, ending.ended, f"{ending.took_s * 1e3:.0f} ms")
    Console().print(table)
    good = sum(ending.ended in ("untouched", "in force") for ending in endings)
    took = [ending.took_s for ending in endings]
    n = len(endings)
    return [
        Figure("crash points that end untouched or in force", good, f"of {n}", n, COMMAND, "all", good == n),
        Figure("  of them in force", sum(e.ended == "in force" for e in endings), "points", n, COMMAND),
        Figure("recovery, median", round(statistics.median(took), 4), "s", n, COMMAND),
        Figure("recovery, worst", round(max(took), 4), "s", n, COMMAND, f"< {PERIOD_S:g} s", max(took) < PERIOD_S),
    ]


def matrix(every: int = 1) -> list[Ending]:
    """Kill at every point there is, or at every so-manieth."""
    endings: list[Ending] = []
    point = 0
    while True:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            name = _walk_and_die(Path(folder), point)
            if name is None:
                return endings
            endings.append(_recovered(Path(folder), name))
        point += every


def _walk_and_die(folder: Path, point: int) -> str | None:
    """Let a process walk until a point; return where that was, None when it came to the end."""
    os.environ[CRASH_AT] = str(point)
    try:
        process = multiprocessing.get_context("fork").Process(target=_in_process, args=(_walk, folder))
        process.start()
        process.join(60)
    finally:
        del os.environ[CRASH_AT]
    if process.exitcode == 0:
        return None
    if process.exitcode != -signal.SIGKILL:
        process.kill()
        raise SystemExit(f"the walk ended with {process.exitcode} at point {point}")
    return (folder / "died").read_text(encoding="utf-8")


def _in_process(work: Callable[[Path], Any], folder: Path) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    asyncio.run(work(folder))


async def _walk(folder: Path) -> None:
    """Live a receipt's whole life, and die where the environment says."""
    plane, database = paper_plane(folder, "walker", do=SEVERAL, ttl_s=TTL_S, wrap=_Killer(folder).around)
    await plane.leadership.turn()
    await plane.take_part()
    receipt = await switch.engage(plane.switching, plane.order(1))
    if receipt is None or receipt.state is not ReceiptState.VERIFIED:
        raise SystemExit(f"not engaged: {receipt}")
    await plane.release(receipt)
    database.close()


class _Killer:
    """Kills this process before or after one write; counts them over all ports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at = int(os.environ[CRASH_AT])
        self._seen = 0

    def around(self, port: str, inner: Any) -> Any:
        return _Around(self, port, inner)

    def pass_by(self, where: str) -> None:
        if self._seen == self._at:
            (self._folder / "died").write_text(where, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen += 1


class _Around:
    """A port that passes by the killer before and after each write."""

    def __init__(self, killer: _Killer, port: str, inner: Any) -> None:
        self._killer = killer
        self._port = port
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in WRITES[self._port]:
            return method

        async def killed(*given: Any, **named: Any) -> Any:
            what = " ".join([self._port, name, *(str(g) for g in given if isinstance(g, ReceiptState))])
            self._killer.pass_by(f"before {what}")
            done = await method(*given, **named)
            self._killer.pass_by(f"after {what}")
            return done

        return killed


def _recovered(folder: Path, point: str) -> Ending:
    """Start anew in a fresh process and look what became of it."""
    left = asyncio.run(_receipt_state(folder))
    began = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_in_process, args=(_recover, folder))
    process.start()
    process.join(60)
    took = time.monotonic() - began
    if process.exitcode != 0:
        return Ending(point, left, f"the recovery ended with {process.exitcode}", took)
    return Ending(point, left, asyncio.run(_ended(folder)), took)


async def _recover(folder: Path) -> None:
    plane, database = paper_plane(folder, "walker", do=SEVERAL, ttl_s=TTL_S)
    await plane.leadership.turn()
    await plane.take_part()
    database.close()


async def _receipt_state(folder: Path) -> str:
    plane, database = paper_plane(folder, "looker")
    receipts = await plane.receipts.recent(SERVICE, 1)
    database.close()
    return receipts[0].state if receipts else "none"


async def _ended(folder: Path) -> str:
    """Say what the gateway, the errands and the receipts agree on; or how they do not."""
    plane, database = paper_plane(folder, "looker")
    open_ones = await plane.receipts.open_receipts(SERVICE)
    database.close()
    live, errands = dict(shown(folder).weights), errands_done(folder)
    if not open_ones and live == dict(NORMAL.weights) and not errands:
        return "untouched"
    proven = [r for r in open_ones if r.state in (ReceiptState.VERIFIED, ReceiptState.REVERTING)]
    switched = {pool: weight for pool, weight in SWITCHED.weights.items() if weight}
    if len(open_ones) == len(proven) == 1 and live == switched and errands == ["notify", "scale"]:
        return "in force"
    return f"WRONG: {[r.state.value for r in open_ones]}, gateway {live}, errands {errands}"
