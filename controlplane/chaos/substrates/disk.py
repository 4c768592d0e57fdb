"""Filling the control plane's own state directory, where that is a file system of its own.

The endpoint of such a lease is the control plane itself. What may be filled, and what never is, says `keepers/fill.py`.
"""

import hashlib
import os
from pathlib import Path

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.keepers.fill import KIB, free_bytes
from controlplane.chaos.parameters import number, settled
from controlplane.chaos.substrates.keeper_process import KeeperProcess
from controlplane.chaos.substrates.nodes import Place
from controlplane.errors import FaultError

_SLACK_BYTES = 128 * KIB
"""What a file system may keep free for itself, and what the ledger has written meanwhile."""


class FullDisks:
    """Fills the state directory."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper = KeeperProcess(place.nodes_dir, "fill")

    async def apply(self, lease: Lease) -> str:
        """Start the keeper of a filler file.

        Raises:
            FaultError: when the directory may not be filled; nothing is then written.
        """
        settings = settled(lease.kind, lease.parameters)
        directory = self._place.state_dir.resolve()
        await self._keeper.start(lease, {**settings, "directory": str(directory), "name": self._filler(lease).name})
        return f"{directory} is full but for {settings['reserve_kib']:g} KiB until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the file system says it is full, and that the kernel refuses what would not fit."""
        reserve = int(number(lease.parameters, FaultKind.DISK_FULL, "reserve_kib") * KIB)
        if not self._keeper.mine(lease) or not self._filler(lease).exists():
            return ""
        free = free_bytes(self._place.state_dir)
        if free > reserve + _SLACK_BYTES or _takes(self._place.state_dir, reserve + 2 * _SLACK_BYTES):
            return ""
        return f"{self._place.state_dir} has {free / KIB:.0f} KiB left, and refuses a larger file"

    async def revert(self, lease: Lease) -> str:
        """End the keeper and remove the filler, whatever became of the keeper."""
        await self._keeper.stop(lease)
        filler = self._filler(lease)
        try:
            filler.unlink(missing_ok=True)
        except OSError as error:
            raise FaultError(f"cannot remove {filler}", str(error), f"remove it: rm {filler}") from error
        return f"no filler in {self._place.state_dir}"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the keeper, or the filler."""
        left = self._keeper.residue(lease)
        return left or (f"{self._filler(lease)} fills the disk" if self._filler(lease).exists() else "")

    def _filler(self, lease: Lease) -> Path:
        return self._place.state_dir / f"filler-{hashlib.sha256(lease.id.encode()).hexdigest()[:24]}"


def _takes(directory: Path, size_bytes: int) -> bool:
    """Tell whether a file of this size can be written; it is removed at once."""
    path = directory / f"probe-{os.getpid()}"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError:
        return False
    else:
        return True
    finally:
        path.unlink(missing_ok=True)
