"""Flooding an endpoint's queue with real requests: until they wait, or until it refuses (429 or 503)."""

import asyncio
import json
from contextlib import suppress

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.keepers.flood import DIAL_S
from controlplane.chaos.parameters import number, settled, word
from controlplane.chaos.substrates.keeper_process import KeeperProcess
from controlplane.chaos.substrates.knock import Door, completion_status, door, page
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.chaos.substrates.nodes import Place, find_living
from controlplane.errors import FaultError
from controlplane.probes.metrics import read_page

_FULL = (429, 503)
_SEEN_WITHIN_S = 10.0
_ASKS_AT_ONCE = 4
_ANSWER_S = 2.0
_WAITING_SHARE = 0.25
"""Share of the requests in flight that must be seen waiting; the others are being computed."""
_LOOK_AGAIN_S = 0.1
_ANY_MODEL = "reference"
"""What is asked for where the inventory names no model."""


class Flooders:
    """Floods endpoints."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keeper = KeeperProcess(place.nodes_dir, "flood")

    async def apply(self, lease: Lease) -> str:
        """Start a storm of requests on the endpoint.

        Raises:
            FaultError: when the endpoint is not there; nothing is left behind.
        """
        find_living(self._place.nodes_dir, lease)
        if await door(lease.endpoint.url, DIAL_S) is not Door.OPEN:
            raise FaultError(
                f"{lease.endpoint.name} takes no connections", f"at {lease.endpoint.url}", "wait until it is up"
            )
        settings = settled(lease.kind, lease.parameters)
        await self._keeper.start(lease, {**settings, "url": lease.endpoint.url, "model": _model(lease)})
        return f"{settings['requests']:g} requests at once to {lease.endpoint.url} until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that others' requests are refused, or that requests wait, as the lease says."""
        if word(lease.parameters, FaultKind.QUEUE_FLOOD, "shows") == "waiting":
            return await self._waiting(lease)
        body = json.dumps({"model": _model(lease), "prompt": "full?", "max_tokens": 1}).encode()

        async def look() -> str | None:
            if not self._keeper.mine(lease):
                return None
            asked = (completion_status(lease.endpoint.url, body, _ANSWER_S) for _ in range(_ASKS_AT_ONCE))
            refused = [status for status in await asyncio.gather(*asked) if status in _FULL]
            return f"{lease.endpoint.url} answers {refused[0]} to a request of ours" if refused else ""

        return await seen_in_time(look, _SEEN_WITHIN_S, 0.0)

    async def _waiting(self, lease: Lease) -> str:
        """Show by the engine's own count that requests wait."""
        least = _WAITING_SHARE * number(lease.parameters, FaultKind.QUEUE_FLOOD, "requests")

        async def look() -> str | None:
            if not self._keeper.mine(lease):
                return None
            with suppress(ValueError):
                told = read_page(await page(lease.endpoint.url, "/metrics", _ANSWER_S), None)
                if (waiting := told.gauges.get("queue_depth", 0.0)) >= least:
                    return f"{lease.endpoint.url} counts {waiting:g} requests waiting"
            return ""

        return await seen_in_time(look, _SEEN_WITHIN_S, _LOOK_AGAIN_S)

    async def revert(self, lease: Lease) -> str:
        """End the storm."""
        await self._keeper.stop(lease)
        return f"no storm on {lease.endpoint.name}"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: the storm."""
        return self._keeper.residue(lease)


def _model(lease: Lease) -> str:
    return lease.endpoint.model or _ANY_MODEL
