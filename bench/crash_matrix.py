"""The crash-point matrix: SIGKILL at every write of the fault ledger, for every kind of fault; what is left after it.

One cell is one drill on a reference fleet, of processes behind links or of processes in network namespaces (root): the
control plane, the child, or both are killed before or after one write of the ledger. Nothing is restarted. What counts
is what is left of the faults 5 s after their last deadline, with the control plane dead where it was killed: asked of
the substrate's own driver, not of the ledger. A cell takes about five seconds, the whole matrix half an hour.

CRASH_SUBSTRATES=netns and CRASH_KINDS=node-kill,network-partition limit it. As anybody but root it leaves out the
namespaces, and the full disk, which needs a file system of its own.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from bench import crash_plane
from bench.figures import Figure
from bench.fleet import get, running_fleet, wait_until
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import DRIVERS, faults
from controlplane.fleet.model import CONTROLPLANE_POOL
from controlplane.store.database import open_database, sqlite_url
from controlplane.store.drills import StoredLeases
from controlplane.store.schema import leases as lease_table

WRITES = ("intend", "injected", "proven", "healed")
WHENS = ("before", "after")
WHOS = ("plane", "child", "both")
LASTS_S = 3
SLOWER_S: Mapping[FaultKind, int] = {
    FaultKind.GPU_SATURATION: 10,
    FaultKind.QUEUE_FLOOD: 6,
    FaultKind.SLOW_TOKENS: 5,
    FaultKind.STALLED_ENGINE: 6,
    FaultKind.MEMORY_PRESSURE: 6,
}
"""Leases of kinds that take longer to be in force and proven: a burner imports PyTorch first."""
GRACE_S = 5.0
STATE_MIB = 24
"""Size of the state directory's own file system, where it can have one."""
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

    substrate: str
    kind: FaultKind
    write: str
    when: str
    who: str

    def __str__(self) -> str:
        """Write it as a cell is named."""
        return f"{self.substrate} {self.kind} {self.when} {self.write} {self.who}"


@dataclass(frozen=True, slots=True)
class Result:
    """What one crash left."""

    case: Case
    leases: int
    """How many the ledger holds."""
    crashed: bool
    """Whether the control plane died."""
    reached: bool
    """Whether somebody died who was to."""
    left: tuple[str, ...]
    """Of the faults, 5 s after the last deadline."""


def cases(substrate: str, kinds: Iterable[FaultKind]) -> Iterator[Case]:
    """Give every cell of some kinds on one substrate."""
    for kind in kinds:
        for write in WRITES:
            for when in WHENS:
                for who in WHOS:
                    yield Case(substrate, kind, write, when, who)


def run() -> list[Figure]:
    """Go through the matrix and print it."""
    results: list[Result] = []
    root = os.geteuid() == 0
    for substrate, drivers in DRIVERS.items():
        kinds = [k for k in drivers if _wanted("CRASH_KINDS", k) and (root or k is not FaultKind.DISK_FULL)]
        if not kinds or not _wanted("CRASH_SUBSTRATES", substrate) or (substrate == "netns" and not root):
            print(f"left out: {substrate}")
            continue
        with running_fleet(*(["--netns"] if substrate == "netns" else [])) as run_dir:
            results += [_told(run_case(run_dir, case)) for case in cases(substrate, kinds)]
    _print(results)
    left, missed = sum(len(result.left) for result in results), sum(not result.reached for result in results)
    of = f"of {len(results)} crashes"
    return [
        Figure("residues after the deadline + 5 s", left, of, len(results), COMMAND, "0", left == 0),
        Figure("crash points that were not reached", missed, of, len(results), COMMAND, "0", missed == 0),
    ]


def _wanted(variable: str, name: str) -> bool:
    limits = os.environ.get(variable, "")
    return not limits or name in limits.split(",")


def _told(result: Result) -> Result:
    missed = "" if result.reached else ", NOT REACHED"
    print(f"{result.case}: {'; '.join(result.left) or 'nothing left'} ({result.leases} leases{missed})", flush=True)
    return result


def _print(results: list[Result]) -> None:
    points = [(write, when) for write in WRITES for when in WHENS]
    heads = [f"{when} {write}" for write, when in points]
    table = Table("fault", "substrate", "killed", *heads, title="left 5 s after the deadline (-: nothing)")
    cells = {(r.case.kind, r.case.substrate, r.case.who, r.case.write, r.case.when): r for r in results}
    for row in dict.fromkeys(key[:3] for key in cells):
        table.add_row(*row, *(_cell(cells.get((*row, *point))) for point in points))
    Console(width=160).print(table)


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return "; ".join(result.left) or ("-" if result.reached else "not reached")


def run_case(run_dir: Path, case: Case) -> Result:
    """Crash once and look at what is left."""
    mark = time.monotonic_ns()
    state, experiments, page = run_dir / f"state-{mark}", run_dir / f"experiments-{mark}", run_dir / "crash.yaml"
    experiments.mkdir()
    (experiments / "crash.yaml").write_text(yaml.safe_dump(experiment(case.kind)), encoding="utf-8")
    page.write_text((run_dir / "controlplane.yaml").read_text() + _OPEN_GATES, encoding="utf-8")
    crash = (case.write, case.when, case.who)
    with _own_file_system(state):
        plane = get_context("fork").Process(
            target=crash_plane.run, args=(crash, page, state, experiments, run_dir / "crash.log")
        )
        plane.start()
        try:
            _start_drill(plane, state)
            reached = _until_crashed(plane, state, case)
            stored = _leases(state)
            deadline = max((lease.deadline for lease in stored), default=datetime.now(UTC))
            left = _left_by(run_dir, state, case.substrate, stored, deadline.timestamp() + GRACE_S)
            return Result(case, len(stored), not plane.is_alive(), reached, left)
        finally:
            plane.terminate()
            plane.join(20)
            plane.kill()
            plane.join()
            plane.close()


@contextmanager
def _own_file_system(state: Path) -> Iterator[None]:
    """Give the state directory a file system of its own, as a drill that fills it wants; only root can."""
    state.mkdir()
    if os.geteuid():
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m", "none", str(state)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def experiment(kind: FaultKind) -> dict[str, Any]:
    """Write the smallest story of a kind: it breaks one endpoint, with the parameters its experiment has."""
    pool, parameters = _as_experiments_have_it(kind)
    step: dict[str, Any] = {"type": "python", "module": "controlplane.chaos.extension"}
    targets = "100%" if pool == CONTROLPLANE_POOL else 1  # Nobody looks at the control plane as at an endpoint.
    inject = {
        "kind": kind.value,
        "pool": pool,
        "endpoints": targets,
        "down_for": f"{SLOWER_S.get(kind, LASTS_S)}s",
        "parameters": parameters,
    }
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


def _start_drill(plane: ForkProcess, state: Path) -> None:
    def dead(found: Any) -> Any:
        return found or not plane.is_alive()

    url = wait_until(lambda: dead(_read(state / "url")), "the control plane serves")
    wait_until(lambda: dead((get(f"{url}/readyz") or {}).get("ready")), "it has seen the fleet")
    headers = {"authorization": f"Bearer {_read(state / 'token')}", "content-type": "application/json"}
    body = json.dumps({"experiment": "crash"}).encode()

    def started() -> bool:
        request = urllib.request.Request(f"{url}/api/v1/drills", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return bool(answer.status == 202)
        except OSError:
            time.sleep(0.2)  # A pool that is not back from the crash before keeps the gate closed.
            return not plane.is_alive()

    wait_until(started, "the drill has started")


def _until_crashed(plane: ForkProcess, state: Path, case: Case) -> bool:
    """Wait until the control plane is dead, or the drill has ended; tell whether whoever was to die did."""
    url = _read(state / "url")
    drill: dict[str, Any] = {}

    def over() -> bool:
        if not plane.is_alive():
            return True
        drills = get(f"{url}/api/v1/drills", _read(state / "token")) or []
        drill.update(drills[0] if drills else {})
        return bool(drill.get("outcome", "running") != "running")

    wait_until(over, f"the crash of {case}")
    return _read(state / crash_plane.CRASHED) != ""


def _leases(state: Path) -> tuple[Lease, ...]:
    with closing(open_database(sqlite_url(state / "controlplane.db"))) as database:

        async def every() -> tuple[Lease, ...]:
            drills = database.run_now(lambda c: [r.drill_id for r in c.execute(lease_table.select())])
            return tuple(
                [lease for drill in dict.fromkeys(drills) for lease in await StoredLeases(database).of_drill(drill)]
            )

        return asyncio.run(every())


def _left_by(run_dir: Path, state: Path, substrate: str, stored: tuple[Lease, ...], until: float) -> tuple[str, ...]:
    """Ask the substrate again and again until nothing is left, or it is that late (Unix seconds) before it is asked."""
    driver = faults(substrate, Place(run_dir / "nodes", run_dir / "links", state))
    left: tuple[str, ...] = ("not looked at",)
    while left:
        late = time.time() >= until
        left = tuple(text for lease in stored if (text := asyncio.run(driver.residue(lease))))
        if late:
            break
        time.sleep(0.1)
    return left


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
