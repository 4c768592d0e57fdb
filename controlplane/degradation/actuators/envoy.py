"""Envoy's traffic split, through file-based xDS: written to its files, read back from its admin address.

The files are changed by reading them, writing new ones beside them and renaming, which is what Envoy watches for. What
in them is ours, and nothing else, is changed (`envoy_documents.py`).
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.degradation.actuator import Observed, Preflight, RoutePlan, configured_as
from controlplane.degradation.actuators.envoy_documents import (
    CORDON_MARK,
    RATE_LIMIT_FILTER,
    endpoint_names,
    is_cordoned,
    level_of,
    set_cordons,
    set_plan,
    shed_of,
    weights_of,
)
from controlplane.degradation.actuators.sample import Sampler
from controlplane.errors import ActuatorError, UnreachableError
from controlplane.wholefile import write_whole

_ODD_SHAPES = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a document raises when it is not shaped as Envoy's are."""
_NO_ANSWER = (aiohttp.ClientError, UnreachableError, TimeoutError, OSError)
_ADMIN_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_ROUTES = "/config_dump?resource=dynamic_route_configs"
_ENDPOINTS = "/config_dump?include_eds&resource=dynamic_endpoint_configs"
_LISTENERS = ("/config_dump?resource=dynamic_listeners", "/config_dump?resource=static_listeners")
_REJECTED = "/stats?format=json&filter=" + r"\.update_rejected$"


class EnvoyActuator:
    """The lever of one service behind one Envoy."""

    def __init__(
        self, session: aiohttp.ClientSession, xds_dir: Path, admin_url: Callable[[], str], sampler: Sampler
    ) -> None:
        """Take the lever.

        Args:
            session: the HTTP connections to use.
            xds_dir: the directory Envoy watches: `rds.json`, and `eds*.json` for what can be cordoned.
            admin_url: gives Envoy's admin address as it is now: one on a free port moves when Envoy restarts.
            sampler: sends real requests where users' requests enter.
        """
        self._session = session
        self._xds = xds_dir
        self._rds = xds_dir / "rds.json"
        self._admin_url = admin_url
        self._sampler = sampler
        self._writing = asyncio.Lock()
        self._applied: RoutePlan | None = None
        self._cordoned = True
        """Whether the live configuration kept somebody from new requests when it was read last; it may, at first."""
        self._rejected_before: int | None = None
        """How many updates Envoy had refused when it last stood as it was told."""

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask whether the files have every pool and endpoint of the plan, and Envoy can be read and can do it."""
        try:
            _, live, rejected = await asyncio.gather(
                asyncio.to_thread(self._changes, plan), self.configured(), self._rejections()
            )
            if plan.shed and not await self._can_shed():
                return Preflight(f"Envoy has no {RATE_LIMIT_FILTER} in its http_filters: a bucket would do nothing")
        except (OSError, *_ODD_SHAPES) as error:
            return Preflight(f"{self._xds} cannot take the plan: {error}")
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        self._rejected_before = rejected
        return Preflight(preview=_preview(live, plan))

    async def apply(self, plan: RoutePlan, key: str) -> None:  # noqa: ARG002 - a file is written as often as one likes
        """Write the plan; Envoy takes it up within tens of milliseconds.

        Raises:
            ActuatorError: when a file cannot be written, or has no entry for a pool or an endpoint of the plan.
        """
        async with self._writing:
            await asyncio.to_thread(self._write, plan)
            self._applied = plan

    def _changes(self, plan: RoutePlan) -> dict[Path, str]:
        """Return what the files will hold, in the order to write them: endpoints first, then the routes."""
        changes: dict[Path, str] = {}
        unknown = set(plan.cordoned)
        for path in sorted(self._xds.glob("eds*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            unknown -= {name for name, _ in endpoint_names(document)}
            if set_cordons(document, plan.cordoned):
                changes[path] = json.dumps(document, indent=1)
        if unknown:
            raise LookupError(f"no endpoint named {', '.join(sorted(unknown))} in {self._xds}/eds*.json")
        document = json.loads(self._rds.read_text(encoding="utf-8"))
        set_plan(document, plan)
        return {**changes, self._rds: json.dumps(document, indent=1)}

    def _write(self, plan: RoutePlan) -> None:
        written: dict[Path, str] = {}
        path = self._rds
        try:
            for path, text in self._changes(plan).items():
                before = path.read_text(encoding="utf-8")
                write_whole(path, text)
                written[path] = before
        except (OSError, *_ODD_SHAPES) as error:
            for done, text in written.items():
                with suppress(OSError):
                    write_whole(done, text)
            raise ActuatorError(
                f"cannot write {path}", str(error), "make the xDS directory writable, and free space on its disk"
            ) from error

    async def configured(self) -> Observed:
        """Read back the split, what is shed and who is cordoned from Envoy's live configuration.

        Raises:
            ActuatorError: when the admin address does not answer, or shows no such route.
        """
        # Who is cordoned is asked only while somebody is, or may be: a large fleet's endpoints are a large page.
        marked = self._cordoned or await asyncio.to_thread(self._marked)
        routes_dump, endpoints_dump = await asyncio.gather(
            self._admin(_ROUTES), self._admin(_ENDPOINTS) if marked else asyncio.sleep(0, {})
        )
        try:
            routes = [entry["route_config"] for entry in routes_dump["configs"]]
            weights = {pool: weight for route in routes for pool, weight in weights_of(route).items() if weight}
            level = next((text for route in routes if (text := level_of(route))), "")
            shed = next((found for route in routes if (found := shed_of(route))), None)
            places = {"resources": [entry["endpoint_config"] for entry in endpoints_dump.get("configs", ())]}
            cordoned = tuple(sorted({name for name, entry in endpoint_names(places) if is_cordoned(entry)}))
        except _ODD_SHAPES as error:
            raise self._unreadable(error) from error
        self._cordoned = bool(cordoned)
        seen = Observed(weights, level, shed=shed, cordoned=cordoned)
        return await self._with_rejections(seen)

    def _marked(self) -> bool:
        """Tell whether an endpoint carries our mark in the files, or they cannot tell."""
        try:
            return any(f'"{CORDON_MARK}"' in path.read_text(encoding="utf-8") for path in self._xds.glob("eds*.json"))
        except (OSError, ValueError):
            return True

    async def _with_rejections(self, seen: Observed) -> Observed:
        """Say so when Envoy stands otherwise than told because it refused what it was given."""
        if self._applied is None or configured_as(seen, self._applied):
            return seen
        with suppress(ActuatorError):
            now = await self._rejections()
            if self._rejected_before is not None and now > self._rejected_before:
                why = "Envoy refused the newest configuration and goes on with the one before; its log says why"
                return Observed(seen.weights, seen.level, shed=seen.shed, cordoned=seen.cordoned, rejected=why)
        return seen

    async def _rejections(self) -> int:
        page = await self._admin(_REJECTED)
        try:
            return sum(int(stat["value"]) for stat in page["stats"] if "value" in stat)
        except _ODD_SHAPES as error:
            raise self._unreadable(error) from error

    async def _can_shed(self) -> bool:
        pages = await asyncio.gather(*(self._admin(path) for path in _LISTENERS))
        return any(RATE_LIMIT_FILTER in json.dumps(page) for page in pages)

    async def _admin(self, path: str) -> Mapping[str, Any]:
        try:
            url = f"{self._admin_url()}{path}"
            async with self._session.get(url, timeout=_ADMIN_TIMEOUT) as response:
                page: Mapping[str, Any] = await response.json(content_type=None)
        except (*_NO_ANSWER, *_ODD_SHAPES) as error:
            raise self._unreadable(error) from error
        if not isinstance(page, Mapping):
            raise self._unreadable(TypeError("not a JSON object"))
        return page

    def _unreadable(self, error: Exception) -> ActuatorError:
        try:
            admin = self._admin_url()
        except UnreachableError:
            admin = "its admin address"
        return ActuatorError(
            f"cannot read Envoy's configuration at {admin}", f"{type(error).__name__}: {error}",
            "check that Envoy runs and that `fleet.gateway.envoy.admin` is its admin address",
        )  # fmt: skip

    async def sample(self, requests: int) -> Observed:
        """Read the configuration, then send real requests, all at once."""
        return await self._sampler.sample(await self.configured(), requests)


def _preview(live: Observed, plan: RoutePlan) -> str:
    text = f"weights {dict(live.weights)} -> {dict(plan.weights)}, level {plan.level}"
    if plan.shed:
        text += f", shed to {plan.shed.rate:g}/s"
    return text + (f", cordon {', '.join(plan.cordoned)}" if plan.cordoned else "")
