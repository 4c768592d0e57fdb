"""Starting, finding and ending the keepers of faults: processes that undo their harm by themselves.

A keeper's file stands beside the supervisors' files, one a node and work, so that two leases cannot do the same harm
twice and whoever comes later finds it. Removing the file is enough to end the keeper.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from controlplane.chaos.fault import Lease
from controlplane.chaos.keepers.keeper import Order, lives, spell_order, started_after_boot_s
from controlplane.errors import FaultError

START_S = 45.0
"""Longest wait for a fault to be in force: a burner has to import PyTorch on a busy machine."""
END_S = 2.0
"""Longest wait for a keeper that was told to end; then it is killed, and the driver undoes its harm.

Both waits fit into the time that a driver has to end one fault (`flows.faults.REVERT_WITHIN_S`): a driver that is given
up before it kills would begin anew with the keeper's polite end, round after round.
"""
LOOK_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class Keeper:
    """A keeper as its file names it."""

    lease: str
    pid: int
    started_after_boot_s: float

    @property
    def alive(self) -> bool:
        """Tell whether that very process is alive."""
        return lives(self.pid, self.started_after_boot_s)


class KeeperProcess:
    """The keeper of one work on each node."""

    def __init__(self, directory: Path, work: str) -> None:
        self._dir = directory
        self._work = work

    async def start(self, lease: Lease, settings: Mapping[str, float | str]) -> bool:
        """Start a lease's keeper and wait until its fault is in force.

        Returns:
            False when it is in force already.

        Raises:
            FaultError: when another lease has a keeper there, or the work cannot be done; nothing is left behind.
        """
        found = self.find(lease)
        if found and found.alive:
            if found.lease == lease.id:
                return False
            raise FaultError(
                f"{lease.endpoint.name} is broken that way already", f"by lease {found.lease}", "heal that first"
            )
        owner = os.getpid()
        order = Order(
            self._work, str(self.file(lease).resolve()), lease.id, lease.deadline.timestamp(), owner,
            started_after_boot_s(owner), settings,
        )  # fmt: skip
        command = (sys.executable, "-m", "controlplane.chaos.keepers")
        try:
            done = await asyncio.to_thread(
                subprocess.run, command, input=spell_order(order), capture_output=True, text=True, check=False,
                timeout=START_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            await self.stop(lease)
            raise FaultError(
                f"cannot start the keeper of {lease.kind}", str(error), "see why it does not start"
            ) from error
        if done.returncode:
            raise FaultError(
                f"cannot do {lease.kind} to {lease.endpoint.name}", done.stderr.strip()[-500:], "put that right"
            )
        return True

    async def stop(self, lease: Lease) -> bool:
        """End a lease's keeper and wait until it is gone; tell whether there was one.

        Raises:
            FaultError: when it cannot be ended.
        """
        found = self.find(lease)
        if found is None or found.lease != lease.id:
            return False
        file = self.file(lease)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if found.alive:
                    with suppress(ProcessLookupError):  # It has just ended: its time was over, or another one ended it.
                        os.kill(found.pid, number)
                deadline = monotonic() + END_S
                while found.alive and monotonic() < deadline:  # noqa: ASYNC110 - another process ends
                    await asyncio.sleep(LOOK_AGAIN_S)
            file.unlink(missing_ok=True)
        except OSError as error:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            raise FaultError(
                f"cannot end the keeper {found.pid} of {lease.kind}", str(error), f"end it: kill -TERM {found.pid}"
            ) from error
        return True

    def find(self, lease: Lease) -> Keeper | None:
        """Return the keeper that is written down for this work on this node, whosever it is."""
        try:
            raw = json.loads(self.file(lease).read_text(encoding="utf-8"))
            return Keeper(str(raw["lease"]), int(raw["pid"]), float(raw["started_after_boot_s"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def mine(self, lease: Lease) -> Keeper | None:
        """Return the living keeper of this lease."""
        found = self.find(lease)
        return found if found and found.lease == lease.id and found.alive else None

    def residue(self, lease: Lease) -> str:
        """Return what is left of a keeper, or an empty string."""
        found = self.mine(lease)
        return f"keeper {found.pid} of {lease.kind} on {lease.endpoint.name} still lives" if found else ""

    def file(self, lease: Lease) -> Path:
        """Return where the keeper is written down."""
        return self._dir / f"{Path(lease.endpoint.node or lease.endpoint.name).name}.{self._work}.keeper"
