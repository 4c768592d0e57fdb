"""The ground a fleet stands on: where its endpoints are listed, and what can be broken there."""

from pathlib import Path

from controlplane.chaos.fault import FaultDriver
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import faults
from controlplane.fleet.files import FileInventory
from controlplane.fleet.inventory import InventorySource
from controlplane.fleet.model import ProcessSubstrateSpec
from controlplane.policy.load import Loaded


def inventory_of(loaded: Loaded) -> InventorySource:
    """Return what says which endpoints the fleet of a policy page has now."""
    return FileInventory(loaded.policy.fleet, loaded.base)


def fault_driver(loaded: Loaded, state_dir: Path) -> FaultDriver | None:
    """Return every fault of where the fleet runs, as one driver; None when the page does not say."""
    substrate = loaded.policy.fleet.substrate
    if substrate is None:
        return None
    if substrate.netns:
        nodes_dir = loaded.base / substrate.netns.nodes_dir
        return faults("netns", Place(nodes_dir, nodes_dir.parent / "links", state_dir))
    process = substrate.process or ProcessSubstrateSpec("nodes")
    nodes_dir = loaded.base / process.nodes_dir
    links_dir = loaded.base / process.links_dir if process.links_dir else nodes_dir.parent / "links"
    return faults("process", Place(nodes_dir, links_dir, state_dir))
