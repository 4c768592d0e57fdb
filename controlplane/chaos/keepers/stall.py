"""Stopping a process group, for good or again and again for a moment; it always ends running."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from controlplane.chaos.keepers.keeper import KeeperError, lives


@dataclass(slots=True)
class Stall:
    """One process group that stands still."""

    pid: int
    pgid: int
    started_after_boot_s: float
    """Who has the process id now and began at another time is left alone."""
    pause_s: float = 0.0
    run_s: float = 0.0
    """0: it stands still all the time."""
    _stopped: bool = False
    _turn_at: float = field(default=0.0)

    @classmethod
    def read(cls, settings: Mapping[str, float | str]) -> Self:
        """Read the settings of an order."""
        return cls(
            int(settings["pid"]), int(settings["pgid"]), float(settings["started_after_boot_s"]),
            float(settings.get("pause_ms", 0.0)) / 1000, float(settings.get("run_ms", 0.0)) / 1000,
        )  # fmt: skip

    def begin(self) -> None:
        """Stop the group.

        Raises:
            KeeperError: when it is not there, or not ours to stop.
        """
        if not lives(self.pid, self.started_after_boot_s):
            raise KeeperError(f"process {self.pid} is gone")
        self._send(signal.SIGSTOP)
        self._stopped = True
        self._turn_at = time.monotonic() + self.pause_s

    def tick(self) -> str:
        """Let it run for a moment when it is time to, and stop it again; end when it is gone."""
        now = time.monotonic()
        if self.run_s and now >= self._turn_at:
            if not lives(self.pid, self.started_after_boot_s):
                return "the engine is gone"
            self._stopped = not self._stopped
            self._send(signal.SIGSTOP if self._stopped else signal.SIGCONT)
            self._turn_at = now + (self.pause_s if self._stopped else self.run_s)
        return ""

    def end(self) -> None:
        """Let it run."""
        if lives(self.pid, self.started_after_boot_s):
            with suppress(KeeperError):
                self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        try:
            if os.getpgid(self.pid) != self.pgid:
                raise KeeperError(f"process {self.pid} is not in group {self.pgid}")
            os.killpg(self.pgid, number)
        except OSError as error:
            raise KeeperError(f"cannot send {number.name} to process group {self.pgid}: {error.strerror}") from error
