"""Envoy's traffic split, through file-based xDS: weights and level in `rds.json`, read back from the admin address.

Only two things in `rds.json` are ours: the weights of `weighted_clusters` entries named after pools, and the value
of the `x-degradation-level` response header. Everything else is whoever wrote it; the file is changed by reading,
writing a new one beside it and renaming, which is what Envoy watches for.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.degradation.actuator import Observed, Preflight, RoutePlan
from controlplane.errors import ActuatorError, UnreachableError
from controlplane.wholefile import write_whole

LEVEL_HEADER = "x-degradation-level"
SERVED_BY_HEADER = "x-served-by"
_ODD_SHAPES = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a document raises when it is not shaped as Envoy's are."""
_ADMIN_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_SAMPLE_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


class EnvoyActuator:
    """The lever of one service behind one Envoy."""

    def __init__(
        self, session: aiohttp.ClientSession, xds_dir: Path, admin_url: Callable[[], str], listener_url: str, model: str
    ) -> None:
        """Take the lever.

        Args:
            session: the HTTP connections to use.
            xds_dir: the directory Envoy watches.
            admin_url: gives Envoy's admin address as it is now: one on a free port moves when Envoy restarts.
            listener_url: where users' requests enter.
            model: the model to ask for in sampled requests; empty asks for the default one.
        """
        self._session = session
        self._rds = xds_dir / "rds.json"
        self._admin_url = admin_url
        self._listener_url = listener_url
        self._model = model
        self._writing = asyncio.Lock()

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask whether the route file has every pool of the plan, and Envoy can be read."""
        try:
            document = json.loads(await asyncio.to_thread(self._rds.read_text, encoding="utf-8"))
            _set_plan(document, plan)
            live = await self.configured()
        except (OSError, *_ODD_SHAPES) as error:
            return Preflight(f"{self._rds} cannot take the plan: {error}")
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        return Preflight(preview=f"weights {dict(live.weights)} -> {dict(plan.weights)}, level {plan.level}")

    async def apply(self, plan: RoutePlan, key: str) -> None:  # noqa: ARG002 - a file is written as often as one likes
        """Write the plan; Envoy takes it up within tens of milliseconds.

        Raises:
            ActuatorError: when the file cannot be written, or has no entry for a pool of the plan.
        """
        async with self._writing:
            await asyncio.to_thread(self._write, plan)

    def _write(self, plan: RoutePlan) -> None:
        try:
            document = json.loads(self._rds.read_text(encoding="utf-8"))
            _set_plan(document, plan)
            write_whole(self._rds, json.dumps(document, indent=1))
        except (OSError, *_ODD_SHAPES) as error:
            raise ActuatorError(
                f"cannot write {self._rds}", str(error), "make the xDS directory writable, and free space on its disk"
            ) from error

    async def configured(self) -> Observed:
        """Read back the split from Envoy's live configuration.

        Raises:
            ActuatorError: when the admin address does not answer, or shows no such route.
        """
        admin = "its admin address"
        try:
            admin = self._admin_url()
            url = f"{admin}/config_dump?resource=dynamic_route_configs"
            async with self._session.get(url, timeout=_ADMIN_TIMEOUT) as response:
                dump = await response.json(content_type=None)
            routes = [entry["route_config"] for entry in dump["configs"]]
            weights = {c["name"]: int(c.get("weight", 0)) for route in routes for c in _weighted(route)}
            level = next((str(h["header"]["value"]) for route in routes for h in _level_headers(route)), "")
        except (aiohttp.ClientError, UnreachableError, TimeoutError, OSError, *_ODD_SHAPES) as error:
            raise ActuatorError(
                f"cannot read Envoy's configuration at {admin}", f"{type(error).__name__}: {error}",
                "check that Envoy runs and that `fleet.gateway.envoy.admin` is its admin address",
            ) from error  # fmt: skip
        return Observed({pool: weight for pool, weight in weights.items() if weight}, level)

    async def sample(self, requests: int) -> Observed:
        """Read the configuration, then send real requests, all at once."""
        live = await self.configured()
        answers = await asyncio.gather(*(self._ask() for _ in range(requests)))
        return Observed(live.weights, live.level, tuple(by for by, _ in answers), tuple(level for _, level in answers))

    async def _ask(self) -> tuple[str, str]:
        """Send one completion of one token; no answer gives empty texts."""
        body = {"prompt": "ping", "max_tokens": 1, "temperature": 0} | ({"model": self._model} if self._model else {})
        url = f"{self._listener_url}/v1/completions"
        try:
            async with self._session.post(url, json=body, timeout=_SAMPLE_TIMEOUT) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "", ""
        if response.status != 200:
            return "", ""
        return response.headers.get(SERVED_BY_HEADER, ""), response.headers.get(LEVEL_HEADER, "")


def _set_plan(document: Mapping[str, Any], plan: RoutePlan) -> None:
    """Change the weights and the level of every route that splits traffic over pools.

    Raises:
        LookupError: when a pool of the plan has no entry to weigh.
    """
    for route_config in document["resources"]:
        for split in _splits(route_config):
            entries = {c["name"]: c for c in split["clusters"]}
            missing = [pool for pool, weight in plan.weights.items() if weight and pool not in entries]
            if missing:
                raise LookupError(f"no weighted cluster named {', '.join(missing)}")
            for pool, entry in entries.items():
                entry["weight"] = plan.weights.get(pool, 0)
        for header in _level_headers(route_config):
            header["header"]["value"] = plan.level.value


def _splits(route_config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for host in route_config.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            split = route.get("route", {}).get("weighted_clusters")
            if split:
                yield split


def _weighted(route_config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for split in _splits(route_config):
        yield from split["clusters"]


def _level_headers(route_config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Find our header wherever the document sets it: on the whole configuration, a host or a route."""
    hosts = list(route_config.get("virtual_hosts", ()))
    for holder in (route_config, *hosts, *(route for host in hosts for route in host.get("routes", ()))):
        for header in holder.get("response_headers_to_add", ()):
            if header["header"]["key"].lower() == LEVEL_HEADER:
                yield header
