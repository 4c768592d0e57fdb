"""Why it may have happened: rules that read the evidence around the start of a breach; pure.

Each rule looks for one cause and says what it saw; none of them decides anything. The hints stand on the incident's
timeline, the most telling first. A rule that lacks its evidence says nothing: a guess is worse than no hint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.incidents.trail import Trail, mean, rose, slope_per_s, spread_s
from controlplane.signals.sample import spell


class Cause(StrEnum):
    """What can be behind a breach."""

    NODE_LOSS = "node loss"
    LOAD_FAILURE = "model load failure"
    STALLED = "stalled engine"
    VERSION = "version mismatch"
    NETWORK = "network"
    BANDWIDTH = "bandwidth"
    GPU_LOST = "lost or faulty GPU"
    CONTENTION = "GPU contention"
    MEMORY_LEAK = "memory leak"
    OVERLOAD = "overload"
    NO_ROOM = "no node has room"
    DISRUPTION = "pods taken away on purpose"


@dataclass(frozen=True, slots=True)
class Hint:
    """One likely cause."""

    cause: Cause
    weight: float
    """0..1: how telling its evidence is. A line in a log that says so is near 1, a pattern in numbers about a half."""
    evidence: tuple[str, ...]
    check: str
    """What a person does next to be sure."""

    @property
    def text(self) -> str:
        """The hint as one line of a timeline."""
        return f"likely cause: {self.cause} ({'; '.join(self.evidence)}). {self.check}"


@dataclass(frozen=True, slots=True)
class EndpointClues:
    """What was seen of one endpoint in the last minutes."""

    name: str
    node: str = ""
    down: bool = False
    """Proven down."""
    looks: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed looks by kind: `refused`, `timeout`, `status`, `answer` ..."""
    health_ok: bool = False
    """Its newest health check succeeded."""
    completions_lost: int = 0
    """Newest completions in a row that did not end in time."""
    connect: Trail = ()
    """Seconds it took to connect."""
    version_changed_at: float | None = None
    """When its version was last seen to change."""
    client_errors: int = 0
    """Looks answered with a 4xx, or with something that could not be read, since then."""


@dataclass(frozen=True, slots=True)
class Clues:
    """Everything the rules may look at, of one pool."""

    now: float
    """Seconds, on the clock of every trail."""
    signals: Mapping[str, Trail] = field(default_factory=dict)
    """By signal: what the pool showed, oldest first."""
    endpoints: tuple[EndpointClues, ...] = ()
    log_lines: tuple[str, ...] = ()
    """Lines in which an engine said that it dies, newest last."""
    events: tuple[str, ...] = ()
    """What Kubernetes reported, such as `NodeNotReady node-a`, newest last."""


RECENT_S = 300.0
"""A change counts as the breach's own when it began in the last five minutes."""
CONNECT_SLOW_S = 0.2
"""Connecting takes a round trip: over 200 ms inside a site is a network that is ill."""
JITTER_S = 0.2
BANDWIDTH = 0.7
"""A link over 70 % drops bursts: queueing grows without bound near saturation."""
LEAK_HOURS = 1.0
LEAK_FULL_WITHIN_H = 48.0
BUSY_GPU = 0.9

LOAD_FAILURES = (
    "EngineCore failed to start", "Engine core initialization failed", "No available memory for the cache blocks",
    "To serve at least one request with the model's max seq len", "CUDA driver initialization failed",
    "no CUDA-capable device is detected", "Driver/library version mismatch", "Error loading model",
    "Failed to load model",
)  # fmt: skip
"""What engines write when a model does not come up (vLLM 0.32, PyTorch, llama.cpp)."""

_NODE_EVENTS = ("NodeNotReady", "NodeLost", "NodeShutdown", "Rebooted", "DeletingNode", "TaintManagerEviction")
_LOAD_EVENTS = (
    "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError", "OOMKilled", "StartError",
    "CreateContainerError", "RunContainerError", "Restarted",
)  # fmt: skip
_GPU_EVENTS = ("GPUsMissing", "UnexpectedAdmissionError", "OutOfnvidia.com/gpu", "NodeCondition")
"""What shows when a device plugin lost a GPU, or a node's health monitor found one ill."""
_GPU_WORDS = ("gpu", "xid", "nvidia", "nvlink", "ecc")


def hints(clues: Clues) -> tuple[Hint, ...]:
    """Return every cause that has evidence, the most telling first."""
    found = (rule(clues) for rule in RULES)
    return tuple(sorted((hint for hint in found if hint), key=lambda hint: -hint.weight))


def node_loss(clues: Clues) -> Hint | None:
    """Every endpoint of a node went down together, or Kubernetes says that the node is gone."""
    nodes: dict[str, list[EndpointClues]] = {}
    for endpoint in clues.endpoints:
        if endpoint.node:
            nodes.setdefault(endpoint.node, []).append(endpoint)
    said = _events(clues, _NODE_EVENTS)
    gone = [node for node, on in nodes.items() if all(e.down for e in on)]
    if not gone and not said:
        return None
    seen = tuple(f"all {len(nodes[node])} endpoints of {node} are down" for node in gone)
    weight = 0.95 if said else 0.8 if any(len(nodes[node]) > 1 for node in gone) else 0.6
    return Hint(Cause.NODE_LOSS, weight, (*said, *seen), "Ask whether the machine itself answers; then drain it.")


def load_failure(clues: Clues) -> Hint | None:
    """An engine wrote that its model does not come up, or its container restarts again and again."""
    lines = tuple(line for line in clues.log_lines if any(mark in line for mark in LOAD_FAILURES))
    said = _events(clues, _LOAD_EVENTS)
    if not lines and not said:
        return None
    evidence = (*(_cut(line) for line in lines[-2:]), *said[-2:])
    check = "Read the first error of the start in the log: memory, weights, driver, or a wrong argument."
    return Hint(Cause.LOAD_FAILURE, 0.9 if lines else 0.75, evidence, check)


def stalled_engine(clues: Clues) -> Hint | None:
    """Health checks answer while completions do not end, or tokens stand still while requests run."""
    stuck = [e.name for e in clues.endpoints if e.health_ok and e.completions_lost >= 2]
    progress = mean(clues.signals.get("token_progress", ()), clues.now, 30.0)
    still = progress is not None and progress < 1.0
    if not stuck and not still:
        return None
    seen = tuple(f"{name} answers its health check and completes nothing" for name in stuck[:3])
    if still and progress is not None:
        seen = (*seen, f"tokens move on {progress:.0%} of the busy endpoints")
    check = "Take it out of rotation, keep its stacks (py-spy dump), restart it."
    return Hint(Cause.STALLED, 0.9 if stuck else 0.7, seen, check)


def version_mismatch(clues: Clues) -> Hint | None:
    """Wrong answers (4xx, unreadable) where the version changed shortly before."""
    odd = [e for e in clues.endpoints if e.version_changed_at is not None and e.client_errors >= 3]
    if not odd:
        return None
    seen = tuple(
        f"{e.name} changed its version {clues.now - (e.version_changed_at or 0.0):.0f} s ago and answered "
        f"{e.client_errors} times with a 4xx or something unreadable since"
        for e in odd[:3]
    )
    return Hint(Cause.VERSION, 0.85, seen, "Compare its API and arguments with the version before; roll back.")


def network(clues: Clues) -> Hint | None:
    """Connecting is slow or jumps about, or looks end in time-outs on endpoints that refuse nothing."""
    slow, jumpy, silent = [], [], []
    for endpoint in clues.endpoints:
        recent = tuple((at, value) for at, value in endpoint.connect if at >= clues.now - RECENT_S)
        took, jitter = mean(recent, clues.now, RECENT_S), spread_s(recent)
        if took is not None and len(recent) >= 3 and took > CONNECT_SLOW_S:
            slow.append(f"connecting to {endpoint.name} takes {took * 1000:.0f} ms")
        elif jitter is not None and jitter > JITTER_S:
            jumpy.append(f"connecting to {endpoint.name} varies by {jitter * 1000:.0f} ms")
        lost = sum(endpoint.failures.get(kind, 0) for kind in ("timeout", "network", "dns"))
        if endpoint.looks >= 3 and lost >= 3 and not endpoint.health_ok and not endpoint.failures.get("refused"):
            silent.append(f"{endpoint.name}: {lost} of {endpoint.looks} looks timed out or found no way")
    seen = (*slow, *jumpy, *silent)
    if not seen:
        return None
    weight = 0.8 if slow or jumpy else 0.55
    return Hint(Cause.NETWORK, weight, seen[:3], "Look at loss and round trips from the gateway's side, too.")


def bandwidth(clues: Clues) -> Hint | None:
    """A link is fuller than 70 %."""
    used = mean(clues.signals.get("network_utilization", ()), clues.now, 60.0)
    if used is None or used <= BANDWIDTH:
        return None
    seen = (f"the busiest link is {used:.0%} full",)
    return Hint(Cause.BANDWIDTH, 0.6, seen, "See who sends: weights being copied, logs, or answers.")


def lost_gpu(clues: Clues) -> Hint | None:
    """A GPU is missing, or its driver or memory reported an error that only a reset ends."""
    reports = (
        ("gpus_missing", "GPUs that answered before do not any more"),
        ("gpu_xid", "fatal Xid errors"),
        ("gpu_ecc_errors", "double-bit memory errors"),
    )
    seen = tuple(
        f"{_newest(clues, signal):g} {words}" for signal, words in reports if (_newest(clues, signal) or 0.0) > 0
    )
    said = tuple(e for e in _events(clues, _GPU_EVENTS) if any(word in e.casefold() for word in _GPU_WORDS))
    if not seen and not said:
        return None
    return Hint(
        Cause.GPU_LOST,
        0.95,
        (*said[-2:], *seen),
        "Read the Xid in the kernel log (`NVRM: Xid`), drain the node, reset.",
    )


def no_room(clues: Clues) -> Hint | None:
    """The scheduler found no node for a pod; a lack of GPUs is the most telling."""
    said = _events(clues, ("FailedScheduling",))
    gpus = tuple(event for event in said if "/gpu" in event)
    if not said:
        return None
    check = "See what holds the GPUs (`kubectl describe nodes`), add nodes, or let a smaller pool serve it."
    return Hint(Cause.NO_ROOM, 0.85 if gpus else 0.6, tuple(map(_cut, (gpus or said)[-2:])), check)


def disruption(clues: Clues) -> Hint | None:
    """Kubernetes took pods away by itself or for somebody: an eviction, a preemption, a taint."""
    said = _events(clues, ("DisruptionTarget", "Preempted", "Evicted"))
    if not said:
        return None
    check = "Ask who drains or scales (audit log, autoscaler); a PodDisruptionBudget keeps enough of them."
    return Hint(Cause.DISRUPTION, 0.8, tuple(map(_cut, said[-3:])), check)


def gpu_contention(clues: Clues) -> Hint | None:
    """The GPU is busy while each running request gets fewer tokens than before: somebody else uses it."""
    busy = mean(clues.signals.get("gpu_utilization", ()), clues.now, 60.0)
    before, after = _tokens_per_request(clues)
    if busy is None or busy < BUSY_GPU or before is None or after is None or after > before * 0.7:
        return None
    seen = (
        f"GPU utilization {busy:.0%}",
        f"tokens per second for each running request fell from {before:.3g} to {after:.3g}",
    )
    if (_newest(clues, "requests_running") or 0.0) > 2 * (_oldest_running(clues) or 1.0):
        return None  # More requests share the same GPU: that is load, not contention.
    return Hint(Cause.CONTENTION, 0.65, seen, "List the processes on the GPU (`nvidia-smi pmon`); look at its clocks.")


def memory_leak(clues: Clues) -> Hint | None:
    """Memory grew for hours without coming back."""
    trail = clues.signals.get("memory_utilization", ())
    slope = slope_per_s(trail)
    if slope is None or not trail or trail[-1][0] - trail[0][0] < LEAK_HOURS * 3600:
        return None
    per_hour = slope.per_s * 3600
    left = 1.0 - trail[-1][1]
    if per_hour <= 0 or slope.fit < 0.8 or left / per_hour > LEAK_FULL_WITHIN_H:
        return None
    hours = (trail[-1][0] - trail[0][0]) / 3600
    seen = (f"memory grew by {per_hour:.1%} an hour for {hours:.1f} h", f"full in {left / per_hour:.0f} h")
    return Hint(Cause.MEMORY_LEAK, 0.6, seen, "See whose resident memory grows; restart it before it is full.")


def overload(clues: Clues) -> Hint | None:
    """Requests wait, and they began to wait when more came."""
    queue, rate = clues.signals.get("queue_depth", ()), clues.signals.get("request_rate", ())
    waiting = rose(queue, clues.now, RECENT_S)
    if waiting is None or waiting.after < 1.0 or waiting.after < 1.5 * waiting.before:
        return None
    coming = rose(rate, clues.now, RECENT_S)
    seen = [f"the queue grew from {waiting.before:.0f} to {waiting.after:.0f}"]
    if coming is not None and coming.after > 1.2 * coming.before:
        seen.append(
            f"requests went from {spell('request_rate', coming.before)} to {spell('request_rate', coming.after)}"
        )
        return Hint(Cause.OVERLOAD, 0.7, tuple(seen), "Add replicas, shed load, or let a degraded level serve it.")
    # Finished requests cannot rise when the fleet is at its top: a queue that grows at a steady rate says it is there.
    if coming is not None and coming.after >= 0.9 * coming.before and coming.after > 0:
        seen.append("the fleet finishes as many as before: it is at its top")
        return Hint(Cause.OVERLOAD, 0.5, tuple(seen), "See what came in at the gateway; add replicas or shed load.")
    return None


def _tokens_per_request(clues: Clues) -> tuple[float | None, float | None]:
    tokens, running = clues.signals.get("tokens_rate", ()), clues.signals.get("requests_running", ())
    moved, held = rose(tokens, clues.now, RECENT_S), rose(running, clues.now, RECENT_S)
    if moved is None or held is None or held.before < 0.5 or held.after < 0.5:
        return None, None
    return moved.before / held.before, moved.after / held.after


def _oldest_running(clues: Clues) -> float | None:
    held = rose(clues.signals.get("requests_running", ()), clues.now, RECENT_S)
    return held.before if held else None


def _newest(clues: Clues, signal: str) -> float | None:
    trail = clues.signals.get(signal, ())
    return trail[-1][1] if trail else None


def _events(clues: Clues, reasons: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event for event in clues.events if any(reason in event for reason in reasons)))


def _cut(line: str) -> str:
    return line if len(line) <= 160 else f"{line[:157]}..."


RULES: tuple[Callable[[Clues], Hint | None], ...] = (
    node_loss, load_failure, stalled_engine, version_mismatch, network, bandwidth, lost_gpu, gpu_contention,
    memory_leak, overload, no_room, disruption,
)  # fmt: skip
