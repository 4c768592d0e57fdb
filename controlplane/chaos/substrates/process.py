"""Faults on a fleet of supervised processes on this machine (`controlplane up`).

The contract with a node's supervisor is two files. `<node>.json` names the endpoint's process group; `<node>.hold`,
written by us, tells it to leave a dead endpoint dead until a moment. That moment is the fault's own deadline: the
supervisor ends the fault by itself, with the control plane dead.
"""

import asyncio
import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psutil

from controlplane.chaos.fault import Lease
from controlplane.errors import FaultError
from controlplane.wholefile import write_whole

_START_TIME_TOLERANCE_S = 0.05
_GONE_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class _Node:
    """What a supervisor says of its endpoint's process."""

    pid: int
    pgid: int
    started_at: float
    """Unix seconds; a process with this id that started at another time is somebody else."""


class ProcessNodes:
    """Kills the process groups that node supervisors look after."""

    def __init__(self, nodes_dir: Path) -> None:
        self._dir = nodes_dir

    async def apply(self, lease: Lease) -> str:
        """Kill the endpoint's whole process group and hold its supervisor back until the lease's deadline.

        Raises:
            FaultError: when the node is not known here, or the hold or the kill is refused; nothing is left behind.
        """
        node = self._node(lease)
        self._write_hold(lease)
        try:
            if _alive(node):
                if os.getpgid(node.pid) != node.pgid:
                    raise PermissionError(f"process {node.pid} is not in that group")
                os.killpg(node.pgid, signal.SIGKILL)
        except OSError as error:
            with suppress(OSError):
                self._hold_path(lease).unlink(missing_ok=True)
            raise FaultError(
                f"cannot kill process group {node.pgid} of {lease.endpoint.name}", str(error),
                "run the control plane as the user that runs the fleet",
            ) from error  # fmt: skip
        return f"SIGKILL to process group {node.pgid} of {lease.endpoint.node}, held down until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the process is gone and that its port refuses connections.

        The kernel needs a moment: a killed process whose other threads still end keeps its sockets until they have.
        """
        node = self._node(lease)
        deadline = monotonic() + _GONE_WITHIN_S
        while monotonic() < deadline:
            if not _alive(node) and not await _accepts(lease.endpoint.url):
                return f"process {node.pid} is gone and {lease.endpoint.url} refuses connections"
            await asyncio.sleep(_LOOK_AGAIN_S)
        return ""

    async def revert(self, lease: Lease) -> str:
        """Let the supervisor start the endpoint again."""
        hold = self._hold_path(lease)
        if self._holder(hold) not in (lease.id, ""):
            return f"{lease.endpoint.node} is held by another lease; left alone"
        try:
            hold.unlink(missing_ok=True)
        except OSError as error:
            raise FaultError(f"cannot remove {hold}", str(error), f"remove it: rm {hold}") from error
        return f"{lease.endpoint.node} is no longer held down"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: our hold, or an endpoint that has not come back."""
        if self._holder(self._hold_path(lease)) == lease.id:
            return f"{self._hold_path(lease)} still holds {lease.endpoint.node} down"
        if not await _accepts(lease.endpoint.url):
            return f"{lease.endpoint.name} does not accept connections at {lease.endpoint.url} yet"
        return ""

    def _node(self, lease: Lease) -> _Node:
        path = self._dir / f"{lease.endpoint.node}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            node = _Node(int(found["pid"]), int(found["pgid"]), float(found["started_at"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise FaultError(
                f"no node `{lease.endpoint.node}` on this machine", f"cannot read {path}: {error}",
                "set `fleet.substrate.process.nodes_dir` to the directory the supervisors write to",
            ) from error  # fmt: skip
        if node.pgid <= 1 or node.pgid == os.getpgid(0):
            raise FaultError(
                f"refusing to kill process group {node.pgid}", f"{path} names it", "start the endpoint in its own group"
            )
        return node

    def _hold_path(self, lease: Lease) -> Path:
        return self._dir / f"{lease.endpoint.node}.hold"

    def _holder(self, hold: Path) -> str:
        """Return the lease that holds a node down, or an empty string."""
        try:
            return str(json.loads(hold.read_text(encoding="utf-8"))["lease"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def _write_hold(self, lease: Lease) -> None:
        hold = self._hold_path(lease)
        try:
            write_whole(hold, json.dumps({"until": lease.deadline.timestamp(), "lease": lease.id}))
        except OSError as error:
            raise FaultError(f"cannot write {hold}", str(error), "make the nodes directory writable") from error


def _alive(node: _Node) -> bool:
    """Tell whether the very process that the supervisor named is alive; a zombie is not."""
    try:
        process = psutil.Process(node.pid)
        same = abs(process.create_time() - node.started_at) < _START_TIME_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _accepts(url: str) -> bool:
    """Tell whether something listens at an endpoint's address."""
    address = urlsplit(url)
    try:
        async with asyncio.timeout(0.5):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
