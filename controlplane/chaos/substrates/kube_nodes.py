"""Killing an endpoint's node, and evicting its pod: what takes pods away in a cluster."""

from contextlib import suppress

from controlplane.chaos.fault import Lease
from controlplane.chaos.substrates.knock import Door, door
from controlplane.chaos.substrates.kube_ground import Ground, seen_soon, told
from controlplane.chaos.substrates.kube_objects import (
    POD_CHAOS,
    Target,
    all_injected,
    budgets_in,
    controller_of,
    down_for,
    eviction,
    mark_of,
    object_name,
    pod_chaos,
    tolerates,
)
from controlplane.errors import FaultError
from controlplane.fleet.cluster import NODES, PODS, Document, RefusedError

_ENDED = ("Succeeded", "Failed")


class KubeNodes:
    """Takes nodes away: by Chaos Mesh, or with a taint and the deletion of the fleet's pods there."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def apply(self, lease: Lease) -> str:
        """Make every pod of the fleet on the endpoint's node fail, and let none come back there until the deadline.

        Raises:
            FaultError: when the target may not be broken or would not come back, or the API server refuses; nothing
                is left behind.
        """
        target = await self._take(lease)
        try:
            _refuse_unowned(target, "killed")
            spaces = await self._ground.opted_in()
            if await self._ground.chaos_mesh():
                await self._ground.put(POD_CHAOS, pod_chaos(lease, target, spaces, self._ground.now()))
                return f"PodChaos {object_name(lease)}: pods on {target.node} fail until {lease.deadline:%X}"
            return await self._kill(lease, target, spaces)
        except FaultError:
            with suppress(FaultError):
                await self._ground.let_go(mark_of(lease.id))
            raise

    async def _take(self, lease: Lease) -> Target:
        """Claim the endpoint's pod; one that another lease of this drill has just taken along with its node, too."""
        try:
            return await self._ground.take(lease)
        except FaultError:
            node = await self._ground.get(NODES, "", lease.endpoint.node) if lease.endpoint.node else None
            fallen = (e for e in down_for(node or {}).values() if str(e.get("lease", "")).startswith(lease.drill_id))
            with_it = next(fallen, None)
            if with_it is None or await self._ground.mine(lease):
                raise
            name, node_name = lease.endpoint.name, lease.endpoint.node
            taken = Target(str(with_it["namespace"]), name, "", node_name, "its controller", name, lease.kind.value)
            return await self._ground.claim(lease, taken)

    async def _kill(self, lease: Lease, target: Target, spaces: tuple[str, ...]) -> str:
        """Taint the node, and delete the fleet's pods there without grace.

        The taint keeps new pods away, and drives out who is there (`NoExecute`) only where that hits nobody else's.
        """
        effect = "NoSchedule"
        await self._ground.take_down(lease, target, effect)  # First: nobody is placed there while we look who is.
        if not await self._strangers(target, spaces):
            effect = "NoExecute"
            await self._ground.take_down(lease, target, effect)
        killed = []
        for namespace in spaces:
            for pod in await self._on_node(target.node, namespace):
                if _is_fleets(pod):
                    with told(f"cannot delete pod {namespace}/{pod['metadata']['name']}"):
                        await self._ground.cluster.delete(
                            PODS, namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"], grace_s=0
                        )
                    killed.append(pod["metadata"]["name"])
        names = ", ".join(sorted(killed)) or "no pod was left"
        return f"node {target.node} is tainted {effect} until {lease.deadline:%X}; deleted there: {names}"

    async def _strangers(self, target: Target, spaces: tuple[str, ...]) -> bool:
        """Tell whether somebody who did not opt in would be driven out; who may not look assumes so."""
        try:
            pods = await self._on_node(target.node, "")
        except FaultError:
            return True
        ours = [pod["metadata"]["namespace"] in spaces and _is_fleets(pod) for pod in pods]
        stays = [tolerates(pod, "NoExecute") or (pod.get("status") or {}).get("phase") in _ENDED for pod in pods]
        return not all(a or b for a, b in zip(ours, stays, strict=True))

    async def _on_node(self, node: str, namespace: str) -> list[Document]:
        with told(f"cannot list the pods on node {node}"):
            return await self._ground.cluster.every(PODS, namespace, fields=f"spec.nodeName={node}")

    async def prove(self, lease: Lease) -> str:
        """Show that the endpoint's pod is gone (or has failed), and that nobody answers at its address."""
        target = await self._ground.mine(lease)
        if target is None:
            return ""

        async def look() -> str:
            seen = await self._seen(lease, target)
            shut = seen and await door(lease.endpoint.url) is not Door.OPEN
            return f"{seen}, and {lease.endpoint.url} takes no connections" if shut else ""

        return await seen_soon(look)

    async def _seen(self, lease: Lease, target: Target) -> str:
        node = await self._ground.get(NODES, "", target.node)
        if node is None or mark_of(lease.id) in down_for(node):
            return f"{target.called} is gone from {target.node}" if await self._ground.is_gone(target) else ""
        if not await self._ground.chaos_mesh():
            return ""
        chaos = await self._ground.get(POD_CHAOS, target.namespace, object_name(lease))
        return f"Chaos Mesh has made the pods on {target.node} fail" if chaos and all_injected(chaos) else ""

    async def revert(self, lease: Lease) -> str:
        """Let pods run on the node again; what was deleted comes back by its owner."""
        await self._ground.let_go(mark_of(lease.id))
        return f"the node of {lease.endpoint.name} takes pods"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: what we made, or a workload whose pods are not all back."""
        left = await self._ground.left(mark_of(lease.id))
        return f"still there: {', '.join(left)}" if left else await self._ground.waits_for(lease)


class KubeEvictions:
    """Asks pods to leave, as a drain does."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def apply(self, lease: Lease) -> str:
        """Evict the endpoint's pod, once.

        Raises:
            FaultError: when a disruption budget forbids it, by its name; or as for a killed node.
        """
        target = await self._ground.take(lease)
        try:
            _refuse_unowned(target, "evicted")
            if not await self._ground.is_gone(target):
                await self._evict(target)
        except FaultError:
            with suppress(FaultError):
                await self._ground.let_go(mark_of(lease.id))
            raise
        return f"{target.called} is evicted from {target.node}"

    async def _evict(self, target: Target) -> None:
        with told(f"cannot evict {target.called}"):
            try:
                await self._ground.cluster.create(
                    PODS, target.namespace, eviction(target), name=target.pod, part="eviction"
                )
            except RefusedError as refused:
                if refused.status == 429:
                    raise FaultError(
                        f"a disruption budget forbids to evict {target.called}",
                        budgets_in(refused.details) or refused.message,
                        "wait until more of its pods are ready, or let the budget allow one more disruption",
                    ) from refused
                if refused.status not in (404, 409):  # Gone, or another pod of that name by now.
                    raise

    async def prove(self, lease: Lease) -> str:
        """Show that the very pod is gone, or is being ended."""
        target = await self._ground.mine(lease)
        if target is None or not await self._ground.is_gone(target):
            return ""
        return f"{target.called} with uid {target.uid} is gone from {target.node}"

    async def revert(self, lease: Lease) -> str:
        """Forget the eviction; its owner brings the pod back."""
        await self._ground.let_go(mark_of(lease.id))
        return f"no eviction of {lease.endpoint.name} is on record"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: our record, or a workload whose pods are not all back."""
        left = await self._ground.left(mark_of(lease.id))
        return f"still there: {', '.join(left)}" if left else await self._ground.waits_for(lease)


def _refuse_unowned(target: Target, done: str) -> None:
    """Refuse to take away what would not come back."""
    if not target.owner:
        raise FaultError(
            f"{target.called} is not {done}", "nobody would bring it back: no controller owns it",
            "run the fleet as a Deployment or a StatefulSet",
        )  # fmt: skip


def _is_fleets(pod: Document) -> bool:
    """Tell whether a node's death takes a pod along and its owner makes another one elsewhere."""
    return (
        controller_of(pod).partition("/")[0] not in ("", "daemonsets", "nodes")
        and not pod["metadata"].get("deletionTimestamp")
        and (pod.get("status") or {}).get("phase") not in _ENDED
    )
