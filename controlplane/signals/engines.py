"""What each inference engine calls the quantities we judge by, and how its page is told from another's; pure.

A table, not branches: `probes/metrics` reads pages by it, `render/promql` writes rules and panels by it, and
`controlplane check --live` compares live pages with it. A name the engine does not expose leaves the signal unknown,
never zero.

Sources: vLLM 0.32 `vllm/v1/metrics` (and 0.8 for the old names), SGLang 0.5.23 `srt/metrics`, TGI's `router`, Triton's
metrics guide and TensorRT-LLM's names as llm-d's endpoint picker reads them, llama.cpp b11434 `tools/server`, Ray 2.60
`serve/_private`, dcgm-exporter 4.5 `default-counters.csv`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class Merge(StrEnum):
    """How one page's label sets become one number."""

    SUM = "sum"
    MAX = "max"
    COUNT = "count"
    """How many label sets there are; their values do not matter."""


@dataclass(frozen=True, slots=True)
class Match:
    """One condition on a label, with PromQL's meaning: a label that is absent is empty, patterns match as a whole."""

    label: str
    pattern: str
    wanted: bool = True
    """False: the pattern must not match."""


@dataclass(frozen=True, slots=True)
class Series:
    """One family of a page."""

    name: str
    """As exposed; a histogram without its `_bucket`."""
    only: tuple[Match, ...] = ()
    merge: Merge = Merge.SUM
    scale: float = 1.0
    """Base units in one unit of the page: 0.001 where it counts milliseconds."""
    over: tuple[str, ...] = ()
    """Families whose sum, label set by label set, divides the value."""
    blank_from: float = inf
    """Values from here up stand for `no reading` (DCGM's blanks)."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Where one quantity stands on a page."""

    ways: tuple[tuple[Series, ...], ...]
    """In order of preference, newest name first; within one way the families are added up."""

    def families(self) -> Iterable[str]:
        """Give every family that any of the ways reads."""
        for way in self.ways:
            for series in way:
                yield series.name
                yield from series.over


@dataclass(frozen=True, slots=True, eq=False)
class EngineNames:
    """The series of one engine (or gateway); each is itself and equal to no other."""

    name: str
    marks: tuple[str, ...]
    """A page on which some line starts with one of these is this engine's."""
    counters: Mapping[str, Quantity]
    """`requests`, `server_errors`, `generated_tokens`, `preemptions`, `gpu_ecc_errors`."""
    gauges: Mapping[str, Quantity]
    """By signal name."""
    histograms: Mapping[str, Quantity]
    """By the P99 signal that is read from it."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names that are gone, with what took their place; empty where nothing did."""

    def families(self) -> frozenset[str]:
        """Return every family this engine is read by; a histogram's without `_bucket`."""
        every = (*self.counters.values(), *self.gauges.values(), *self.histograms.values())
        return frozenset(name for quantity in every for name in quantity.families())


def _series(
    name: str,
    *only: Match,
    merge: Merge = Merge.SUM,
    scale: float = 1.0,
    over: tuple[str, ...] = (),
    blank_from: float = inf,
) -> Series:
    return Series(name, only, merge, scale, over, blank_from)


def _first(*ways: Series) -> Quantity:
    """Return a quantity whose names are alternatives, the newest first."""
    return Quantity(tuple((way,) for way in ways))


def _sum(*parts: Series) -> Quantity:
    """Return a quantity that is the sum of several families."""
    return Quantity((parts,))


_BLANK = 1e15
"""DCGM writes what it cannot read as a number near 2^63 (dcgm_fields.h, `DCGM_INT64_BLANK`)."""

FATAL_XIDS = (
    46, 48, 54, 62, 64, 74, 78, 79, 95, 109, 110, 119, 120, 136, 140,
    *range(143, 152), 155, 156, 158, 160, 162,
)  # fmt: skip
"""Xids after which the GPU or its node must be reset or replaced (NVIDIA's catalogue as NVSentinel ships it).

13, 31, 43, 45 and 94 are the application's own errors; a rule that fires on any Xid fires for them, too."""

_FATAL = Match("xid", "|".join(str(xid) for xid in FATAL_XIDS))


def _gpu(name: str, scale: float = 1.0, merge: Merge = Merge.MAX) -> Quantity:
    return _first(_series(name, merge=merge, scale=scale, blank_from=_BLANK))


DCGM = EngineNames(
    "dcgm",
    marks=("DCGM_FI_",),
    counters={"gpu_ecc_errors": _gpu("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", merge=Merge.SUM)},
    gauges={
        "gpu_utilization": _gpu("DCGM_FI_DEV_GPU_UTIL", 0.01),
        "gpu_memory_utilization": _first(
            _series(
                "DCGM_FI_DEV_FB_USED",
                merge=Merge.MAX,
                over=("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"),
                blank_from=_BLANK,
            )
        ),
        "gpu_temperature": _gpu("DCGM_FI_DEV_GPU_TEMP"),
        "gpu_power": _gpu("DCGM_FI_DEV_POWER_USAGE"),
        "gpu_xid": _first(_series("DCGM_EXP_XID_ERRORS_COUNT", _FATAL)),
        "gpu_count": _gpu("DCGM_FI_DEV_GPU_UTIL", merge=Merge.COUNT),
    },
    histograms={},
)
"""dcgm-exporter's page; the reference target exposes some of these names beside its engine's."""

_V1 = Match("handler", "/v1/.*")
_NOT_ROUTER = Match("server", "")
"""production-stack's router exports the engines' gauges again, with the label `server`; they would count twice."""

_VLLM_RENAMED = {
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:time_per_output_token_seconds": "vllm:inter_token_latency_seconds",
    "vllm:num_requests_swapped": "",
    "vllm:cpu_cache_usage_perc": "",
    "vllm:gpu_prefix_cache_hits_total": "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_queries_total": "vllm:prefix_cache_queries_total",
}

VLLM = EngineNames(
    "vllm",
    marks=("vllm:",),
    counters={
        "requests": _first(_series("http_requests_total", _V1)),
        "server_errors": _first(_series("http_requests_total", _V1, Match("status", "5.*"))),
        "generated_tokens": _first(_series("vllm:generation_tokens_total")),
        "preemptions": _first(_series("vllm:num_preemptions_total")),
        **DCGM.counters,
    },
    gauges={
        "requests_running": _first(_series("vllm:num_requests_running", _NOT_ROUTER)),
        "queue_depth": _first(_series("vllm:num_requests_waiting", _NOT_ROUTER)),
        "kv_cache_utilization": _first(
            _series("vllm:kv_cache_usage_perc", _NOT_ROUTER, merge=Merge.MAX),
            _series("vllm:gpu_cache_usage_perc", _NOT_ROUTER, merge=Merge.MAX),
        ),
        **DCGM.gauges,
    },
    histograms={
        "latency_p99": _first(_series("vllm:e2e_request_latency_seconds")),
        "ttft_p99": _first(_series("vllm:time_to_first_token_seconds")),
        "inter_token_latency_p99": _first(
            _series("vllm:inter_token_latency_seconds"),
            _series("vllm:time_per_output_token_seconds"),
        ),
    },
    renamed=_VLLM_RENAMED,
)
"""vLLM as of 0.32, with the names it had before 0.11 behind them."""

_RANK_0 = (Match("tp_rank", "0|"), Match("pp_rank", "0|"))
"""SGLang repeats its gauges for each tensor- and pipeline-parallel rank; data-parallel ranks do add up."""

SGLANG = EngineNames(
    "sglang",
    marks=("sglang:",),
    counters={
        "requests": _first(
            _series("sglang:http_responses_total", Match("endpoint", "/health.*|/metrics", wanted=False))
        ),
        "server_errors": _first(
            _series(
                "sglang:http_responses_total",
                Match("endpoint", "/health.*|/metrics", wanted=False),
                Match("status_code", "5.*"),
            )
        ),
        "generated_tokens": _first(_series("sglang:generation_tokens_total")),
        "preemptions": _first(_series("sglang:num_retracted_requests_total")),
        **DCGM.counters,
    },
    gauges={
        "requests_running": _first(_series("sglang:num_running_reqs", *_RANK_0)),
        "queue_depth": _first(_series("sglang:num_queue_reqs", *_RANK_0)),
        "kv_cache_utilization": _first(_series("sglang:token_usage", *_RANK_0, merge=Merge.MAX)),
        **DCGM.gauges,
    },
    histograms={
        "latency_p99": _first(_series("sglang:e2e_request_latency_seconds")),
        "ttft_p99": _first(_series("sglang:time_to_first_token_seconds", Match("is_streaming", "true|"))),
        "inter_token_latency_p99": _first(_series("sglang:inter_token_latency_seconds")),
    },
)

TGI = EngineNames(
    "tgi",
    marks=("tgi_",),
    counters={
        "requests": _first(_series("tgi_request_count")),
        "server_errors": _first(_series("tgi_request_failure", Match("err", "validation", wanted=False))),
        "generated_tokens": _first(_series("tgi_request_generated_tokens_sum")),
        **DCGM.counters,
    },
    gauges={
        "requests_running": _first(_series("tgi_batch_current_size")),
        "queue_depth": _first(_series("tgi_queue_size")),
        # TGI has no gauge of its cache: the token budget of the batch is the nearest thing to it.
        "kv_cache_utilization": _first(
            _series("tgi_batch_current_max_tokens", merge=Merge.MAX, over=("tgi_batch_max_total_tokens",))
        ),
        **DCGM.gauges,
    },
    histograms={"latency_p99": _first(_series("tgi_request_duration"))},
)

_TRT = "nv_trt_llm_request_metrics"

TRITON = EngineNames(
    "triton",
    marks=("nv_inference_", "nv_trt_llm_", "trtllm_"),
    counters={
        "requests": _sum(_series("nv_inference_request_success"), _series("nv_inference_request_failure")),
        "server_errors": _first(_series("nv_inference_request_failure", Match("reason", "CANCELED", wanted=False))),
        **DCGM.counters,
    },
    gauges={
        "requests_running": _first(
            _series(_TRT, Match("request_type", "scheduled")), _series("trtllm_num_requests_running")
        ),
        "queue_depth": _first(
            _series(_TRT, Match("request_type", "waiting")),
            _series("trtllm_num_requests_waiting"),
            _series("nv_inference_pending_request_count"),
        ),
        "kv_cache_utilization": _first(
            _series("nv_trt_llm_kv_cache_block_metrics", Match("kv_cache_block_type", "fraction"), merge=Merge.MAX),
            _series("trtllm_kv_cache_utilization", merge=Merge.MAX),
        ),
        **DCGM.gauges,
        "gpu_utilization": _first(
            _series("nv_gpu_utilization", merge=Merge.MAX), *DCGM.gauges["gpu_utilization"].ways[0]
        ),
        "gpu_memory_utilization": _first(
            _series("nv_gpu_memory_used_bytes", merge=Merge.MAX, over=("nv_gpu_memory_total_bytes",)),
            *DCGM.gauges["gpu_memory_utilization"].ways[0],
        ),
        "gpu_power": _first(_series("nv_gpu_power_usage", merge=Merge.MAX), *DCGM.gauges["gpu_power"].ways[0]),
        "gpu_count": _first(_series("nv_gpu_utilization", merge=Merge.COUNT), *DCGM.gauges["gpu_count"].ways[0]),
    },
    histograms={"ttft_p99": _first(_series("nv_inference_first_response_histogram_ms", scale=0.001))},
)
"""Triton shows latency as sums and opt-in summaries only: its P99 is unknown, and the gateway's is the one to judge."""

LLAMACPP = EngineNames(
    "llamacpp",
    marks=("llamacpp:",),
    counters={"generated_tokens": _first(_series("llamacpp:tokens_predicted_total")), **DCGM.counters},
    gauges={
        "requests_running": _first(_series("llamacpp:requests_processing")),
        "queue_depth": _first(_series("llamacpp:requests_deferred")),
        **DCGM.gauges,
    },
    histograms={},
    renamed={"llamacpp:kv_cache_usage_ratio": "", "llamacpp:kv_cache_tokens": ""},
)
"""llama.cpp has no histogram and counts no statuses; completions and the gateway tell its latency and errors."""

_RAY_ROUTE = Match("route", "/-/.*|/metrics", wanted=False)

RAY = EngineNames(
    "ray",
    marks=("ray_serve_", "ray_vllm_"),
    counters={
        "requests": _first(
            _series("ray_serve_num_http_requests_total", _RAY_ROUTE),
            _series("ray_serve_num_http_requests", _RAY_ROUTE),
        ),
        "server_errors": _first(
            _series("ray_serve_num_http_error_requests_total", _RAY_ROUTE, Match("error_code", "5.*")),
            _series("ray_serve_num_http_error_requests", _RAY_ROUTE, Match("error_code", "5.*")),
        ),
        "generated_tokens": _first(_series("ray_vllm_generation_tokens_total"), _series("ray_vllm_generation_tokens")),
        "preemptions": _first(_series("ray_vllm_num_preemptions_total"), _series("ray_vllm_num_preemptions")),
        **DCGM.counters,
    },
    gauges={
        "requests_running": _first(
            _series("ray_vllm_num_requests_running"), _series("ray_serve_replica_processing_queries")
        ),
        # What waits at the router and what waits in the engine are different requests.
        "queue_depth": Quantity(
            (
                (_series("ray_vllm_num_requests_waiting"), _series("ray_serve_deployment_queued_queries")),
                (_series("ray_vllm_num_requests_waiting"),),
                (_series("ray_serve_deployment_queued_queries"),),
            )
        ),
        "kv_cache_utilization": _first(
            _series("ray_vllm_kv_cache_usage_perc", merge=Merge.MAX),
            _series("ray_vllm_gpu_cache_usage_perc", merge=Merge.MAX),
        ),
        **DCGM.gauges,
    },
    histograms={
        "latency_p99": _first(
            _series("ray_serve_http_request_latency_ms", _RAY_ROUTE, scale=0.001),
            _series("ray_vllm_e2e_request_latency_seconds"),
        ),
        "ttft_p99": _first(_series("ray_vllm_time_to_first_token_seconds")),
        "inter_token_latency_p99": _first(
            _series("ray_vllm_inter_token_latency_seconds"),
            _series("ray_vllm_time_per_output_token_seconds"),
        ),
    },
    renamed={
        f"ray_{old.replace(':', '_')}": f"ray_{new.replace(':', '_')}" if new else ""
        for old, new in _VLLM_RENAMED.items()
    },
)
"""Ray Serve LLM: the agent exports vLLM's names as `ray_vllm_*` (with `log_engine_metrics: true`) and Serve's own."""

_NOT_ADMIN = Match("envoy_http_conn_manager_prefix", "admin", wanted=False)
"""Envoy counts its own admin page, too; that is not the users' traffic."""

ENVOY = EngineNames(
    "envoy",
    marks=("envoy_",),
    counters={
        "requests": _first(_series("envoy_http_downstream_rq_xx", _NOT_ADMIN)),
        "server_errors": _first(
            _series("envoy_http_downstream_rq_xx", _NOT_ADMIN, Match("envoy_response_code_class", "5"))
        ),
    },
    gauges={},
    histograms={"latency_p99": _first(_series("envoy_http_downstream_rq_time", _NOT_ADMIN, scale=0.001))},
)
"""What users get, by the gateway's own count (Envoy's HTTP connection manager statistics; times in ms)."""

AUTO = "auto"
"""The engine of a policy page that lets every metrics page say for itself whose it is."""

ENGINES: Mapping[str, EngineNames] = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "tgi": TGI,
    "triton": TRITON,
    "llamacpp": LLAMACPP,
    "ray": RAY,
    "reference": VLLM,
}
"""By the name on the policy page; the reference target speaks vLLM's names."""

_RECOGNISED = (RAY, VLLM, SGLANG, TGI, TRITON, LLAMACPP, ENVOY, DCGM)
"""Engines by how telling their marks are: GPU names stand on many pages and come last."""


def engine_named(name: str) -> EngineNames | None:
    """Return the names of an engine on the policy page; None for `auto`."""
    return ENGINES.get(name)


def names_for_rules(name: str) -> EngineNames:
    """Return the names that rules and panels are written with: an `auto` fleet's are vLLM's."""
    return ENGINES.get(name, VLLM)


def recognise(page: bytes) -> EngineNames | None:
    """Tell whose page this is by the names on it; None when it is no engine's that we know."""
    for engine in _RECOGNISED:
        for mark in engine.marks:
            start = mark.encode()
            if page.startswith(start) or b"\n" + start in page:
                return engine
    return None
