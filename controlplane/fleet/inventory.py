"""From lists of endpoints to endpoints, and the port an inventory fulfils; pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint, Inventory


class InventorySource(Protocol):
    """Says which endpoints there are now."""

    def read(self) -> Inventory:
        """Return the endpoints; what could not be read is named in `problems`, and the last known ones stand in."""


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
        if not isinstance(group, Mapping) or not isinstance(group.get("targets"), list):
            raise ValueError("a target group has no `targets` list")  # noqa: TRY004 - likewise
        labels: Mapping[str, Any] = group.get("labels", {})
        for target in group["targets"]:
            url = str(target) if "://" in str(target) else f"{labels.get('__scheme__', 'http')}://{target}"
            name = str(labels.get("endpoint", f"{pool}-{len(endpoints)}"))
            node = str(labels.get("node", urlsplit(url).hostname or ""))
            endpoints.append(Endpoint(name, pool, url.rstrip("/"), node, model or str(labels.get("model", ""))))
    return tuple(endpoints)
