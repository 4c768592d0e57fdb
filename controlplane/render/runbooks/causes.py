"""Likely causes of what trips a row, and how to tell them apart; a table, drawn by the runbooks; pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One likely cause."""

    name: str
    looks_like: str
    tell: str
    """PromQL that is true when this is it; `%s` takes the matcher of our series, `%e` that of the engine's."""


_LEFTOVER = Cause(
    "A fault that a drill left behind",
    "It began with a drill, or lasts after one",
    "sum by (kind) (controlplane_faults_active) > 0",
)
_GONE = Cause(
    "The processes are gone",
    "Connections are refused. An engine that died may have ended with status 0, so count restarts, not exit codes",
    'sum by (probe) (rate(controlplane_probes_total{result="refused"}[1m])) > 0',
)
_CUT_OFF = Cause(
    "The network is cut",
    "Time-outs and unreachable hosts, not refusals, and often on whole nodes at once",
    'sum by (probe, result) (rate(controlplane_probes_total{result=~"timeout|network|dns"}[1m])) > 0',
)
_HUNG = Cause(
    "The engine hangs",
    "The health check answers 200 and completions do not end; the engine's gauges stand still",
    'rate(controlplane_probes_total{probe="inference", result!="ok"}[1m]) > 0',
)
_GATEWAY = Cause(
    "The gateway, not the pool",
    "The pool is well and what users get is not",
    'controlplane_verdict{%s, pool="gateway", verdict="breach"} == 1 '
    'and on (service) controlplane_verdict{%s, pool="primary", verdict="ok"} == 1',
)
_RELEASE = Cause(
    "A bad release",
    "5xx or empty answers from replicas that are up, since the time of a rollout",
    'sum by (probe, result) (rate(controlplane_probes_total{result=~"status|answer"}[1m])) > 0',
)
_SHED = Cause(
    "Load is shed on purpose",
    "503 with a full queue: too much traffic, not a broken engine",
    "sum by (pool, reason) (rate(vllm:admission_rejections_total{%e}[1m])) > 0",
)
_SURGE = Cause(
    "More traffic, or longer prompts",
    "Requests wait while tokens per second stand at their usual top",
    'controlplane_signal_value{%s, signal="queue_depth"} > 0',
)
_PREEMPT = Cause(
    "The key-value cache is full",
    "The engine preempts and recomputes: tokens per second fall while requests run",
    "sum by (pool) (rate(vllm:num_preemptions_total{%e}[1m])) > 0",
)
_FEWER = Cause(
    "Fewer replicas than usual",
    "The rest carry the load of one that is missing",
    "min by (pool, endpoint) (controlplane_endpoint_up{%s}) == 0",
)
_SHARED_GPU = Cause(
    "A GPU that is throttled or shared",
    "Utilization is high and tokens per second are low on one node only",
    'controlplane_signal_value{%s, signal="gpu_utilization"} > 0.9',
)

_NODE_LOST = Cause(
    "A node is lost",
    "Every endpoint of one node goes down together, the others stay well",
    'controlplane_signal_value{%s, signal="nodes_not_ready"} > 0',
)
_NO_MODEL = Cause(
    "A model does not load",
    "Endpoints restart again and again; the log says out of memory, missing weights or a wrong driver",
    'controlplane_signal_value{%s, signal=~"log_fatals|pod_restarts|pods_oom_killed"} > 0',
)
_GPU_LOST = Cause(
    "A GPU is lost or faulty",
    "A GPU that answered before does not any more, or its driver reports a fatal Xid",
    'controlplane_signal_value{%s, signal=~"gpus_missing|gpu_xid|gpu_ecc_errors"} > 0',
)
_NETWORK_FULL = Cause(
    "The network is full or far",
    "Connecting takes over 200 ms or varies by as much; a link is over 70% full",
    'controlplane_signal_value{%s, signal="network_utilization"} > 0.7',
)
_LEAK = Cause(
    "Memory leaks",
    "Memory grows by the hour and never comes back, whatever the load does",
    'deriv(controlplane_signal_value{%s, signal="memory_utilization"}[2h]) * 3600 > 0.01',
)

_BY_SIGNAL: Mapping[str, tuple[Cause, ...]] = {
    "endpoints_down": (_GONE, _NODE_LOST, _CUT_OFF, _NO_MODEL),
    "availability": (_GONE, _NODE_LOST, _CUT_OFF, _HUNG, _NO_MODEL, _GPU_LOST, _GATEWAY),
    "error_rate": (_RELEASE, _SHED, _GATEWAY),
    "latency_p99": (_SURGE, _FEWER, _SHARED_GPU, _NETWORK_FULL),
    "ttft_p99": (_SURGE, _FEWER, _SHARED_GPU),
    "token_progress": (_HUNG,),
    "memory_utilization": (_LEAK,),
    "inter_token_latency_p99": (_PREEMPT, _SHARED_GPU),
    "kv_cache_utilization": (_PREEMPT, _SURGE, _FEWER),
    "queue_depth": (_SURGE, _FEWER),
    "gpu_utilization": (_SHARED_GPU,),
}


def likely(signals: Iterable[str], ours: str, engine: str) -> tuple[Cause, ...]:
    """Return the causes behind some signals, each once, with the matchers filled in."""
    found = dict.fromkeys((_LEFTOVER, *(cause for name in signals for cause in _BY_SIGNAL.get(name, ()))))
    return tuple(Cause(c.name, c.looks_like, _fill(c.tell, ours, engine)) for c in found)


def _fill(expr: str, ours: str, engine: str) -> str:
    """Put matchers into an expression in one pass, so that a value is never read as a place."""
    return re.sub("%[se]", lambda found: ours if found[0] == "%s" else engine, expr)
