"""The ways to an endpoint that a partition breaks or leaves: the gateway's, and everybody else's.

Used by the drivers of network partitions, which prove a fault from both ends of it: what is to be cut off is, and what
is not still gets through.
"""

from dataclasses import dataclass

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.parameters import word
from controlplane.chaos.substrates.knock import Door, door
from controlplane.chaos.substrates.nodes import Node
from controlplane.errors import FaultError

EVERYBODY, GATEWAY, OTHERS = "everybody", "gateway", "controlplane"


@dataclass(frozen=True, slots=True)
class Way:
    """How one peer reaches an endpoint."""

    peer: str
    url: str
    source: str = ""
    """The address that it comes from; empty where that does not tell it from others."""

    async def door(self) -> Door:
        """Knock as that peer."""
        return await door(self.url, source=self.source)

    def __str__(self) -> str:
        """Write it as a proof names it."""
        return f"{self.url} for the gateway" if self.peer == GATEWAY else self.url


def peer_of(lease: Lease) -> str:
    """Return who is to be cut off."""
    return word(lease.parameters, FaultKind.NETWORK_PARTITION, "peer")


def ways(lease: Lease, node: Node) -> tuple[tuple[Way, ...], tuple[Way, ...]]:
    """Return the ways that a lease breaks, and those that it leaves.

    Raises:
        FaultError: when one peer is to be cut off and nothing tells it from the others.
    """
    everybody = Way(OTHERS, lease.endpoint.url)
    told_apart = bool(node.gateway_from) or node.gateway_url not in ("", lease.endpoint.url)
    if not told_apart:
        if peer_of(lease) == EVERYBODY:
            return (everybody,), ()
        raise FaultError(
            f"the gateway cannot be told from others at {lease.endpoint.name}", "both reach it in the same way",
            "start the fleet with links or with `--netns`, or cut off `peer: everybody`",
        )  # fmt: skip
    both = (everybody, Way(GATEWAY, node.gateway_url or lease.endpoint.url, node.gateway_from))
    broken = tuple(way for way in both if peer_of(lease) in (EVERYBODY, way.peer))
    return broken, tuple(way for way in both if way not in broken)
