"""Endpoints and addresses that are kept in files: `file_sd` lists, and `file:PATH` addresses."""

import json
from pathlib import Path

from controlplane.errors import UnreachableError
from controlplane.fleet.inventory import file_sd_endpoints, static_endpoints
from controlplane.fleet.model import Endpoint, FleetSpec, Inventory


class FileInventory:
    """The endpoints of a fleet whose pools are written out or listed in `file_sd` files."""

    def __init__(self, fleet: FleetSpec, base: Path) -> None:
        self._fleet = fleet
        self._base = base
        self._seen: dict[str, tuple[int, tuple[Endpoint, ...]]] = {}

    def read(self) -> Inventory:
        """Return the endpoints now; a file is parsed again only when it changed."""
        endpoints: list[Endpoint] = []
        problems: list[str] = []
        for name, pool in self._fleet.pools.items():
            if pool.endpoints.static:
                # The same objects each time: a reader sees at a glance that nothing changed.
                if name not in self._seen:
                    self._seen[name] = (0, static_endpoints(name, pool.model, pool.endpoints.static))
                endpoints += self._seen[name][1]
                continue
            if not pool.endpoints.file:
                continue  # Another inventory's.
            path = self._base / pool.endpoints.file
            try:
                endpoints += self._listed(name, pool.model, path)
            except (OSError, ValueError) as error:
                problems.append(f"pool {name}: cannot read {path}: {error}")
                endpoints += self._seen.get(name, (0, ()))[1]
        return Inventory(tuple(endpoints), tuple(problems))

    def _listed(self, pool: str, model: str, path: Path) -> tuple[Endpoint, ...]:
        changed = path.stat().st_mtime_ns
        known = self._seen.get(pool)
        if known and known[0] == changed:
            return known[1]
        listed = file_sd_endpoints(pool, model, json.loads(path.read_text(encoding="utf-8")))
        self._seen[pool] = (changed, listed)
        return listed


def resolve_address(address: str, base: Path) -> str:
    """Return the URL of an address that is written out, or stands as `host:port` in a file (`file:PATH`).

    Raises:
        UnreachableError: when the file cannot be read.
    """
    if not address.startswith("file:"):
        return address.rstrip("/")
    path = base / address.removeprefix("file:")
    try:
        return f"http://{path.read_text(encoding='utf-8').strip()}"
    except OSError as error:
        raise UnreachableError(
            f"no address in {path}", str(error), "start the gateway that writes it (`controlplane up`), or name a URL"
        ) from error
