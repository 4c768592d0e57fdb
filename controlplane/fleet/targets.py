"""From what a Prometheus-compatible server says to endpoints: its scrape targets, or the series of a query; pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint, PrometheusEndpoints

NODES = ("node", "kubernetes_node", "nodename")
ZONES = ("zone", "topology_kubernetes_io_zone")


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer, read."""

    endpoints: tuple[Endpoint, ...]
    partial: str = ""
    """Why it may not be whole, as the server says; empty when nothing is known to lack."""


def read_targets(pool: str, model: str, spec: PrometheusEndpoints, answer: object) -> Listed:
    """Read `/api/v1/targets`: the active targets of the job, whether they are up or not.

    Raises:
        ValueError: when the answer has another shape, or is an error.
    """
    data, partial = _data(answer)
    rows: list[tuple[Mapping[str, Any], str]] = []
    for target in _rows(data, "activeTargets"):
        labels = target.get("labels")
        if not isinstance(labels, Mapping):
            raise ValueError("a target without labels")  # noqa: TRY004 - a document's shape, not a caller's type
        if spec.job in (labels.get("job"), target.get("scrapePool")):
            rows.append((labels, urlsplit(str(target.get("scrapeUrl") or "")).netloc))
    return Listed(_endpoints(pool, model, spec, rows), partial)


def read_series(pool: str, model: str, spec: PrometheusEndpoints, answer: object) -> Listed:
    """Read `/api/v1/query`: one endpoint for each `instance` there is.

    Raises:
        ValueError: when the answer has another shape, or is an error.
    """
    data, partial = _data(answer)
    rows = [(series.get("metric"), "") for series in _rows(data, "result")]
    if not all(isinstance(labels, Mapping) and labels.get("instance") for labels, _ in rows):
        raise ValueError("a series without the label `instance`: keep it, as in `sum by (instance) (...)`")
    return Listed(_endpoints(pool, model, spec, [(labels, "") for labels, _ in rows if labels]), partial)


def _endpoints(
    pool: str, model: str, spec: PrometheusEndpoints, rows: Iterable[tuple[Mapping[str, Any], str]]
) -> tuple[Endpoint, ...]:
    found: dict[str, Endpoint] = {}
    for labels, scraped in rows:
        address = scraped or str(labels["instance"])
        parts = urlsplit(f"//{address}")
        if not parts.hostname:
            raise ValueError(f"`{address}` is not an address")
        node = next((str(labels[key]) for key in NODES if labels.get(key)), parts.hostname)
        zone = next((str(labels[key]) for key in ZONES if labels.get(key)), "")
        namespace, pod = str(labels.get("namespace") or ""), str(labels.get("pod") or "")
        whole = f"{namespace}/{pod}" if namespace and pod else ""
        url = f"{spec.scheme}://{address}"
        found[address] = Endpoint(pod or address, pool, url, node, model, zone, pod=whole)
    named = Counter(endpoint.name for endpoint in found.values())
    # A pod that is scraped at several ports is several endpoints: each is called by its address.
    return tuple(
        found[address] if named[found[address].name] == 1 else replace(found[address], name=address)
        for address in sorted(found)
    )


def _data(answer: object) -> tuple[Mapping[str, Any], str]:
    if not isinstance(answer, Mapping) or answer.get("status") != "success":
        why = answer.get("error") if isinstance(answer, Mapping) else None
        raise ValueError(f"it says: {why}" if why else "the answer is none of Prometheus' API")
    data = answer.get("data")
    if not isinstance(data, Mapping):
        raise ValueError("the answer holds no data")  # noqa: TRY004 - a document's shape, not a caller's type
    warnings = answer.get("warnings") or ()
    partial = "; ".join(map(str, warnings)) if isinstance(warnings, list) else ""
    return data, partial or ("isPartial" if answer.get("isPartial") else "")


def _rows(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = data.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"the answer holds no `{key}`: is it a vector?")
    return rows
