"""What every keeper has in common: its file, its end, and that it undoes its work whatever happens."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from controlplane.wholefile import write_whole

POLL_S = 0.01
"""How often a keeper looks whether it must end."""
OWNER_POLL_S = 0.2
"""How often it looks whether whoever asked for it lives; one look costs more than the others."""
START_TOLERANCE_S = 0.05
"""A process with a known id that started at another time is somebody else."""


class KeeperError(Exception):
    """The work cannot be done; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a keeper is asked to do."""

    work: str
    """A name in `table.WORKS`."""
    file: str
    """Where it says who it is; whoever removes this file ends it."""
    lease: str
    until: float
    """Unix seconds."""
    owner: int = 0
    """The process it must not outlive; 0 is none."""
    owner_started_after_boot_s: float = 0.0
    settings: Mapping[str, float | str] = field(default_factory=dict)


class Work(Protocol):
    """One harm."""

    def begin(self) -> None:
        """Do it.

        Raises:
            KeeperError: when it cannot be done.
        """

    def tick(self) -> str:
        """Keep it up; return why it must end before its time, or an empty string. Never blocks for long."""

    def end(self) -> None:
        """Undo it; called once, after `begin` or instead of it."""


def read_order(text: str) -> Order:
    """Read an order as `spell_order` wrote it."""
    return Order(**json.loads(text))


def spell_order(order: Order) -> str:
    """Write an order down."""
    return json.dumps(asdict(order))


def keep(order: Order, work: Work, ready: Callable[[], None] = lambda: None) -> str:
    """Do a work until its end, and undo it.

    Args:
        order: what is asked for.
        work: what does it.
        ready: called once the harm is done.

    Returns:
        Why it ended.

    Raises:
        KeeperError: when it could not be done; nothing of it is left.
    """
    told: list[str] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: told.append("it was told to")) for number in numbers}
    pid = os.getpid()
    ours = {
        "lease": order.lease, "until": order.until, "pid": pid, "started_after_boot_s": started_after_boot_s(pid),
    }  # fmt: skip
    file = Path(order.file) if order.file else None
    try:
        if file:
            write_whole(file, json.dumps(ours))
        work.begin()
        ready()
        return _until_over(order, work, told)
    except OSError as error:
        raise KeeperError(f"{error.filename or ''}: {error.strerror or error}") from error
    finally:
        work.end()
        if file and holder(file) == order.lease:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_over(order: Order, work: Work, told: list[str]) -> str:
    """Wait for the first reason to end. The wall clock may be set back meanwhile, the other clock may not."""
    lasts_s = order.until - time.time()
    over_at, look_at = time.monotonic() + lasts_s, 0.0
    while True:
        now = time.monotonic()
        if now >= over_at or time.time() >= order.until:
            return "its time is over"
        if told:
            return told[0]
        if order.file and not os.path.exists(order.file):  # noqa: PTH110 - a hundred times a second
            return "its file is gone"
        if now >= look_at:
            look_at = now + OWNER_POLL_S
            if order.owner and not lives(order.owner, order.owner_started_after_boot_s):
                return "the control plane is dead"
            # It may have gone since the look above: a file that names nobody is nobody's.
            if order.file and (named := holder(Path(order.file))) != order.lease:
                return "its file is another's" if named else "its file is gone"
        if why := work.tick():
            return why
        time.sleep(min(POLL_S, max(0.0, over_at - now)))


def holder(file: Path) -> str:
    """Return the lease that a file names, or an empty string."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["lease"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def started_after_boot_s(pid: int) -> float:
    """Return when a process began, in seconds from the start of the machine: no clock that is set moves that.

    Its Unix time is worked out anew from the clock at every look, and moves with it.

    Raises:
        psutil.NoSuchProcess: when there is none.
    """
    booted_at = psutil.boot_time()
    return psutil.Process(pid).create_time() - booted_at


def lives(pid: int, since_boot_s: float) -> bool:
    """Tell whether the very process that began then is alive; a zombie is not."""
    try:
        same = abs(started_after_boot_s(pid) - since_boot_s) < START_TOLERANCE_S
        return same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
