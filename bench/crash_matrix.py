"""The crash-point matrix: SIGKILL at every write of the fault ledger, for every kind of fault; what is left after it.

One cell is one drill on the reference fleet: the control plane, the child, or both are killed before or after one
write of the ledger. Nothing is restarted. What counts is what is left of the faults 5 s after their last deadline, with
the control plane dead where it was killed: asked of the substrate's own driver, not of the ledger.

CRASH_KINDS=node-kill,network-partition limits the kinds; the whole matrix takes about 10 s a cell.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.fleet import get, running_fleet, wait_until
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import DRIVERS, faults
from controlplane.store.database import open_database, sqlite_url
from controlplane.store.drills import StoredLeases
from controlplane.store.schema import leases as lease_table

WRITES = ("intend", "injected", "proven", "healed")
WHENS = ("before", "after")
WHOS = ("plane", "child", "both")
LASTS_S = 4
GRACE_S = 5.0
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
COMMAND = "make bench ONLY=crash-matrix"
_OPEN_GATES = """
drills:
  monthly:
    gates: { error_budget_left: 0%, no_open_incident: false, standby_ready: false }
    guards: {}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the matrix."""

    kind: FaultKind
    write: str
    when: str
    who: str

    def __str__(self) -> str:
        """Write it as a cell is named."""
        return f"{self.kind} {self.when} {self.write} {self.who}"


@dataclass(frozen=True, slots=True)
class Result:
    """What one crash left."""

    case: Case
    leases: int
    """How many the ledger holds."""
    crashed: bool
    """Whether the control plane died, where it was to."""
    left: tuple[str, ...]
    """Of the faults, 5 s after the last deadline."""


def cases(kinds: Iterable[FaultKind]) -> Iterator[Case]:
    """Give every cell of some kinds."""
    for kind in kinds:
        for write in WRITES:
            for when in WHENS:
                for who in WHOS:
                    yield Case(kind, write, when, who)


def run() -> list[Figure]:
    """Go through the matrix and print it."""
    wanted = os.environ.get("CRASH_KINDS", "")
    kinds = [kind for kind in DRIVERS["process"] if not wanted or kind.value in wanted.split(",")]
    with running_fleet() as run_dir:
        results = [_told(run_case(run_dir, case)) for case in cases(kinds)]
    _print(results)
    left = sum(len(result.left) for result in results)
    return [
        Figure(
            "residues after the deadline + 5 s",
            left,
            f"of {len(results)} crashes",
            len(results),
            COMMAND,
            "0",
            left == 0,
        )
    ]


def _told(result: Result) -> Result:
    print(f"{result.case}: {'; '.join(result.left) or 'nothing left'} ({result.leases} leases)", flush=True)
    return result


def _print(results: list[Result]) -> None:
    table = Table("fault", "write", "when", *WHOS, title="left 5 s after the deadline")
    by_case = {(r.case.kind, r.case.write, r.case.when, r.case.who): r for r in results}
    for kind, write, when in dict.fromkeys((r.case.kind, r.case.write, r.case.when) for r in results):
        cells = [by_case[kind, write, when, who] for who in WHOS]
        table.add_row(kind, write, when, *("; ".join(c.left) if c.left else "-" for c in cells))
    Console(width=160).print(table)


def run_case(run_dir: Path, case: Case) -> Result:
    """Crash once and look at what is left."""
    state = run_dir / f"state-{time.monotonic_ns()}"
    experiments = run_dir / f"experiments-{time.monotonic_ns()}"
    experiments.mkdir()
    (experiments / "crash.yaml").write_text(yaml.safe_dump(experiment(case.kind)), encoding="utf-8")
    page = run_dir / "crash.yaml"
    page.write_text((run_dir / "controlplane.yaml").read_text() + _OPEN_GATES, encoding="utf-8")
    line = [sys.executable, "-m", "bench.crash_plane", case.write, case.when, case.who, page, state, experiments]
    with (run_dir / "crash.log").open("ab") as log:
        plane = subprocess.Popen([*map(str, line)], stdout=log, stderr=log, start_new_session=True)
    try:
        _start_drill(plane, state)
        _until_crashed(plane, state, case)
        stored = _leases(state)
        deadline = max((lease.deadline for lease in stored), default=datetime.now(UTC))
        left = _left_by(run_dir, state, stored, deadline.timestamp() + GRACE_S)
        return Result(case, len(stored), plane.poll() is not None, left)
    finally:
        if plane.poll() is None:
            plane.send_signal(signal.SIGTERM)
            try:
                plane.wait(20)
            except subprocess.TimeoutExpired:
                plane.kill()
                plane.wait()


def experiment(kind: FaultKind) -> dict[str, Any]:
    """Write the smallest story of a kind: it breaks one endpoint, with the parameters its experiment has."""
    pool, parameters = _as_experiments_have_it(kind)
    step: dict[str, Any] = {"type": "python", "module": "controlplane.chaos.extension"}
    inject = {"kind": kind.value, "pool": pool, "endpoints": 1, "down_for": f"{LASTS_S}s", "parameters": parameters}
    return {
        "version": "1.0.0", "title": f"crash in the middle of {kind}", "description": "for the crash matrix",
        "extensions": [{"name": "controlplane", "row": "none", "blast_radius": "one endpoint"}],
        "runtime": {"rollbacks": {"strategy": "always"}},
        "method": [
            {"name": "break", "type": "action", "provider": {**step, "func": "inject", "arguments": inject}},
            {"name": "healed", "type": "probe", "tolerance": True,
             "provider": {**step, "func": "await_healed", "arguments": {"within_s": 30}}},
        ],
        "rollbacks": [{"name": "heal", "type": "action", "provider": {**step, "func": "heal"}}],
    }  # fmt: skip


def _as_experiments_have_it(kind: FaultKind) -> tuple[str, dict[str, Any]]:
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        for step in yaml.safe_load(path.read_text(encoding="utf-8"))["method"]:
            arguments = step["provider"].get("arguments", {})
            if arguments.get("kind") == kind.value:
                return arguments["pool"], arguments.get("parameters", {})
    raise LookupError(f"no experiment breaks anything by {kind}")


def _start_drill(plane: "subprocess.Popen[bytes]", state: Path) -> None:
    url = wait_until(lambda: _read(state / "url"), "the control plane serves", plane)
    wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it has seen the fleet", plane)
    headers = {"authorization": f"Bearer {_read(state / 'token')}", "content-type": "application/json"}
    body = json.dumps({"experiment": "crash"}).encode()

    def started() -> bool:
        request = urllib.request.Request(f"{url}/api/v1/drills", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return bool(answer.status == 202)
        except OSError:
            time.sleep(0.5)  # A pool that is not back from the crash before keeps the gate closed.
            return plane.poll() is not None

    wait_until(started, "the drill has started")


def _until_crashed(plane: "subprocess.Popen[bytes]", state: Path, case: Case) -> None:
    """Wait until the control plane is dead, or the drill whose child is dead has ended."""
    url = _read(state / "url")

    def over() -> bool:
        if plane.poll() is not None:
            return True
        drills = get(f"{url}/api/v1/drills", _read(state / "token")) or []
        return case.who == "child" and bool(drills) and drills[0]["outcome"] != "running"

    wait_until(over, f"the crash of {case}")


def _leases(state: Path) -> tuple[Lease, ...]:
    with closing(open_database(sqlite_url(state / "controlplane.db"))) as database:

        async def every() -> tuple[Lease, ...]:
            drills = database.run_now(lambda c: [r.drill_id for r in c.execute(lease_table.select())])
            return tuple(
                [lease for drill in dict.fromkeys(drills) for lease in await StoredLeases(database).of_drill(drill)]
            )

        return asyncio.run(every())


def _left_by(run_dir: Path, state: Path, stored: tuple[Lease, ...], until: float) -> tuple[str, ...]:
    """Ask the substrate again and again until nothing is left, or it is that late (Unix seconds)."""
    driver = faults("process", Place(run_dir / "nodes", run_dir / "links", state))
    left: tuple[str, ...] = ("not looked at",)
    while left:
        left = tuple(text for lease in stored if (text := asyncio.run(driver.residue(lease))))
        if time.time() >= until:
            break
        time.sleep(0.1)
    return left


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
