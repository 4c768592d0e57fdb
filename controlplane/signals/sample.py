"""The catalogue: every signal with its unit, direction, definition and how a pool's number is made of its endpoints'.

Pure. `probes` fills windows by these names, `slo` judges them, `render` writes them into rules and panels. What each
engine calls them stands in `engines`.
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
    CELSIUS = "celsius"
    WATTS = "watts"

    @property
    def spelled(self) -> str:
        """The unit as it stands in a sentence."""
        return _SPELLED[self.value]


_SPELLED = {
    "s": "seconds",
    "ratio": "a share of one",
    "count": "a count",
    "per_s": "a count per second",
    "celsius": "degrees Celsius",
    "watts": "watts",
}


class Direction(StrEnum):
    """Which way a signal gets worse."""

    UP = "up"
    DOWN = "down"


class Fold(StrEnum):
    """How a pool's number is made of what was read from its endpoints."""

    OWN = "own"
    """By a rule of its own, which its definition states."""
    QUANTILE = "quantile"
    """Histograms are merged first, then the quantile is taken."""
    RATE = "rate"
    """Counters' growth per second, added up."""
    GROWTH = "growth"
    """Counters' growth in the window, added up."""
    SUM = "sum"
    """The newest gauges, added up."""
    MAX = "max"
    """The newest gauge that is highest."""
    MIN = "min"
    """The newest gauge that is lowest."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One named quantity."""

    name: str
    unit: Unit
    worse: Direction
    definition: str
    fold: Fold = Fold.MAX
    reads: str = ""
    """What it is read from, where that has another name: the key of a `Page`'s counters, gauges or histograms."""
    quantile: float = 0.0

    @property
    def key(self) -> str:
        """The key of a `Page` that it is read from."""
        return self.reads or self.name


_DOWN = Direction.DOWN
_UP = Direction.UP


def _quantile(name: str, q: float, reads: str, what: str) -> Signal:
    definition = f"{q * 100:g}th percentile of {what}."
    return Signal(name, Unit.SECONDS, _UP, definition, Fold.QUANTILE, reads, q)


_SIGNALS = (
    Signal(
        "availability", Unit.RATIO, _DOWN,
        "Share of looks (health check and real completion) that succeeded, over the pool's endpoints.", Fold.OWN,
    ),
    Signal(
        "endpoints_down", Unit.RATIO, _UP,
        "Share of endpoints proven down: a held connection broke and the reconnect was refused, "
        "or three looks in a row failed.", Fold.OWN,
    ),
    Signal(
        "token_progress", Unit.RATIO, _DOWN,
        "Share of busy endpoints whose generated tokens move; an endpoint whose real completions do not end while "
        "its health check answers counts as stuck, whatever its gauges say.", Fold.OWN,
    ),
    _quantile("latency_p50", 0.5, "latency_p99", "end-to-end request latency"),
    _quantile("latency_p95", 0.95, "latency_p99", "end-to-end request latency"),
    _quantile("latency_p99", 0.99, "latency_p99", "end-to-end request latency"),
    _quantile("ttft_p99", 0.99, "ttft_p99", "the time to the first token"),
    _quantile("inter_token_latency_p99", 0.99, "inter_token_latency_p99", "the gap between two tokens of an answer"),
    Signal("error_rate", Unit.RATIO, _UP, "Share of answered requests whose status is 5xx.", Fold.OWN),
    Signal("request_rate", Unit.PER_SECOND, _UP, "Requests finished per second.", Fold.RATE, "requests"),
    Signal("tokens_rate", Unit.PER_SECOND, _DOWN, "Generated tokens per second.", Fold.RATE, "generated_tokens"),
    Signal("requests_running", Unit.COUNT, _UP, "Requests in execution batches, summed over the pool.", Fold.SUM),
    Signal("queue_depth", Unit.COUNT, _UP, "Requests waiting for a place in a batch, summed over the pool.", Fold.SUM),
    Signal("kv_cache_utilization", Unit.RATIO, _UP, "Used share of the key-value cache, the fullest endpoint."),
    Signal(
        "preemptions_rate", Unit.PER_SECOND, _UP,
        "Requests put back into the queue because the key-value cache was full, per second.", Fold.RATE, "preemptions",
    ),
    Signal("cpu_utilization", Unit.RATIO, _UP, "Busy share of the machine's CPU time, the busiest node of the pool."),
    Signal("memory_utilization", Unit.RATIO, _UP, "Used share of the machine's memory, the fullest node of the pool."),
    Signal("disk_utilization", Unit.RATIO, _UP, "Used share of the fullest file system, the fullest node of the pool."),
    Signal(
        "network_utilization", Unit.RATIO, _UP,
        "Used share of the fastest direction of the busiest link, the busiest node; unknown where no link tells its "
        "speed.",
    ),
    Signal("gpu_utilization", Unit.RATIO, _UP, "Share of time a kernel was running, the busiest GPU."),
    Signal("gpu_memory_utilization", Unit.RATIO, _UP, "Used share of the frame buffer, the fullest GPU."),
    Signal("gpu_temperature", Unit.CELSIUS, _UP, "Temperature of the hottest GPU."),
    Signal("gpu_power", Unit.WATTS, _UP, "Power drawn by the GPU that draws most."),
    Signal(
        "gpu_xid", Unit.COUNT, _UP,
        "Errors of the driver after which a GPU must be reset or replaced (fatal Xids), newly seen.", Fold.SUM,
    ),
    Signal(
        "gpu_ecc_errors", Unit.COUNT, _UP, "Double-bit memory errors of the GPUs in the window.", Fold.GROWTH,
    ),
    Signal("gpu_count", Unit.COUNT, _DOWN, "GPUs that answer, summed over the pool.", Fold.SUM),
    Signal(
        "gpus_missing", Unit.COUNT, _UP,
        "GPUs that answered before and do not any more, summed over the pool: the difference to the most there were.",
        Fold.SUM,
    ),
    Signal(
        "log_errors_rate", Unit.PER_SECOND, _UP, "Log lines at level error and above, per second.", Fold.RATE,
        "log_errors",
    ),
    Signal(
        "log_fatals", Unit.COUNT, _UP,
        "Log lines in the window that an engine writes when it is dying (out of memory, dead worker, failed start).",
        Fold.GROWTH,
    ),
    Signal("pod_restarts", Unit.COUNT, _UP, "Restarts of the pool's containers in the window.", Fold.GROWTH),
    Signal("pods_oom_killed", Unit.COUNT, _UP, "Containers killed for memory in the window.", Fold.GROWTH),
    Signal("pods_unschedulable", Unit.COUNT, _UP, "Pods that no node has room for now."),
    Signal("pods_not_ready", Unit.COUNT, _UP, "Pods that should take requests and do not: the fleet lacks these."),
    Signal("nodes_not_ready", Unit.COUNT, _UP, "Nodes that Kubernetes reports as not ready."),
)  # fmt: skip

CATALOGUE: Mapping[str, Signal] = {signal.name: signal for signal in _SIGNALS}


def spell(signal: str, value: float) -> str:
    """Write a signal's value with its unit, as a person would: `320 ms`, `99.95%`, `12`."""
    unit = CATALOGUE[signal].unit
    if unit is Unit.SECONDS:
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s"
    if unit is Unit.RATIO:
        return f"{value * 100:.4g}%"
    suffix = {Unit.PER_SECOND: " /s", Unit.CELSIUS: " °C", Unit.WATTS: " W"}.get(unit, "")
    return f"{value:.1f}{suffix}" if unit is Unit.PER_SECOND else f"{value:.0f}{suffix}"
