"""Saturating the devices of an endpoint's node: a burner job there, or busy CPUs by Chaos Mesh."""

from contextlib import suppress

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import word
from controlplane.chaos.substrates.kube_ground import LOOK_AGAIN_S, Ground, told
from controlplane.chaos.substrates.kube_objects import (
    JOBS,
    MARK,
    STRESS_CHAOS,
    Target,
    all_injected,
    burner_job,
    is_ready,
    mark_of,
    object_name,
    stress_chaos,
)
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.errors import FaultError
from controlplane.fleet.cluster import PODS

BURNS_WITHIN_S = 45.0
"""How long a burner may take to burn: an image that is there, and PyTorch to import."""


class KubeBurners:
    """Keeps devices busy."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def apply(self, lease: Lease) -> str:
        """Start a burner on the endpoint's node, or, for `device: cpu` with Chaos Mesh, in its pod.

        Raises:
            FaultError: when the target may not be broken, there is no burner, or the API server refuses; nothing is
                left behind.
        """
        on_cpus = word(lease.parameters, FaultKind.GPU_SATURATION, "device") == "cpu"
        mesh = on_cpus and await self._ground.chaos_mesh()
        burner = self._ground.spec.burner
        if burner is None and not mesh:
            raise FaultError(
                "there is no burner for this cluster", "the page does not say which image burns",
                "write `burner: { image: ... }` under `fleet.substrate.kubernetes`"
                + ("" if on_cpus else ", or ask for `device: cpu` where Chaos Mesh is installed"),
            )  # fmt: skip
        target = await self._ground.take(lease)
        try:
            if mesh or burner is None:
                await self._ground.put(STRESS_CHAOS, stress_chaos(lease, target, self._ground.now()))
                return f"StressChaos {object_name(lease)} in {target.called} until {lease.deadline:%X}"
            await self._ground.put(JOBS, burner_job(lease, target, burner, self._ground.now()))
        except FaultError:
            with suppress(FaultError):
                await self._ground.let_go(mark_of(lease.id))
            raise
        return f"Job {object_name(lease)} on node {target.node} until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the burner says it burns: its pod is ready on that very node, or Chaos Mesh says so."""
        target = await self._ground.mine(lease)
        if target is None:
            return ""
        lasts_s = (lease.deadline - self._ground.now()).total_seconds()
        return await seen_in_time(lambda: self._seen(lease, target), min(BURNS_WITHIN_S, lasts_s), LOOK_AGAIN_S)

    async def _seen(self, lease: Lease, target: Target) -> str | None:
        """Return what is seen; None when there is nothing to wait for."""
        with told("cannot look for the burner's pod"):
            pods = await self._ground.cluster.every(PODS, target.namespace, labels=f"{MARK}={mark_of(lease.id)}")
        for pod in pods:
            if is_ready(pod) and pod["spec"].get("nodeName") == target.node:
                return f"burner {pod['metadata']['name']} burns on {target.node}"
            if (pod.get("status") or {}).get("phase") == "Failed":
                return None
        if pods or not await self._ground.chaos_mesh():
            return ""
        chaos = await self._ground.get(STRESS_CHAOS, target.namespace, object_name(lease))
        found = chaos is not None and all_injected(chaos)
        return f"Chaos Mesh keeps the CPUs of {target.called} busy" if found else ""

    async def revert(self, lease: Lease) -> str:
        """End the burner."""
        await self._ground.let_go(mark_of(lease.id))
        return f"no burner beside {lease.endpoint.name}"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the job, its pod, or Chaos Mesh's object."""
        left = await self._ground.left(mark_of(lease.id))
        return f"still there: {', '.join(left)}" if left else ""
