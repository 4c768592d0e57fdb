"""Holding memory of the machine that an endpoint runs on."""

import psutil

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.keepers.hold import MIB
from controlplane.chaos.parameters import number, settled
from controlplane.chaos.substrates.keeper_process import KeeperProcess
from controlplane.chaos.substrates.nodes import Place, find_living


class MemoryHogs:
    """Holds memory of endpoints' machines."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper = KeeperProcess(place.nodes_dir, "hold")

    async def apply(self, lease: Lease) -> str:
        """Start a process that holds memory.

        Raises:
            FaultError: when the endpoint is not there, or too little memory would be left; nothing is then held.
        """
        find_living(self._place.nodes_dir, lease)
        settings = settled(lease.kind, lease.parameters)
        await self._keeper.start(lease, settings)
        return f"{settings['memory_mib']:g} MiB of the machine of {lease.endpoint.name} held until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the kernel counts the memory as the process's."""
        found = self._keeper.mine(lease)
        if found is None:
            return ""
        try:
            held_mib = psutil.Process(found.pid).memory_info().rss / MIB
        except psutil.Error:
            return ""
        asked_mib = number(lease.parameters, FaultKind.MEMORY_PRESSURE, "memory_mib")
        return f"process {found.pid} holds {held_mib:.0f} MiB" if held_mib >= asked_mib else ""

    async def revert(self, lease: Lease) -> str:
        """Give the memory back."""
        await self._keeper.stop(lease)
        return f"no memory held on {lease.endpoint.node}"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the process."""
        return self._keeper.residue(lease)
