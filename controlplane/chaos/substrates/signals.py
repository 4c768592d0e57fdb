"""Engines that stand still: SIGSTOP to an endpoint's process group, for good or again and again for a moment.

A keeper sends the signals, so that the engine runs again at the deadline with the control plane dead. Slow tokens are
made the same way: an engine that is stopped for a moment between its steps really is slow, by its own clocks too, where
a delay on the network would leave the time between its tokens as it was.
"""

import asyncio
import os
import signal
from time import monotonic

import psutil

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import number
from controlplane.chaos.substrates.keeper_process import KeeperProcess
from controlplane.chaos.substrates.knock import answer_s
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.chaos.substrates.nodes import Node, Place, find_living, find_node
from controlplane.errors import FaultError

_SILENT_S = 0.5
"""An engine that has not answered a health check by then stands still."""
_AWAKE_S = 1.0
_LOOK_AGAIN_S = 0.02


class StalledEngines:
    """Stops engines, and lets them run again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper = KeeperProcess(place.nodes_dir, "stall")

    async def apply(self, lease: Lease) -> str:
        """Have a keeper stop the endpoint's process group until the lease's deadline.

        Raises:
            FaultError: when the endpoint is not there, or cannot be stopped; it then runs.
        """
        node = find_living(self._place.nodes_dir, lease)
        settings: dict[str, float | str] = {
            "pid": node.pid, "pgid": node.pgid, "started_after_boot_s": node.started_after_boot_s,
        }  # fmt: skip
        await self._keeper.start(lease, settings | dict(lease.parameters))
        return f"process group {node.pgid} of {lease.endpoint.node} stands still until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the process is alive, is stopped, and answers nothing."""
        if not self._keeper.mine(lease):
            return ""
        node = find_living(self._place.nodes_dir, lease)
        took_s = await answer_s(node.backend_url or lease.endpoint.url, within_s=_SILENT_S)
        if took_s is None and _stopped(node):
            return f"process {node.pid} is stopped, and silent for {_SILENT_S:g} s"
        return ""

    async def revert(self, lease: Lease) -> str:
        """End the keeper, and let the engine run whatever became of the keeper."""
        await self._keeper.stop(lease)
        if self._keeper.find(lease):
            return f"{lease.endpoint.node} is stopped by another lease; left alone"
        try:
            node = find_node(self._place.nodes_dir, lease)
        except FaultError:
            return f"{lease.endpoint.node} is gone"
        if node.alive:
            try:
                os.killpg(node.pgid, signal.SIGCONT)
            except OSError as error:
                raise FaultError(
                    f"cannot let process group {node.pgid} run", str(error), f"kill -CONT -- -{node.pgid}"
                ) from error
        return f"{lease.endpoint.node} runs"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the keeper, or a stopped process that nobody else's lease stops."""
        if left := self._keeper.residue(lease):
            return left
        try:
            node = find_node(self._place.nodes_dir, lease)
        except FaultError:
            return ""
        other = self._keeper.find(lease)
        deadline, last = monotonic() + _AWAKE_S, False
        while other is None and node.alive and _stopped(node):
            if last:
                return f"process {node.pid} of {lease.endpoint.node} is still stopped"
            await asyncio.sleep(_LOOK_AGAIN_S)
            last = monotonic() > deadline
        return ""


class SlowEngines(StalledEngines):
    """Stops engines for a moment, again and again; what is left of it is what is left of a stall."""

    async def prove(self, lease: Lease) -> str:
        """Show that the endpoint still answers, and that answers take as long as it stands still."""
        pause_s = number(lease.parameters, FaultKind.SLOW_TOKENS, "pause_ms") / 1000
        run_s = number(lease.parameters, FaultKind.SLOW_TOKENS, "run_ms") / 1000
        if not self._keeper.mine(lease):
            return ""
        node = find_living(self._place.nodes_dir, lease)

        async def look() -> str | None:
            if not self._keeper.mine(lease):
                return None
            took_s = await answer_s(node.backend_url or lease.endpoint.url, within_s=pause_s + _AWAKE_S)
            return f"a health check took {took_s:.2f} s" if took_s and took_s > pause_s / 2 else ""

        return await seen_in_time(look, 4 * (pause_s + run_s) + _AWAKE_S, _LOOK_AGAIN_S)


def _stopped(node: Node) -> bool:
    try:
        return bool(psutil.Process(node.pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
