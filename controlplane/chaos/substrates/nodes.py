"""What the supervisors of a fleet on this machine write down of each node, and where faults keep their own files.

`<node>.json` names the endpoint's process group, how it is reached without its link, and its network namespace.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from controlplane.chaos.fault import Lease
from controlplane.chaos.keepers.keeper import lives
from controlplane.errors import FaultError


@dataclass(frozen=True, slots=True)
class Place:
    """Where on this machine a fleet, and what breaks it, keep their files."""

    nodes_dir: Path
    """`<node>.json` and `<node>.hold` of the supervisors; our own files of faults in force stand beside them."""
    links_dir: Path
    """`<node>.link` of the link relays."""
    state_dir: Path
    """The control plane's own state."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a supervisor says of its endpoint's process."""

    pid: int
    pgid: int
    started_after_boot_s: float
    """A process with this id that started at another time is somebody else."""
    backend_url: str = ""
    """How the endpoint is reached from its own side, without a link."""
    netns: str = ""
    """Its network namespace; empty where it shares this machine's."""
    gateway_url: str = ""
    """How the gateway reaches it; empty where its supervisor does not say."""
    gateway_from: str = ""
    """The address that the gateway comes from, where it has one of its own."""

    @property
    def alive(self) -> bool:
        """Tell whether the very process that the supervisor named is alive; a zombie is not."""
        return lives(self.pid, self.started_after_boot_s)


def find_node(nodes_dir: Path, lease: Lease) -> Node:
    """Return the node of a lease's endpoint.

    Raises:
        FaultError: when there is none here, or what is written of it would break somebody else.
    """
    name = Path(lease.endpoint.node or "?").name  # a name from an inventory must not lead out of the directory
    path = nodes_dir / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        node = Node(
            int(found["pid"]), int(found["pgid"]), _started_after_boot_s(found),
            str(found.get("backend_url") or ""), str(found.get("netns") or ""),
            str(found.get("gateway_url") or ""), str(found.get("gateway_from") or ""),
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FaultError(
            f"no node `{name}` on this machine", f"cannot read {path}: {error}",
            "set `nodes_dir` of `fleet.substrate` to the directory the supervisors write to",
        ) from error  # fmt: skip
    if node.pgid <= 1 or node.pgid == os.getpgid(0):
        raise FaultError(
            f"refusing to break process group {node.pgid}", f"{path} names it", "start the endpoint in its own group"
        )
    return node


def _started_after_boot_s(found: Mapping[str, Any]) -> float:
    """Return when the process began; a supervisor that gives its Unix time alone goes by the clock as it was then."""
    if "started_after_boot_s" in found:
        return float(found["started_after_boot_s"])
    return float(found["started_at"]) - psutil.boot_time()


def find_living(nodes_dir: Path, lease: Lease) -> Node:
    """Return the node of a lease's endpoint, whose process is alive.

    Raises:
        FaultError: when there is no such node, or its process is gone.
    """
    node = find_node(nodes_dir, lease)
    if not node.alive:
        raise FaultError(
            f"{lease.endpoint.name} is not running", f"process {node.pid} of {lease.endpoint.node} is gone",
            "wait until its supervisor has brought it back",
        )  # fmt: skip
    return node
