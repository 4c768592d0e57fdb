"""What faults put into a cluster, as documents, and how they are told from everybody else's. Pure.

Whatever is made carries our labels, the id of its lease and its deadline, so that whoever finds it, in whichever
process, knows what it is, whose, and when it must be gone.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import number, word
from controlplane.fleet.cluster import Document, Kind
from controlplane.fleet.model import BurnerSpec

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "controlplane"
MARK = "controlplane.dev/lease"
"""Label: a short hash of the lease's id, which may be longer than a label."""
CUT_OFF = "controlplane.dev/cut-off"
"""Label of a pod that a network policy of ours selects: the lease's mark."""
DOWN = "controlplane.dev/node-kill"
"""Key of the taint of a node that is down, of its label, and of the annotation that says for which leases."""
LEASE = "controlplane.dev/lease-id"
DEADLINE = "controlplane.dev/deadline"
TARGET = "controlplane.dev/target"
OURS = f"{MANAGED_BY}={MANAGER},{MARK}"
"""Selects everything that a fault has made in a namespace."""

CLAIMS = Kind("coordination.k8s.io", "v1", "leases")
"""One a fault and target: made first, removed last; it keeps two leases from doing the same harm twice."""
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies")
JOBS = Kind("batch", "v1", "jobs")
POD_CHAOS = Kind("chaos-mesh.org", "v1alpha1", "podchaos")
NETWORK_CHAOS = Kind("chaos-mesh.org", "v1alpha1", "networkchaos")
STRESS_CHAOS = Kind("chaos-mesh.org", "v1alpha1", "stresschaos")
BUILT_IN = (NETWORK_POLICIES, JOBS)
CHAOS_MESH = (POD_CHAOS, NETWORK_CHAOS, STRESS_CHAOS)
BURNING = "/tmp/burning"  # noqa: S108 - in a container's own empty directory
"""The burner's file: it is there while it burns."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a fault is done to, as it was when its claim was made."""

    namespace: str
    pod: str
    uid: str
    node: str
    owner: str = ""
    """What brings the pod back: `replicasets/NAME` or `statefulsets/NAME`; empty where nobody waits for it."""
    endpoint: str = ""
    kind: str = ""

    @property
    def called(self) -> str:
        """Return the pod as people name it."""
        return f"pod {self.namespace}/{self.pod}"


def mark_of(lease_id: str) -> str:
    """Return the label's value for a lease."""
    return hashlib.sha256(lease_id.encode()).hexdigest()[:20]


def claim_name(lease: Lease) -> str:
    """Return what the claim of a kind of fault on an endpoint is called, whosever it is."""
    return f"controlplane-{lease.kind}-{hashlib.sha256(lease.endpoint.name.encode()).hexdigest()[:12]}"


def object_name(lease: Lease) -> str:
    """Return what a lease's harm is called."""
    return f"controlplane-{lease.kind}-{mark_of(lease.id)}"


def left_s(lease: Lease, now: datetime) -> int:
    """Return how many whole seconds are left of a lease, one at least: rather late than never for what must end."""
    return max(1, math.ceil((lease.deadline - now).total_seconds()))


def spell_time(at: datetime) -> str:
    """Write a moment as annotations carry it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def metadata(lease: Lease, namespace: str, name: str) -> Document:
    """Return the metadata that everything of a lease carries."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER, MARK: mark_of(lease.id)},
        "annotations": {LEASE: lease.id, DEADLINE: spell_time(lease.deadline)},
    }


def is_over(found: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether something of ours should be gone; what does not say until when should, too."""
    try:
        return datetime.fromisoformat(found["metadata"]["annotations"][DEADLINE]) <= now
    except (LookupError, TypeError, ValueError):
        return True


def mark_in(found: Mapping[str, Any]) -> str:
    """Return the mark that something of ours carries."""
    return str((found["metadata"].get("labels") or {}).get(MARK, ""))


def lease_in(found: Mapping[str, Any]) -> str:
    """Return the id of the lease that something was made for, as far as it says."""
    return str((found["metadata"].get("annotations") or {}).get(LEASE, ""))


def claim(lease: Lease, target: Target, now: datetime) -> Document:
    """Return the claim of a lease on its target."""
    about = metadata(lease, target.namespace, claim_name(lease))
    about["annotations"][TARGET] = json.dumps(asdict(target), sort_keys=True)
    return {
        "apiVersion": CLAIMS.api_version,
        "kind": "Lease",
        "metadata": about,
        "spec": {
            "holderIdentity": lease.id,
            "leaseDurationSeconds": left_s(lease, now),
            "acquireTime": spell_time(now),
            "renewTime": spell_time(now),
        },
    }


def target_in(found: Mapping[str, Any]) -> Target | None:
    """Return the target that a claim names; None when it cannot be read."""
    try:
        return Target(**json.loads(found["metadata"]["annotations"][TARGET]))
    except (LookupError, TypeError, ValueError):
        return None


def pod_chaos(lease: Lease, target: Target, namespaces: Iterable[str], now: datetime) -> Document:
    """Return a node's failure for Chaos Mesh: every pod there, in these namespaces, fails until the deadline."""
    return {
        "apiVersion": POD_CHAOS.api_version,
        "kind": "PodChaos",
        "metadata": metadata(lease, target.namespace, object_name(lease)),
        "spec": {
            "action": "pod-failure",
            "mode": "all",
            "selector": {"namespaces": sorted(namespaces), "nodes": [target.node]},
            "duration": f"{left_s(lease, now)}s",
        },
    }


def network_chaos(lease: Lease, target: Target, now: datetime) -> Document:
    """Return a partition, or a delay, for Chaos Mesh.

    Its directions are the pod's: what goes `to` our endpoint comes `from` everybody, as the pod sees it.
    """
    kind = FaultKind.NETWORK_PARTITION
    seen = {"both": "both", "to": "from", "from": "to"}[word(lease.parameters, kind, "direction")]
    spec: Document = {
        "action": "partition",
        "mode": "all",
        "selector": {"namespaces": [target.namespace], "pods": {target.namespace: [target.pod]}},
        "direction": seen,
        "duration": f"{left_s(lease, now)}s",
    }
    if word(lease.parameters, kind, "mode") == "delay":
        latency = f"{number(lease.parameters, kind, 'delay_ms'):.0f}ms"
        spec |= {"action": "delay", "delay": {"latency": latency, "jitter": "0ms", "correlation": "0"}}
        spec["direction"] = "to"  # What the pod sends is held back; what it gets cannot be.
    return {
        "apiVersion": NETWORK_CHAOS.api_version,
        "kind": "NetworkChaos",
        "metadata": metadata(lease, target.namespace, object_name(lease)),
        "spec": spec,
    }


def stress_chaos(lease: Lease, target: Target, now: datetime) -> Document:
    """Return busy CPUs for Chaos Mesh, in the endpoint's own container."""
    kind = FaultKind.GPU_SATURATION
    load = round(100 * number(lease.parameters, kind, "duty"))
    stressors: Document = {"cpu": {"workers": int(number(lease.parameters, kind, "threads")), "load": load}}
    held_mib = int(number(lease.parameters, kind, "memory_mib"))
    if held_mib:
        stressors["memory"] = {"workers": 1, "size": f"{held_mib}MiB"}
    return {
        "apiVersion": STRESS_CHAOS.api_version,
        "kind": "StressChaos",
        "metadata": metadata(lease, target.namespace, object_name(lease)),
        "spec": {
            "mode": "all",
            "selector": {"namespaces": [target.namespace], "pods": {target.namespace: [target.pod]}},
            "stressors": stressors,
            "duration": f"{left_s(lease, now)}s",
        },
    }


def network_policy(lease: Lease, target: Target) -> Document:
    """Return a policy that selects the pod by its lease's mark and lets nothing through."""
    direction = word(lease.parameters, FaultKind.NETWORK_PARTITION, "direction")
    types = {"both": ["Ingress", "Egress"], "to": ["Ingress"], "from": ["Egress"]}[direction]
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": "NetworkPolicy",
        "metadata": metadata(lease, target.namespace, object_name(lease)),
        "spec": {"podSelector": {"matchLabels": {CUT_OFF: mark_of(lease.id)}}, "policyTypes": types},
    }


def allowances(
    policies: Iterable[Mapping[str, Any]], labels: Mapping[str, str], wanted: Iterable[str]
) -> tuple[str, ...]:
    """Return the policies that let something through to (or from) a pod with these labels, by name.

    Args:
        policies: of its namespace.
        labels: the pod's.
        wanted: `Ingress`, `Egress`, or both: what is to be cut off.
    """
    found = []
    for policy in policies:
        spec = policy.get("spec") or {}
        ways = [way for way in wanted if spec.get(way.lower())]
        if ways and not (policy["metadata"].get("labels") or {}).get(MARK) and selects(policy, labels):
            found.append(str(policy["metadata"]["name"]))
    return tuple(sorted(found))


def selects(policy: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a network policy selects a pod with these labels."""
    selector = policy.get("spec", {}).get("podSelector") or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    found, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return bool(found in values)
        case "NotIn":
            return bool(found not in values)
        case "Exists":
            return found is not None
        case _:
            return found is None


def burner_job(lease: Lease, target: Target, burner: BurnerSpec, now: datetime) -> Document:
    """Return a job that keeps the devices of the endpoint's node busy and ends at the deadline by itself.

    The burner holds itself to its ceilings and its time; `activeDeadlineSeconds` ends one that does not.
    """
    about, lasts = metadata(lease, target.namespace, object_name(lease)), left_s(lease, now)
    pod: Document = {
        "nodeName": target.node,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "containers": [_burner(lease, burner, lasts)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}],
    }
    if burner.runtime_class:
        pod["runtimeClassName"] = burner.runtime_class
    return {
        "apiVersion": JOBS.api_version,
        "kind": "Job",
        "metadata": about,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": lasts,
            "ttlSecondsAfterFinished": 60,
            "template": {
                "metadata": {"labels": dict(about["labels"]), "annotations": dict(about["annotations"])},
                "spec": pod,
            },
        },
    }


def _burner(lease: Lease, burner: BurnerSpec, lasts_s: int) -> Document:
    """Return the container that burns, with its parameters and ceilings, and no rights at all."""
    kind = FaultKind.GPU_SATURATION
    flags = {
        "for": f"{lasts_s}s",
        "duty": f"{number(lease.parameters, kind, 'duty'):g}",
        "memory-mib": f"{number(lease.parameters, kind, 'memory_mib'):g}",
        "threads": f"{number(lease.parameters, kind, 'threads'):.0f}",
        "device": word(lease.parameters, kind, "device"),
        "max-temperature": f"{number(lease.parameters, kind, 'max_temperature_c'):g}",
        "max-power": f"{number(lease.parameters, kind, 'max_power_ratio'):g}",
        "ready-file": BURNING,
    }
    limits: Document = {"cpu": burner.cpu, "memory": burner.memory}
    env = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the container's own empty directory
    if burner.gpus:
        limits[burner.gpu_resource] = str(burner.gpus)
    else:  # The endpoint's device is the endpoint's: it is seen, and not asked for.
        env.append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"})
    return {
        "name": "burner",
        "image": burner.image,
        "command": ["python", "-m", "controlplane", "chaos", "burn"],
        "args": [part for name, value in flags.items() for part in (f"--{name}", value)],
        "env": env,
        "resources": {"limits": limits, "requests": dict(limits)},
        "readinessProbe": {"exec": {"command": ["test", "-e", BURNING]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def eviction(target: Target) -> Document:
    """Return the eviction of a pod; of that very one. Without an API version it is understood by every server."""
    return {
        "kind": "Eviction",
        "metadata": {"name": target.pod, "namespace": target.namespace},
        "deleteOptions": {"preconditions": {"uid": target.uid}},
    }


def tolerates(pod: Mapping[str, Any], effect: str) -> bool:
    """Tell whether a pod stays on a node with our taint."""
    for one in pod.get("spec", {}).get("tolerations") or ():
        keyed = one.get("key") in (None, "", DOWN) if one.get("operator") == "Exists" else one.get("key") == DOWN
        if keyed and one.get("effect") in (None, "", effect) and one.get("tolerationSeconds") is None:
            return True
    return False


def down_for(node: Mapping[str, Any]) -> dict[str, Document]:
    """Return the leases that a node is down for, by mark."""
    try:
        found = json.loads(node["metadata"]["annotations"][DOWN])
        return {str(mark): dict(entry) for mark, entry in found.items()}
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}


def node_change(node: Mapping[str, Any], leases: Mapping[str, Document], effect: str) -> Document:
    """Return what to merge into a node so that it is down for these leases; for none, nothing of ours is left.

    Args:
        node: as it was read; a node that has changed meanwhile refuses the change.
        leases: by mark, each with its id and deadline.
        effect: of the taint.
    """
    taints = [one for one in node["spec"].get("taints") or () if one.get("key") != DOWN]
    if leases:
        taints.append({"key": DOWN, "value": "down", "effect": effect})
    return {
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "labels": {DOWN: "down" if leases else None},
            "annotations": {DOWN: json.dumps(leases, sort_keys=True) if leases else None},
        },
        "spec": {"taints": taints or None},
    }


def entry_of(lease: Lease, namespace: str) -> Document:
    """Return how a node remembers a lease."""
    return {"lease": lease.id, "deadline": spell_time(lease.deadline), "namespace": namespace}


def entry_is_over(entry: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a node should no longer be down for a lease."""
    return is_over({"metadata": {"annotations": {DEADLINE: entry.get("deadline")}}}, now)


def controller_of(pod: Mapping[str, Any]) -> str:
    """Return what brings a pod back, as `KIND/NAME` with the kind's plural; empty when nobody does."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return f"{str(owner.get('kind', '')).lower()}s/{owner.get('name', '')}"
    return ""


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod is ready, and is not being ended."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def all_injected(found: Mapping[str, Any]) -> bool:
    """Tell whether Chaos Mesh says that a fault is in force everywhere it should be."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    said = {str(one.get("type")): one.get("status") == "True" for one in conditions}
    return bool(said.get("Selected") and said.get("AllInjected"))


def budgets_in(details: Mapping[str, Any]) -> str:
    """Return what a refused eviction says of the disruption budget that forbids it."""
    return "; ".join(str(cause.get("message", "")) for cause in details.get("causes") or () if cause.get("message"))
