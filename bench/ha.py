"""Three replicas on one PostgreSQL: the one in charge is killed again and again during drills and webhooks.

How long until another one acts, and what was lost, done twice or left behind? And PostgreSQL itself is restarted under
load: what do those who post and those who read get, and when is everything as before?

HA_KILLS says how often it is killed (100); a kill takes about five seconds, since a drill is begun for each, and the
fleet is whole again before the next. HA_LEADER=kubernetes:NAMESPACE/NAME finds the leader by a Lease (with KUBECONFIG).
"""

import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.replicas import ALERT, HOOK, Poster, Replica, World, told, until, world
from tests.support.postgres import Server, binaries, server

KILLS = int(os.environ.get("HA_KILLS", "100"))
LEADER = os.environ.get("HA_LEADER", "database")
REPLICAS = 3
RESTARTS = 5
INTO_A_DRILL_S = 2.5
"""The leader is killed at a random moment so long after a drill's start at most."""
ACTS_GOAL_S = 5.0
BACK_GOAL_S = 2.0
COMMAND = "make bench ONLY=ha"


@dataclass(slots=True)
class Found:
    """What many kills showed."""

    took: list[float] = field(default_factory=list)
    """Seconds from each SIGKILL until another replica was in charge and had settled what was left."""
    drills: list[str] = field(default_factory=list)
    """Drills that were asked for and accepted."""
    residues: list[str] = field(default_factory=list)
    posted: int = 0
    kept: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    twice_run: int = 0
    twice_acted: list[str] = field(default_factory=list)
    retold: int = 0
    """Messages that were sent again under the same key: whoever gets them can tell."""
    actions: int = 0
    terms: int = 0


def run() -> list[Figure]:
    """Kill, count, restart the database, count."""
    programs = binaries()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed")
    with server(programs, durable=True) as database:
        found = kills(database, KILLS)
    with server(programs, durable=True) as database:
        again = restarts(database, RESTARTS)
    n = len(found.took)
    lost = found.posted - found.kept
    worst = max(found.took)
    return [
        Figure("SIGKILL of the leader until another acts, median", round(statistics.median(found.took), 2), "s", n,
               COMMAND, f"< {ACTS_GOAL_S:g} s", statistics.median(found.took) < ACTS_GOAL_S),
        Figure("  worst", round(worst, 2), "s", n, COMMAND, f"< {ACTS_GOAL_S:g} s", worst < ACTS_GOAL_S),
        Figure("double runs", found.twice_run, f"of {len(found.drills)} drills", n, COMMAND, "0", not found.twice_run),
        Figure("double actions", len(found.twice_acted), f"of {found.actions}", n, COMMAND, "0", not found.twice_acted),
        Figure("alerts lost", lost, f"of {found.posted}", n, COMMAND, "0", lost == 0),
        Figure("residues of faults", len(found.residues), "after the fleet calmed", n, COMMAND, "0",
               not found.residues),
        Figure("  messages told again under the same key", found.retold, "messages", n, COMMAND),
        Figure("  changes of hands", found.terms, "terms", n, COMMAND),
        *again,
    ]  # fmt: skip


# -- the leader dies -------------------------------------------------------------------------------------------------


def kills(database: Server, times: int, seed: int = 9) -> Found:
    """Kill whoever is in charge so many times, during a drill and under webhooks; return what was found."""
    draw, found = random.Random(seed), Found()
    more = ("--leader", LEADER)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        world(Path(name), database.url(), REPLICAS, more) as around,
    ):
        with Poster(around.replicas) as poster:
            for turn in range(times):
                around.until_calm()
                found.drills.append(around.start_drill())
                _tell_until_taken(around, ends=False)
                time.sleep(draw.uniform(0.0, INTO_A_DRILL_S))
                led = around.until_leader()
                at = led.kill()
                around.until_leader(but=led)
                found.took.append(time.monotonic() - at)
                print(f"kill {turn + 1}: {found.took[-1]:.2f} s", flush=True)
                led.start()
                _tell_until_taken(around, ends=True)
                with suppress(TimeoutError):
                    around.until_calm()
                found.residues += residues(around, database)
        around.until_calm()
        found.posted, found.statuses = poster.taken, Counter(poster.statuses)
        found.kept = kept(database)
        found.twice_run = twice_run(database, found.drills)
        found.twice_acted = twice_acted(around, database)
        found.retold = len(around.out.messages) - len(set(around.out.messages))
        found.actions = int(database.ask("SELECT count(*) FROM receipts")[0][0])
        found.terms = int(database.ask("SELECT max(token) FROM leadership")[0][0])
    return found


def _tell_until_taken(around: World, *, ends: bool) -> None:
    """Tell any replica that the alert of row P1 fires, or has ended."""
    until(lambda: _tell(around.replicas, told(ALERT, ends=ends)), "a replica takes the row's alert")


def _tell(replicas: Sequence[Replica], alert: dict[str, Any]) -> bool:
    replica = random.choice([r for r in replicas if r.child] or list(replicas))
    return replica.ask("POST", HOOK, {"version": "4", "alerts": [alert]}, within_s=3.0).status == 200


def residues(around: World, database: Server) -> list[str]:
    """Return what faults have left: holds, dead nodes, leases that are open."""
    left = [f"{node.name} is held down" for node in around.nodes if node.hold.exists()]
    open_leases = database.ask("SELECT id, detail FROM leases WHERE state <> 'healed'")
    return left + [f"lease {name} is open: {detail}" for name, detail in open_leases]


def kept(database: Server) -> int:
    """Return how many of the posted alerts are in the books."""
    return int(database.ask("SELECT count(*) FROM alerts WHERE name = 'Storm' AND status = 'firing'")[0][0])


def twice_run(database: Server, asked: Sequence[str]) -> int:
    """Count drills that nobody asked for, and drills that ran beside another."""
    ran = [
        (str(key), datetime.fromisoformat(begun), datetime.fromisoformat(ended))
        for key, begun, ended in database.ask("SELECT id, started_at, ended_at FROM drills ORDER BY started_at")
    ]
    beside = sum(later[1] < earlier[2] for earlier, later in pairwise(ran))
    return len({key for key, _, _ in ran} - set(asked)) + beside


def twice_acted(around: World, database: Server) -> list[str]:
    """Return engagements that were carried out by two calls, and rows that were engaged twice at once."""
    rows = database.ask(
        "SELECT a.id, b.id FROM receipts a JOIN receipts b ON a.level = b.level AND a.episode < b.episode "
        "AND b.intended_at < coalesce(a.reverted_at, a.failed_at, '9') AND a.level <> 'none'"
    )
    return [
        *around.out.twice(),
        *(f"{first} and {second} at once" for first, second in rows),
    ]


# -- the database goes -----------------------------------------------------------------------------------------------


def restarts(database: Server, times: int) -> list[Figure]:
    """Restart PostgreSQL under load, as an administrator does and as a crash does; return the figures."""
    back: list[float] = []
    odd: Counter[int] = Counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, world(Path(name), database.url(), REPLICAS) as around:
        around.until_calm()
        with Poster(around.replicas, every_s=0.01) as poster:
            for turn in range(times):
                time.sleep(3.0)
                database.stop("fast" if turn % 2 else "immediate")
                time.sleep(1.0)
                database.start()
                began = time.monotonic()
                until(lambda: all(_reads(replica) for replica in around.replicas), "every replica reads again")
                until(partial(_taken_since, poster, began), "a webhook is taken")
                around.until_leader()
                back.append(time.monotonic() - began)
                print(f"restart {turn + 1}: {back[-1]:.2f} s", flush=True)
        odd.update({status: count for status, count in poster.statuses.items() if status not in (200, 503)})
        lost = poster.taken - kept(database)
        refused = poster.statuses.get(503, 0)
    worst = max(back)
    n = len(back)
    return [
        Figure("PostgreSQL restarted: until webhooks, reads and the leader are back, worst", round(worst, 2), "s", n,
               COMMAND, f"< {BACK_GOAL_S:g} s", worst < BACK_GOAL_S),
        Figure("  alerts lost", lost, f"of {poster.taken}", n, COMMAND, "0", lost == 0),
        Figure("  webhooks answered 503", refused, "all with Retry-After", n, COMMAND, "",
               None if poster.without_retry_after == 0 else False),
        Figure("  webhooks answered anything else but 200", sum(odd.values()), "", n, COMMAND, "0",
               not sum(odd.values())),
    ]  # fmt: skip


def _taken_since(poster: Poster, at: float) -> bool:
    return any(status == 200 and when > at for when, status in poster.answers[-50:])


def _reads(replica: Replica) -> bool:
    try:
        return replica.ask("GET", "/api/v1/receipts", within_s=3.0).status == 200
    except (OSError, HTTPException):
        return False
