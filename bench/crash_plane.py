"""A control plane that dies, or whose child dies, at one write of the fault ledger; forked by `crash_matrix` only.

WRITE is `intend`, `injected`, `proven` or `healed`; WHEN is `before` or `after`; WHO is `plane`, `child` or `both`.
The crash is SIGKILL, once, at the first such write. Nothing of the product knows of it: the ledger's two methods are
wrapped here.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from controlplane.policy.load import load
from controlplane.runtime.server import serve
from controlplane.settings import ServeSettings
from controlplane.store.drills import StoredLeases

CRASHED = "crashed"
"""The file, in the state directory, of a control plane that has crashed as it was told."""


def run(crash: tuple[str, str, str], page: Path, state: Path, experiments: Path, log: Path) -> None:
    """Serve in this process, which was forked for it, and crash as told: WRITE, WHEN, WHO. Does not return."""
    os.setsid()
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    arm(*crash, state / CRASHED)
    sys.exit(serve(load(page), ServeSettings(state, experiments, port=0)))


def arm(write: str, when: str, who: str, mark: Path) -> None:
    """Wrap the ledger so that the first matching write crashes; that it did is written to a file."""
    crashed: list[bool] = []

    def crash() -> None:
        if not crashed:
            crashed.append(True)
            mark.write_text(f"{when} {write}")
            die(who)

    def wrapped(call: Callable[..., Awaitable[Any]], is_it: Callable[..., bool]) -> Callable[..., Awaitable[Any]]:
        async def around(*given: Any) -> Any:
            if when == "before" and is_it(*given):
                crash()
            result = await call(*given)
            if when == "after" and is_it(*given):
                crash()
            return result

        return around

    method = "intend" if write == "intend" else "move"
    matches: Callable[..., bool] = lambda *given: write == "intend" or given[2].value == write  # noqa: E731
    setattr(StoredLeases, method, wrapped(getattr(StoredLeases, method), matches))


def die(who: str) -> None:
    """SIGKILL the child, this process, or both."""
    if who in ("child", "both"):
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if "chaostoolkit" in child.cmdline():
                    child.kill()
    if who in ("plane", "both"):
        os.kill(os.getpid(), signal.SIGKILL)
