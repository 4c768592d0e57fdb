"""Metrics pages of engines that are not captured from a running one, made from their sources' names and labels."""

SGLANG = b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 3.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="1",dp_rank="0"} 3.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="1"} 2.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.35
sglang:generation_tokens_total{model_name="m",is_streaming="true"} 1000.0
sglang:generation_tokens_total{model_name="m",is_streaming="false"} 500.0
sglang:num_retracted_requests_total{model_name="m"} 4.0
sglang:http_responses_total{endpoint="/v1/completions",status_code="200",method="POST"} 90.0
sglang:http_responses_total{endpoint="/v1/completions",status_code="503",method="POST"} 10.0
sglang:http_responses_total{endpoint="/health",status_code="200",method="GET"} 5000.0
sglang:e2e_request_latency_seconds_bucket{le="1.0",is_streaming="true",model_name="m"} 50.0
sglang:e2e_request_latency_seconds_bucket{le="1.0",is_streaming="false",model_name="m"} 20.0
sglang:e2e_request_latency_seconds_bucket{le="+Inf",is_streaming="true",model_name="m"} 60.0
sglang:e2e_request_latency_seconds_bucket{le="+Inf",is_streaming="false",model_name="m"} 30.0
sglang:time_to_first_token_seconds_bucket{le="0.1",is_streaming="true",model_name="m"} 55.0
sglang:time_to_first_token_seconds_bucket{le="+Inf",is_streaming="true",model_name="m"} 60.0
sglang:time_to_first_token_seconds_bucket{le="0.1",is_streaming="false",model_name="m"} 0.0
sglang:time_to_first_token_seconds_bucket{le="+Inf",is_streaming="false",model_name="m"} 30.0
sglang:inter_token_latency_seconds_bucket{le="0.02",model_name="m"} 900.0
sglang:inter_token_latency_seconds_bucket{le="+Inf",model_name="m"} 1000.0
"""

TGI = b"""\
tgi_request_count 120
tgi_request_success{kind="http"} 110
tgi_request_failure{err="overloaded"} 7
tgi_request_failure{err="validation"} 3
tgi_queue_size 5
tgi_batch_current_size 8
tgi_batch_current_max_tokens 4000
tgi_batch_max_total_tokens 16000
tgi_request_generated_tokens_sum 9000
tgi_request_duration_bucket{le="0.5"} 100
tgi_request_duration_bucket{le="+Inf"} 110
"""

TRITON = b"""\
nv_inference_request_success{model="ensemble",version="1"} 95
nv_inference_request_failure{model="ensemble",reason="REJECTED",version="1"} 4
nv_inference_request_failure{model="ensemble",reason="CANCELED",version="1"} 1
nv_inference_pending_request_count{model="ensemble",version="1"} 9
nv_inference_first_response_histogram_ms_bucket{model="ensemble",version="1",le="100"} 80
nv_inference_first_response_histogram_ms_bucket{model="ensemble",version="1",le="500"} 95
nv_inference_first_response_histogram_ms_bucket{model="ensemble",version="1",le="+Inf"} 95
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.75
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 6000000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 8000000000
nv_gpu_power_usage{gpu_uuid="GPU-1"} 240
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 6
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 16
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 4096
"""

LLAMACPP = b"""\
llamacpp:prompt_tokens_total 300
llamacpp:tokens_predicted_total 700
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
"""

RAY = b"""\
ray_vllm_num_requests_running{ReplicaId="r1",WorkerId="w1",model_name="m"} 4
ray_vllm_num_requests_waiting{ReplicaId="r1",WorkerId="w1",model_name="m"} 3
ray_serve_deployment_queued_queries{application="llm",deployment="LLMServer"} 2
ray_vllm_kv_cache_usage_perc{ReplicaId="r1",model_name="m"} 0.4
ray_vllm_generation_tokens_total{ReplicaId="r1",model_name="m"} 800
ray_vllm_num_preemptions_total{ReplicaId="r1",model_name="m"} 2
ray_serve_num_http_requests_total{route="/v1/completions",method="POST",application="llm",status_code="200"} 100
ray_serve_num_http_requests_total{route="/-/healthz",method="GET",application="",status_code="200"} 999
ray_serve_num_http_error_requests_total{route="/v1/completions",method="POST",error_code="500"} 5
ray_serve_num_http_error_requests_total{route="/v1/completions",method="POST",error_code="404"} 9
ray_serve_http_request_latency_ms_bucket{route="/v1/completions",le="500"} 90
ray_serve_http_request_latency_ms_bucket{route="/v1/completions",le="+Inf"} 100
ray_vllm_time_to_first_token_seconds_bucket{ReplicaId="r1",le="0.1"} 95
ray_vllm_time_to_first_token_seconds_bucket{ReplicaId="r1",le="+Inf"} 100
ray_vllm_inter_token_latency_seconds_bucket{ReplicaId="r1",le="0.05"} 700
ray_vllm_inter_token_latency_seconds_bucket{ReplicaId="r1",le="+Inf"} 800
"""

OLD_VLLM = b"""\
vllm:num_requests_running{model_name="m"} 5.0
vllm:num_requests_swapped{model_name="m"} 0.0
vllm:num_requests_waiting{model_name="m"} 1.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:cpu_cache_usage_perc{model_name="m"} 0.0
vllm:generation_tokens_total{model_name="m"} 100.0
vllm:time_per_output_token_seconds_bucket{le="0.01",model_name="m"} 90.0
vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 100.0
vllm:e2e_request_latency_seconds_bucket{le="1.0",model_name="m"} 9.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 10.0
vllm:time_to_first_token_seconds_bucket{le="0.25",model_name="m"} 9.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 10.0
"""

ROUTER = b"""\
vllm:num_requests_running{server="http://10.0.0.1:8000"} 5.0
vllm:num_requests_waiting{server="http://10.0.0.1:8000"} 7.0
"""
"""production-stack's router: the engines' names on a page that is no engine's."""


def dcgm(host_label: str = "Hostname", *, xid: int = 0, gpus: int = 2, host: str = "node-a", counts: str = "") -> bytes:
    """Return a dcgm-exporter's page, with the host under its old or its new label."""
    lines = []
    for gpu in range(gpus):
        labels = f'gpu="{gpu}",UUID="GPU-{host}-{gpu}",device="nvidia{gpu}",modelName="H200",{host_label}="{host}"'
        lines += [
            f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {40 + gpu * 50}",
            f"DCGM_FI_DEV_FB_USED{{{labels}}} 30000",
            f"DCGM_FI_DEV_FB_FREE{{{labels}}} 10000",
            f"DCGM_FI_DEV_GPU_TEMP{{{labels}}} {60 + gpu}",
            f"DCGM_FI_DEV_POWER_USAGE{{{labels}}} 350.5",
            f"DCGM_FI_DEV_MEMORY_TEMP{{{labels}}} 9223372036854775794",
            f"DCGM_FI_DEV_XID_ERRORS{{{labels}}} {xid if gpu == 0 else 0}",
            f"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{{labels}}} 9223372036854775794",
        ]
        if counts and gpu == 0:
            lines.append(f'DCGM_EXP_XID_ERRORS_COUNT{{{labels},window_size_in_ms="300000",xid="{counts}"}} 1')
    return "\n".join([*lines, ""]).encode()


def node(idle: float, busy: float, received: float, *, memory_free: float = 4e9) -> bytes:
    """Return a node_exporter's page."""
    return (
        f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {idle}\n'
        f'node_cpu_seconds_total{{cpu="0",mode="user"}} {busy}\n'
        f"node_memory_MemTotal_bytes 1.6e10\nnode_memory_MemAvailable_bytes {memory_free}\n"
        f'node_filesystem_size_bytes{{device="/dev/sda",fstype="ext4",mountpoint="/"}} 1e11\n'
        f'node_filesystem_avail_bytes{{device="/dev/sda",fstype="ext4",mountpoint="/"}} 2.5e10\n'
        f'node_filesystem_size_bytes{{device="tmpfs",fstype="tmpfs",mountpoint="/run"}} 1e9\n'
        f'node_filesystem_avail_bytes{{device="tmpfs",fstype="tmpfs",mountpoint="/run"}} 0\n'
        f'node_network_receive_bytes_total{{device="eth0"}} {received}\n'
        f'node_network_transmit_bytes_total{{device="eth0"}} 0\n'
        f'node_network_speed_bytes{{device="eth0"}} 1e6\n'
        f'node_network_receive_bytes_total{{device="lo"}} 1e15\nnode_network_speed_bytes{{device="lo"}} 1\n'
    ).encode()
