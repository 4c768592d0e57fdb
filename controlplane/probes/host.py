"""CPU, memory, disk and network of the machines: of this one through psutil, of others from their node_exporter.

Utilization of CPU and network is what was used between two readings, so the first one of a node tells neither.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

import psutil

from controlplane.fleet.model import Endpoint
from controlplane.probes.exposition import Layouts, Scrape
from controlplane.probes.probe import Failure, Fetch, HostSpec, Look, Page
from controlplane.probes.shared import Shared, address, is_local

_NODE = frozenset(
    {
        "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
        "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node_network_receive_bytes_total",
        "node_network_transmit_bytes_total", "node_network_speed_bytes",
    }
)  # fmt: skip
_NOT_A_LINK = re.compile(r"lo|veth.*|cali.*|cni.*|docker.*|br-.*|flannel.*|tun.*|virbr.*|kube-.*")
_NOT_A_DISK = re.compile(r"tmpfs|devtmpfs|overlay|squashfs|ramfs|iso9660|nsfs|proc|sysfs|fuse\..*|erofs|autofs")


@dataclass(frozen=True, slots=True)
class Machine:
    """One reading of a machine."""

    at: float
    cpu_s: tuple[float, float] | None = None
    """CPU seconds (idle, all) since it started."""
    memory: float | None = None
    """Used share."""
    disk: float | None = None
    """Used share of the fullest file system."""
    links: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """By device: bytes received, bytes sent, and its speed in bytes per second."""


class HostProbe:
    """Read the machines; each is read once an interval, however many endpoints it has."""

    name = "host"

    def __init__(self, spec: HostSpec, fetch: Fetch | None = None) -> None:
        """Take how nodes are asked.

        Args:
            spec: interval, and where a node's page is.
            fetch: gets pages; None leaves other machines unknown.
        """
        self.every = spec.every
        self._spec = spec
        self._fetch = fetch
        self._pages = Shared[tuple[Page | None, Failure | None, str]](self.every.total_seconds() / 2)
        self._last: dict[str, Machine] = {}
        self._layouts = Layouts(_NODE.__contains__)

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        started = monotonic()
        if self._spec.page and self._fetch and (url := address(self._spec.page, endpoint)):
            page, failure, detail = await self._pages.get(url, lambda: self._remote(url))
        elif is_local(endpoint.url):
            page, failure, detail = await self._pages.get("", self._local)
        else:
            page, failure, detail = None, None, ""
        return Look(endpoint, self.name, monotonic(), monotonic() - started, failure, detail, page=page)

    async def _local(self) -> tuple[Page | None, Failure | None, str]:
        return self._used("", this_machine(monotonic())), None, ""

    async def _remote(self, url: str) -> tuple[Page | None, Failure | None, str]:
        if self._fetch is None:
            return None, None, ""
        got = await self._fetch(url, self._spec.timeout)
        if got.content is None:
            return None, got.failure, f"{url}: {got.detail}"
        try:
            machine = node_machine(self._layouts.read(got.content), monotonic())
        except ValueError as error:
            return None, Failure.ANSWER, f"{url}: not a metrics page: {error}"
        if machine.cpu_s is None and machine.memory is None:
            return None, Failure.ANSWER, f"{url}: not a node_exporter's page"
        return self._used(url, machine), None, ""

    def _used(self, key: str, machine: Machine) -> Page:
        before, self._last[key] = self._last.get(key), machine
        return Page(gauges=used(before, machine))


def this_machine(now: float) -> Machine:
    """Read this machine; costs under a millisecond and opens no connection."""
    cpu = psutil.cpu_times()
    idle = cpu.idle + getattr(cpu, "iowait", 0.0)
    counted = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)  # Guests are in `user` already.
    disks = [_disk(part.mountpoint) for part in psutil.disk_partitions() if not _NOT_A_DISK.fullmatch(part.fstype)]
    speeds = {name: stats.speed * 1e6 / 8 for name, stats in psutil.net_if_stats().items() if stats.isup}
    links = {
        name: (float(io.bytes_recv), float(io.bytes_sent), speeds[name])
        for name, io in psutil.net_io_counters(pernic=True).items()
        if speeds.get(name) and not _NOT_A_LINK.fullmatch(name)
    }
    known = [disk for disk in disks if disk is not None]
    memory = psutil.virtual_memory().percent / 100
    return Machine(now, (idle, counted), memory, max(known, default=None), links)


def _disk(mountpoint: str) -> float | None:
    try:
        return psutil.disk_usage(mountpoint).percent / 100
    except OSError:
        return None  # Not ours to read, or gone meanwhile: the others still tell.


def node_machine(scrape: Scrape, now: float) -> Machine:
    """Return what a node_exporter's page says."""
    idle, counted = 0.0, 0.0
    single: dict[str, float] = {}
    by_label: dict[str, dict[str, float]] = {}
    for line, value in zip(scrape.layout.series, scrape.values, strict=True):
        if value != value:  # noqa: PLR0124 - not a number is no reading
            continue
        if line.name == "node_cpu_seconds_total":
            counted += value
            idle += value if line.labels.get("mode") in ("idle", "iowait") else 0.0
        elif line.name.startswith("node_network_"):
            if not _NOT_A_LINK.fullmatch(line.labels.get("device", "")):
                by_label.setdefault(line.name, {})[line.labels.get("device", "")] = value
        elif line.name.startswith("node_filesystem_"):
            if not _NOT_A_DISK.fullmatch(line.labels.get("fstype", "")):
                by_label.setdefault(line.name, {})[line.labels.get("mountpoint", "")] = value
        else:
            single[line.name] = value
    total = single.get("node_memory_MemTotal_bytes", 0.0)
    available = single.get("node_memory_MemAvailable_bytes")
    sizes, free = by_label.get("node_filesystem_size_bytes", {}), by_label.get("node_filesystem_avail_bytes", {})
    disks = [1 - free[mount] / size for mount, size in sizes.items() if size > 0 and mount in free]
    received = by_label.get("node_network_receive_bytes_total", {})
    sent = by_label.get("node_network_transmit_bytes_total", {})
    links = {
        device: (received[device], sent.get(device, 0.0), speed)
        for device, speed in by_label.get("node_network_speed_bytes", {}).items()
        if speed > 0 and device in received
    }
    memory = 1 - available / total if available is not None and total > 0 else None
    return Machine(now, (idle, counted) if counted else None, memory, max(disks, default=None), links)


def used(before: Machine | None, after: Machine) -> dict[str, float]:
    """Return what a machine used, by signal: levels as they are, counters between two readings."""
    gauges: dict[str, float] = {}
    if after.memory is not None:
        gauges["memory_utilization"] = after.memory
    if after.disk is not None:
        gauges["disk_utilization"] = after.disk
    if before is None or after.at <= before.at:
        return gauges
    if before.cpu_s and after.cpu_s and after.cpu_s[1] > before.cpu_s[1]:
        idle, counted = after.cpu_s[0] - before.cpu_s[0], after.cpu_s[1] - before.cpu_s[1]
        gauges["cpu_utilization"] = min(1.0, max(0.0, 1 - idle / counted))
    seconds = after.at - before.at
    moved = [
        (received - before.links[name][0], sent - before.links[name][1], speed)
        for name, (received, sent, speed) in after.links.items()
        if name in before.links
    ]
    # A node that restarted counts from zero: that reading tells nothing.
    shares = [max(came, went) / seconds / speed for came, went, speed in moved if came >= 0 and went >= 0]
    if shares:
        gauges["network_utilization"] = max(shares)
    return gauges
