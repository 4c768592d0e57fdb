"""The endpoint's Prometheus page: vLLM 0.32's names, labels and bucket edges; HTTP counts; process figures.

The engine reports through ``Metrics`` (its observer) on the worker thread; the server counts HTTP answers. Gauges are
read when the page is asked for. Edges: vllm/v1/metrics/buckets.py and prometheus-fastapi-instrumentator's defaults.
"""

from collections.abc import Callable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
    generate_latest,
)

from controlplane.target.engine import Engine, Step
from controlplane.target.kv import BLOCK_TOKENS
from controlplane.target.sequence import Sequence as Served

REQUEST_SECONDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
TOKEN_SECONDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
HTTP_SECONDS = (0.1, 0.5, 1.0)
HTTP_FINE_SECONDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip

PAGE_TYPE = CONTENT_TYPE_LATEST
"""The page's media type; vLLM 0.32 sends the same."""

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
TOKEN_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
CACHE_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
NEVER_COUNTED = {
    "vllm:estimated_flops_per_gpu": "Estimated number of floating point operations per GPU.",
    "vllm:estimated_read_bytes_per_gpu": "Estimated number of bytes read from memory per GPU.",
    "vllm:estimated_write_bytes_per_gpu": "Estimated number of bytes written to memory per GPU.",
    "vllm:external_prefix_cache_queries": "External prefix cache queries from KV connector, in tokens.",
    "vllm:external_prefix_cache_hits": "External prefix cache hits from KV connector, in tokens.",
    "vllm:mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "vllm:mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
}  # fmt: skip
"""Families that vLLM always shows and that this engine has no cause to count; they stay 0."""


def one_two_five(limit: int) -> tuple[int, ...]:
    """Return vLLM's token-count edges 1, 2, 5, 10 ... up to ``limit`` tokens."""
    edges: list[int] = []
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale > limit:
                return tuple(edges)
            edges.append(step * scale)
        scale *= 10


class Families:
    """Makes families that all carry ``model_name`` and ``engine``, bound to this endpoint's values."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        """Make families in ``registry`` for one model."""
        self._registry = registry
        self._model_name = model_name

    def counter(self, name: str, text: str) -> Counter:
        """Make a counter; it is exposed with ``_total``."""
        return Counter(name, text, ["model_name", "engine"], registry=self._registry).labels(self._model_name, "0")

    def counters(self, name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
        """Make a counter with one further label, all its values present from the start."""
        family = Counter(name, text, ["model_name", "engine", label], registry=self._registry)
        return {value: family.labels(self._model_name, "0", value) for value in values}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Make a gauge that is read at scrape time."""
        Gauge(name, text, ["model_name", "engine"], registry=self._registry).labels(self._model_name, "0").set_function(
            read
        )

    def gauges(self, name: str, text: str, label: str, reads: dict[str, Callable[[], float]]) -> None:
        """Make a gauge with one further label, one reader a value."""
        family = Gauge(name, text, ["model_name", "engine", label], registry=self._registry)
        for value, read in reads.items():
            family.labels(self._model_name, "0", value).set_function(read)

    def histogram(self, name: str, text: str, edges: Sequence[float]) -> Histogram:
        """Make a histogram with these upper edges."""
        return Histogram(
            name, text, ["model_name", "engine"], registry=self._registry, buckets=tuple(float(edge) for edge in edges)
        ).labels(self._model_name, "0")


class Metrics:
    """Everything this endpoint counts."""

    def __init__(self, model_name: str, max_len: int) -> None:
        """Register every family at zero."""
        self.registry = CollectorRegistry()
        self._model_name = model_name
        for collector in (GCCollector, PlatformCollector, ProcessCollector):
            collector(registry=self.registry)
        families = Families(self.registry, model_name)
        self._families = families
        for name, text in NEVER_COUNTED.items():
            families.counter(name, text)
        self._count_tokens(families)
        self._measure_sizes(families, one_two_five(max_len))
        self._measure_times(families)
        self._count_http()

    def _count_tokens(self, families: Families) -> None:
        self._prompt_tokens = families.counter("vllm:prompt_tokens", "Number of prefill tokens processed.")
        self._by_source = families.counters(
            "vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", "source", TOKEN_SOURCES
        )
        self._cached_by_tier = families.counters(
            "vllm:prompt_tokens_cached_by_source", "Prefix-cache hit tokens by cache tier.", "source", CACHE_TIERS
        )
        self._cached = families.counter(
            "vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external)."
        )
        self._queried = families.counter(
            "vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self._hits = families.counter(
            "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."
        )
        self._preemptions = families.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.")
        self._generated = families.counter("vllm:generation_tokens", "Number of generation tokens processed.")
        self._finished = families.counters(
            "vllm:request_success", "Count of successfully processed requests.", "finished_reason", FINISH_REASONS
        )
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ["model_name", "reason"],
            registry=self.registry,
        )
        self._late = Counter(
            "controlplane_target_deadline_exceeded",
            "Number of requests that were given up because their deadline had passed.",
            ["model_name"],
            registry=self.registry,
        ).labels(self._model_name)
        self._rejected = rejections.labels(self._model_name, "max_num_queued_reqs")
        rejections.labels(self._model_name, "max_num_queued_tokens")

    def _measure_sizes(self, families: Families, tokens: tuple[int, ...]) -> None:
        make = families.histogram
        self._prompt_size = make("vllm:request_prompt_tokens", "Number of prefill tokens processed.", tokens)
        self._answer_size = make("vllm:request_generation_tokens", "Number of generation tokens processed.", tokens)
        self._step_size = make(
            "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", STEP_TOKENS
        )
        self._asked_most = make(
            "vllm:request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            tokens,
        )
        self._asked_n = make("vllm:request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20))
        self._asked = make("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens)
        self._preempted = make(
            "vllm:request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            (1, 2, 3, 4, 5, 10, 20),
        )
        self._computed = make(
            "vllm:request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            tokens,
        )

    def _measure_times(self, families: Families) -> None:
        make = families.histogram
        self._ttft = make(
            "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", FIRST_TOKEN_SECONDS
        )
        self._gap = make(
            "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", TOKEN_SECONDS
        )
        self._per_token = make(
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            TOKEN_SECONDS,
        )
        self._e2e = make(
            "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", REQUEST_SECONDS
        )
        self._phases = {
            phase: make(
                f"vllm:request_{phase}_time_seconds",
                f"Histogram of time spent in {state} phase for request.",
                REQUEST_SECONDS,
            )
            for phase, state in (
                ("queue", "WAITING"), ("inference", "RUNNING"), ("prefill", "PREFILL"), ("decode", "DECODE")
            )
        }  # fmt: skip

    def _count_http(self) -> None:
        self._http = Counter(
            "http_requests", "Total number of requests by method, status and handler.", ["handler", "method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important.",
            ["handler", "method"], registry=self.registry, buckets=HTTP_SECONDS,
        )  # fmt: skip
        self._http_fine_seconds = Histogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations.",
            registry=self.registry, buckets=HTTP_FINE_SECONDS,
        )  # fmt: skip

        self._http_sizes = [
            Summary(
                f"http_{which}_size_bytes", f"Content length of {way} by handler.", ["handler"], registry=self.registry
            )
            for which, way in (("request", "incoming requests"), ("response", "outgoing responses"))
        ]

    def watch(self, engine: Engine) -> None:
        """Read the engine's gauges whenever the page is asked for."""
        families = self._families
        families.gauge(
            "vllm:num_requests_running", "Number of requests in model execution batches.", lambda: engine.running
        )
        families.gauge(
            "vllm:num_requests_waiting", "Number of requests waiting to be processed.", lambda: engine.waiting
        )
        families.gauges(
            "vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason.", "reason",
            {"capacity": lambda: engine.waiting, "deferred": lambda: 0},
        )  # fmt: skip
        families.gauges(
            "vllm:engine_sleep_state", "Engine sleep state.", "sleep_state",
            {"awake": lambda: 1, "weights_offloaded": lambda: 0, "discard_all": lambda: 0},
        )  # fmt: skip
        families.gauge(
            "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", lambda: engine.pool.usage_ratio
        )
        self._describe_cache(engine.pool.num_blocks)

    def _describe_cache(self, num_blocks: int) -> None:
        facts = {
            "block_size": BLOCK_TOKENS, "cache_dtype": "auto", "enable_prefix_caching": True,
            "gpu_memory_utilization": None, "prefix_caching_hash_algo": "blake2b",
            "kv_cache_size_tokens": num_blocks * BLOCK_TOKENS, "num_gpu_blocks": num_blocks,
            "num_cpu_blocks": None, "sliding_window": None,
        }  # fmt: skip
        Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            [*facts, "engine"],
            registry=self.registry,
        ).labels(*(str(value) for value in facts.values()), "0").set(1)

    def stepped(self, step: Step) -> None:
        """Count one forward step, by the tokens that it finished, as vLLM does."""
        self._step_size.observe(step.prompt_tokens + step.generated)
        self._generated.inc(step.generated)
        if step.queried_tokens:
            self._queried.inc(step.queried_tokens)
            self._hits.inc(step.hit_tokens)
            self._cached_by_tier["device"].inc(step.hit_tokens)
        if step.preempted:
            self._preemptions.inc(step.preempted)
        if step.prompt_tokens:
            self._prompt_tokens.inc(step.prompt_tokens)
            self._by_source["local_compute"].inc(step.prompt_tokens - step.cached_tokens)
            self._by_source["local_cache_hit"].inc(step.cached_tokens)
            self._cached.inc(step.cached_tokens)

    def first_token(self, seconds: float) -> None:
        """Count a time to first token."""
        self._ttft.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """Count a time between tokens."""
        self._gap.observe(seconds)

    def finished(self, sequence: Served) -> None:
        """Count a request that ended; sizes and times only of those that were answered, as vLLM does."""
        reason = sequence.finish_reason or "error"
        self._finished[reason].inc()
        timeline, request, generated = sequence.timeline, sequence.request, len(sequence.tokens)
        siblings = request.siblings
        last_choice = siblings is None or siblings.end(generated)
        if not timeline.first_token or reason in {"abort", "error"}:
            return
        last, first, scheduled = timeline.last_token, timeline.first_token, timeline.scheduled
        self._e2e.observe(last - timeline.arrived)
        self._phases["queue"].observe(scheduled - timeline.arrived)
        self._phases["inference"].observe(last - scheduled)
        self._phases["prefill"].observe(first - scheduled)
        self._phases["decode"].observe(last - first)
        if generated > 1:
            self._per_token.observe((last - first) / (generated - 1))
        self._prompt_size.observe(len(request.prompt))
        self._computed.observe(len(request.prompt) - sequence.cached)
        self._answer_size.observe(generated)
        self._asked.observe(request.max_tokens)
        self._preempted.observe(sequence.preemptions)
        if last_choice:
            self._asked_most.observe(siblings.longest if siblings else generated)
            self._asked_n.observe(siblings.n if siblings else 1)

    def rejected(self) -> None:
        """Count a request that found the queue full."""
        self._rejected.inc()

    def timed_out(self) -> None:
        """Count a request that was not answered by its deadline."""
        self._late.inc()

    def answered(self, handler: str, method: str, status: int, seconds: float, sizes: tuple[int, int]) -> None:
        """Count an HTTP answer.

        Args:
            handler: the route, or ``none``.
            method: the HTTP method.
            status: grouped as ``2xx`` to ``5xx``.
            seconds: from the request's head to the answer's end.
            sizes: bytes of the request's and of the answer's body.
        """
        self._http.labels(handler, method, f"{status // 100}xx").inc()
        self._http_seconds.labels(handler, method).observe(seconds)
        self._http_fine_seconds.observe(seconds)
        for summary, size in zip(self._http_sizes, sizes, strict=True):
            summary.labels(handler).observe(size)

    def page(self) -> bytes:
        """Render the page in the Prometheus text format."""
        return generate_latest(self.registry)
