"""One reading for many endpoints: a node, or a server that answers for a whole fleet, is asked once an interval."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from time import monotonic
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint

T = TypeVar("T")


class Shared(Generic[T]):
    """The newest reading by key; whoever asks while one is being made waits for it instead of making another."""

    def __init__(self, fresh_s: float) -> None:
        """Start empty.

        Args:
            fresh_s: how old a reading may be.
        """
        self._fresh_s = fresh_s
        self._kept: dict[str, tuple[float, T]] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """Return a fresh reading, made now if need be."""
        async with self._making.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept and monotonic() - kept[0] < self._fresh_s:
                return kept[1]
            made = await make()
            self._kept[key] = (monotonic(), made)
            return made


def address(template: str, endpoint: Endpoint) -> str:
    """Fill an endpoint's host and node into the address of a page; empty where the template needs what is not known."""
    host = urlsplit(endpoint.url).hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if "{node}" in template and not endpoint.node:
        return ""
    return template.replace("{host}", host).replace("{node}", endpoint.node)


def is_local(url: str) -> bool:
    """Tell whether an endpoint's address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
