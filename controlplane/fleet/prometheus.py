"""The endpoints of pools that a Prometheus-compatible server knows: asked every few seconds, in the background.

What was known last stands in while it does not answer, and what an answer lacks that is not whole. An answer that
names nobody is taken for a server that knows nothing (it has just started), never for a pool that everybody left.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from time import monotonic
from urllib.parse import urlencode

import aiohttp

from controlplane.fleet.model import Endpoint, FleetSpec, Inventory, PrometheusEndpoints
from controlplane.fleet.targets import Listed, read_series, read_targets

MAX_BYTES = 64 * 1024 * 1024
"""The targets of a large server are megabytes."""
JITTER = 0.1
"""Share of the interval by which asking is spread."""


@dataclass(slots=True)
class _Pool:
    """One pool and what is known of it."""

    name: str
    model: str
    spec: PrometheusEndpoints
    known: tuple[Endpoint, ...] = ()
    trouble: str = "it has not been asked yet"
    heard: float = field(default_factory=monotonic)
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, listed: Listed) -> bool:
        """Take an answer in; tells whether the endpoints changed."""
        found = listed.endpoints
        if not found:
            self.trouble = "its answer names nobody"
            return False
        if listed.partial:
            here = {endpoint.url for endpoint in found}
            found += tuple(endpoint for endpoint in self.known if endpoint.url not in here)
        self.trouble = f"its answer is not whole: {listed.partial}" if listed.partial else ""
        self.heard = monotonic()
        changed, self.known = self.known != found, found
        return changed

    @property
    def problem(self) -> str:
        """What keeps it from being known; empty when nothing does."""
        if not self.trouble:
            return ""
        what = f"pool {self.name}: {self.spec.url}: {self.trouble}"
        if not self.known:
            return f"{what}; see whether it scrapes `{self.spec.job or self.spec.query}`"
        return f"{what}; the {len(self.known)} endpoints known last stand in, {monotonic() - self.heard:.0f} s old"


class PrometheusInventory:
    """The endpoints of a fleet whose pools are listed by such servers; the others are left to other inventories."""

    def __init__(self, fleet: FleetSpec) -> None:
        self._pools = tuple(
            _Pool(name, pool.model, pool.endpoints.prometheus)
            for name, pool in fleet.pools.items()
            if pool.endpoints.prometheus
        )

    def read(self) -> Inventory:
        """Return the endpoints that are known now; asks nobody."""
        endpoints = tuple(endpoint for pool in self._pools for endpoint in pool.known)
        return Inventory(endpoints, tuple(pool.problem for pool in self._pools if pool.problem))

    async def follow(self, session: aiohttp.ClientSession, tell: Callable[[], None]) -> None:
        """Ask again and again; ends only by being cancelled.

        Args:
            session: the HTTP connections to use.
            tell: called when endpoints came or went.
        """
        async with asyncio.TaskGroup() as group:
            for pool in self._pools:
                group.create_task(self._follow(pool, session, tell))

    async def tried(self) -> None:
        """Wait until every server has been asked once."""
        for pool in self._pools:
            await pool.tried.wait()

    async def _follow(self, pool: _Pool, session: aiohttp.ClientSession, tell: Callable[[], None]) -> None:
        while True:
            try:
                changed = pool.take(await _ask(pool, session))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                pool.trouble, changed = f"{type(error).__name__}: {str(error)[:200]}", False
            pool.tried.set()
            if changed:
                tell()
            await asyncio.sleep(pool.spec.every.total_seconds() * (1.0 + JITTER * random()))  # noqa: S311


async def _ask(pool: _Pool, session: aiohttp.ClientSession) -> Listed:
    spec = pool.spec
    asked = {"state": "active", "scrapePool": spec.job} if spec.job else {"query": spec.query}
    path = f"{'targets' if spec.job else 'query'}?{urlencode(asked)}"
    limit = aiohttp.ClientTimeout(total=spec.timeout.total_seconds())
    async with session.get(f"{spec.url.rstrip('/')}/api/v1/{path}", timeout=limit, allow_redirects=False) as response:
        content = bytearray()
        async for block in response.content.iter_any():
            content += block
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {bytes(content[:120])!r}")
    answer = json.loads(content)
    return (read_targets if spec.job else read_series)(pool.name, pool.model, spec, answer)
