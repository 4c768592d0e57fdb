"""Killing the process groups that node supervisors look after (`controlplane up`).

The contract with a node's supervisor is two files. `<node>.json` names the endpoint's process group; `<node>.hold`,
written by us, tells it to leave a dead endpoint dead until a moment. That moment is the fault's own deadline: the
supervisor ends the fault by itself, with the control plane dead.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from controlplane.chaos.fault import Lease
from controlplane.chaos.keepers.keeper import holder
from controlplane.chaos.substrates.knock import Door, door
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.chaos.substrates.nodes import find_node
from controlplane.errors import FaultError
from controlplane.wholefile import write_whole

_GONE_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.01


class ProcessNodes:
    """Kills the process groups that node supervisors look after."""

    def __init__(self, nodes_dir: Path) -> None:
        self._dir = nodes_dir

    async def apply(self, lease: Lease) -> str:
        """Kill the endpoint's whole process group and hold its supervisor back until the lease's deadline.

        Raises:
            FaultError: when the node is not known here, or the hold or the kill is refused; nothing is left behind.
        """
        node = find_node(self._dir, lease)
        self._refuse_anothers(lease)
        self._write_hold(lease)
        try:
            if node.alive:
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
        node = find_node(self._dir, lease)

        async def look() -> str:
            gone = not node.alive and await door(lease.endpoint.url) is not Door.OPEN
            return f"process {node.pid} is gone and {lease.endpoint.url} refuses connections" if gone else ""

        return await seen_in_time(look, _GONE_WITHIN_S, _LOOK_AGAIN_S)

    async def revert(self, lease: Lease) -> str:
        """Let the supervisor start the endpoint again."""
        hold = self._hold_path(lease)
        if holder(hold) not in (lease.id, ""):
            return f"{lease.endpoint.node} is held by another lease; left alone"
        try:
            hold.unlink(missing_ok=True)
        except OSError as error:
            raise FaultError(f"cannot remove {hold}", str(error), f"remove it: rm {hold}") from error
        return f"{lease.endpoint.node} is no longer held down"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: our hold, or an endpoint that has not come back."""
        if holder(self._hold_path(lease)) == lease.id:
            return f"{self._hold_path(lease)} still holds {lease.endpoint.node} down"
        if await door(lease.endpoint.url) is not Door.OPEN:
            return f"{lease.endpoint.name} does not accept connections at {lease.endpoint.url} yet"
        return ""

    def _hold_path(self, lease: Lease) -> Path:
        return self._dir / f"{lease.endpoint.node}.hold"

    def _refuse_anothers(self, lease: Lease) -> None:
        """Leave a node alone that another lease holds down now; a hold that is over counts for nothing."""
        hold = self._hold_path(lease)
        other = holder(hold)
        if other in (lease.id, ""):
            return
        with suppress(OSError, ValueError, LookupError, TypeError):
            if float(json.loads(hold.read_text(encoding="utf-8"))["until"]) > time.time():
                raise FaultError(f"{lease.endpoint.node} is held down already", f"by lease {other}", "heal that first")

    def _write_hold(self, lease: Lease) -> None:
        hold = self._hold_path(lease)
        try:
            write_whole(hold, json.dumps({"until": lease.deadline.timestamp(), "lease": lease.id}))
        except OSError as error:
            raise FaultError(f"cannot write {hold}", str(error), "make the nodes directory writable") from error
