"""Holding memory of the machine, never more than leaves it a reserve, and first to go when the kernel needs some."""

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from controlplane.chaos.keepers.keeper import KeeperError

MIB = 1024 * 1024
_CHUNK_MIB = 16
_PAGE = mmap.PAGESIZE


@dataclass(slots=True)
class Hold:
    """Memory that is held."""

    memory_mib: float
    leave_mib: float
    _held: list[mmap.mmap] = field(default_factory=list)

    @classmethod
    def read(cls, settings: Mapping[str, float | str]) -> Self:
        """Read the settings of an order."""
        return cls(float(settings["memory_mib"]), float(settings["leave_mib"]))

    def begin(self) -> None:
        """Take the memory, a chunk at a time, and write to every page: only then it is taken.

        Raises:
            KeeperError: when less than the reserve would be left.
        """
        with suppress(OSError):  # Where there is no such file, the kernel has its own rule.
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        left_mib = _available_mib() - self.memory_mib
        if left_mib < self.leave_mib:
            raise KeeperError(
                f"{self.memory_mib:.0f} MiB more would leave this machine {left_mib:.0f} MiB, "
                f"less than the {self.leave_mib:.0f} MiB that must be left"
            )
        missing = self.memory_mib
        while missing > 0:
            chunk = mmap.mmap(-1, int(min(_CHUNK_MIB, missing) * MIB) or 1)
            for at in range(0, len(chunk), _PAGE):
                chunk[at] = 1
            self._held.append(chunk)
            missing -= _CHUNK_MIB
            if why := self.tick():
                raise KeeperError(why)

    def tick(self) -> str:
        """End when others took so much that the reserve is gone."""
        left_mib = _available_mib()
        return f"only {left_mib:.0f} MiB are left" if left_mib < self.leave_mib else ""

    def end(self) -> None:
        """Give it back."""
        for chunk in self._held:
            chunk.close()
        self._held.clear()


def _available_mib() -> float:
    return float(psutil.virtual_memory().available) / MIB
