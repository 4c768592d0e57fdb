"""Following Kubernetes: restarts, OOMKilled, pods without a place, nodes that are not ready.

List, then watch from the list's resource version, as the API wants it; a watch that ends is begun again where it was,
and one that is told `410 Gone` lists anew. What is known is kept while the API server cannot be reached, and a look
says so.
"""

import asyncio
import json
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import EventsSpec, Failure, Look, Page

LIST_TIMEOUT_S = 10.0
WATCH_S = 300.0
"""How long one watch may last; the server ends it, and it is begun again where it was."""
RETRY_S = 1.0
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A watch event is one line; an object in etcd is at most 1.5 MiB."""
STALE_AFTER_S = 15.0
"""So long without a word from the API server, what is known counts as unknown."""

_TOLD = frozenset(
    {
        "FailedScheduling", "NodeNotReady", "NodeLost", "Rebooted", "SystemOOM", "OOMKilling", "Evicted", "BackOff",
        "TaintManagerEviction", "DeletingNode", "FailedMount", "FailedCreatePodSandBox", "Unhealthy", "Preempted",
    }
)  # fmt: skip
"""Reasons of events that are worth a line."""


_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What a broken connection and an answer of another shape raise: said in the next look, tried again."""


class GoneError(Exception):
    """The API server no longer knows the resource version: list anew."""


@dataclass(slots=True)
class _Pod:
    """What counts of one pod."""

    ip: str = ""
    node: str = ""
    restarts: float = 0.0
    oom_killed: float = 0.0
    unschedulable: bool = False


@dataclass(slots=True)
class Cluster:
    """What Kubernetes said so far."""

    pods: dict[str, _Pod] = field(default_factory=dict)
    nodes: dict[str, bool] = field(default_factory=dict)
    """By name: whether it is ready."""
    told: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=100))
    """(number, what was said), oldest first."""
    count: int = 0
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=500))
    """Events that were taken in, so that a new list does not tell them again."""

    def say(self, text: str) -> None:
        """Keep something that was said."""
        self.count += 1
        self.told.append((self.count, text))

    def pod(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take a pod in."""
        name = _name(found)
        if kind == "DELETED":
            self.pods.pop(name, None)
            return
        status, spec = found.get("status") or {}, found.get("spec") or {}
        before = self.pods.get(name)
        pod = _Pod(str(status.get("podIP") or ""), str(spec.get("nodeName") or ""))
        pod.oom_killed = before.oom_killed if before else 0.0
        for container in status.get("containerStatuses") or ():
            pod.restarts += float(container.get("restartCount") or 0)
            ended = (container.get("lastState") or {}).get("terminated") or {}
            waiting = (container.get("state") or {}).get("waiting") or {}
            if before and pod.restarts > before.restarts and ended.get("reason") == "OOMKilled":
                pod.oom_killed += 1
                self.say(f"OOMKilled {name}")
            if waiting.get("reason") in ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull"):
                self.say(f"{waiting['reason']} {name}")
        conditions = status.get("conditions") or ()
        pod.unschedulable = any(
            c.get("type") == "PodScheduled" and c.get("reason") == "Unschedulable" for c in conditions
        )
        self.pods[name] = pod

    def node(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take a node in."""
        name = _name(found)
        if kind == "DELETED":
            self.nodes.pop(name, None)
            return
        conditions = (found.get("status") or {}).get("conditions") or ()
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        if self.nodes.get(name) is True and not ready:
            self.say(f"NodeNotReady {name}")
        self.nodes[name] = ready

    def event(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take an event in; each counts once for each time it happened."""
        reason, about = str(found.get("reason") or ""), (found.get("involvedObject") or {}).get("name", "")
        identity = f"{_name(found)} {found.get('count') or (found.get('series') or {}).get('count') or 1}"
        if kind == "DELETED" or reason not in _TOLD or identity in self._seen:
            return
        self._seen.append(identity)
        self.say(f"{reason} {about}: {str(found.get('message') or '')[:200]}")

    def page(self, endpoint: Endpoint, notes: tuple[str, ...]) -> Page:
        """Return what is known about one endpoint: of its pod, by name or address, and of the cluster."""
        host = urlsplit(endpoint.url).hostname
        pod = self.pods.get(endpoint.name) or next((p for p in self.pods.values() if p.ip and p.ip == host), None)
        counters = {"pod_restarts": pod.restarts, "pods_oom_killed": pod.oom_killed} if pod else {}
        gauges = {
            "pods_unschedulable": float(sum(pod.unschedulable for pod in self.pods.values())),
            "nodes_not_ready": float(sum(not ready for ready in self.nodes.values())),
        }
        return Page(counters, gauges, notes=notes)


def _name(found: Mapping[str, Any]) -> str:
    return str((found.get("metadata") or {}).get("name") or "")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of object that is followed."""

    path: str
    query: Mapping[str, str]
    take: Callable[[str, Mapping[str, Any]], None]
    clear: Callable[[], None]
    """Forgets what a new list would not mention."""


class EventsProbe:
    """What Kubernetes says of the endpoints; `follow` has to run beside it."""

    name = "events"

    def __init__(self, session: aiohttp.ClientSession, spec: EventsSpec) -> None:
        """Take what is followed.

        Args:
            session: the HTTP connections to use.
            spec: the API server, the namespace and the pods.
        """
        self.every = spec.every
        self._session = session
        self._spec = spec
        self.cluster = Cluster()
        self._heard: dict[str, float] = {}
        self._trouble = "nothing has been heard from the API server yet"
        self._told: dict[str, int] = {}

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once: at what was heard; asks nothing."""
        now = monotonic()
        heard = min((self._heard.get(kind.path, float("-inf")) for kind in self._kinds()), default=now)
        if now - heard > STALE_AFTER_S:
            return Look(endpoint, self.name, now, 0.0, Failure.NETWORK, self._trouble)
        since = self._told.get(endpoint.pool, 0)
        self._told[endpoint.pool] = self.cluster.count
        notes = tuple(text for number, text in self.cluster.told if number > since)
        return Look(endpoint, self.name, now, 0.0, page=self.cluster.page(endpoint, notes))

    def _kinds(self) -> tuple[_Kind, ...]:
        here = f"/api/v1/namespaces/{quote(self._spec.namespace, safe='')}"
        chosen = {"labelSelector": self._spec.selector} if self._spec.selector else {}
        cluster = self.cluster
        return (
            _Kind(f"{here}/pods", chosen, cluster.pod, cluster.pods.clear),
            _Kind(f"{here}/events", {}, cluster.event, lambda: None),
            _Kind("/api/v1/nodes", {}, cluster.node, cluster.nodes.clear),
        )

    async def follow(self) -> None:
        """Follow everything; ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in self._kinds():
                group.create_task(self._follow(kind))

    async def _follow(self, kind: _Kind) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list(kind)
                version = await self._watch(kind, version)
            except GoneError:
                version = ""
            except _TROUBLE as error:
                self._trouble = f"{self._spec.api}{kind.path}: {type(error).__name__}: {str(error)[:160]}"
                await asyncio.sleep(RETRY_S * (0.5 + random.random()))  # noqa: S311 - spreads retries, hides nothing

    async def _list(self, kind: _Kind) -> str:
        """Take everything in that there is, and return the version from which to watch."""
        limit = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)
        async with self._get(kind, {}, limit) as response:
            response.raise_for_status()
            found = json.loads(await response.read())
        kind.clear()
        for item in found.get("items") or ():
            kind.take("ADDED", item)
        self._heard[kind.path] = monotonic()
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, kind: _Kind, version: str) -> str:
        """Take in what happens after a version; returns the newest version when the server ends the watch.

        Raises:
            GoneError: when the server does not know the version any more.
        """
        asked = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": f"{WATCH_S:.0f}",
        }  # fmt: skip
        limit = aiohttp.ClientTimeout(total=WATCH_S + 30.0, sock_connect=LIST_TIMEOUT_S)
        async with self._get(kind, asked, limit) as response:
            if response.status == 410:
                raise GoneError
            response.raise_for_status()
            self._heard[kind.path] = float("inf")  # As long as the watch stands, silence is good news.
            try:
                async for line in _lines(response.content):
                    version = _taken(kind, json.loads(line)) or version
            finally:
                self._heard[kind.path] = monotonic()
        return version

    def _get(self, kind: _Kind, query: Mapping[str, str], limit: aiohttp.ClientTimeout) -> Any:
        url = f"{self._spec.api.rstrip('/')}{kind.path}?{urlencode({**kind.query, **query})}"
        return self._session.get(url, headers=self._headers(), ssl=self._tls(), timeout=limit, allow_redirects=False)

    def _headers(self) -> dict[str, str]:
        """Read the token each time: Kubernetes renews it in its file."""
        path = Path(self._spec.token_file)
        return {"authorization": f"Bearer {path.read_text(encoding='utf-8').strip()}"} if path.is_file() else {}

    def _tls(self) -> ssl.SSLContext | bool:
        path = Path(self._spec.ca_file)
        return ssl.create_default_context(cafile=str(path)) if path.is_file() else True


async def _lines(content: aiohttp.StreamReader) -> Any:
    """Give the lines of a stream, each bounded."""
    rest = b""
    async for block in content.iter_any():
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("a watch event has no end")


def _taken(kind: _Kind, event: Mapping[str, Any]) -> str:
    """Take one watch event in and return its version.

    Raises:
        GoneError: when the server says so in the stream.
        ValueError: on any other error that it reports.
    """
    what, found = str(event["type"]), event["object"]
    if what == "ERROR":
        if found.get("code") == 410:
            raise GoneError
        raise ValueError(f"the API server says: {found.get('message')}")
    if what != "BOOKMARK":
        kind.take(what, found)
    return str((found.get("metadata") or {}).get("resourceVersion") or "")
