"""From lists of endpoints to endpoints, and the port an inventory fulfils; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint, Inventory


class InventorySource(Protocol):
    """Says which endpoints there are now."""

    def read(self) -> Inventory:
        """Return the endpoints; what could not be read is named in `problems`, and the last known ones stand in."""


class Together:
    """Several inventories as one, each with the pools that are its own."""

    def __init__(self, sources: Sequence[InventorySource]) -> None:
        self._sources = sources
        self._seen: tuple[Inventory, ...] = ()
        self._whole = Inventory(())

    def read(self) -> Inventory:
        """Return the endpoints of all; the same object as long as nothing changed."""
        seen = tuple(source.read() for source in self._sources)
        if seen != self._seen:
            endpoints = tuple(endpoint for one in seen for endpoint in one.endpoints)
            self._seen, self._whole = seen, Inventory(endpoints, tuple(why for one in seen for why in one.problems))
        return self._whole


def static_endpoints(pool: str, model: str, urls: Iterable[str]) -> tuple[Endpoint, ...]:
    """Name the endpoints of a pool that are written out on the page: `primary-0`, `primary-1`, ..."""
    return tuple(
        Endpoint(f"{pool}-{i}", pool, url.rstrip("/"), urlsplit(url).hostname or "", model)
        for i, url in enumerate(urls)
    )


def file_sd_endpoints(pool: str, model: str, groups: object) -> tuple[Endpoint, ...]:
    """Read a Prometheus `file_sd` document.

    Args:
        pool: the pool it lists.
        model: the model name for requests; a `model` label on a group wins over an empty one.
        groups: the parsed document: `[{"targets": ["host:port"], "labels": {"endpoint": ..., "node": ...}}]`.

    Raises:
        ValueError: when the document has another shape.
    """
    if not isinstance(groups, list):
        raise ValueError("it is not a list of target groups")  # noqa: TRY004 - a document's shape, not a caller's type
    endpoints: list[Endpoint] = []
    for group in groups:
        targets = group.get("targets") if isinstance(group, Mapping) else None
        labels = group.get("labels", {}) if isinstance(group, Mapping) else None
        if not isinstance(targets, list) or not isinstance(labels, Mapping):
            raise ValueError("a target group is `targets`, a list, and `labels`, a mapping")  # noqa: TRY004 - likewise
        for target in targets:
            endpoints.append(_file_sd_endpoint(pool, model, str(target), labels, len(endpoints)))
    return tuple(endpoints)


def _file_sd_endpoint(pool: str, model: str, target: str, labels: Mapping[str, Any], position: int) -> Endpoint:
    url = target if "://" in target else f"{labels.get('__scheme__', 'http')}://{target}"
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:
        raise ValueError(f"`{target}` is not an address")
    name = str(labels.get("endpoint", f"{pool}-{position}"))
    node = str(labels.get("node", parts.hostname))
    return Endpoint(name, pool, url.rstrip("/"), node, model or str(labels.get("model", "")))
