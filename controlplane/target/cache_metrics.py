"""What the response cache counts, as Prometheus metrics named ``response_cache_*``."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

PAGE_TYPE = CONTENT_TYPE_LATEST
EDGES_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CacheMetrics:
    """One registry of one cache."""

    def __init__(self) -> None:
        """Register everything; what can be known beforehand starts at 0."""
        self.registry = CollectorRegistry()
        self._hits = self._counter("hits", "Requests answered with a stored answer", "tier", "match")
        for tier in ("memory", "disk", "redis", "object"):
            for match in ("exact", "near"):
                self._hits.labels(tier, match)
        self.misses = self._counter("misses", "Requests that no stored answer fits")
        self.bypassed = self._counter("bypassed", "Requests whose answer may not be stored, passed on to the fleet")
        self._sheds = self._counter("sheds", "Requests refused because too many wait for the fleet")
        self._skipped = self._counter("tier_skipped", "Calls to a tier that were left out or lost", "tier", "reason")
        self._published = self._counter("published", "Answers that endpoints published", "outcome")
        for outcome in ("stored", "refused"):
            self._published.labels(outcome)
        self._fills = self._counter("fills", "Requests passed on to the fleet, by its answer", "outcome")
        for outcome in ("ok", "error", "lost"):
            self._fills.labels(outcome)
        self._dropped = self._counter("writes_dropped", "Answers not written to the tiers, for lack of room to wait")
        self._seconds = Histogram(
            "response_cache_request_seconds",
            "Time to the whole answer, by how it was found",
            ("cache",),
            buckets=EDGES_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"response_cache_{name}", text, labels, registry=self.registry)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when the page is."""
        Gauge(f"response_cache_{name}", text, registry=self.registry).set_function(read)

    def hit(self, tier: str, *, near: bool) -> None:
        """Count an answer from the store."""
        self._hits.labels(tier, "near" if near else "exact").inc()

    def shed(self) -> None:
        """Count a refusal."""
        self._sheds.inc()

    def skipped(self, tier: str, reason: str) -> None:
        """Count a call to a tier that was left out or lost."""
        self._skipped.labels(tier, reason).inc()

    def published(self, outcome: str) -> None:
        """Count a published answer: ``stored`` or ``refused``."""
        self._published.labels(outcome).inc()

    def filled(self, outcome: str) -> None:
        """Count what became of a request to the fleet: ``ok``, ``error`` or ``lost``."""
        self._fills.labels(outcome).inc()

    def dropped(self) -> None:
        """Count a write that had no room to wait."""
        self._dropped.inc()

    def took(self, cache: str, seconds: float) -> None:
        """Note the time of an answer; ``cache`` is what its ``x-cache`` header says."""
        self._seconds.labels(cache).observe(seconds)

    def page(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self.registry)
