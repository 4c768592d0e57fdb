"""Likely causes of what ails a service, and how to tell them apart; a table, drawn by the runbooks; pure.

Commands of a cause say `none` where they find nothing, and end with status 0 then: at night a blank line is no answer.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.render import markdown
from controlplane.render.runbooks.place import Place


@dataclass(frozen=True, slots=True)
class Cause:
    """One likely cause."""

    name: str
    looks_like: str
    tell: str = ""
    """PromQL that is true when this is it; `%s` takes the matcher of our series, `%e` that of the engine's."""
    kube: str = ""
    """Commands for a fleet in a cluster; `%k` is `kubectl` with its namespace."""
    logs: str = ""
    """An extended regular expression: lines of the engines' logs that speak for it."""
    also: str = ""
    """Commands that work wherever the control plane runs."""


@dataclass(frozen=True, slots=True)
class Told:
    """A cause as it stands on a page."""

    name: str
    looks_like: str
    tell: str
    commands: str


LEFTOVER = Cause(
    "A fault that a drill left behind",
    "It began with a drill, or lasts after one",
    "sum by (kind) (controlplane_faults_active) > 0",
    also="ask /api/v1/leases | jq -c '.[] | {kind, endpoint: .endpoint.name, state, deadline}'",
)
GONE = Cause(
    "The processes are gone",
    "Connections are refused. An engine that died may have ended with status 0, so count restarts, not exit codes",
    'sum by (probe) (rate(controlplane_probes_total{result="refused"}[1m])) > 0',
    kube='%k get pods -l "$SELECTOR" -o wide\n'
    "%k get events --field-selector type=Warning --sort-by=.lastTimestamp | tail -n 20",
    logs="EngineDeadError|engine core|died unexpectedly|Killed|Traceback",
)
CUT_OFF = Cause(
    "The network is cut",
    "Time-outs and unreachable hosts, not refusals, and often on whole nodes at once",
    'sum by (probe, result) (rate(controlplane_probes_total{result=~"timeout|network|dns"}[1m])) > 0',
    kube='%k get endpointslices -o wide\n%k get networkpolicies\n%k get pods -l "$SELECTOR" -o wide',
    also="ask /api/v1/standing "
    "| jq -c '.pools[].endpoints[] | select(.up == false) | {name: .endpoint.name, node: .endpoint.node, detail}'",
)
HUNG = Cause(
    "The engine hangs",
    "The health check answers 200 and completions do not end; the engine's gauges stand still",
    'rate(controlplane_probes_total{probe="inference", result!="ok"}[1m]) > 0',
    kube='%k exec "${POD:?name the pod that hangs}" -- py-spy dump --pid 1',
    logs="NCCL|watchdog|timed out|TimeoutError",
)
GATEWAY = Cause(
    "The gateway, not the pool",
    "The pool is well and what users get is not",
    'controlplane_verdict{%s, pool="gateway", verdict="breach"} == 1 '
    'and on (service) controlplane_verdict{%s, pool="primary", verdict="ok"} == 1',
)
RELEASE = Cause(
    "A bad release",
    "5xx or empty answers from replicas that are up, since the time of a rollout",
    'sum by (probe, result) (rate(controlplane_probes_total{result=~"status|answer"}[1m])) > 0',
    kube='%k get replicasets -l "$SELECTOR" --sort-by=.metadata.creationTimestamp -o wide | tail -n 4',
    also="ask /api/v1/rollouts/newest | jq -c '{id, state, action, detail}'",
    logs="Traceback|Error|unrecognized arguments",
)
SHED = Cause(
    "Load is shed on purpose",
    "503 with a full queue: too much traffic, not a broken engine",
    "sum by (pool, reason) (rate(vllm:admission_rejections_total{%e}[1m])) > 0",
)
SURGE = Cause(
    "More traffic, or longer prompts",
    "Requests wait while tokens per second stand at their usual top",
    'controlplane_signal_value{%s, signal="queue_depth"} > 0',
)
PREEMPT = Cause(
    "The key-value cache is full",
    "The engine preempts and recomputes: tokens per second fall while requests run",
    "sum by (pool) (rate(vllm:num_preemptions_total{%e}[1m])) > 0",
    logs="preempt|KV cache",
)
FEWER = Cause(
    "Fewer replicas than usual",
    "The rest carry the load of one that is missing",
    "min by (pool, endpoint) (controlplane_endpoint_up{%s}) == 0",
    kube='%k get deployments,statefulsets -l "$SELECTOR"',
)
SHARED_GPU = Cause(
    "A GPU that is throttled or shared",
    "Utilization is high and tokens per second are low on one node only",
    'controlplane_signal_value{%s, signal="gpu_utilization"} > 0.9',
    kube='%k exec "${POD:?name a pod on the slow node}" -- nvidia-smi '
    "--query-gpu=index,utilization.gpu,clocks.sm,clocks_event_reasons.active,temperature.gpu --format=csv",
)
NODE_LOST = Cause(
    "A node is lost",
    "Every endpoint of one node goes down together, the others stay well",
    'controlplane_signal_value{%s, signal="nodes_not_ready"} > 0',
    kube="kubectl get nodes -o wide\n"
    "kubectl get events -A --field-selector involvedObject.kind=Node --sort-by=.lastTimestamp | tail -n 20",
)
NO_MODEL = Cause(
    "A model does not load",
    "Endpoints restart again and again; the log says out of memory, missing weights or a wrong driver",
    'controlplane_signal_value{%s, signal=~"log_fatals|pod_restarts|pods_oom_killed"} > 0',
    kube='%k logs -l "$SELECTOR" --previous --tail=40 --prefix',
    logs="failed to start|initialization failed|No available memory|CUDA|version mismatch|Error loading model",
)
GPU_LOST = Cause(
    "A GPU is lost or faulty",
    "A GPU that answered before does not any more, or its driver reports a fatal Xid",
    'controlplane_signal_value{%s, signal=~"gpus_missing|gpu_xid|gpu_ecc_errors"} > 0',
    kube="kubectl describe nodes -l nvidia.com/gpu.present=true | grep -E '^Name:|nvidia.com/gpu'",
    also="journalctl -k --since -2h --no-pager 2>/dev/null "
    "| grep -E 'NVRM: Xid|GPU has fallen off the bus' || echo none",
)
NETWORK_FULL = Cause(
    "The network is full or far",
    "Connecting takes over 200 ms or varies by as much; a link is over 70% full",
    'controlplane_signal_value{%s, signal="network_utilization"} > 0.7',
)
LEAK = Cause(
    "Memory leaks",
    "Memory grows by the hour and never comes back, whatever the load does",
    'deriv(controlplane_signal_value{%s, signal="memory_utilization"}[2h]) * 3600 > 0.01',
    kube='%k top pods -l "$SELECTOR" --containers',
)
OUT_OF_MEMORY = Cause(
    "The kernel or the kubelet killed it for memory",
    "It vanished without a word in its own log, and the kernel's log names it",
    'controlplane_signal_value{%s, signal="pods_oom_killed"} > 0',
    kube='%k get pods -l "$SELECTOR" -o json | jq -r \'.items[] | .metadata.name as $pod '
    '| .status.containerStatuses[]? | select(.lastState.terminated.reason == "OOMKilled") | $pod\'',
    also="journalctl -k --since -2h --no-pager 2>/dev/null | grep -iE 'out of memory|oom-kill' || echo none",
)
NO_ROOM = Cause(
    "No node has room",
    "New pods stay pending; the scheduler says which resource is short",
    'controlplane_signal_value{%s, signal="pods_unschedulable"} > 0',
    kube="%k get events --field-selector reason=FailedScheduling --sort-by=.lastTimestamp | tail -n 5",
)
NOISY_HOST = Cause(
    "Something else runs on the host",
    "CPU, disk or network is busy and requests are not more than usual",
    'controlplane_signal_value{%s, signal=~"cpu_utilization|disk_utilization|network_utilization"} > 0.7',
    also="ps -eo pid,pcpu,pmem,rss,args --sort=-pcpu | head -n 8",
)
BLIND = Cause(
    "The prober, not the fleet",
    "Our own looks fail for their own reasons: the control plane's host is short of CPU, files or network",
    'sum by (probe) (rate(controlplane_probes_total{result="prober"}[5m])) > 0 or controlplane_loop_lag_seconds > 0.25',
)
NO_PAGE = Cause(
    "The engine's metrics page cannot be read, or names its series anew",
    "Completions succeed and counters are unknown",
    'sum by (result) (rate(controlplane_probes_total{probe="metrics", result!="ok"}[5m])) > 0',
    also='controlplane check --live %p || echo "some are lost: see above"',
)
STANDBY_ILL = Cause(
    "The fallback pool is ill or too small",
    "The gate refuses it, or it breaks under the traffic it was given",
    'controlplane_verdict{%s, pool!="primary", verdict=~"breach|unknown"} == 1',
)
LEVER_STUCK = Cause(
    "The gateway does not take the new split",
    "The receipt stays applied and never verified, or failed with the gateway's own words",
    'increase(controlplane_switches_total{%s, outcome="failed"}[1h]) > 0',
    also="ask \"/api/v1/receipts?limit=3\" | jq -c '.[] | {id, state, detail}'",
)
HELD_BACK = Cause(
    "People, or the brake, hold the row back",
    "The row is pending and says what it waits for",
    "controlplane_row_waits{%s} == 1 or controlplane_brake{%s} == 1",
    also="controlplane level",
)

_BY_SIGNAL: Mapping[str, tuple[Cause, ...]] = {
    "endpoints_down": (GONE, NODE_LOST, CUT_OFF, NO_MODEL),
    "availability": (GONE, NODE_LOST, CUT_OFF, HUNG, NO_MODEL, GPU_LOST, GATEWAY),
    "error_rate": (RELEASE, SHED, GATEWAY),
    "latency_p50": (SURGE, FEWER, SHARED_GPU, NETWORK_FULL),
    "latency_p95": (SURGE, FEWER, SHARED_GPU, NETWORK_FULL),
    "latency_p99": (SURGE, FEWER, SHARED_GPU, NETWORK_FULL),
    "ttft_p99": (SURGE, FEWER, SHARED_GPU),
    "token_progress": (HUNG, GPU_LOST),
    "tokens_rate": (HUNG, PREEMPT, SHARED_GPU, FEWER),
    "request_rate": (SURGE, GATEWAY, CUT_OFF),
    "requests_running": (SURGE, FEWER),
    "inter_token_latency_p99": (PREEMPT, SHARED_GPU, SURGE),
    "kv_cache_utilization": (PREEMPT, SURGE, FEWER),
    "preemptions_rate": (PREEMPT, SURGE),
    "queue_depth": (SURGE, FEWER, HUNG),
    "cpu_utilization": (NOISY_HOST, SURGE),
    "memory_utilization": (LEAK, OUT_OF_MEMORY, NOISY_HOST),
    "disk_utilization": (NOISY_HOST,),
    "network_utilization": (NETWORK_FULL, NOISY_HOST),
    "gpu_utilization": (SHARED_GPU, SURGE),
    "gpu_memory_utilization": (PREEMPT, SHARED_GPU),
    "gpu_temperature": (SHARED_GPU,),
    "gpu_power": (SHARED_GPU,),
    "gpu_xid": (GPU_LOST,),
    "gpu_ecc_errors": (GPU_LOST,),
    "gpu_count": (GPU_LOST, NODE_LOST),
    "gpus_missing": (GPU_LOST, NODE_LOST),
    "log_errors_rate": (RELEASE, NO_MODEL),
    "log_fatals": (NO_MODEL, OUT_OF_MEMORY, GPU_LOST),
    "pod_restarts": (NO_MODEL, OUT_OF_MEMORY, GPU_LOST),
    "pods_oom_killed": (OUT_OF_MEMORY, LEAK),
    "pods_unschedulable": (NO_ROOM, NODE_LOST),
    "pods_not_ready": (NO_ROOM, NO_MODEL, NODE_LOST),
    "nodes_not_ready": (NODE_LOST, CUT_OFF),
}


def of_signals(signals: Iterable[str]) -> tuple[Cause, ...]:
    """Return the causes behind some signals, each once, the first suspect first."""
    found = (cause for name in signals for cause in _BY_SIGNAL.get(name, ()))
    return tuple(dict.fromkeys((LEFTOVER, *found)))


def told(causes: Iterable[Cause], place: Place) -> tuple[Told, ...]:
    """Write causes for where a page is used: matchers filled in, commands that work there."""
    return tuple(Told(c.name, c.looks_like, _fill(c.tell, place), _commands(c, place)) for c in causes)


def _commands(cause: Cause, place: Place) -> str:
    lines = []
    if cause.kube and place.kubectl:
        lines.append(cause.kube.replace("%k", place.kubectl))
    if cause.logs and place.kubectl:
        read = f'{place.kubectl} logs -l "$SELECTOR" --tail=400 --prefix'
        lines.append(f"{read} | grep -E {_quoted(cause.logs)} || echo none")
    elif cause.logs:
        lines.append(f'tail -qn 400 "${{LOGS[@]}}" | grep -E {_quoted(cause.logs)} || echo none')
    if cause.also:
        lines.append(cause.also)
    return "\n".join(lines).replace("%p", markdown.shell(place.source))


def _quoted(pattern: str) -> str:
    return f"'{pattern}'"


def _fill(expr: str, place: Place) -> str:
    """Put matchers into an expression in one pass, so that a value is never read as a place."""
    return re.sub("%[se]", lambda found: place.matcher if found[0] == "%s" else place.engine, expr)
