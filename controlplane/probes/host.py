"""CPU and memory of this machine, for endpoints that run on it; what runs elsewhere stays unknown."""

from ipaddress import ip_address
from time import monotonic
from urllib.parse import urlsplit

import psutil

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import HostSpec, Look, Page


class HostProbe:
    """Read the machine's own counters; costs microseconds, opens no connection."""

    name = "host"

    def __init__(self, spec: HostSpec) -> None:
        self.every = spec.every
        psutil.cpu_percent(None)  # The first call only begins the measuring.
        self._read_at = 0.0
        self._page = Page()

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once; every endpoint of this machine shares one reading per interval."""
        if not is_local(endpoint.url):
            return Look(endpoint, self.name, monotonic(), 0.0)
        if monotonic() - self._read_at > self.every.total_seconds() / 2:
            self._read_at = monotonic()
            memory = psutil.virtual_memory()
            self._page = Page(
                gauges={
                    "cpu_utilization": psutil.cpu_percent(None) / 100,
                    "memory_utilization": memory.percent / 100,
                }
            )
        return Look(endpoint, self.name, monotonic(), 0.0, page=self._page)


def is_local(url: str) -> bool:
    """Tell whether an endpoint's address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
