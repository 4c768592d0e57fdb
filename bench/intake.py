"""Alerts a second that are on disk before they are acknowledged, beside an Alertmanager that keeps them in memory.

`controlplane serve` as it is (SQLite in WAL mode, `synchronous=FULL`, or a PostgreSQL that syncs), against Debian's
Alertmanager and its `/api/v2/alerts`; the same loader, in turns: both on all cores, and both with one core of their own
and another for the loader. Then the time to the acknowledgement at 500 alerts a second, and the time from a webhook to
the message of the action that it sets off.
"""

import os
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, text

from bench.classic import ALERTMANAGER, free_ports, listens
from bench.figures import Figure
from bench.fleet import wait_until
from bench.hooked import ALERT, Outside, Plane, outside, plane
from bench.poster import Posted, poster
from tests.support.postgres import binaries, postgres

ROUNDS = 3
SHAPES = {"single alerts": (24_000, 1, 64), "batches of 64": (128_000, 64, 8)}
"""Alerts of one burst, alerts a request, connections."""
STEADY = (5_000, 1, 64)
RATE_PER_S = 500.0
ACK_GOAL_S = 0.05
ACTIONS = 30
ACTION_GOAL_S = 1.0
COMMAND = "make bench ONLY=intake"
_CONFIG = """
route: { receiver: nobody, group_by: [cluster], group_wait: 30s }
receivers: [ { name: nobody } ]
"""


def run() -> list[Figure]:
    """Measure everything, in turns."""
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, outside() as out:
        folder = Path(name)
        for turn in range(ROUNDS):
            _turn(folder / f"turn-{turn}", out, "", rates)
            with _cores({0}):
                _turn(folder / f"pinned-{turn}", out, ", one core", rates)
        shapes = [shape + more for more in ("", ", one core") for shape in SHAPES]
        figures = [_rate(shape, "SQLite", rates["ours", shape], rates.get(("peer", shape))) for shape in shapes]
        figures += _steady(folder / "steady", out)
        figures += _actions(folder / "actions", out)
        figures += _postgres(folder / "postgres", out, rates)
    return figures


def _turn(folder: Path, out: Outside, more: str, rates: dict[tuple[str, str], list[float]]) -> None:
    """Measure everybody once; what starts here stays on the cores that this process has now."""
    for shape, (alerts, batch, connections) in SHAPES.items():
        if shutil.which(ALERTMANAGER):
            with alertmanager(folder / f"am-{batch}") as port, _loaders_cores(more):
                peer = poster("v2", port, alerts, batch, connections)
            rates.setdefault(("peer", shape + more), []).append(peer.per_s)
        ours = _sqlite(folder / f"ours-{batch}", out, more, alerts, batch, connections)
        rates.setdefault(("ours", shape + more), []).append(ours.per_s)


@contextmanager
def _cores(cores: set[int]) -> Iterator[None]:
    """Have this thread, and whatever it starts, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _loaders_cores(more: str) -> AbstractContextManager[None]:
    return _cores({1}) if more else nullcontext()


def _rate(shape: str, store: str, ours: list[float], peer: list[float] | None) -> Figure:
    value = statistics.median(ours)
    if peer is None:
        return Figure(f"durable, {shape} ({store})", round(value), "alerts/s", len(ours), COMMAND)
    theirs = statistics.median(peer)
    return Figure(
        f"durable, {shape} ({store})", round(value), "alerts/s", len(ours), COMMAND, ">= 1.0 x", value >= theirs,
        "Alertmanager, in memory", round(theirs), value / theirs,
    )  # fmt: skip


def _sqlite(folder: Path, out: Outside, more: str, alerts: int, batch: int, connections: int) -> Posted:
    with plane(folder, out) as ours:
        with _loaders_cores(more):
            done = poster("webhook", ours.port, alerts, batch, connections)
        with closing(sqlite3.connect(f"file:{ours.database}?mode=ro", uri=True)) as database:
            stored = database.execute("SELECT count(*) FROM alerts").fetchone()[0]
    _all_there(done, stored)
    return done


def _all_there(done: Posted, stored: int) -> None:
    if stored < done.acked or done.refused:
        raise SystemExit(f"{done.acked} alerts were acknowledged, {stored} are stored; {done.refused} refused")


def _steady(folder: Path, out: Outside) -> list[Figure]:
    alerts, batch, connections = STEADY
    with plane(folder, out) as ours:
        time.sleep(2.0)
        done = poster("webhook", ours.port, alerts, batch, connections, RATE_PER_S)
    p99 = round(done.p99_s, 4)
    n = alerts // batch
    return [
        Figure("time to the acknowledgement at 500 alerts/s, p50", round(done.p50_s, 4), "s", n, COMMAND),
        Figure("  p99", p99, "s", n, COMMAND, f"< {ACK_GOAL_S:g} s", p99 < ACK_GOAL_S),
    ]


def _actions(folder: Path, out: Outside) -> list[Figure]:
    """Time webhook -> receiver told, over and over on one control plane."""
    took: list[float] = []
    with plane(folder, out) as ours:
        wait_until(lambda: ours.phase() == "idle", "the row is idle")
        time.sleep(2.0)
        for _ in range(ACTIONS):
            took.append(_action(ours, out))
    worst = max(took)
    return [
        Figure("webhook to the action's message, median", round(statistics.median(took), 4), "s", ACTIONS, COMMAND),
        Figure("  worst", round(worst, 4), "s", ACTIONS, COMMAND, f"< {ACTION_GOAL_S:g} s", worst < ACTION_GOAL_S),
    ]


def _action(ours: Plane, out: Outside) -> float:
    seen, began = len(out.begun()), time.time()
    one = {"labels": {"alertname": ALERT}, "startsAt": datetime.now(UTC).isoformat()}
    ours.post([{"status": "firing", **one}])
    wait_until(lambda: len(out.begun()) > seen, "the receiver is told", within_s=30)
    took = next(at for at, key in reversed(out.told) if key.endswith("/firing")) - began
    wait_until(lambda: ours.phase() == "engaged", "the row is engaged", within_s=30)
    ours.post([{"status": "resolved", **one, "endsAt": datetime.now(UTC).isoformat()}])
    wait_until(lambda: ours.phase() == "idle", "the row is idle", within_s=30)
    return took


def _postgres(folder: Path, out: Outside, rates: dict[tuple[str, str], list[float]]) -> list[Figure]:
    programs = binaries()
    if programs is None:
        return []
    figures = []
    for shape, (alerts, batch, connections) in SHAPES.items():
        found = []
        for turn in range(ROUNDS):
            with postgres(programs, durable=True) as url, plane(folder / f"{batch}-{turn}", out, database=url) as ours:
                done = poster("webhook", ours.port, alerts, batch, connections)
                engine = create_engine(url)
                with engine.connect() as connection:
                    _all_there(done, connection.execute(text("SELECT count(*) FROM alerts")).scalar_one())
                engine.dispose()
            found.append(done.per_s)
        figures.append(_rate(shape, "PostgreSQL", found, rates.get(("peer", shape))))
    return figures


@contextmanager
def alertmanager(folder: Path, config: str = _CONFIG) -> Iterator[int]:
    """Run Debian's Alertmanager; give its port. It is ended by its pid."""
    folder.mkdir(parents=True)
    (folder / "am.yml").write_text(config)
    (port,) = free_ports(1)
    command = [
        ALERTMANAGER, f"--config.file={folder}/am.yml", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=error",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), "Alertmanager listens", child)
        yield port
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
