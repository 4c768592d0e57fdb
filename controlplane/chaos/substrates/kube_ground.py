"""What every fault in a cluster stands on: its target, its claim, and the way back, which is the same for all of them.

Everything of a lease carries its mark, so that ending a fault is removing what is marked, whatever kind it was and
whoever made it: the driver after its drill, `controlplane heal`, and the reaper when a deadline has come.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from urllib.parse import urlsplit

from controlplane.chaos.fault import Lease
from controlplane.chaos.substrates.kube_objects import (
    BUILT_IN,
    CHAOS_MESH,
    CLAIMS,
    CUT_OFF,
    DOWN,
    MANAGED_BY,
    MANAGER,
    MARK,
    OURS,
    POD_CHAOS,
    Target,
    claim,
    claim_name,
    controller_of,
    down_for,
    entry_of,
    is_ready,
    lease_in,
    mark_of,
    node_change,
    target_in,
)
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.errors import FaultError
from controlplane.fleet.cluster import NAMESPACES, NODES, PODS, Cluster, Document, Kind, RefusedError, anew
from controlplane.fleet.model import KubernetesSubstrateSpec

SEEN_WITHIN_S = 5.0
"""How long a fault in a cluster may take to be seen from outside."""
LOOK_AGAIN_S = 0.1
KNOWN_FOR_S = 60.0
"""How long it is remembered whether the cluster has Chaos Mesh."""
OWNERS = (Kind("apps", "v1", "replicasets"), Kind("apps", "v1", "statefulsets"))
"""What brings an endpoint's pod back."""


class Ground:
    """One cluster's namespaces in which faults are allowed."""

    def __init__(self, cluster: Cluster, spec: KubernetesSubstrateSpec, now: Callable[[], datetime]) -> None:
        """Take the ground.

        Args:
            cluster: raises `FaultError` when it cannot be asked.
            spec: where the fleet is, and what is allowed there.
            now: aware UTC.
        """
        self.cluster = cluster
        self.spec = spec
        self.now = now
        self._mesh: tuple[float, bool] | None = None

    async def chaos_mesh(self) -> bool:
        """Tell whether faults are given to Chaos Mesh."""
        if not self.spec.chaos_mesh:
            return False
        if self._mesh is None or monotonic() > self._mesh[0]:
            with told("cannot find out whether the cluster has Chaos Mesh"):
                self._mesh = (monotonic() + KNOWN_FOR_S, await self.cluster.serves(POD_CHAOS))
        return self._mesh[1]

    async def take(self, lease: Lease) -> Target:
        """Find what a lease is done to, and claim it; a claim of this very lease is found again.

        Raises:
            FaultError: when there is no such pod, its namespace has not opted in, nobody would bring it back, or
                another lease does the same to it.
        """
        found = await self._claim(lease)
        return await self.claim(lease, await self._find(lease)) if found is None else _held(lease, found)

    async def claim(self, lease: Lease, target: Target) -> Target:
        """Claim a target for a lease.

        Raises:
            FaultError: when another lease has it, or the API server refuses.
        """
        with told(f"cannot claim {target.called}"):
            try:
                await self.cluster.create(CLAIMS, target.namespace, claim(lease, target, self.now()))
            except RefusedError as refused:
                if refused.status != 409:
                    raise
                return _held(lease, await self._claim(lease))
        return target

    async def mine(self, lease: Lease) -> Target | None:
        """Return what a lease holds; None when it holds nothing."""
        found = await self._claim(lease)
        return target_in(found) if found and lease_in(found) == lease.id else None

    async def _claim(self, lease: Lease) -> Document | None:
        for namespace in self.spec.namespaces:
            found = await self.get(CLAIMS, namespace, claim_name(lease))
            if found:
                return found
        return None

    async def _find(self, lease: Lease) -> Target:
        """Find the pod of an endpoint by its name, else by its address."""
        host = urlsplit(lease.endpoint.url).hostname or ""
        for namespace in self.spec.namespaces:
            pod = await self.get(PODS, namespace, lease.endpoint.name)
            if pod is None and host:
                with told(f"cannot look for the pod of {lease.endpoint.name}"):
                    at = await self.cluster.every(PODS, namespace, fields=f"status.podIP={host}")
                pod = at[0] if len(at) == 1 else None
            if pod and not pod["metadata"].get("deletionTimestamp"):
                await self._check_opted_in(namespace)
                return _target(namespace, pod, lease)
        raise FaultError(
            f"no pod of {lease.endpoint.name}", f"none is called so, or is at {host or 'its address'}, in "
            f"{', '.join(self.spec.namespaces)}", "name its namespace under `fleet.substrate.kubernetes.namespaces`",
        )  # fmt: skip

    async def opted_in(self) -> tuple[str, ...]:
        """Return the namespaces in which something may be broken."""
        allowed = await asyncio.gather(*(self._is_opted_in(namespace) for namespace in self.spec.namespaces))
        return tuple(name for name, yes in zip(self.spec.namespaces, allowed, strict=True) if yes)

    async def _is_opted_in(self, namespace: str) -> bool:
        key, _, value = self.spec.opted_in.partition("=")
        found = await self.get(NAMESPACES, "", namespace)
        return bool(found) and ((found or {})["metadata"].get("labels") or {}).get(key) == value

    async def _check_opted_in(self, namespace: str) -> None:
        if not await self._is_opted_in(namespace):
            raise FaultError(
                f"nothing may be broken in namespace {namespace}", f"it does not carry the label {self.spec.opted_in}",
                f"let its owner opt in: kubectl label namespace {namespace} {self.spec.opted_in}",
            )  # fmt: skip

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object; None when it is not there."""
        with told(f"cannot read {name}"):
            try:
                return await self.cluster.read(kind, namespace, name)
            except RefusedError as refused:
                if refused.status == 404:
                    return None
                raise

    async def put(self, kind: Kind, body: Document) -> None:
        """Create an object of a lease; one that is there already is the lease's own."""
        with told(f"cannot create {body['kind']} {body['metadata']['name']}"):
            try:
                await self.cluster.create(kind, body["metadata"]["namespace"], body)
            except RefusedError as refused:
                if refused.status != 409:
                    raise

    async def is_gone(self, target: Target) -> bool:
        """Tell whether that very pod is gone, or is being ended."""
        pod = await self.get(PODS, target.namespace, target.pod)
        return pod is None or pod["metadata"]["uid"] != target.uid or bool(pod["metadata"].get("deletionTimestamp"))

    async def take_down(self, lease: Lease, target: Target, effect: str) -> None:
        """Write on a node that it is down for a lease, with a taint that keeps pods away."""

        def change(node: Document) -> Document:
            entries = down_for(node) | {mark_of(lease.id): entry_of(lease, target.namespace)}
            return node_change(node, entries, effect)

        await self._change_node(target.node, change)

    async def _change_node(self, name: str, change: Callable[[Document], Document | None]) -> bool:
        """Change a node by what is read of it; False where there is nothing to change."""

        async def once() -> bool:
            changed = change(await self.cluster.read(NODES, "", name))
            if changed is not None:
                await self.cluster.merge(NODES, "", name, changed)
            return changed is not None

        with told(f"cannot change node {name}"):
            try:
                return await anew(once)
            except RefusedError as refused:
                if refused.status != 404:
                    raise
                return False  # With the node everything of ours on it is gone.

    async def let_go(self, mark: str) -> tuple[str, ...]:
        """Remove everything of a lease; its claim last, so that whoever finds half of it knows what it is.

        Returns:
            What was removed, as `KIND NAME`.

        Raises:
            FaultError: when something cannot be removed.
        """
        made = [(k, o) for k, o in await self.marked(mark) if not o["metadata"].get("deletionTimestamp")]
        done = [f"{kind.plural} {found['metadata']['name']}" for kind, found in made]
        await asyncio.gather(*(self._remove(kind, found) for kind, found in made if kind is not CLAIMS))
        for pod in await self._all(PODS, f"{CUT_OFF}={mark}"):
            await self._join_again(pod)
            done.append(f"label of pod {pod['metadata']['name']}")
        for node in await self._nodes():
            if mark in down_for(node):
                await self._bring_up(node["metadata"]["name"], mark)
                done.append(f"taint of node {node['metadata']['name']}")
        await asyncio.gather(*(self._remove(kind, found) for kind, found in made if kind is CLAIMS))
        return tuple(done)

    async def left(self, mark: str) -> tuple[str, ...]:
        """Return what is there of a lease, as `KIND NAME`."""
        made, pods, nodes = await asyncio.gather(self.marked(mark), self._all(PODS, f"{CUT_OFF}={mark}"), self._nodes())
        return (
            *(f"{kind.plural} {found['metadata']['name']}" for kind, found in made),
            *(f"label of pod {pod['metadata']['name']}" for pod in pods),
            *(f"taint of node {node['metadata']['name']}" for node in nodes if mark in down_for(node)),
        )

    async def marked(self, mark: str = "") -> list[tuple[Kind, Document]]:
        """Return what faults have made in the namespaces: a lease's, or everybody's."""
        selector = f"{MANAGED_BY}={MANAGER},{MARK}={mark}" if mark else OURS
        kinds = (*BUILT_IN, PODS, *(CHAOS_MESH if await self.chaos_mesh() else ()), CLAIMS)
        found = await asyncio.gather(*(self._all(kind, selector) for kind in kinds))
        return [(kind, one) for kind, ones in zip(kinds, found, strict=True) for one in ones]

    async def cut_off(self) -> list[Document]:
        """Return the pods that a network policy of ours is to select."""
        return await self._all(PODS, CUT_OFF)

    async def down(self) -> list[Document]:
        """Return the nodes that are down for somebody."""
        return await self._nodes()

    async def _all(self, kind: Kind, selector: str) -> list[Document]:
        with told(f"cannot look for {kind.plural} of faults"):
            found = await asyncio.gather(
                *(self.cluster.every(kind, namespace, labels=selector) for namespace in self.spec.namespaces)
            )
        return [one for ones in found for one in ones]

    async def _nodes(self) -> list[Document]:
        with told("cannot look for nodes of faults"):
            return await self.cluster.every(NODES, labels=DOWN)

    async def _remove(self, kind: Kind, found: Document) -> None:
        about = found["metadata"]
        with told(f"cannot remove {kind.plural} {about['namespace']}/{about['name']}"):
            await self.cluster.delete(kind, about["namespace"], about["name"], uid=about["uid"])

    async def join_off(self, target: Target, mark: str) -> None:
        """Give a pod the label that the network policy of a lease selects.

        Raises:
            FaultError: when that very pod is gone.
        """
        body = {"metadata": {"uid": target.uid, "labels": {CUT_OFF: mark}}}
        with told(f"cannot label {target.called}"):
            await self.cluster.merge(PODS, target.namespace, target.pod, body)

    async def _join_again(self, pod: Mapping[str, Document]) -> None:
        about = pod["metadata"]
        with told(f"cannot take the label off pod {about['namespace']}/{about['name']}"):
            try:
                body = {"metadata": {"uid": about["uid"], "labels": {CUT_OFF: None}}}
                await self.cluster.merge(PODS, about["namespace"], about["name"], body)
            except RefusedError as refused:
                if refused.status not in (404, 409):
                    raise

    async def _bring_up(self, name: str, mark: str) -> None:
        def change(node: Document) -> Document:
            entries = {other: entry for other, entry in down_for(node).items() if other != mark}
            effects = [one["effect"] for one in node["spec"].get("taints") or () if one.get("key") == DOWN]
            return node_change(node, entries, effects[0] if effects else "NoSchedule")

        await self._change_node(name, change)

    async def sweep_node(self, name: str) -> bool:
        """Take everything of ours off a node that is down for nobody; False where it is down for somebody by now."""
        return await self._change_node(name, lambda node: None if down_for(node) else node_change(node, {}, ""))

    async def waits_for(self, lease: Lease) -> str:
        """Return what has not come back of the workload that an endpoint's pod belongs to; empty when all has.

        A pod that was deleted comes back under another name. Its workload's name is the first part of its own.
        """
        name = lease.endpoint.name.rpartition("-")[0]
        for kind in OWNERS if name else ():
            for namespace in self.spec.namespaces:
                found = await self.get(kind, namespace, name)
                if found is None:
                    continue
                wanted = int(found["spec"].get("replicas", 1))
                ready = sum(is_ready(pod) for pod in await self._pods_of(kind, found))
                if ready < wanted:
                    return f"{kind.plural} {namespace}/{name} has {ready} of {wanted} pods ready"
        return ""

    async def _pods_of(self, kind: Kind, owner: Document) -> list[Document]:
        """Return the pods of a workload; its own count of those that are ready lags behind them."""
        about = owner["metadata"]
        chosen = owner["spec"]["selector"].get("matchLabels") or {}
        labels = ",".join(f"{key}={value}" for key, value in chosen.items())
        with told(f"cannot list the pods of {kind.plural} {about['namespace']}/{about['name']}"):
            pods = await self.cluster.every(PODS, about["namespace"], labels=labels)
        return [pod for pod in pods if controller_of(pod) == f"{kind.plural}/{about['name']}"]


def _held(lease: Lease, found: Document | None) -> Target:
    """Return what a claim says that a lease holds; refuse where it is another's."""
    held = target_in(found) if found and lease_in(found) == lease.id else None
    if held:
        return held
    raise FaultError(
        f"{lease.endpoint.name} is broken that way already",
        f"by lease {(lease_in(found) if found else '') or 'unknown'}", "heal that first",
    )  # fmt: skip


def _target(namespace: str, pod: Document, lease: Lease) -> Target:
    about, node = pod["metadata"], pod["spec"].get("nodeName", "")
    if not node:
        raise FaultError(f"pod {namespace}/{about['name']} is on no node", "it is not scheduled", "wait until it is")
    return Target(
        namespace, about["name"], about["uid"], node, controller_of(pod), lease.endpoint.name, lease.kind.value
    )


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say of a refusal what it kept us from, what this account may not do, and the way out."""
    try:
        yield
    except RefusedError as refused:
        fix = "see the API server's answer"
        if refused.denied:
            fix = f"let a role of this process's account {refused.asked}"
        raise FaultError(what, refused.why, fix) from refused


async def seen_soon(look: Callable[[], Awaitable[str]]) -> str:
    """Look until there is something to say of a fault; empty when nothing was seen in time."""
    return await seen_in_time(look, SEEN_WITHIN_S, LOOK_AGAIN_S)
