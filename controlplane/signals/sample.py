"""The catalogue: every signal with its unit, direction and definition, and the metric names engines expose for it.

Pure. `probes` fills windows by these names, `slo` judges them, `render` writes them into rules and panels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a signal's number means; values are always held in the base unit."""

    SECONDS = "s"
    RATIO = "ratio"
    """0..1."""
    COUNT = "count"
    PER_SECOND = "per_s"

    @property
    def spelled(self) -> str:
        """The unit as it stands in a sentence."""
        return _SPELLED[self.value]


_SPELLED = {"s": "seconds", "ratio": "a share of one", "count": "a count", "per_s": "a count per second"}


class Direction(StrEnum):
    """Which way a signal gets worse."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Signal:
    """One named quantity."""

    name: str
    unit: Unit
    worse: Direction
    definition: str


def _signal(name: str, unit: Unit, definition: str, worse: Direction = Direction.UP) -> tuple[str, Signal]:
    return name, Signal(name, unit, worse, definition)


CATALOGUE: Mapping[str, Signal] = dict(
    (
        _signal(
            "availability",
            Unit.RATIO,
            "Share of looks (health check and real completion) that succeeded, over the pool's endpoints.",
            Direction.DOWN,
        ),
        _signal(
            "endpoints_down",
            Unit.RATIO,
            "Share of endpoints proven down: a held connection broke and the reconnect was refused, "
            "or three looks in a row failed.",
        ),
        _signal("latency_p99", Unit.SECONDS, "99th percentile of end-to-end request latency."),
        _signal("inter_token_latency_p99", Unit.SECONDS, "99th percentile of the gap between two tokens of an answer."),
        _signal("error_rate", Unit.RATIO, "Share of answered requests whose status is 5xx."),
        _signal("request_rate", Unit.PER_SECOND, "Requests finished per second."),
        _signal("tokens_rate", Unit.PER_SECOND, "Generated tokens per second.", Direction.DOWN),
        _signal("requests_running", Unit.COUNT, "Requests in execution batches, summed over the pool."),
        _signal("queue_depth", Unit.COUNT, "Requests waiting for a place in a batch, summed over the pool."),
        _signal("kv_cache_utilization", Unit.RATIO, "Used share of the key-value cache, the fullest endpoint."),
        _signal("cpu_utilization", Unit.RATIO, "Busy share of the machine's CPU time, the busiest node of the pool."),
        _signal("memory_utilization", Unit.RATIO, "Used share of the machine's memory, the fullest node of the pool."),
        _signal("gpu_utilization", Unit.RATIO, "Share of time a kernel was running, the busiest GPU."),
    )
)


@dataclass(frozen=True, slots=True)
class EngineNames:
    """The series one engine or gateway exposes; an absent name makes the signal `unknown`, never zero."""

    latency_histogram: str
    requests_by_status: str
    """A counter with one label that groups statuses."""
    status_label: str = "status"
    """The label whose value starts with the first digit of the status."""
    latency_unit_s: float = 1.0
    """How many seconds one unit of the latency histogram's edges is."""
    inter_token_histogram: str = ""
    generated_tokens: str = ""
    running: str = ""
    waiting: str = ""
    kv_cache_usage: str = ""
    gpu_utilization_percent: str = "DCGM_FI_DEV_GPU_UTIL"


_VLLM = EngineNames(
    latency_histogram="vllm:e2e_request_latency_seconds",
    requests_by_status="http_requests_total",
    inter_token_histogram="vllm:inter_token_latency_seconds",  # noqa: S106 - a metric, not a secret
    generated_tokens="vllm:generation_tokens_total",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    kv_cache_usage="vllm:kv_cache_usage_perc",
)

ENGINES: Mapping[str, EngineNames] = {"vllm": _VLLM, "reference": _VLLM}
"""vLLM's names as of 0.32 (its own source, `vllm/v1/metrics`); the reference target speaks them too."""

ENVOY = EngineNames(
    latency_histogram="envoy_http_downstream_rq_time",
    requests_by_status="envoy_http_downstream_rq_xx",
    status_label="envoy_response_code_class",
    latency_unit_s=0.001,
)
"""What users get, by the gateway's own count (Envoy's HTTP connection manager statistics; times in ms)."""


def spell(signal: str, value: float) -> str:
    """Write a signal's value with its unit, as a person would: `320 ms`, `99.95%`, `12`."""
    unit = CATALOGUE[signal].unit
    if unit is Unit.SECONDS:
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s"
    if unit is Unit.RATIO:
        return f"{value * 100:.4g}%"
    return f"{value:.1f} /s" if unit is Unit.PER_SECOND else f"{value:.0f}"
