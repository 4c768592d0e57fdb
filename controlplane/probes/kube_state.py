"""What Kubernetes says of pods, nodes and events, boiled down to what counts for engines; pure.

Each thing is said once, when it begins: a line such as `OOMKilled vllm-0`, which `incidents/cause` reads.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint
from controlplane.fleet.pods import gpus_in
from controlplane.probes.probe import Page

Document = Mapping[str, Any]

_TOLD = frozenset(
    {
        "FailedScheduling", "NodeNotReady", "NodeLost", "Rebooted", "SystemOOM", "OOMKilling", "Evicted", "BackOff",
        "TaintManagerEviction", "DeletingNode", "FailedMount", "FailedCreatePodSandBox", "Unhealthy", "Preempted",
        "FailedCreate", "FailedPreStopHook",
    }
)  # fmt: skip
"""Reasons of events that are worth a line."""
_STUCK = frozenset(
    {
        "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError",
    }
)  # fmt: skip
"""Why a container waits that will not start by waiting."""
_LOST = ("UnexpectedAdmissionError", "OutOf", "Evicted", "NodeLost", "NodeShutdown", "Preempting", "Terminated")
"""How the reason of a pod begins that its node gave up. The first two show a device plugin that lost its GPU."""
DISRUPTED = "DisruptionTarget"
GPUS_MISSING = "GPUsMissing"
OLD_AFTER = timedelta(minutes=10)
"""Kubernetes lists events of the past hour; so old, one explains nothing of what happens now (`incidents/clues`)."""
_MOST = 200
"""Characters of a message that are kept."""


@dataclass(slots=True)
class PodState:
    """What counts of one pod."""

    ip: str = ""
    node: str = ""
    restarts: float = 0.0
    oom_killed: float = 0.0
    unschedulable: bool = False
    waits: bool = False
    """It is there to take requests, and does not: it starts, fails its readiness check, or finds no node."""
    troubles: frozenset[str] = frozenset()
    """What was said of it and still holds."""


@dataclass(slots=True)
class NodeState:
    """What counts of one node."""

    ready: bool = True
    troubles: frozenset[str] = frozenset()


@dataclass(slots=True)
class ClusterState:
    """What Kubernetes said so far."""

    pods: dict[str, PodState] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    nodes_known: bool = True
    """False where this account may not see nodes."""
    told: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=100))
    """(number, what was said), oldest first."""
    count: int = 0
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=500))
    """Events that were taken in, so that a new list does not tell them again."""

    def say(self, text: str) -> None:
        """Keep something that was said."""
        self.count += 1
        self.told.append((self.count, text))

    def _say_new(self, now: frozenset[str], before: frozenset[str]) -> None:
        for text in sorted(now - before):
            self.say(text)

    def pod(self, found: Document) -> None:
        """Take a pod in."""
        name, before = name_of(found), self.pods.get(name_of(found))
        status, spec = found.get("status") or {}, found.get("spec") or {}
        pod = PodState(str(status.get("podIP") or ""), str(spec.get("nodeName") or ""))
        containers = status.get("containerStatuses") or ()
        pod.restarts = sum(float(container.get("restartCount") or 0) for container in containers)
        pod.oom_killed = before.oom_killed if before else 0.0
        if before and pod.restarts > before.restarts:
            how = [_ended(container) for container in containers]
            if any(reason == "OOMKilled" for reason, _ in how):
                pod.oom_killed += 1
                self.say(f"OOMKilled {name}")
            elif ended := next((f"{reason}, exit code {code}" for reason, code in how if reason), ""):
                self.say(f"Restarted {name}: {ended}")
        pod.unschedulable = any(
            c.get("type") == "PodScheduled" and c.get("reason") == "Unschedulable"
            for c in status.get("conditions") or ()
        )
        pod.waits = not _is_ready(status) and not _has_ended(found)
        pod.troubles = frozenset(_troubles(name, status))
        self._say_new(pod.troubles, before.troubles if before else frozenset())
        self.pods[name] = pod

    def node(self, found: Document) -> None:
        """Take a node in."""
        name, before = name_of(found), self.nodes.get(name_of(found))
        status = found.get("status") or {}
        conditions = status.get("conditions") or ()
        ready = _is_ready(status)
        if before and before.ready and not ready:
            self.say(f"NodeNotReady {name}")
        # Besides `Ready`, a condition that holds is bad news: pressure, or what a GPU's health monitor found.
        troubles = {
            f"NodeCondition {name}: {c.get('type')} ({str(c.get('message') or c.get('reason') or '')[:_MOST]})"
            for c in conditions
            if c.get("type") != "Ready" and c.get("status") == "True"
        }
        have, usable = (gpus_in(status.get(key) or {}) for key in ("capacity", "allocatable"))
        if usable < have:
            troubles.add(f"{GPUS_MISSING} {name}: {usable} of {have} can be given to pods")
        self._say_new(frozenset(troubles), before.troubles if before else frozenset())
        self.nodes[name] = NodeState(ready, frozenset(troubles))

    def event(self, found: Document, now: datetime) -> None:
        """Take an event in; each counts once for each time it happened, and an old one is no news.

        Args:
            found: the event.
            now: aware UTC time; an event that does not say when it happened happened now.

        Raises:
            ValueError: when its time is none.
        """
        reason, about = str(found.get("reason") or ""), (found.get("involvedObject") or {}).get("name", "")
        identity = f"{name_of(found)} {found.get('count') or (found.get('series') or {}).get('count') or 1}"
        if reason not in _TOLD or identity in self._seen:
            return
        happened = _happened(found)
        if happened is not None and now - happened > OLD_AFTER:
            return
        self._seen.append(identity)
        self.say(f"{reason} {about}: {str(found.get('message') or '')[:_MOST]}")

    def page(self, endpoint: Endpoint, notes: tuple[str, ...]) -> Page:
        """Return what is known about one endpoint: of its pod, by name or address, and of the cluster."""
        host, name = urlsplit(endpoint.url).hostname, endpoint.pod.rpartition("/")[2] or endpoint.name
        pod = self.pods.get(name) or next((p for p in self.pods.values() if p.ip and p.ip == host), None)
        counters = {"pod_restarts": pod.restarts, "pods_oom_killed": pod.oom_killed} if pod else {}
        gauges = {
            "pods_unschedulable": float(sum(pod.unschedulable for pod in self.pods.values())),
            "pods_not_ready": float(sum(pod.waits for pod in self.pods.values())),
        }
        if self.nodes_known:
            gauges["nodes_not_ready"] = float(sum(not node.ready for node in self.nodes.values()))
        return Page(counters, gauges, notes=notes)


def name_of(found: Document) -> str:
    """Return an object's name; empty when it has none."""
    return str((found.get("metadata") or {}).get("name") or "")


def _happened(event: Document) -> datetime | None:
    """Return when an event happened last; None where it does not say."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return datetime.fromisoformat(text) if text else None


def _is_ready(status: Mapping[str, Any]) -> bool:
    """Tell whether a pod or a node says of itself that it is ready."""
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())


def _has_ended(pod: Document) -> bool:
    """Tell whether a pod has ended for good, or was asked to: nobody waits for it."""
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return ended or bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def _troubles(name: str, status: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong with a pod now, each as a line."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            yield f"{waiting['reason']} {name}"
    reason = str(status.get("reason") or "")
    if reason.startswith(_LOST):
        yield f"{reason} {name}: {str(status.get('message') or '')[:_MOST]}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == DISRUPTED and condition.get("status") == "True":
            yield f"{DISRUPTED} {name}: {condition.get('reason')}"


def _ended(container: Mapping[str, Any]) -> tuple[str, int]:
    """Return how a container ended last: the reason and the exit code; an empty reason where it never did."""
    ended = (container.get("lastState") or {}).get("terminated") or {}
    return str(ended.get("reason") or ""), int(ended.get("exitCode") or 0)
