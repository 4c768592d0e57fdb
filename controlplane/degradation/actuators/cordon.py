"""Cordoning a node of a cluster: unschedulable, or with a taint; and giving it back."""

from collections.abc import Mapping

from controlplane.degradation.action import CordonNode, Errand
from controlplane.degradation.actuator import Preflight
from controlplane.degradation.actuators.cluster import Cluster, Document, RefusedError, anew
from controlplane.degradation.actuators.kubernetes import refused_error
from controlplane.degradation.errand import taint_of, wrong_with_cordon
from controlplane.errors import ActuatorError
from controlplane.fleet.cluster import NODES


class CordonHand:
    """Keeps pods away from nodes.

    The mark `unschedulable` is a field of ours, applied server-side: giving it back is owning it no more, so that a
    node that somebody else has cordoned, too, stays so. Taints are one list without owners: ours is put in and taken
    out of what is read, and a list that changed meanwhile is read anew.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def preflight(self, errand: Errand) -> Preflight:
        """Try the change without keeping it, and remember whether it is so already."""
        try:
            cordon = _cordon(errand)
            before = _is_so(await self._read(cordon), cordon)
            await self._set(cordon, dry_run=True)
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        except RefusedError as refused:
            shown = refused_error(f"node {_cordon(errand).node}", refused)
            return Preflight(f"{shown.what}: {shown.why}")
        already = "already " if before else ""
        return Preflight(preview=f"node {cordon.node}: {already}{_spell(cordon)}", before={"already": int(before)})

    async def apply(self, errand: Errand, key: str) -> str:  # noqa: ARG002 - a mark is set as often as one likes
        """Set the mark or the taint.

        Raises:
            ActuatorError: when the API server refuses, or cannot be asked.
        """
        cordon = _cordon(errand)
        try:
            await self._set(cordon, dry_run=False)
        except RefusedError as refused:
            raise refused_error(f"node {cordon.node}", refused) from refused
        return f"node {cordon.node}: {_spell(cordon)}"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Give the node back; what was so before, or is so by somebody else, stays.

        Raises:
            ActuatorError: when the API server refuses, or cannot be asked.
        """
        cordon = _cordon(errand)
        try:
            if not cordon.taint:
                # Without this field in what we apply, it is ours no more; it goes unless somebody else has it, too.
                body = _node(await self._read(cordon), {})
                await self._cluster.apply(NODES, "", cordon.node, body, force=False)
            elif not before.get("already"):
                await self._change_taints(cordon, dry_run=False, taken=True)
            stays = _is_so(await self._read(cordon), cordon)
        except RefusedError as refused:
            if refused.status == 404:
                return f"node {cordon.node}: gone"
            raise refused_error(f"node {cordon.node}", refused) from refused
        return (
            f"node {cordon.node}: still {_spell(cordon)}, which is not ours" if stays else f"node {cordon.node}: free"
        )

    async def observe(self, errand: Errand, key: str, done: str) -> str:  # noqa: ARG002 - it looks itself
        """Read the mark or the taint back."""
        cordon = _cordon(errand)
        try:
            found = await self._read(cordon)
        except RefusedError as refused:
            raise refused_error(f"node {cordon.node}", refused) from refused
        return f"node {cordon.node}: {_spell(cordon)}" if _is_so(found, cordon) else ""

    async def _read(self, cordon: CordonNode) -> Document:
        return await self._cluster.read(NODES, "", cordon.node)

    async def _set(self, cordon: CordonNode, *, dry_run: bool) -> None:
        if cordon.taint:
            await self._change_taints(cordon, dry_run=dry_run, taken=False)
            return
        body = _node(await self._read(cordon), {"unschedulable": True})
        await self._cluster.apply(NODES, "", cordon.node, body, force=False, dry_run=dry_run)

    async def _change_taints(self, cordon: CordonNode, *, dry_run: bool, taken: bool) -> None:
        key, value, effect = taint_of(cordon)

        async def once() -> None:
            found = await self._read(cordon)
            taints = [t for t in found["spec"].get("taints") or () if (t["key"], t["effect"]) != (key, effect)]
            if not taken:
                taints.append({"key": key, "effect": effect, **({"value": value} if value else {})})
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            await self._cluster.merge(
                NODES, "", cordon.node, {"metadata": version, "spec": {"taints": taints or None}}, dry_run=dry_run
            )

        await anew(once)


def _cordon(errand: Errand) -> CordonNode:
    if not isinstance(errand, CordonNode):
        raise TypeError(f"not a cordon of a node: {errand}")
    wrong = wrong_with_cordon(errand)
    if wrong:
        raise ActuatorError(f"cannot cordon node {errand.node}", wrong, "mend the row's `cordon_node`")
    return errand


def _node(found: Document, spec: Document) -> Document:
    """Return what is applied to a node; without its uid, one that is gone would be made anew."""
    about = {"name": found["metadata"]["name"], "uid": found["metadata"]["uid"]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": about, "spec": spec}


def _is_so(found: Document, cordon: CordonNode) -> bool:
    if not cordon.taint:
        return bool(found["spec"].get("unschedulable"))
    key, value, effect = taint_of(cordon)
    taints = found["spec"].get("taints") or ()
    return any((t["key"], t.get("value", ""), t["effect"]) == (key, value, effect) for t in taints)


def _spell(cordon: CordonNode) -> str:
    return f"tainted {cordon.taint}" if cordon.taint else "unschedulable"
