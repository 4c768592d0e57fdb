"""Cutting an endpoint's pod off: by Chaos Mesh, or with a network policy, which only some networks enforce."""

from contextlib import suppress

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import number, word
from controlplane.chaos.substrates.knock import Door, answer_s, door
from controlplane.chaos.substrates.kube_ground import Ground, seen_soon, told
from controlplane.chaos.substrates.kube_objects import (
    CUT_OFF,
    NETWORK_CHAOS,
    NETWORK_POLICIES,
    Target,
    all_injected,
    allowances,
    mark_of,
    network_chaos,
    network_policy,
    object_name,
)
from controlplane.chaos.substrates.ways import EVERYBODY, peer_of
from controlplane.errors import FaultError
from controlplane.fleet.cluster import PODS

_KIND = FaultKind.NETWORK_PARTITION
_SLOW_S = 2.0
"""What an endpoint may take to answer beside the delay."""


class KubeLinks:
    """Cuts pods off."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def apply(self, lease: Lease) -> str:
        """Cut the endpoint's pod off until the deadline.

        Raises:
            FaultError: when the target may not be broken, or what is asked for cannot be had or proven here; nothing
                is left behind.
        """
        mesh = await self._ground.chaos_mesh()
        _check(lease, mesh=mesh)
        held = await self._ground.mine(lease)
        target = await self._ground.take(lease)
        try:
            if held is None:
                await _refuse_closed(lease)
            if mesh:
                await self._ground.put(NETWORK_CHAOS, network_chaos(lease, target, self._ground.now()))
                return f"NetworkChaos {object_name(lease)} cuts {target.called} off until {lease.deadline:%X}"
            await self._refuse_allowed(lease, target)
            await self._ground.put(NETWORK_POLICIES, network_policy(lease, target))
            await self._ground.join_off(target, mark_of(lease.id))
        except FaultError:
            with suppress(FaultError):
                await self._ground.let_go(mark_of(lease.id))
            raise
        return f"NetworkPolicy {object_name(lease)} cuts {target.called} off until {lease.deadline:%X}"

    async def _refuse_allowed(self, lease: Lease, target: Target) -> None:
        """Refuse where other policies let traffic through to the pod: policies add up, and nothing takes it back."""
        pod = await self._ground.get(PODS, target.namespace, target.pod)
        labels = ((pod or {}).get("metadata") or {}).get("labels") or {}
        with told(f"cannot read the network policies of {target.namespace}"):
            found = await self._ground.cluster.every(NETWORK_POLICIES, target.namespace)
        wanted = network_policy(lease, target)["spec"]["policyTypes"]
        names = allowances(found, {key: value for key, value in labels.items() if key != CUT_OFF}, wanted)
        if names:
            raise FaultError(
                f"{target.called} cannot be cut off by a network policy", f"{', '.join(names)} let traffic through to "
                "it, and policies add up", "install Chaos Mesh, or try it where no such policy is",
            )  # fmt: skip

    async def prove(self, lease: Lease) -> str:
        """Show that connections to the pod are lost (or late) while that very pod lives."""
        target = await self._ground.mine(lease)
        if target is None:
            return ""

        async def look() -> str:
            if await self._ground.is_gone(target) or not await self._in_force(lease, target):
                return ""
            seen = await _seen(lease)
            return f"{seen}, while {target.called} lives" if seen else ""

        return await seen_soon(look)

    async def _in_force(self, lease: Lease, target: Target) -> bool:
        if await self._ground.get(NETWORK_POLICIES, target.namespace, object_name(lease)):
            return True
        if not await self._ground.chaos_mesh():
            return False
        chaos = await self._ground.get(NETWORK_CHAOS, target.namespace, object_name(lease))
        return chaos is not None and all_injected(chaos)

    async def revert(self, lease: Lease) -> str:
        """Let traffic through again."""
        await self._ground.let_go(mark_of(lease.id))
        return f"nothing of ours cuts {lease.endpoint.name} off"

    async def residue(self, lease: Lease) -> str:
        """Return what is left of what we made."""
        left = await self._ground.left(mark_of(lease.id))
        return f"still there: {', '.join(left)}" if left else ""


async def _refuse_closed(lease: Lease) -> None:
    """Refuse to cut off what is not reached anyway."""
    if await door(lease.endpoint.url) is not Door.OPEN:
        raise FaultError(
            f"{lease.endpoint.name} takes no connections",
            f"at {lease.endpoint.url}, before anything was done: a partition could not be proven",
            "wait until it does, and see that it is reached from here",
        )


async def _seen(lease: Lease) -> str:
    if word(lease.parameters, _KIND, "mode") == "delay":
        delay_s = number(lease.parameters, _KIND, "delay_ms") / 1000
        took_s = await answer_s(lease.endpoint.url, within_s=2 * delay_s + _SLOW_S)
        return f"a health check took {took_s:.2f} s" if took_s is not None and took_s >= delay_s else ""
    found = await door(lease.endpoint.url)
    return f"{lease.endpoint.url} is {found} to new connections" if found is not Door.OPEN else ""


def _check(lease: Lease, *, mesh: bool) -> None:
    """Refuse what neither way of cutting off can do, or show."""
    mode, direction = (word(lease.parameters, _KIND, name) for name in ("mode", "direction"))
    modes = ("drop", "delay") if mesh else ("drop",)
    by = "Chaos Mesh" if mesh else "a network policy"
    if mode not in modes:
        raise FaultError(
            f"no `mode: {mode}` in this cluster", f"{by} does {' and '.join(modes)}",
            "choose one of these" if mesh else "choose `mode: drop`, or install Chaos Mesh for `delay`",
        )  # fmt: skip
    if peer_of(lease) != EVERYBODY:
        raise FaultError(
            f"no `peer: {peer_of(lease)}` in this cluster", "there is no telling which pods are the gateway's",
            "cut off `peer: everybody`",
        )  # fmt: skip
    if direction == "from" and not mesh:
        raise FaultError(
            "`direction: from` could not be proven", "a network policy still lets answers to others' connections out",
            "cut off `to` it or `both` ways, or install Chaos Mesh",
        )  # fmt: skip
