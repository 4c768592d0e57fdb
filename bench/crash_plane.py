"""A control plane that dies, or whose child dies, at one write of the fault ledger; started by `crash_matrix` only.

    python -m bench.crash_plane WRITE WHEN WHO page.yaml state-dir experiments-dir

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


def main() -> int:
    """Serve, and crash as told."""
    write, when, who, page, state, experiments = sys.argv[1:]
    arm(write, when, who)
    return serve(load(Path(page)), ServeSettings(Path(state), Path(experiments), port=0))


def arm(write: str, when: str, who: str) -> None:
    """Wrap the ledger so that the first matching write crashes."""
    crashed: list[bool] = []

    def crash() -> None:
        if not crashed:
            crashed.append(True)
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


if __name__ == "__main__":
    sys.exit(main())
