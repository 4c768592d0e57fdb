"""Which driver does which kind of fault on which substrate: one table, and a driver that goes by it.

A kind is in force only where it stands here, and what stands here is tested: `tests/conformance/test_faults.py` runs
one suite over every entry (`test_kube_faults.py` over those of a cluster), and fails for an entry that it has no way to
try.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.chaos.fault import FaultDriver, FaultKind, Lease
from controlplane.chaos.substrates.burner import Burners
from controlplane.chaos.substrates.disk import FullDisks
from controlplane.chaos.substrates.flooder import Flooders
from controlplane.chaos.substrates.kube_burner import KubeBurners
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_network import KubeLinks
from controlplane.chaos.substrates.kube_nodes import KubeEvictions, KubeNodes
from controlplane.chaos.substrates.links import Links
from controlplane.chaos.substrates.memory import MemoryHogs
from controlplane.chaos.substrates.nftables import NetnsLinks
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.process import ProcessNodes
from controlplane.chaos.substrates.signals import SlowEngines, StalledEngines
from controlplane.errors import FaultError

Make = Callable[[Place], FaultDriver]

_ANYWHERE: Mapping[FaultKind, Make] = {
    FaultKind.NODE_KILL: lambda place: ProcessNodes(place.nodes_dir),
    FaultKind.STALLED_ENGINE: StalledEngines,
    FaultKind.SLOW_TOKENS: SlowEngines,
    FaultKind.GPU_SATURATION: Burners,
    FaultKind.QUEUE_FLOOD: Flooders,
    FaultKind.MEMORY_PRESSURE: MemoryHogs,
    FaultKind.DISK_FULL: FullDisks,
}
"""What is done to processes, machines and files, whatever network they have."""

DRIVERS: Mapping[str, Mapping[FaultKind, Make]] = {
    "process": {**_ANYWHERE, FaultKind.NETWORK_PARTITION: Links},
    "netns": {**_ANYWHERE, FaultKind.NETWORK_PARTITION: NetnsLinks},
}
"""By substrate, as `fleet.substrate` names it, and kind."""

KUBERNETES: Mapping[FaultKind, Callable[[Ground], FaultDriver]] = {
    FaultKind.NODE_KILL: KubeNodes,
    FaultKind.POD_EVICTION: KubeEvictions,
    FaultKind.NETWORK_PARTITION: KubeLinks,
    FaultKind.GPU_SATURATION: KubeBurners,
}
"""What is done to pods and nodes of a cluster."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Every fault of one substrate, as one driver: each lease goes to its kind's."""

    substrate: str
    drivers: Mapping[FaultKind, FaultDriver]

    async def apply(self, lease: Lease) -> str:
        """Inject the fault, its deadline first; return what was done, for the record.

        Raises:
            FaultError: when it could not be injected, or this substrate has no such fault; nothing is left behind.
        """
        return await self._driver(lease).apply(lease)

    async def prove(self, lease: Lease) -> str:
        """Show from outside that the fault is in force; return the proof, or an empty string when there is none."""
        return await self._driver(lease).prove(lease)

    async def revert(self, lease: Lease) -> str:
        """End the fault now; return what was done. A fault that is already over is success."""
        return await self._driver(lease).revert(lease)

    async def residue(self, lease: Lease) -> str:
        """Return what is left of a fault that should be over, or an empty string."""
        return await self._driver(lease).residue(lease)

    def _driver(self, lease: Lease) -> FaultDriver:
        try:
            return self.drivers[lease.kind]
        except KeyError:
            raise FaultError(
                f"no {lease.kind} on this substrate",
                f"`fleet.substrate.{self.substrate}` has: {', '.join(self.drivers)}",
                "run the experiment where its fault can be had",
            ) from None  # fmt: skip


def faults(substrate: str, place: Place) -> Faults:
    """Return every fault of a substrate, for one fleet."""
    return Faults(substrate, {kind: make(place) for kind, make in DRIVERS[substrate].items()})


def kubernetes_faults(ground: Ground) -> Faults:
    """Return every fault of a cluster."""
    return Faults("kubernetes", {kind: make(ground) for kind, make in KUBERNETES.items()})
