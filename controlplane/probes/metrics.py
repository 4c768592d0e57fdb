"""Reading a metrics page: the few families we judge by, out of the hundreds it holds; pure."""

from collections.abc import Iterable
from math import inf, isfinite

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from controlplane.probes.probe import Histogram, Page
from controlplane.signals.sample import EngineNames

_ADMIN_PREFIX = ("envoy_http_conn_manager_prefix", "admin")
"""Envoy counts its own admin page too; that is not the users' traffic."""


def read_page(content: bytes, names: EngineNames) -> Page:
    """Read a page in Prometheus' text format.

    Args:
        content: the page.
        names: the series to read; one that is not on the page is absent from the result.

    Raises:
        ValueError: when the page cannot be parsed.
    """
    samples = [sample for sample in _wanted(content, names) if isfinite(sample.value)]
    counters: dict[str, float] = {}
    answered = [s for s in samples if s.name == names.requests_by_status and _is_serving(s)]
    if answered:
        counters["requests"] = sum(s.value for s in answered)
        counters["server_errors"] = sum(s.value for s in answered if s.labels.get(names.status_label, "")[:1] == "5")
    _sum_into(counters, "generated_tokens", samples, names.generated_tokens)
    gauges: dict[str, float] = {}
    _sum_into(gauges, "requests_running", samples, names.running)
    _sum_into(gauges, "queue_depth", samples, names.waiting)
    _worst_into(gauges, "kv_cache_utilization", samples, names.kv_cache_usage)
    _worst_into(gauges, "gpu_utilization", samples, names.gpu_utilization_percent, 0.01)
    histograms = {}
    for signal, family, unit_s in (
        ("latency_p99", names.latency_histogram, names.latency_unit_s),
        ("inter_token_latency_p99", names.inter_token_histogram, 1.0),
    ):
        histogram = _histogram(samples, family, unit_s)
        if histogram:
            histograms[signal] = histogram
    return Page(counters, gauges, histograms)


def _wanted(content: bytes, names: EngineNames) -> Iterable[Sample]:
    """Parse only the lines of the families we read: most of a page is none of our business, and parsing costs."""
    families = [
        family.encode()
        for family in (
            names.latency_histogram and f"{names.latency_histogram}_bucket",
            names.inter_token_histogram and f"{names.inter_token_histogram}_bucket",
            names.requests_by_status,
            names.generated_tokens,
            names.running,
            names.waiting,
            names.kv_cache_usage,
            names.gpu_utilization_percent,
        )
        if family
    ]
    starts = tuple(family + end for family in families for end in (b"{", b" "))
    text = b"\n".join(line for line in content.splitlines() if line.startswith(starts)).decode("utf-8")
    for family in text_string_to_metric_families(text + "\n"):
        yield from family.samples


def _is_serving(sample: Sample) -> bool:
    """Leave out what is not users' traffic: Envoy's admin page, an engine's health and metrics handlers."""
    name, admin = _ADMIN_PREFIX
    return sample.labels.get(name) != admin and sample.labels.get("handler", "/v1/").startswith("/v1/")


def _sum_into(into: dict[str, float], key: str, samples: Iterable[Sample], family: str) -> None:
    values = [s.value for s in samples if s.name == family] if family else []
    if values:
        into[key] = sum(values)


def _worst_into(into: dict[str, float], key: str, samples: Iterable[Sample], family: str, unit: float = 1.0) -> None:
    values = [s.value * unit for s in samples if s.name == family] if family else []
    if values:
        into[key] = max(values)


def _histogram(samples: Iterable[Sample], family: str, unit_s: float) -> Histogram | None:
    """Add a histogram's series up over its labels."""
    by_edge: dict[float, float] = {}
    for sample in samples:
        if family and sample.name == f"{family}_bucket" and _is_serving(sample):
            edge = float(sample.labels.get("le", "none")) * unit_s
            by_edge[edge] = by_edge.get(edge, 0.0) + sample.value
    if inf not in by_edge:
        return None
    edges = tuple(sorted(by_edge))
    return Histogram(edges, tuple(by_edge[edge] for edge in edges))
