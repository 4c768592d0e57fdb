"""Real metrics pages are read for what we judge by; what cannot be read is refused, and nothing is made up."""

from contextlib import suppress
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.probes.metrics import read_page
from controlplane.probes.probe import Page
from controlplane.signals.engines import ENGINES, ENVOY
from controlplane.signals.quantile import histogram_quantile

VLLM = ENGINES["vllm"]
PAGES = Path(__file__).parents[2] / "pages"


def page(name: str) -> Page:
    return read_page((PAGES / name).read_bytes(), ENVOY if name.startswith("envoy") else VLLM)


@pytest.mark.parametrize(
    ("name", "requests", "errors", "tokens", "running", "waiting", "kv_cache", "latencies", "gaps", "preemptions"),
    [
        ("vllm-0.32.0-cpu-idle.prom", 1, 0, 0, 0, 0, 0.0, 0, 0, 0),
        ("vllm-0.32.0-cpu-underload.prom", 9, 0, 616, 8, 16, 0.6382978723404256, 5, 603, 0),
        ("vllm-0.32.0-cpu.prom", 34, 0, 2328, 0, 0, 0.0, 29, 2298, 0),
        ("vllm-0.32.0-cpu-after-overload.prom", 20, 8, 2400, 0, 0, 0.0, 12, 2388, 5),
    ],
)
def test_a_page_of_vllm_is_read_as_it_stands(
    name: str, requests: int, errors: int, tokens: int, running: int, waiting: int, kv_cache: float,
    latencies: int, gaps: int, preemptions: int,
) -> None:  # fmt: skip
    read = page(name)
    assert read.counters == {
        "requests": requests, "server_errors": errors, "generated_tokens": tokens, "preemptions": preemptions,
    }  # fmt: skip
    assert read.gauges == {
        "requests_running": running, "queue_depth": waiting, "kv_cache_utilization": pytest.approx(kv_cache),
    }  # fmt: skip
    assert read.histograms["latency_p99"].cumulative[-1] == latencies
    assert read.histograms["inter_token_latency_p99"].cumulative[-1] == gaps


def test_the_edges_of_a_histogram_rise_and_end_at_infinity() -> None:
    histogram = page("vllm-0.32.0-cpu.prom").histograms["latency_p99"]
    assert histogram.edges == (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
                               120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0, inf)  # fmt: skip
    assert histogram.cumulative == (3, 3, 5, 5, 5, 5, 5, 5, 13, 13, 21, 21, 21, 29, *[29] * 8)


def test_the_latency_of_a_real_page_is_within_the_bucket_that_holds_it() -> None:
    histogram = page("vllm-0.32.0-cpu.prom").histograms["latency_p99"]
    counts = [b - a for a, b in zip((0.0, *histogram.cumulative), histogram.cumulative, strict=False)]
    found = histogram_quantile(0.99, histogram.edges, counts)
    assert found is not None
    assert (found.low, found.high, found.samples) == (40.0, 50.0, 29)


def test_envoys_own_admin_page_is_no_users_traffic_and_its_times_are_milliseconds() -> None:
    read = page("envoy.prom")
    assert read.counters == {"requests": 1200, "server_errors": 8}
    assert read.histograms["latency_p99"].edges == (0.0005, 0.05, 0.25, 1.0, inf)
    assert read.histograms["latency_p99"].cumulative == (0, 700, 1150, 1196, 1200)


def test_a_health_handler_is_no_users_traffic() -> None:
    text = (
        'http_requests_total{handler="/health",method="GET",status="5xx"} 100.0\n'
        'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 3.0\n'
    )
    assert read_page(text.encode(), VLLM).counters == {"requests": 3.0, "server_errors": 0.0}


NOTHING = Page(engine="vllm")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"<html>404</html>\n", b"up 1"])
def test_what_is_no_page_or_not_a_whole_one_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the look fails with it
        read_page(content, VLLM)


@pytest.mark.parametrize("content", [b"\n\n", b"# HELP nothing here\n", b"up 1\n"])
def test_a_page_that_holds_nothing_we_judge_by_gives_nothing(content: bytes) -> None:
    assert read_page(content, VLLM) == NOTHING


def test_a_name_that_only_begins_like_ours_is_another_name() -> None:
    text = b'vllm:num_requests_waiting_by_reason{reason="capacity"} 16.0\nvllm:num_requests_running_total 9\n'
    assert read_page(text, VLLM) == NOTHING


def test_gauges_are_read_without_labels_too() -> None:
    assert read_page(b"vllm:num_requests_waiting 7\n", VLLM).gauges == {"queue_depth": 7.0}


def test_the_busiest_gpu_counts() -> None:
    text = b'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 35\nDCGM_FI_DEV_GPU_UTIL{gpu="1"} 98\n'
    assert read_page(text, VLLM).gauges == {"gpu_utilization": pytest.approx(0.98), "gpu_count": 2}


def test_engines_behind_one_page_add_up_their_queues_but_the_fullest_cache_counts() -> None:
    """Data-parallel engines share a page; two caches that are 60 % full are not one that is 120 % full."""
    text = (
        b'vllm:num_requests_waiting{engine="0"} 3\nvllm:num_requests_waiting{engine="1"} 4\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.6\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
    )
    assert read_page(text, VLLM).gauges == {"queue_depth": 7.0, "kv_cache_utilization": 0.6}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_a_value_that_is_no_number_is_absent(value: str) -> None:
    text = f'vllm:kv_cache_usage_perc{{engine="0"}} {value}\nvllm:generation_tokens_total {value}\n'
    assert read_page(text.encode(), VLLM) == NOTHING


def test_a_page_cut_in_the_middle_of_a_histogram_gives_no_histogram() -> None:
    whole = (PAGES / "vllm-0.32.0-cpu.prom").read_bytes()
    cut = whole[: whole.index(b'vllm:e2e_request_latency_seconds_bucket{engine="0",le="10.0"')]
    read = read_page(cut, VLLM)
    assert "latency_p99" not in read.histograms
    assert read.gauges["queue_depth"] == 0.0


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:num_requests_waiting{engine="0"',
        b'vllm:num_requests_waiting{engine="0"} many',
        b"vllm:num_requests_waiting ",
        b'vllm:num_requests_waiting{engine="\xff"} 1',
        b"vllm:num_requests_waiting {} {} 1",
        b'vllm:e2e_request_latency_seconds_bucket{engine="0"} 3',
        b'vllm:e2e_request_latency_seconds_bucket{le="low"} 3',
    ],
)
def test_a_line_of_ours_that_cannot_be_read_refuses_the_page(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        read_page(line + b"\n", VLLM)


@given(st.integers(0, 60_000))
@settings(max_examples=60, deadline=None)
def test_a_page_cut_anywhere_is_read_or_refused(length: int) -> None:
    whole = (PAGES / "vllm-0.32.0-cpu-underload.prom").read_bytes()
    with suppress(ValueError):
        read_page(whole[:length], VLLM)


names = st.sampled_from([
    b"vllm:num_requests_waiting", b"http_requests_total", b"vllm:e2e_request_latency_seconds_bucket",
])  # fmt: skip
rests = st.binary(max_size=40) | st.text(
    alphabet=list('{}",= \\#handler statusle0123456789.eE+-NaInf'), max_size=40
).map(str.encode)


@given(st.lists(st.tuples(names, st.sampled_from([b"{", b" "]), rests), max_size=4))
@settings(max_examples=300)
def test_any_garbage_after_a_name_of_ours_is_read_or_refused(lines: list[tuple[bytes, bytes, bytes]]) -> None:
    with suppress(ValueError):
        read_page(b"\n".join(b"".join(line) for line in lines), VLLM)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_a_histogram_with_a_bucket_that_is_no_number_is_absent(value: str) -> None:
    text = (
        f'vllm:e2e_request_latency_seconds_bucket{{le="1.0"}} {value}\n'
        'vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 3\nvllm:num_requests_waiting 2\n'
    )
    assert read_page(text.encode(), VLLM) == Page(gauges={"queue_depth": 2.0}, engine="vllm")
