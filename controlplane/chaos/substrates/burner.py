"""Saturating an endpoint's device: a burner on the GPU it computes on, or on its CPUs where there is none."""

import asyncio
import os
from contextlib import suppress

import psutil

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.keepers.burn import find_gpu
from controlplane.chaos.parameters import number, word
from controlplane.chaos.substrates.keeper_process import KeeperProcess
from controlplane.chaos.substrates.nodes import Place, find_living

_WINDOW_S = 0.5
_LOOKS = 4
_BUSY_SHARE = 0.8
"""Share of the duty that the device must be seen busy."""
_OURS_SHARE = 0.1
"""Share of the duty that must be the burner's own work on CPUs, which everybody else works on, too."""


class Burners:
    """Keeps the devices of endpoints busy."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper = KeeperProcess(place.nodes_dir, "burn")

    async def apply(self, lease: Lease) -> str:
        """Start a burner on the endpoint's device.

        Raises:
            FaultError: when the endpoint is not there, or nothing can be computed; nothing is left behind.
        """
        node = find_living(self._place.nodes_dir, lease)
        await self._keeper.start(lease, {**lease.parameters, "pid": node.pid})
        return f"a burner on the device of {lease.endpoint.name} until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the device is busy, and that the burner works."""
        node = find_living(self._place.nodes_dir, lease)
        duty = number(lease.parameters, FaultKind.GPU_SATURATION, "duty")
        for _ in range(_LOOKS):
            found = self._keeper.mine(lease)
            if found is None:
                return ""
            on_cpus = word(lease.parameters, FaultKind.GPU_SATURATION, "device") == "cpu"
            seen = await self._seen(found.pid, node.pid, duty, on_cpus=on_cpus)
            if seen:
                return seen
        return ""

    async def _seen(self, burner: int, endpoint: int, duty: float, *, on_cpus: bool) -> str:
        """Look for one window; return what was seen, or an empty string when that is no saturation."""
        try:
            process, cpus = psutil.Process(burner), sorted(os.sched_getaffinity(endpoint))
            before, total_before = psutil.cpu_times(percpu=True), _spent_s(process)
            await asyncio.sleep(_WINDOW_S)
            after, spent_s = psutil.cpu_times(percpu=True), _spent_s(process) - total_before
        except (psutil.Error, OSError):
            return ""
        gpu = None if on_cpus else await asyncio.to_thread(find_gpu, endpoint)
        if gpu:
            with suppress(gpu.nvml.NVMLError):
                busy = gpu.busy_ratio()
                return f"{gpu.uuid} is {busy:.0%} busy" if busy >= _BUSY_SHARE * duty else ""
            return ""
        idle_s = sum(after[n].idle - before[n].idle for n in cpus)
        busy = 1 - idle_s / (_WINDOW_S * len(cpus))
        ours = spent_s / (_WINDOW_S * len(cpus))
        if busy >= _BUSY_SHARE * duty and ours >= _OURS_SHARE * duty:
            return f"CPUs {cpus} are {busy:.0%} busy, {ours:.0%} with the burner {burner}"
        return ""

    async def revert(self, lease: Lease) -> str:
        """End the burner."""
        await self._keeper.stop(lease)
        return f"no burner on the device of {lease.endpoint.name}"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the burner."""
        return self._keeper.residue(lease)


def _spent_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a burner and its loops."""
    found = [p.cpu_times() for p in (process, *process.children())]
    return float(sum(times.user + times.system for times in found))
