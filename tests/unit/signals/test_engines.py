"""Every engine's page is recognised by itself and read into the same quantities."""

from pathlib import Path

import pytest

from controlplane.probes.metrics import read_page
from controlplane.signals.engines import ENGINES, SGLANG, TRITON, VLLM, recognise
from controlplane.signals.sample import CATALOGUE, Fold, Unit, spell
from tests.support import engine_pages

PAGES = Path(__file__).parents[2] / "pages"


@pytest.mark.parametrize("path", sorted(PAGES.glob("vllm-*.prom")), ids=lambda path: path.stem)
def test_real_vllm_pages_are_recognised(path: Path) -> None:
    page = read_page(path.read_bytes(), None)
    assert page.engine == "vllm"
    assert set(page.counters) == {"requests", "server_errors", "generated_tokens", "preemptions"}
    assert set(page.gauges) == {"requests_running", "queue_depth", "kv_cache_utilization"}
    assert set(page.histograms) == {"latency_p99", "ttft_p99", "inter_token_latency_p99"}


def test_a_real_vllm_under_load_shows_its_queue() -> None:
    page = read_page((PAGES / "vllm-0.32.0-cpu-underload.prom").read_bytes(), None)
    assert page.gauges["requests_running"] == 8
    assert page.gauges["queue_depth"] == 16
    assert 0.63 < page.gauges["kv_cache_utilization"] < 0.65


def test_a_real_vllm_after_overload_shows_its_errors_and_preemptions() -> None:
    page = read_page((PAGES / "vllm-0.32.0-cpu-after-overload.prom").read_bytes(), None)
    assert page.counters == {"requests": 20, "server_errors": 8, "generated_tokens": 2400, "preemptions": 5}


def test_sglang_counts_each_rank_once_and_leaves_health_checks_out() -> None:
    page = read_page(engine_pages.SGLANG, None)
    assert page.engine == "sglang"
    assert page.gauges == {"requests_running": 7, "queue_depth": 2, "kv_cache_utilization": 0.35}
    assert page.counters == {"requests": 100.0, "server_errors": 10, "generated_tokens": 1500.0, "preemptions": 4.0}
    seen = {name: found.cumulative for name, found in page.histograms.items() if name != "inter_token_latency_p99"}
    assert seen == {"latency_p99": (70.0, 90.0), "ttft_p99": (55.0, 60.0)}


def test_tgi_errors_leave_out_what_the_client_did_wrong() -> None:
    page = read_page(engine_pages.TGI, None)
    assert page.engine == "tgi"
    assert page.counters == {"requests": 120, "server_errors": 7, "generated_tokens": 9000}
    assert page.gauges == {"requests_running": 8, "queue_depth": 5, "kv_cache_utilization": 0.25}
    assert set(page.histograms) == {"latency_p99"}


def test_triton_adds_successes_and_failures_and_prefers_tensorrts_queue() -> None:
    page = read_page(engine_pages.TRITON, None)
    assert page.engine == "triton"
    assert page.counters == {"requests": 100, "server_errors": 4}
    assert page.gauges["queue_depth"] == 6
    assert page.gauges["requests_running"] == 16
    assert page.gauges["kv_cache_utilization"] == 0.5
    assert page.gauges["gpu_memory_utilization"] == 0.75
    assert page.gauges["gpu_count"] == 1
    assert page.histograms["ttft_p99"].edges[:2] == (0.1, 0.5)
    assert "latency_p99" not in page.histograms


def test_triton_without_tensorrt_shows_its_pending_requests() -> None:
    plain = b"\n".join(line for line in engine_pages.TRITON.splitlines() if not line.startswith(b"nv_trt")) + b"\n"
    assert read_page(plain, TRITON).gauges["queue_depth"] == 9


def test_llamacpp_shows_what_it_has_and_the_rest_is_absent() -> None:
    page = read_page(engine_pages.LLAMACPP, None)
    assert page.engine == "llamacpp"
    assert page.counters == {"generated_tokens": 700}
    assert page.gauges == {"requests_running": 2, "queue_depth": 1}
    assert page.histograms == {}


def test_ray_adds_what_waits_at_the_router_to_what_waits_in_the_engine() -> None:
    page = read_page(engine_pages.RAY, None)
    assert page.engine == "ray"
    assert page.gauges["queue_depth"] == 5
    assert page.counters["requests"] == 100
    assert page.counters["server_errors"] == 5
    assert page.histograms["latency_p99"].edges[0] == 0.5


def test_old_vllm_names_are_read_where_the_new_ones_are_not() -> None:
    page = read_page(engine_pages.OLD_VLLM, None)
    assert page.gauges["kv_cache_utilization"] == 0.5
    assert page.histograms["inter_token_latency_p99"].cumulative == (90, 100)


def test_a_routers_copy_of_the_engines_gauges_is_not_an_engine() -> None:
    assert read_page(engine_pages.ROUTER, None).gauges == {}


def test_a_named_engine_is_not_guessed_over() -> None:
    assert read_page(engine_pages.RAY, VLLM).gauges == {}
    assert read_page(engine_pages.SGLANG, SGLANG).engine == "sglang"


def test_a_page_of_nobody_we_know_is_refused() -> None:
    assert recognise(b"go_goroutines 7\n") is None
    with pytest.raises(ValueError, match="no engine that we know"):
        read_page(b"go_goroutines 7\n", None)


def test_what_is_not_a_number_is_no_reading() -> None:
    page = read_page(b"vllm:num_requests_running NaN\nvllm:kv_cache_usage_perc 0.25\n", None)
    assert page.gauges == {"kv_cache_utilization": 0.25}


@pytest.mark.parametrize("host_label", ["Hostname", "hostname"])
def test_dcgms_page_is_read_under_both_of_its_labels_and_without_its_blanks(host_label: str) -> None:
    page = read_page(engine_pages.dcgm(host_label), None)
    assert page.engine == "dcgm"
    assert page.gauges["gpu_utilization"] == pytest.approx(0.9)
    assert page.gauges["gpu_memory_utilization"] == 0.75
    assert page.gauges["gpu_count"] == 2
    assert page.counters == {}


def test_every_quantity_of_every_engine_belongs_to_a_signal_of_the_catalogue() -> None:
    keys = {signal.key for signal in CATALOGUE.values()} | {"requests", "server_errors"}
    for name, engine in ENGINES.items():
        assert engine.counters.keys() | engine.gauges.keys() | engine.histograms.keys() <= keys, name


def test_every_signal_says_what_it_is() -> None:
    for name, signal in CATALOGUE.items():
        assert signal.name == name
        assert signal.definition.endswith(".")
        assert (signal.quantile > 0) is (signal.fold is Fold.QUANTILE)


def test_values_are_spelled_with_their_unit() -> None:
    assert CATALOGUE["gpu_temperature"].unit is Unit.CELSIUS
    assert spell("gpu_temperature", 81.2) == "81 °C"
    assert spell("gpu_power", 350.0) == "350 W"
    assert spell("request_rate", 2.0) == "2.0 /s"
