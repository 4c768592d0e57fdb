"""Quantiles agree with Prometheus on the same buckets, and name how sure they are."""

from math import inf, nan

import pytest

from controlplane.signals.engines import ENGINES, ENVOY
from controlplane.signals.quantile import histogram_quantile
from controlplane.signals.sample import CATALOGUE, Direction, Unit


@pytest.mark.parametrize(
    ("q", "edges", "counts", "value", "low", "high"),
    [
        # rank 0.5 * 10 = 5, in the first bucket: 0 + (1 - 0) * 5 / 10
        (0.5, (1.0, 2.0, inf), (10, 0, 0), 0.5, 0.0, 1.0),
        # rank 0.9 * 10 = 9; below it 5; (9 - 5) / 5 of the way from 1 to 2
        (0.9, (1.0, 2.0, inf), (5, 5, 0), 1.8, 1.0, 2.0),
        # rank 0.99 * 100 = 99, exactly at the end of the second bucket
        (0.99, (0.1, 0.5, 1.0, inf), (90, 9, 1, 0), 0.5, 0.1, 0.5),
        # rank 0.99 * 200 = 198; below it 180; (198 - 180) / 20 of the way from 0.5 to 1
        (0.99, (0.1, 0.5, 1.0, inf), (80, 100, 20, 0), 0.95, 0.5, 1.0),
        # the rank falls into +Inf: the last finite edge, with nothing above it known
        (0.99, (0.5, 1.0, inf), (10, 10, 80), 1.0, 1.0, inf),
        # empty buckets around the one that holds everything
        (0.5, (1.0, 2.0, 4.0, 8.0, inf), (0, 0, 4, 0, 0), 3.0, 2.0, 4.0),
        # the highest rank is the end of the last bucket that holds anything
        (1.0, (1.0, 2.0, inf), (3, 1, 0), 2.0, 1.0, 2.0),
    ],
)
def test_a_quantile_is_where_prometheus_puts_it(
    q: float, edges: tuple[float, ...], counts: tuple[float, ...], value: float, low: float, high: float
) -> None:
    found = histogram_quantile(q, edges, counts)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == (low, high)
    assert found.samples == sum(counts)


def test_no_observations_have_no_quantile() -> None:
    assert histogram_quantile(0.99, (1.0, inf), (0, 0)) is None


@pytest.mark.parametrize("strange", [nan, inf])
def test_observations_that_are_no_number_have_no_quantile(strange: float) -> None:
    assert histogram_quantile(0.99, (1.0, inf), (1.0, strange)) is None


def test_every_signal_has_a_definition_and_gets_worse_upwards_unless_it_is_a_yield() -> None:
    for name, signal in CATALOGUE.items():
        assert signal.name == name
        assert signal.definition.endswith(".")
        assert signal.unit in Unit
    downwards = {name for name, signal in CATALOGUE.items() if signal.worse is Direction.DOWN}
    assert downwards == {"availability", "tokens_rate", "token_progress", "gpu_count"}


def test_every_engine_names_what_users_feel() -> None:
    """Those that count no answers say so here: llama.cpp, and Triton's times until the first response alone."""
    every = {**ENGINES, "envoy": ENVOY}
    assert {name for name, names in every.items() if "latency_p99" not in names.histograms} == {"triton", "llamacpp"}
    assert {name for name, names in every.items() if "requests" not in names.counters} == {"llamacpp"}
    assert "ttft_p99" in ENGINES["triton"].histograms
