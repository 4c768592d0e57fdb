"""Ending the faults of a cluster whose time has come, by what the cluster itself says of them.

Nothing but the objects' own labels and annotations is read: it works in any replica, after a crash, with a database
that has lost the leases. What it does is idempotent, so that two of them do not disturb each other.
"""

from dataclasses import dataclass
from datetime import datetime

from controlplane.chaos.substrates.kube_ground import Ground
from controlplane.chaos.substrates.kube_objects import (
    CUT_OFF,
    down_for,
    entry_is_over,
    is_over,
    lease_in,
    mark_in,
)
from controlplane.errors import FaultError


@dataclass(slots=True)
class _Found:
    """One fault, as the cluster shows it."""

    lease: str = ""
    over: bool = False


class KubeReaper:
    """Removes what is overdue."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def reap(self, now: datetime | None) -> tuple[str, ...]:
        """End the faults whose deadline has come; all of them when `now` is None.

        Raises:
            FaultError: when something could not be looked for or removed; the rest is.
        """
        done, trouble = [], None
        for mark, fault in sorted((await self._faults(now)).items()):
            if not fault.over:
                continue
            try:
                removed = await self._ground.let_go(mark)
            except FaultError as error:
                trouble = error
                continue
            if removed:
                done.append(f"fault {fault.lease or mark}: removed {', '.join(removed)}")
        for node in await self._ground.down():
            # Somebody has taken our record away, and left the taint.
            if not down_for(node) and await self._ground.sweep_node(node["metadata"]["name"]):
                done.append(f"node {node['metadata']['name']}: removed a taint of nobody's")
        if trouble:
            raise trouble
        return tuple(done)

    async def _faults(self, now: datetime | None) -> dict[str, _Found]:
        """Return every fault by its mark, and whether it is over; a mark that nothing explains is.

        A claim comes first and goes last: what explains a label is looked for after the label.
        """
        cut_off = await self._ground.cut_off()
        faults: dict[str, _Found] = {}
        for _, found in await self._ground.marked():
            fault = faults.setdefault(mark_in(found), _Found())
            fault.lease = fault.lease or lease_in(found)
            fault.over = fault.over or now is None or is_over(found, now)
        for node in await self._ground.down():
            for mark, entry in down_for(node).items():
                fault = faults.setdefault(mark, _Found())
                fault.lease = fault.lease or str(entry.get("lease", ""))
                fault.over = fault.over or now is None or entry_is_over(entry, now)
        for pod in cut_off:
            faults.setdefault(pod["metadata"]["labels"][CUT_OFF], _Found(over=True))
        return faults
