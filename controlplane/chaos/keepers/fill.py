"""Filling the file system that the control plane's state has to itself, and none that it shares.

A full disk harms everybody who writes to it, and there is no taking back what they lost. So a directory is filled only
where it is a mount of its own (a volume, a tmpfs), which no other program's files lie on, and only where a file of
bounded size fills it; anything else is refused before a byte is taken.
"""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from controlplane.chaos.keepers.keeper import KeeperError

KIB = 1024
CEILING_BYTES = 2 * 1024**3
"""No filler is larger: a state directory's volume seldom is, and a machine's disk always."""
STEP_BYTES = 64 * KIB
"""What is given up at a time when the file system has less room than it said."""


@dataclass(slots=True)
class Fill:
    """One filler file."""

    directory: Path
    name: str
    reserve_kib: float

    @classmethod
    def read(cls, settings: Mapping[str, float | str]) -> Self:
        """Read the settings of an order."""
        return cls(Path(str(settings["directory"])), str(settings["name"]), float(settings["reserve_kib"]))

    def begin(self) -> None:
        """Take all but the reserve.

        Raises:
            KeeperError: when the directory may not be filled.
        """
        if why := may_not_fill(self.directory):
            raise KeeperError(why)
        size = free_bytes(self.directory) - int(self.reserve_kib * KIB)
        if size <= 0:
            return
        with (self.directory / self.name).open("wb") as file:
            while size > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size -= STEP_BYTES
                else:
                    return

    def tick(self) -> str:
        """Nothing has to be done to keep it up."""
        return ""

    def end(self) -> None:
        """Remove the filler."""
        with suppress(OSError):
            (self.directory / self.name).unlink(missing_ok=True)


def may_not_fill(directory: Path) -> str:
    """Return why a directory may not be filled, or an empty string."""
    if not directory.is_dir():
        return f"there is no directory {directory}"
    if not os.path.ismount(directory):
        return f"{directory} shares its file system with others; it must be a mount of its own"
    if free_bytes(directory) > CEILING_BYTES:
        return f"{directory} has more than {CEILING_BYTES / 1024**3:g} GiB free; so much is never filled"
    return ""


def free_bytes(directory: Path) -> int:
    """Return what may still be written below a directory."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
