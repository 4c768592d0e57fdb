"""What there is to ask for, known without asking: our own series, the engines', and what needs more than a fleet; pure.

Called by `static`, which judges our own series by it alone, and by `live`, which excuses by it what is only quiet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.lint.promql import Matcher, Selector
from controlplane.signals.engines import ENGINES

OWN = "controlplane_"
TARGET_LABELS = frozenset(("job", "instance", "__name__", "cluster", "namespace", "node", "container"))
"""Labels that a scrape adds."""

BY_DESIGN: tuple[tuple[str, str], ...] = (
    ("DCGM_", "dcgm-exporter: GPUs"),
    ("kube_", "kube-state-metrics: Kubernetes"),
    ("container_", "cAdvisor: Kubernetes"),
    ("kubelet_", "kubelet: Kubernetes"),
    ("node_", "node_exporter"),
    ("envoy_", "Envoy's own metrics, scraped at its admin address"),
    ("alertmanager_", "Alertmanager's own metrics"),
    ("prometheus_", "Prometheus's own metrics"),
)
"""Series that come from a scrape which not every fleet has; where there is none of a kind, that is a note."""

_ENDS = ("", "_total", "_bucket", "_sum", "_count", "_created")
_ENDS_OF = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count", "_created")}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known before anybody is asked."""

    own: Mapping[str, frozenset[str]]
    """Our own series by name, with their labels."""
    values: Mapping[str, frozenset[str]]
    """By label of our own series: every value there can be."""
    records: Mapping[str, str] = field(default_factory=dict)
    """Series that the rendered rules record, with the expression they are recorded by."""

    def can_be(self, selector: Selector, matcher: Matcher) -> bool:
        """Tell whether a matcher that finds nothing asks for something that can be, such as another kind of fault."""
        wanted = matcher.wants
        if selector.name.startswith(OWN):
            there = self.values.get(matcher.label)
            if matcher.operator in ("!=", "!~"):
                return True
            return there is not None and bool(wanted) and set(wanted) <= there
        return (selector.name, matcher.label) in _ENGINE_LABELS


def series_of(family: str, kind: str = "any") -> Iterator[str]:
    """Give the names under which a family's samples may stand; `kind` is its type, where that is known."""
    ends = _ENDS if kind == "any" else _ENDS_OF.get(kind, ("",))
    return (family + end for end in ends)


def _engine_names() -> Iterator[str]:
    for engine in ENGINES.values():
        for family in (*engine.families(), *engine.renamed):
            yield from series_of(family)


def _engine_labels() -> Iterator[tuple[str, str]]:
    for engine in ENGINES.values():
        for quantity in (*engine.counters.values(), *engine.gauges.values(), *engine.histograms.values()):
            for way in quantity.ways:
                for series in way:
                    for match in series.only:
                        yield from ((name, match.label) for name in series_of(series.name))


ENGINE_SERIES = frozenset(_engine_names())
"""Series that one engine or another exposes, in one version or another."""
_ENGINE_LABELS = frozenset(_engine_labels())
