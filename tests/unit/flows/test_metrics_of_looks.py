"""What the control plane counts of its own looks, as a scrape sees it."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.telemetry import Looks, Metrics, Told


def scraped(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_looks_are_counted_by_result_and_timed_by_probe() -> None:
    registry = CollectorRegistry()
    looks = Looks(registry)
    for took_s, result in ((0.004, "ok"), (0.005, "ok"), (0.02, "timeout"), (99.0, "timeout")):
        looks.take("http", result, took_s)
    looks.take("metrics", "ok", 0.3)
    seen = scraped(registry)
    assert seen["controlplane_probes_total", (("probe", "http"), ("result", "ok"))] == 2
    assert seen["controlplane_probes_total", (("probe", "http"), ("result", "timeout"))] == 2
    for edge, count in {"0.005": 2, "0.01": 2, "0.025": 3, "10.0": 3, "+Inf": 4}.items():
        assert seen["controlplane_probe_seconds_bucket", (("le", edge), ("probe", "http"))] == count
    assert seen["controlplane_probe_seconds_count", (("probe", "http"),)] == 4
    assert seen["controlplane_probe_seconds_sum", (("probe", "http"),)] == 99.029
    assert seen["controlplane_probe_seconds_count", (("probe", "metrics"),)] == 1


def test_what_is_told_when_asked_for_is_what_there_is_then() -> None:
    registry, now = CollectorRegistry(), {"a": 1.0, "b": 2.0}
    told = Told("x", "X.", ("pool",), registry)
    assert scraped(registry) == {}
    told.by = lambda: [((pool,), value) for pool, value in now.items()]
    assert scraped(registry) == {("x", (("pool", "a"),)): 1.0, ("x", (("pool", "b"),)): 2.0}
    del now["a"]
    assert scraped(registry) == {("x", (("pool", "b"),)): 2.0}


def test_a_name_that_is_taken_is_refused() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="controlplane_verdict"):
        Told("controlplane_verdict", "Again.", (), metrics.registry)
