"""Reading a metrics page: the few families we judge by, out of the hundreds it holds; pure.

Which families those are, under which names and with which labels, stands in `signals/engines`.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import inf, isfinite, isnan

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from controlplane.probes.probe import Histogram, Page
from controlplane.signals.engines import EngineNames, Match, Merge, Quantity, Series, recognise

LabelSet = tuple[tuple[str, str], ...]
Families = Mapping[str, Mapping[LabelSet, float]]
"""Values by family and label set; of a series that stands twice, the last one counts."""

_EXEMPLAR = b" # {"
"""OpenMetrics puts an exemplar behind a bucket's value; it is none of our business."""


def read_page(content: bytes, names: EngineNames | None) -> Page:
    """Read a page in Prometheus' text format or OpenMetrics.

    Args:
        content: the page.
        names: the series to read; None lets the page say whose it is. A series that is not on the page is absent from
            the result.

    Raises:
        ValueError: when the page cannot be parsed, or is no engine's that we know.
    """
    engine = names or recognise(content)
    if engine is None:
        raise ValueError("no engine that we know exposes such a page; name it with `fleet.engine`")
    families = wanted_families(content, engine)
    counters = {key: value for key, q in engine.counters.items() if (value := amount(q, families)) is not None}
    if "requests" in counters:
        counters.setdefault("server_errors", 0.0)  # A counter with labels is born with its first error.
    gauges = {key: value for key, q in engine.gauges.items() if (value := amount(q, families)) is not None}
    histograms = {key: found for key, q in engine.histograms.items() if (found := histogram(q, families)) is not None}
    return Page(counters, gauges, histograms, engine.name)


def wanted_families(content: bytes, names: EngineNames) -> Families:
    """Parse only the lines of the families we read: most of a page is none of our business, and parsing costs.

    Raises:
        ValueError: when one of these lines cannot be parsed.
    """
    starts = _starts(names)
    lines = [line.partition(_EXEMPLAR)[0] for line in content.splitlines() if line.startswith(starts)]
    text = b"\n".join(lines).decode("utf-8")
    families: dict[str, dict[LabelSet, float]] = {}
    for family in text_string_to_metric_families(text + "\n"):
        for sample in family.samples:
            _keep(families, sample)
    return families


@lru_cache(maxsize=32)
def _starts(engine: EngineNames) -> tuple[bytes, ...]:
    """Return how the lines begin that an engine is read from."""
    return tuple(
        f"{family}{end}{after}".encode()
        for family in sorted(engine.families())
        for end in ("", "_bucket")
        for after in ("{", " ")
    )


def _keep(families: dict[str, dict[LabelSet, float]], sample: Sample) -> None:
    if not isnan(sample.value):  # Not a number is no reading.
        families.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value


def amount(quantity: Quantity, families: Families) -> float | None:
    """Return a counter's or gauge's value by the first of its ways that is on the page; None when none is."""
    for way in quantity.ways:
        parts = [_merged(series, families) for series in way]
        known = [part for part in parts if part is not None]
        if known and len(known) == len(parts):
            return sum(known)
    return None


def _merged(series: Series, families: Families) -> float | None:
    """Return one family as one number; 0 when it is there and no label set is wanted, None when it is not there."""
    family = families.get(series.name)
    if family is None:
        return None
    values = [
        value * series.scale
        for labels, raw in family.items()
        if raw < series.blank_from
        and _all_match(series.only, labels)
        and (value := _divided(raw, labels, series, families)) is not None
    ]
    if not values:
        # Labels that are missed are a zero of a sum of events, and no reading of a level.
        return 0.0 if series.only and series.merge is Merge.SUM and _some_could_match(series, family) else None
    if series.merge is Merge.COUNT:
        return float(len(values))
    return max(values) if series.merge is Merge.MAX else sum(values)


def _some_could_match(series: Series, family: Mapping[LabelSet, float]) -> bool:
    """Tell whether a family carries the labels that are asked for, so that their absence means none happened."""
    wanted = {match.label for match in series.only if match.wanted and match.pattern}
    return any(wanted <= {label for label, _ in labels} for labels in family) if wanted else False


def _divided(raw: float, labels: LabelSet, series: Series, families: Families) -> float | None:
    if not series.over:
        return raw
    parts = [families.get(name, {}).get(labels) for name in series.over]
    whole = sum(part for part in parts if part is not None)
    return None if None in parts or whole <= 0 else raw / whole


def _all_match(matches: Iterable[Match], labels: LabelSet) -> bool:
    found = dict(labels)
    return all((_pattern(m.pattern).fullmatch(found.get(m.label, "")) is not None) is m.wanted for m in matches)


@lru_cache(maxsize=128)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def histogram(quantity: Quantity, families: Families) -> Histogram | None:
    """Add a histogram's series up over its labels, by the first of its names that is on the page."""
    for way in quantity.ways:
        by_edge: dict[float, float] = {}
        for series in way:
            for labels, value in families.get(f"{series.name}_bucket", {}).items():
                edge = dict(labels).get("le", "")
                if edge and _all_match(series.only, labels):
                    at = float(edge) * series.scale
                    by_edge[at] = by_edge.get(at, 0.0) + value
        if inf in by_edge and all(isfinite(edge) or edge == inf for edge in by_edge):
            edges = tuple(sorted(by_edge))
            return Histogram(edges, tuple(by_edge[edge] for edge in edges))
    return None
