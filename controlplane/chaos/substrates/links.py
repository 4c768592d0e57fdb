"""Breaking the link relay in front of an endpoint, through the relay's control file; without root.

`<node>.link` says how the link is to behave and until when; the relay obeys it and ends the fault at that moment by its
own clock. The gateway passes a link of its own, so that it can be cut off while whoever watches the endpoint is not,
and the other way round.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.keepers.keeper import holder
from controlplane.chaos.parameters import number, word
from controlplane.chaos.substrates.knock import Door, answer_s
from controlplane.chaos.substrates.looks import seen_in_time
from controlplane.chaos.substrates.nodes import Place, find_living, find_node
from controlplane.chaos.substrates.ways import Way, peer_of, ways
from controlplane.errors import FaultError
from controlplane.wholefile import write_whole

_SEEN_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.05
_KIND = FaultKind.NETWORK_PARTITION


class Links:
    """Breaks links."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def apply(self, lease: Lease) -> str:
        """Write the control file, its deadline inside.

        Raises:
            FaultError: when the endpoint is not there, or has no link; or when another lease breaks it.
        """
        node = find_living(self._place.nodes_dir, lease)
        file = self._file(lease)
        other = holder(file)
        if other not in (lease.id, ""):
            raise FaultError(f"the link of {lease.endpoint.node} is broken already", f"by {other}", "heal that first")
        if node.backend_url in ("", lease.endpoint.url):
            raise FaultError(
                f"{lease.endpoint.name} has no link", f"clients reach {lease.endpoint.url} directly",
                "start the fleet with links (`controlplane up`), or with `--netns` and `fleet.substrate.netns`",
            )  # fmt: skip
        ways(lease, node)
        mode, direction = word(lease.parameters, _KIND, "mode"), word(lease.parameters, _KIND, "direction")
        delay_ms = number(lease.parameters, _KIND, "delay_ms") if mode == "delay" else 0.0
        page = {"mode": mode, "direction": direction, "delay_ms": delay_ms, "peer": peer_of(lease),
                "until": lease.deadline.timestamp(), "lease": lease.id}  # fmt: skip
        try:
            write_whole(file, json.dumps(page))
        except OSError as error:
            raise FaultError(
                f"cannot write {file}", str(error), "set `fleet.substrate.process.links_dir` to where the relays look"
            ) from error
        return f"{file.name}: {mode}, {direction}, {peer_of(lease)}, until {lease.deadline:%X}"

    async def prove(self, lease: Lease) -> str:
        """Show that the endpoint answers on its own side of the link, and who is cut off gets nothing (or late)."""
        if holder(self._file(lease)) != lease.id:
            return ""
        node = find_living(self._place.nodes_dir, lease)
        mode = word(lease.parameters, _KIND, "mode")

        async def look() -> str:
            broken, left = ways(lease, node)
            shown = [await self._shown(lease, way, mode) for way in broken]
            spared = [await way.door() is Door.OPEN for way in left]
            if not (all(shown) and all(spared)):
                return ""
            behind = await answer_s(node.backend_url, within_s=_SEEN_WITHIN_S)
            return f"{', '.join(shown)}, while {node.backend_url} answers in {behind * 1000:.0f} ms" if behind else ""

        return await seen_in_time(look, _SEEN_WITHIN_S, _LOOK_AGAIN_S)

    async def _shown(self, lease: Lease, way: Way, mode: str) -> str:
        return await self._delayed(lease, way) if mode == "delay" else await _cut_off(way, mode)

    async def _delayed(self, lease: Lease, way: Way) -> str:
        delay_s = number(lease.parameters, _KIND, "delay_ms") / 1000
        took_s = await answer_s(way.url, within_s=_SEEN_WITHIN_S + 2 * delay_s)
        late = took_s is not None and took_s >= delay_s
        return f"{way} answers after {took_s:.2f} s" if late else ""

    async def revert(self, lease: Lease) -> str:
        """Remove the control file."""
        file = self._file(lease)
        if holder(file) not in (lease.id, ""):
            return f"the link of {lease.endpoint.node} is broken by another lease; left alone"
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise FaultError(f"cannot remove {file}", str(error), f"remove it: rm {file}") from error
        return f"the link of {lease.endpoint.node} passes everything"

    async def residue(self, lease: Lease) -> str:
        """Return what is left: our control file, while its time is not over and a relay would obey it."""
        file = self._file(lease)
        if holder(file) == lease.id:
            over = lease.deadline.timestamp() <= time.time()
            return f"{file} {'has not been removed by its relay' if over else 'breaks the link'}"
        for way in self._all_ways(lease):
            if await way.door() is Door.SILENT:
                return f"{way} is still silent"
        return ""

    def _all_ways(self, lease: Lease) -> tuple[Way, ...]:
        """Return every way to the endpoint; the public one alone where its node or its gateway's way is not known."""
        with suppress(FaultError):
            broken, left = ways(lease, find_node(self._place.nodes_dir, lease))
            return (*broken, *left)
        return (Way("", lease.endpoint.url),)

    def _file(self, lease: Lease) -> Path:
        return self._place.links_dir / f"{lease.endpoint.node}.link"


async def _cut_off(way: Way, mode: str) -> str:
    found = await way.door()
    wanted = Door.REFUSED if mode == "reset" else Door.SILENT
    return f"{way} is {found} to new connections" if found is wanted else ""
