"""Cutting an endpoint's network namespace off with nftables (Linux, root); the kernel ends the fault by itself.

What is lost is named by elements of sets that carry a `timeout`: when it is over they are gone, with no process left to
see to it. The table is ours alone and stands in the endpoint's own namespace: it goes with it, and nobody else's rules
are touched. The rules are written as JSON, so that no name can be anything but a name.
"""

import asyncio
import hashlib
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import word
from controlplane.chaos.substrates.knock import Door
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.chaos.substrates.nodes import Node, Place, find_living, find_node
from controlplane.chaos.substrates.ways import EVERYBODY, GATEWAY, peer_of, ways
from controlplane.errors import FaultError

TABLE = "controlplane_faults"
_KIND = FaultKind.NETWORK_PARTITION
_NFT_S = 10.0
_SEEN_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.05
_SETS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "lost_to": ("input", "dport", {"drop": None}),
    "lost_from": ("output", "sport", {"drop": None}),
    "cut_to": ("input", "dport", {"reject": {"type": "tcp reset"}}),
}
"""By set: where its ports are looked for, as which end of a connection, and what becomes of those packets."""
_NAMESPACES = Path("/run/netns")
"""Where iproute2 names network namespaces."""
_RAW = -300
"""Before everybody else's rules."""


class NetnsLinks:
    """Cuts endpoints off in their network namespaces."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def apply(self, lease: Lease) -> str:
        """Put the endpoint's port into the sets, with what is left of the lease as its timeout.

        Raises:
            FaultError: when the endpoint is not there or in no namespace, another lease cuts it off, the mode needs
                what the kernel cannot end by itself, or nftables refuses; nothing is left behind.
        """
        node = find_living(self._place.nodes_dir, lease)
        if not node.netns:
            raise FaultError(
                f"{lease.endpoint.name} has no network namespace", f"{lease.endpoint.node} shares this machine's",
                "start the fleet with `controlplane up --netns`, or name `fleet.substrate.process`",
            )  # fmt: skip
        ways(lease, node)
        wanted = _sets(lease)
        held = await self._held(node)
        others = {mark for mark in held.values() if mark != _mark(lease)}
        if others:
            raise FaultError(f"{lease.endpoint.name} is cut off already", "by another lease", "heal that first")
        left_s = int(lease.deadline.timestamp() - time.time())  # whole seconds, and rather early than late
        if left_s <= 0:
            raise FaultError(
                f"the lease of {lease.endpoint.name} is over", "less than a second is left", "ask for a longer one"
            )
        if set(held) != set(wanted):
            await _nft(
                node.netns, [*_frame(lease, node), *(_element(name, _port(node), lease, left_s) for name in wanted)]
            )
        return (
            f"nftables in {node.netns}: {', '.join(wanted)} hold port {_port(node)} for {left_s} s ({peer_of(lease)})"
        )

    async def prove(self, lease: Lease) -> str:
        """Show that new connections of who is cut off are lost (or refused) while the endpoint's process lives."""
        node = find_living(self._place.nodes_dir, lease)
        if _mark(lease) not in (await self._held(node)).values():
            return ""
        wanted = Door.REFUSED if word(lease.parameters, _KIND, "mode") == "reset" else Door.SILENT

        async def look() -> str:
            broken, left = ways(lease, node)
            lost = [await way.door() is wanted for way in broken]
            if not (all(lost) and all([await way.door() is Door.OPEN for way in left])):
                return ""
            said = ", ".join(f"{way} is {wanted} to new connections" for way in broken)
            return f"{said}, while process {node.pid} lives"

        return await seen_in_time(look, _SEEN_WITHIN_S, _LOOK_AGAIN_S)

    async def revert(self, lease: Lease) -> str:
        """Remove the table; with it everything of ours in that namespace."""
        node = self._node_or_none(lease)
        if node is None:
            return f"{lease.endpoint.node} has no network namespace any more"
        held = await self._held(node)
        if any(mark != _mark(lease) for mark in held.values()):
            return f"{lease.endpoint.node} is cut off by another lease; left alone"
        await self._sweep(node)
        return f"nftables in {node.netns}: nothing of ours is left"

    async def residue(self, lease: Lease) -> str:
        """Return the element that still cuts the endpoint off. A table whose sets the kernel has emptied is swept."""
        node = self._node_or_none(lease)
        if node is None:
            return ""
        held = await self._held(node)
        mine = [name for name, mark in held.items() if mark == _mark(lease)]
        if mine:
            return f"nftables in {node.netns}: {', '.join(mine)} still hold port {_port(node)}"
        if not held:
            await self._sweep(node)
        return ""

    def _node_or_none(self, lease: Lease) -> Node | None:
        """Return the node, or None when its namespace is gone, or when the fleet is and the kernel's timeout is over.

        Raises:
            FaultError: when the node cannot be found and the fault may still be in force.
        """
        try:
            node = find_node(self._place.nodes_dir, lease)
        except FaultError:
            if lease.deadline.timestamp() <= time.time():
                return None
            raise
        return node if node.netns and (_NAMESPACES / node.netns).exists() else None

    async def _held(self, node: Node) -> dict[str, str]:
        """Return the mark of the lease in each of our sets that holds something.

        Every table is listed, since ours may be gone by the time it is asked for: a halt, the drill and the recovery
        end one fault at once.
        """
        held = {}
        for found in await _nft_json(node.netns, "list", "ruleset", "inet"):
            ours = found.get("set", {})
            for element in ours.get("elem", ()) if ours.get("table") == TABLE else ():
                held[str(ours["name"])] = str(element["elem"].get("comment", ""))
        return held

    async def _sweep(self, node: Node) -> None:
        await _nft(node.netns, [{"add": {"table": _table()}}, {"delete": {"table": _table()}}])


def _sets(lease: Lease) -> tuple[str, ...]:
    mode, direction = word(lease.parameters, _KIND, "mode"), word(lease.parameters, _KIND, "direction")
    if mode == "delay":
        raise FaultError(
            "a delay cannot be had from nftables", "the kernel would not end a queueing discipline by itself",
            "use a fleet with links (`controlplane up` without --netns), or the mode drop or reset",
        )  # fmt: skip
    if mode == "reset":
        return ("cut_to",)
    return {"both": ("lost_to", "lost_from"), "to": ("lost_to",), "from": ("lost_from",)}[direction]


def _table() -> dict[str, str]:
    return {"family": "inet", "name": TABLE}


def _frame(lease: Lease, node: Node) -> list[dict[str, Any]]:
    """Return the commands that make the table with empty sets, and rules for whoever is to be cut off."""
    commands: list[dict[str, Any]] = [{"add": {"table": _table()}}]
    of_table = {"family": "inet", "table": TABLE}
    for hook in ("input", "output"):
        chain = {**of_table, "name": hook, "type": "filter", "hook": hook, "prio": _RAW, "policy": "accept"}
        commands += [{"add": {"chain": chain}}, {"flush": {"chain": {**of_table, "name": hook}}}]
    for name, (hook, end, verdict) in _SETS.items():
        commands.append({"add": {"set": {**of_table, "name": name, "type": "inet_service", "flags": ["timeout"]}}})
        match = {"op": "==", "left": {"payload": {"protocol": "tcp", "field": end}}, "right": f"@{name}"}
        expression = [*_only(lease, node, hook), {"match": match}, verdict]
        commands.append({"add": {"rule": {**of_table, "chain": hook, "expr": expression}}})
    return commands


def _only(lease: Lease, node: Node, hook: str) -> tuple[dict[str, Any], ...]:
    """Return what a rule asks of the other end's address: the gateway's, or any but the gateway's."""
    if peer_of(lease) == EVERYBODY:
        return ()
    far = {"payload": {"protocol": "ip", "field": "saddr" if hook == "input" else "daddr"}}
    return ({"match": {"op": "==" if peer_of(lease) == GATEWAY else "!=", "left": far, "right": node.gateway_from}},)


def _element(name: str, port: int, lease: Lease, left_s: int) -> dict[str, Any]:
    element = {"elem": {"val": port, "timeout": left_s, "comment": _mark(lease)}}
    return {"add": {"element": {"family": "inet", "table": TABLE, "name": name, "elem": [element]}}}


def _mark(lease: Lease) -> str:
    """Return the lease as a comment of nftables may be: short, and of few letters."""
    return hashlib.sha256(lease.id.encode()).hexdigest()[:24]


def _port(node: Node) -> int:
    return urlsplit(node.backend_url).port or 80


async def _nft(netns: str, commands: Sequence[Mapping[str, Any]]) -> None:
    """Run commands in a namespace, all of them or none.

    Raises:
        FaultError: when nftables refuses.
    """
    await asyncio.to_thread(_run, netns, ("-j", "-f", "-"), json.dumps({"nftables": list(commands)}))


async def _nft_json(netns: str, *arguments: str) -> list[dict[str, Any]]:
    text = await asyncio.to_thread(_run, netns, ("-j", *arguments), "")
    found: list[dict[str, Any]] = json.loads(text)["nftables"]
    return found


def _run(netns: str, arguments: Sequence[str], text: str) -> str:
    what = f"nftables refuses in {netns}"
    fix = "run the control plane as root, with iproute2 and nftables installed"
    try:
        done = subprocess.run(
            ["ip", "netns", "exec", netns, "nft", *arguments],
            input=text, capture_output=True, text=True, check=False, timeout=_NFT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FaultError(what, str(error), fix) from error
    if done.returncode:
        raise FaultError(what, done.stderr.strip(), fix)
    return done.stdout
