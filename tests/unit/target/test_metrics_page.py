"""The Prometheus page: vLLM 0.32's names, labels and bucket edges, and what Prometheus' own tool says of it."""

import shutil
import subprocess

import pytest

from tests.support.endpoints import ask, page, served

REQUEST_EDGES = (
    "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 1920.0 7680.0"
)
FIRST_TOKEN_EDGES = (
    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 640.0 2560.0"
)
TOKEN_EDGES = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0"
SIZE_EDGES = "1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 500.0 1000.0"
EDGES = {
    "vllm:time_to_first_token_seconds": FIRST_TOKEN_EDGES,
    "vllm:inter_token_latency_seconds": TOKEN_EDGES,
    "vllm:request_time_per_output_token_seconds": TOKEN_EDGES,
    "vllm:e2e_request_latency_seconds": REQUEST_EDGES,
    "vllm:request_queue_time_seconds": REQUEST_EDGES,
    "vllm:request_inference_time_seconds": REQUEST_EDGES,
    "vllm:request_prefill_time_seconds": REQUEST_EDGES,
    "vllm:request_decode_time_seconds": REQUEST_EDGES,
    "vllm:request_prompt_tokens": SIZE_EDGES,
    "vllm:request_generation_tokens": SIZE_EDGES,
    "vllm:request_max_num_generation_tokens": SIZE_EDGES,
    "vllm:request_params_max_tokens": SIZE_EDGES,
    "vllm:request_prefill_kv_computed_tokens": SIZE_EDGES,
    "vllm:request_params_n": "1.0 2.0 5.0 10.0 20.0",
    "vllm:request_num_preemptions": "1.0 2.0 3.0 4.0 5.0 10.0 20.0",
    "vllm:iteration_tokens_total": "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 8192.0 16384.0",
    "http_request_duration_seconds": "0.1 0.5 1.0",
}
ALWAYS = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
    "vllm:engine_sleep_state", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total", "vllm:external_prefix_cache_hits_total",
    "vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total", "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total", "vllm:prompt_tokens_by_source_total", "vllm:prompt_tokens_cached_total",
    "vllm:prompt_tokens_cached_by_source_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    "vllm:admission_rejections_total", "vllm:cache_config_info", "vllm:estimated_flops_per_gpu_total",
    "process_cpu_seconds_total", "process_resident_memory_bytes",
}  # fmt: skip


async def test_the_metrics_page_has_vllms_families_labels_and_edges() -> None:
    async with served() as (client, _):
        await ask(client, "/v1/completions", {"prompt": "hi", "max_tokens": 3, "ignore_eos": True})
        families = await page(client)
    samples = [sample for family in families.values() for sample in family]
    assert {sample.name for sample in samples} >= ALWAYS
    for name, edges in EDGES.items():
        found = [
            s.labels["le"]
            for s in samples
            if s.name == f"{name}_bucket" and s.labels.get("handler") in {None, "/v1/completions"}
        ]
        assert " ".join(found) == f"{edges} +Inf", name
    for sample in samples:
        if sample.name.startswith("vllm:") and "admission" not in sample.name:
            assert sample.labels["engine"] == "0", sample.name
            assert "model_name" in sample.labels or sample.name == "vllm:cache_config_info"
    assert not [name for name in families if name.startswith("DCGM")]


async def test_promtool_finds_nothing_that_it_does_not_find_on_vllms_own_page() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt install prometheus")
    async with served() as (client, _):
        await ask(client, "/v1/completions", {"prompt": "hi", "max_tokens": 3, "ignore_eos": True})
        async with client.get("/metrics") as response:
            text = await response.read()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)  # noqa: ASYNC221 - milliseconds
    # 3 is promtool's status for style alone; it dislikes vLLM's colons and that iteration_tokens_total is a histogram.
    assert checked.returncode in {0, 3}, checked.stderr
    complaints = [line.split(" ", 1) for line in checked.stderr.decode().splitlines()]
    assert {name for name, what in complaints if "':'" not in what} == {"vllm:iteration_tokens_total"}
    assert all(name.startswith("vllm:") for name, _ in complaints)


async def test_n_choices_count_as_vllm_counts_them_once_with_the_longest_answer() -> None:
    async with served() as (client, endpoint):
        await ask(client, "/v1/completions", {"prompt": "hi", "n": 3, "max_tokens": 4, "ignore_eos": True})
        samples = endpoint.metrics.registry.get_sample_value
        label = {"model_name": "base", "engine": "0"}
        assert samples("vllm:request_params_n_count", label) == 1
        assert samples("vllm:request_params_n_sum", label) == 3
        assert samples("vllm:request_max_num_generation_tokens_sum", label) == 4
        assert samples("vllm:request_generation_tokens_count", label) == 3


async def test_sizes_of_requests_and_answers_are_summed_by_handler() -> None:
    async with served() as (client, endpoint):
        await ask(client, "/v1/completions", {"prompt": "hi", "max_tokens": 3})
        samples = endpoint.metrics.registry.get_sample_value
        label = {"handler": "/v1/completions"}
        assert samples("http_request_size_bytes_sum", label) == len('{"prompt": "hi", "max_tokens": 3}')
        assert (samples("http_response_size_bytes_sum", label) or 0) > 100


async def test_a_client_cannot_add_label_values_of_its_own() -> None:
    async with served() as (client, _):
        for number in range(3):
            async with client.request("PROPFIND", f"/nowhere/{number}") as response:
                assert response.status in {404, 405}
        labels = [sample.labels for sample in (await page(client))["http_requests"] if sample.name.endswith("_total")]
    assert labels == [{"handler": "none", "method": "OTHER", "status": "4xx"}]
