"""Two control planes on one database under duplicated, reordered, concurrent triggers: nothing may be done twice.

Twice over: with the lease, while one process after the other is stopped (SIGSTOP) for longer than it holds and wakes in
the middle of what it did; and without it, so that the keys alone have to keep the two apart.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog

from bench.figures import Figure
from bench.paper import Log, PaperPlane, paper_plane
from controlplane.degradation.actuator import ReceiptState
from controlplane.errors import FencedError, StoreError
from controlplane.flows import switch

TRIGGERS = 10_000
PLANES = 2
AT_ONCE = 10
TTL_S = 0.25
STOPPED_S = 0.5
RUNS_S = 1.0
COMMAND = "make bench ONLY=exactly-once"


def run() -> list[Figure]:
    """Fire them all, with the lease and without."""
    figures = []
    for what, fenced in (("lease and keys, planes stopped and woken", True), ("keys alone", False)):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            began = time.monotonic()
            told = storm(Path(folder), TRIGGERS, fenced=fenced)
            took = time.monotonic() - began
        twice = told["twice"] + told["stale"]
        fired = told["fired"]
        figures += [
            Figure(f"double actions ({what})", twice, f"of {fired} triggers", fired, COMMAND, "0", twice == 0),
            Figure("  of them moves of a plane whose term was over", told["stale"], "moves", fired, COMMAND),
            Figure("  engaged and released", told["engaged"], "episodes", fired, COMMAND),
            Figure("  changes of hands", told["terms"], "terms", fired, COMMAND),
            Figure("  refused by the fence", told["fenced"], "triggers", fired, COMMAND),
            Figure("  triggers a second", round(fired / took, 0), "/s", fired, COMMAND),
        ]
    return figures


def storm(folder: Path, triggers: int, *, fenced: bool) -> dict[str, int]:
    """Run the planes until all triggers are fired; return what the logs tell.

    Args:
        folder: an empty directory.
        triggers: how many, over all planes.
        fenced: with the lease, and with planes that are stopped and woken.
    """
    fork = multiprocessing.get_context("fork")
    paper_plane(folder, "maker")[1].close()
    planes = [
        fork.Process(target=_plane, args=(folder, f"plane-{i}", triggers // PLANES, fenced), daemon=True)
        for i in range(PLANES)
    ]
    for plane in planes:
        plane.start()
    with _ended(planes):
        turn = 0
        while any(plane.is_alive() for plane in planes):
            planes[turn % PLANES].join(RUNS_S)
            if fenced:
                _stop_and_wake(planes[turn % PLANES])
            turn += 1
    failed = [plane.exitcode for plane in planes if plane.exitcode]
    if failed:
        raise SystemExit(f"a plane ended with {failed}")
    counts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.counts"))]
    whole = {name: sum(count[name] for count in counts) for name in counts[0]}
    return {**whole, **judge(Log(folder / "applied.log").lines())}


@contextlib.contextmanager
def _ended(planes: Sequence[BaseProcess]) -> Iterator[None]:
    try:
        yield
    finally:
        for plane in planes:
            if plane.is_alive():
                plane.kill()
                plane.join()


def _stop_and_wake(plane: BaseProcess) -> None:
    if plane.pid and plane.is_alive():
        os.kill(plane.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(plane.pid, signal.SIGCONT)


def judge(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count what was done twice, from what the gateway was told, in order.

    Twice is an engagement whose key was there before, or one that came while another was in force; stale is a move by
    a plane whose term was over when another had moved the lever already.
    """
    seen: set[str] = set()
    told = {"engaged": 0, "twice": 0, "stale": 0, "terms": 0}
    in_force, newest = False, 0
    for line in lines:
        engages = line["key"].endswith("/0")
        if engages:
            told["engaged"] += 1
            told["twice"] += line["key"] in seen or in_force
            seen.add(line["key"])
        told["stale"] += line["token"] < newest
        told["terms"] += line["token"] > newest
        newest = max(newest, line["token"])
        in_force = "standby" in line["plan"]
    return told


def _plane(folder: Path, name: str, triggers: int, fenced: bool) -> None:  # noqa: FBT001 - what a process is given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    asyncio.run(_fire(folder, name, triggers, fenced=fenced))


async def _fire(folder: Path, name: str, triggers: int, *, fenced: bool) -> None:
    plane, database = paper_plane(folder, name, ttl_s=TTL_S, fenced=fenced)
    draw = random.Random(name)
    counts = {"fired": 0, "fenced": 0, "busy": 0}
    turns = asyncio.create_task(_turns(plane)) if fenced else None
    while counts["fired"] < triggers:
        for receipt in await _settled(plane) if fenced else ():
            with contextlib.suppress(FencedError, StoreError):
                await plane.release(receipt)
        episode = await plane.receipts.next_episode("paper", "P0")
        # Most are of now; some come late, some early, all of them several times and at once.
        drawn = [max(1, episode + draw.choice((0, 0, 0, 0, -1, -1, -2, 1))) for _ in range(AT_ONCE)]
        await asyncio.gather(*(_trigger(plane, e, counts) for e in drawn))
    if turns:
        turns.cancel()
    await plane.leadership.resign()
    database.close()
    (folder / f"{name}.counts").write_text(json.dumps(counts), encoding="utf-8")


async def _turns(plane: PaperPlane) -> None:
    while True:
        await plane.leadership.turn()
        await asyncio.sleep(TTL_S / 5)


async def _settled(plane: PaperPlane) -> Sequence[Any]:
    try:
        return await plane.take_part() or ()
    except (FencedError, StoreError):
        return ()


async def _trigger(plane: PaperPlane, episode: int, counts: dict[str, int]) -> None:
    """Act on one trigger as a control plane does, whether or not it believes to be in charge."""
    counts["fired"] += 1
    try:
        receipt = await switch.engage(plane.switching, plane.order(episode))
        if receipt and receipt.state is ReceiptState.VERIFIED:
            await plane.release(receipt)
    except FencedError:
        counts["fenced"] += 1
    except StoreError:
        counts["busy"] += 1
