"""The ground a fleet stands on: where its endpoints are listed, and what can be broken there."""

from pathlib import Path

from controlplane.chaos.fault import FaultDriver, Reaper
from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_reaper import KubeReaper
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import faults, kubernetes_faults
from controlplane.clock import utcnow
from controlplane.errors import FaultError
from controlplane.fleet.cluster import Cluster
from controlplane.fleet.files import FileInventory
from controlplane.fleet.inventory import InventorySource
from controlplane.fleet.model import KubernetesSubstrateSpec, ProcessSubstrateSpec
from controlplane.policy.load import Loaded


def inventory_of(loaded: Loaded) -> InventorySource:
    """Return what says which endpoints the fleet of a policy page has now."""
    return FileInventory(loaded.policy.fleet, loaded.base)


def fault_driver(loaded: Loaded, state_dir: Path) -> FaultDriver | None:
    """Return every fault of where the fleet runs, as one driver; None when the page does not say."""
    substrate = loaded.policy.fleet.substrate
    if substrate is None:
        return None
    if substrate.kubernetes:
        return kubernetes_faults(_ground(substrate.kubernetes, loaded.base))
    if substrate.netns:
        nodes_dir = loaded.base / substrate.netns.nodes_dir
        return faults("netns", Place(nodes_dir, nodes_dir.parent / "links", state_dir))
    process = substrate.process or ProcessSubstrateSpec("nodes")
    nodes_dir = loaded.base / process.nodes_dir
    links_dir = loaded.base / process.links_dir if process.links_dir else nodes_dir.parent / "links"
    return faults("process", Place(nodes_dir, links_dir, state_dir))


def reaper_of(loaded: Loaded) -> Reaper | None:
    """Return what ends overdue faults by the substrate's own record of them; None where it keeps none."""
    substrate = loaded.policy.fleet.substrate
    if substrate is None or substrate.kubernetes is None:
        return None
    return KubeReaper(_ground(substrate.kubernetes, loaded.base))


def _ground(spec: KubernetesSubstrateSpec, base: Path) -> Ground:
    kubeconfig = str(base / spec.kubeconfig) if spec.kubeconfig else ""
    return Ground(Cluster(kubeconfig, spec.context, FaultError), spec, utcnow)
