"""Stopping a drill: from the moment a guard breaks, or somebody halts, until every fault has ended.

The guard's half runs a real drill on the reference fleet and takes the rest of the fleet away while it runs. The halt's
half has 20 nodes of its own (small processes with a supervisor that obeys the hold file) and breaks all of them.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import structlog

from bench.figures import Figure, below
from bench.fleet import get, kill_pool, process, running_fleet, wait_until
from controlplane.chaos.drill import Drill
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.substrates.process import ProcessNodes
from controlplane.clock import utcnow
from controlplane.fleet.model import Endpoint
from controlplane.flows.faults import OwnLeases, Stops
from controlplane.flows.halt import HaltPorts, halt
from controlplane.flows.recover import RecoverPorts, heal_all
from controlplane.store.database import open_database, sqlite_url
from controlplane.store.drills import StoredDrills, StoredHalts, StoredLeases
from controlplane.store.receipts import StoredReceipts

GUARD_RUNS, HALT_RUNS, NODES = 5, 5, 20
COMMAND = "make bench ONLY=abort"
_GUARDED = """
drills:
  monthly:
    gates: { error_budget_left: 0%, no_open_incident: false }
    guards: { availability: { below: 90%, for: 500ms } }
"""


def run() -> list[Figure]:
    """Measure both."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ended, healed = zip(*_guard_runs(), strict=True)
    halted, back = zip(*(_halt_once() for _ in range(HALT_RUNS)), strict=True)
    return [
        below("guard has broken (its `for` is over) to every fault told to end", ended, 2.0, COMMAND),
        below("guard has broken to proven healed (nodes are back)", healed, 10.0, COMMAND),
        below(f"halt to {NODES} faults told to end", halted, None, COMMAND),
        below(f"halt to {NODES} faults proven healed (nodes are back)", back, 3.0, COMMAND),
        Figure("halt, worst", round(max(back), 4), "s", len(back), COMMAND, "< 3 s", max(back) < 3.0),
    ]


# -- a guard that breaks -----------------------------------------------------------------------------------------------


def _guard_runs() -> Iterator[tuple[float, float]]:
    with running_fleet() as run_dir:
        page = run_dir / "guarded.yaml"
        page.write_text((run_dir / "controlplane.yaml").read_text() + _GUARDED)
        experiments = run_dir / "experiments"
        experiments.mkdir()
        story = (Path(__file__).resolve().parents[1] / "experiments" / "node-kill.yaml").read_text()
        (experiments / "node-kill.yaml").write_text(story.replace("down_for: 8s", "down_for: 90s"))
        for i in range(GUARD_RUNS):
            state = run_dir / f"state-{i}"
            line = ("serve", str(page), "--port", "0", "--state-dir", str(state), "--experiments", str(experiments))
            with process(run_dir / "serve.log", *line) as plane:
                url = wait_until(partial(_read, state / "url"), "it serves", plane)
                yield _guard_once(run_dir, url, _read(state / "token"))


def _guard_once(run_dir: Path, url: str, token: str) -> tuple[float, float]:
    wait_until(lambda: (get(f"{url}/readyz") or {}).get("ready"), "it has seen the fleet")
    drill = wait_until(lambda: _post(f"{url}/api/v1/drills", token, {"experiment": "node-kill"}), "the drill starts")

    def proven() -> bool:
        leases: list[dict[str, Any]] = get(f"{url}/api/v1/leases", token) or []
        return len([lease for lease in leases if lease["state"] == "proven"]) == 2

    wait_until(proven, "the faults are in force")
    for pool in ("standby", "base"):
        kill_pool(run_dir, pool, 6.0)
    here = f"{url}/api/v1/drills/{drill['id']}"
    wait_until(lambda: get(here, token)["outcome"] != "running", "the drill is aborted")
    events = get(f"{here}/events", token)
    moments = [(e["kind"], e["text"], datetime.fromisoformat(e["at"])) for e in events]
    broke = next(at for kind, _, at in moments if kind == "guard")
    ended = next(at for kind, text, at in moments if kind == "heal" and "told to end" in text)
    healed = max(at for kind, text, at in moments if kind == "heal" and text.startswith("node-kill on "))
    time.sleep(8.0)  # What the bench itself took away comes back before the next run.
    return (ended - broke).total_seconds(), (healed - broke).total_seconds()


def _post(url: str, token: str, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.load(answer)
    except OSError:
        time.sleep(0.5)
        return None


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


# -- a halt ------------------------------------------------------------------------------------------------------------

_SERVE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""


class _Node(threading.Thread):
    """One small process, restarted when it is dead and nothing holds it down."""

    def __init__(self, nodes: Path, name: str, port: int) -> None:
        super().__init__(daemon=True)
        self.nodes, self.node, self.port, self.ends = nodes, name, port, False
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Supervise."""
        while not self.ends:
            if (self.child is None or self.child.poll() is not None) and not self._held():
                self._start()
            time.sleep(0.02)
        if self.child:
            self.child.kill()
            self.child.wait()

    def _held(self) -> bool:
        try:
            return bool(json.loads((self.nodes / f"{self.node}.hold").read_text())["until"] > time.time())
        except (OSError, ValueError):
            return False

    def _start(self) -> None:
        line = [sys.executable, "-I", "-S", "-c", _SERVE, str(self.port)]
        self.child = subprocess.Popen(line, start_new_session=True)
        started = psutil.Process(self.child.pid).create_time()
        said = {"node": self.node, "pid": self.child.pid, "pgid": self.child.pid, "started_at": started}
        beside = self.nodes / f"{self.node}.json.new"
        beside.write_text(json.dumps(said))
        beside.replace(self.nodes / f"{self.node}.json")


@contextmanager
def _nodes(directory: Path) -> Iterator[list[Endpoint]]:
    nodes = [_Node(directory, f"node-{i}", 31_500 + os.getpid() % 100 * 5 + i) for i in range(NODES)]
    for node in nodes:
        node.start()
    try:
        yield [Endpoint(f"e{n.port}", "primary", f"http://127.0.0.1:{n.port}", n.node) for n in nodes]
    finally:
        for node in nodes:
            node.ends = True
        for node in nodes:
            node.join()


def _halt_once() -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        _nodes(Path(folder)) as endpoints,
        closing(open_database(sqlite_url(Path(folder) / "a.db"))) as database,
    ):
        drills, leases = StoredDrills(database), StoredLeases(database)
        driver = ProcessNodes(Path(folder))
        ports = HaltPorts(StoredHalts(database), drills, leases, driver, Stops(), OwnLeases(), (), utcnow)
        recovering = RecoverPorts("bench", StoredReceipts(database), leases, drills, None, driver, utcnow)
        return asyncio.run(_break_and_halt(endpoints, driver, ports, recovering))


async def _break_and_halt(
    endpoints: list[Endpoint], driver: ProcessNodes, ports: HaltPorts, recovering: RecoverPorts
) -> tuple[float, float]:
    now = datetime.now(UTC)
    await ports.drills.begin(Drill("bench", "node-kill", "P0", timedelta(minutes=5), "bench", now))
    made = [
        Lease(e.name, "bench", FaultKind.NODE_KILL, e, now + timedelta(minutes=5), LeaseState.INTENDED, now)
        for e in endpoints
    ]
    for lease in made:
        while await driver.residue(lease):  # noqa: ASYNC110 - a process that comes up tells nobody
            await asyncio.sleep(0.02)
        await ports.leases.intend(lease)
    for lease in made:
        await driver.apply(lease)
    if not all([await driver.prove(lease) for lease in made]):
        sys.exit("a node did not die")
    began = time.monotonic()
    await halt(ports, "bench", "bench")
    told = time.monotonic() - began
    while await ports.leases.open_leases():
        await heal_all(recovering)
    return told, time.monotonic() - began
