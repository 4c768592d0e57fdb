"""What an experienced person knows of each signal: what users notice, what to do, what keeps it from coming back; pure.

A table, by signal. Alerts that are about no signal stand in `named`. Called by `alerts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.render.runbooks.causes import BLIND, NO_PAGE, Cause
from controlplane.render.runbooks.measures import Measure

M = Measure


@dataclass(frozen=True, slots=True)
class Guide:
    """What a page says beyond its rule."""

    users: str
    """What users notice."""
    measures: tuple[Measure, ...]
    """What to do by hand, in this order."""
    day: str
    """Within 2 to 24 hours."""
    later: str
    """Within 24 to 72 hours."""
    prevent: str
    """So that it does not come back."""
    causes: tuple[Cause, ...] = ()
    """Suspects besides those of its signal."""
    itself: str = ""
    """What the control plane does by itself; empty where the rows that look at its signal say it."""


_RESTART = (M.HEAL, M.KEEP, M.RESTART)
_LOAD = (M.PIN, M.ADD)

BY_SIGNAL: Mapping[str, Guide] = {
    "availability": Guide(
        "Requests to the ill endpoints fail or hang; the gateway's retries hide some of it, at the price of time.",
        (M.HEAL, M.PIN, M.KEEP, M.RESTART, M.ROLL_BACK),
        "Find the one cause of every failure kind the probes reported; bring the pool back to its full size.",
        "Replay the recording with other levels: would the row have been as early with fewer false trips?",
        "Readiness that asks for a real completion, a disruption budget on the pool, replicas spread over nodes.",
        (BLIND,),
    ),
    "endpoints_down": Guide(
        "Each endpoint that is down takes its share of capacity with it; with all of them down nobody is served.",
        (M.HEAL, M.ASK_PRIMARY, M.PIN, M.KEEP, M.RESTART),
        "Bring every replica back, and keep the first error of the start of each.",
        "Tell whether one cause took several at once; spread replicas over nodes and zones until it cannot.",
        "Anti-affinity, a disruption budget, and the monthly node-kill drill.",
    ),
    "token_progress": Guide(
        "Answers stop in the middle or never begin, while health checks are green: users see a spinner.",
        (M.HEAL, M.KEEP, M.PIN, M.RESTART),
        "Read the stacks you kept: a collective that waits, a scheduler in a loop, a request of absurd length.",
        "Look for the release, driver or prompt length that the hangs have in common; report it upstream.",
        "A liveness check that counts tokens instead of asking `/health`, and a limit on lengths at the gateway.",
    ),
    "latency_p99": Guide(
        "One request in a hundred waits longer than promised; streams begin late and clients run into time-outs.",
        (*_LOAD, M.KEEP),
        "Put the time into its parts: queue, prefill, decode, network. Only one of them has grown.",
        "Compare with the hour's usual value; if traffic grew, plan replicas, else find the change that cost the time.",
        "Autoscaling on queue depth rather than on CPU, limits on prompt lengths, a load test before each release.",
    ),
    "ttft_p99": Guide(
        "Answers begin late: chats feel dead although they end well.",
        (*_LOAD, M.KEEP),
        "Tell a long queue from slow prefill: the first wants replicas, the second shorter prompts or prefix caching.",
        "See the share of prefix-cache hits, and who sends the longest prompts.",
        "Chunked prefill, prefix caching, a pool of its own for long prompts.",
    ),
    "inter_token_latency_p99": Guide(
        "Text comes out in fits and starts; long answers take longer than users wait.",
        (*_LOAD, M.KEEP, M.RESTART),
        "See batch size, preemptions and clocks of each GPU; one slow node pulls the whole percentile.",
        "Set the batch limit so that the gap holds at peak; move whoever shares the GPU.",
        "A cap on running requests per replica, exclusive GPUs, power and thermal limits that are watched.",
    ),
    "error_rate": Guide(
        "Users get 5xx. Retries double the load, so a small share grows by itself.",
        (M.HEAL, M.KEEP, M.PIN, M.ROLL_BACK),
        "Sort the failed requests by status, model and endpoint: one of the three explains them.",
        "Mend the cause, then look how many got through a retry and how many users gave up.",
        "Rollouts by steps (`controlplane rollout`), retry budgets at the gateway, contract tests of the API.",
    ),
    "queue_depth": Guide(
        "Requests wait before anything is done for them: the first token is late by the whole queue.",
        (*_LOAD, M.KEEP),
        "See whether demand grew or a replica is missing; both look alike from the queue.",
        "Set the pool's size by the queue at the busiest hour, with one replica spare.",
        "Autoscaling on queue depth, pre-warming before the daily peak, shedding with 429 instead of waiting.",
    ),
    "requests_running": Guide(
        "None yet: batches are full, and the next request will wait.",
        (M.ADD,),
        "See whether requests grew in number or in length.",
        "Set the batch limit by the time between tokens that users accept.",
        "Capacity planned by tokens per second, not by requests.",
    ),
    "request_rate": Guide(
        "A rise is load to come; a fall means that users do not reach us.",
        (M.ASK_PRIMARY,),
        "Compare with the usual value of this hour; ask the clients' side what changed.",
        "If it stays, plan for it; if it came from one client, agree on a quota.",
        "Quotas per client at the gateway.",
        (NO_PAGE,),
    ),
    "tokens_rate": Guide(
        "Answers come slower for everybody, or there are fewer of them.",
        (M.KEEP, M.RESTART, M.ADD),
        "Divide by running requests: less for each is contention, fewer requests is demand.",
        "Compare nodes with each other; the slow one is a finding.",
        "A throughput check in every rollout.",
        (NO_PAGE,),
    ),
    "kv_cache_utilization": Guide(
        "None at first; near the top the engine preempts, recomputes, and every answer stutters.",
        (*_LOAD, M.KEEP),
        "See lengths of running requests and the number of preemptions; one client with huge contexts is enough.",
        "Set `max-model-len` and the batch limit so that the cache holds the peak.",
        "Admission by expected tokens, a pool of its own for long contexts, quantised cache where quality allows.",
    ),
    "preemptions_rate": Guide(
        "Answers pause in the middle: their cache was thrown away and is computed again.",
        (*_LOAD,),
        "Lower the number of running requests until preemptions stop; throughput goes up, not down.",
        "Set the batch limit for good, by measurement.",
        "The same limits as for the key-value cache.",
    ),
    "cpu_utilization": Guide(
        "None directly: tokenization, scheduling and the HTTP server starve before the GPU does.",
        (M.RESTART,),
        "Find what else runs there; pin the engine's threads or move the other.",
        "Give the engine guaranteed CPUs; two for each GPU are the least.",
        "Requests and limits for everything that shares the node.",
    ),
    "memory_utilization": Guide(
        "None until the kernel kills the engine; then all its requests at once.",
        (M.KEEP, M.RESTART),
        "See whose resident memory grows; restart it in a quiet minute, before the kernel chooses.",
        "Find the leak: compare two heap or `smaps` snapshots an hour apart.",
        "A memory limit with headroom, and a planned restart until the leak is mended.",
    ),
    "disk_utilization": Guide(
        "None until it is full: then logs, caches and the control plane's own database cannot be written.",
        (M.HEAL, M.KEEP),
        "Delete what can be made anew: old model weights, core dumps, rotated logs.",
        "Move caches of weights to a volume of their own.",
        "Rotation with a size limit, image and weight clean-up on every node.",
    ),
    "network_utilization": Guide(
        "Streams stutter; probes time out and make it look like a failure of engines.",
        (M.KEEP,),
        "See who sends: weights being copied, logs, or answers.",
        "Move copies of weights to quiet hours, or to a link of their own.",
        "Rate limits for bulk copies; weights on the node before the pod comes.",
    ),
    "gpu_utilization": Guide(
        "None by itself: a busy GPU is what you pay for. Together with slow answers it means that the pool is full.",
        (*_LOAD,),
        "See tokens per second at the same moment: high is a full pool, low is somebody else on the GPU.",
        "Plan capacity by tokens per second at the promised latency, not by utilization.",
        "Exclusive GPUs; a saturation drill that finds the pool's top before users do.",
    ),
    "gpu_memory_utilization": Guide(
        "None by itself: engines reserve memory on purpose. Over its usual value it ends in out-of-memory errors.",
        (M.KEEP, M.RESTART),
        "See whether a second process holds memory of the GPU.",
        "Set the engine's memory share so that its peak fits.",
        "One engine a GPU, or partitions that are enforced.",
    ),
    "gpu_temperature": Guide(
        "Text comes slower as the GPU lowers its clocks; at the limit it switches itself off.",
        (M.DRAIN, M.ADD),
        "Take load off the node; have fans, filters and inlet temperature looked at.",
        "Compare with its neighbours: one hot GPU is a fault, all of them the room.",
        "A temperature alarm of the rack, and cleaning on a schedule.",
    ),
    "gpu_power": Guide(
        "None by itself; at the cap the clocks fall and text comes slower.",
        (M.ADD,),
        "Compare draw and cap; see whether somebody lowered the cap.",
        "Agree on the cap with whoever owns the rack.",
        "The cap under configuration management.",
    ),
    "gpu_xid": Guide(
        "Requests on that GPU fail or give garbage until it is reset; with tensor parallelism its whole replica.",
        (M.KEEP, M.PIN, M.DRAIN, M.RESTART),
        "Read the Xid's number: a program's own error (13, 31, 43), a reset (48, 62, 95), off the bus (79).",
        "Run the vendor's diagnostics before the GPU serves again; replace what fails twice.",
        "Driver and firmware under change control; a burn-in for every GPU that comes back.",
    ),
    "gpu_ecc_errors": Guide(
        "Work on that GPU was ended by the driver, or its answers cannot be trusted.",
        (M.KEEP, M.PIN, M.DRAIN, M.RESTART),
        "Reset the GPU so that bad rows are remapped; see whether remaps are left.",
        "Replace it when remapping fails or errors come back.",
        "Watch corrected errors, too: they come first.",
    ),
    "gpu_count": Guide(
        "A replica runs on fewer GPUs, or not at all.",
        (M.KEEP, M.DRAIN, M.RESTART),
        "Find which GPU is missing and since when; reset or reseat it.",
        "Replace what vanished twice.",
        "A node whose GPUs are not all there must not become ready.",
    ),
    "gpus_missing": Guide(
        "The replica on it is gone, and with it its share of capacity; its siblings take the load.",
        (M.KEEP, M.PIN, M.DRAIN),
        "See the kernel's log: fallen off the bus wants a power cycle, a lost driver a reboot.",
        "Run diagnostics, then replace or return it; tell capacity planning.",
        "A node whose GPUs are not all there must not become ready.",
    ),
    "log_errors_rate": Guide(
        "Perhaps none yet: engines complain before they fail.",
        (M.KEEP, M.ROLL_BACK),
        "Sort the lines by text; the most frequent one first.",
        "Mend or silence each: a log full of known errors hides the next one.",
        "An error budget for log lines in every release.",
    ),
    "log_fatals": Guide(
        "An engine is dying or will not start: its requests fail, its share of capacity is gone.",
        (M.KEEP, M.RESTART, M.ROLL_BACK),
        "Read the first error of the start, not the last.",
        "Mend memory settings, weights or driver, and try it on one replica.",
        "Start every release on one replica first.",
    ),
    "pod_restarts": Guide(
        "Each restart drops what was running there, and the pool is smaller while the model loads.",
        (M.KEEP, M.ROLL_BACK),
        "Read the log of the container before: its last lines say why.",
        "Mend what kills it; a liveness probe that is too strict is a frequent answer.",
        "Liveness looser than readiness, and a start-up probe as long as the model takes.",
    ),
    "pods_oom_killed": Guide(
        "What ran in that pod is lost, and the model has to be loaded again.",
        (M.KEEP, M.ADD, M.ROLL_BACK),
        "Compare the limit with the peak of memory in use; raise it or lower the batch.",
        "Find whether it grows with time (a leak) or with load (a limit).",
        "Limits from measured peaks with a fifth on top.",
    ),
    "pods_unschedulable": Guide(
        "None yet: the pool cannot grow, and cannot replace what dies.",
        (M.ADD,),
        "Free or add the resource the scheduler names; check quotas.",
        "Keep one node's worth of GPUs free, or of lower priority.",
        "Priority classes, so that serving evicts batch work.",
    ),
    "pods_not_ready": Guide(
        "None while the others carry the load: the pool is smaller than it should be.",
        (M.KEEP, M.ADD, M.ROLL_BACK),
        "See why they wait: no node, an image, a model that loads, a readiness check that fails.",
        "Mend that; a pod that loads a model for longer than a threshold's `for` needs a longer one.",
        "Weights on the node before the pod, and a start-up probe as long as the load takes.",
    ),
    "nodes_not_ready": Guide(
        "Everything on the node is gone or cut off; the others carry its load.",
        (M.PIN, M.DRAIN, M.RESTART),
        "Ask whether the machine itself answers; have it power-cycled if not.",
        "Read its kernel log for the minute before; return it only after diagnostics.",
        "Replicas spread over nodes, and the node-kill drill every month.",
    ),
}  # fmt: skip
_ALIKE = {"latency_p50": "latency_p99", "latency_p95": "latency_p99"}


def of_signal(name: str) -> Guide | None:
    """Return the guide of a signal; None for one that has none."""
    return BY_SIGNAL.get(_ALIKE.get(name, name))
