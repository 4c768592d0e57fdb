"""Fault kinds, leases, and the port every substrate's driver fulfils; pure.

A lease is the stored promise that a fault ends: it is written before the fault is injected, its deadline is also
handed to the substrate, and whoever finds it expired heals it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from controlplane.fleet.model import Endpoint

MAX_LEASE = timedelta(hours=1)
"""No fault may be leased for longer."""


class FaultKind(StrEnum):
    """What harm is done."""

    NODE_KILL = "node-kill"
    """SIGKILL of the endpoint's whole process group; its node supervisor brings it back when the lease ends."""
    NETWORK_PARTITION = "network-partition"
    """The endpoint's network loses, cuts or delays what passes; both ways or one way."""
    GPU_SATURATION = "gpu-saturation"
    """Somebody else computes on the endpoint's device, and holds memory on it."""
    SLOW_TOKENS = "slow-tokens"
    """The engine stands still again and again, for a moment each: it answers, and every answer drips."""
    STALLED_ENGINE = "stalled-engine"
    """The engine is alive, holds its port, takes connections, and does nothing (SIGSTOP)."""
    QUEUE_FLOOD = "queue-flood"
    """Real requests beyond what the endpoint queues, until it answers 429 or 503."""
    MEMORY_PRESSURE = "memory-pressure"
    """Memory of the endpoint's machine is held by somebody else, down to a reserve."""
    POD_EVICTION = "pod-eviction"
    """The endpoint's pod is asked to leave its node, as a drain does: its disruption budget may forbid it."""
    DISK_FULL = "disk-full"
    """The control plane's own state directory is full, but for a reserve."""


Setting = float | str
"""What a parameter of a fault may be: a number in the unit that its name says, or one of a few words."""


class LeaseState(StrEnum):
    """How far a fault is."""

    INTENDED = "intended"
    INJECTED = "injected"
    PROVEN = "proven"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Lease:
    """One fault on one endpoint."""

    id: str
    drill_id: str
    kind: FaultKind
    endpoint: Endpoint
    deadline: datetime
    """When the substrate ends the fault by itself."""
    state: LeaseState
    intended_at: datetime
    injected_at: datetime | None = None
    proven_at: datetime | None = None
    healed_at: datetime | None = None
    detail: str = ""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    """How the fault is to be, by the names in `chaos/parameters.py`; what is left out has its default."""

    @property
    def open(self) -> bool:
        """Tell whether the fault is, or may be, in force."""
        return self.state is not LeaseState.HEALED


class FaultDriver(Protocol):
    """Injects and heals faults on one endpoint; idempotent both ways."""

    async def apply(self, lease: Lease) -> str:
        """Inject the fault, its deadline first; return what was done, for the record.

        Raises:
            FaultError: when it could not be injected; nothing is then left behind.
        """

    async def prove(self, lease: Lease) -> str:
        """Show from outside that the fault is in force; return the proof, or an empty string when there is none."""

    async def revert(self, lease: Lease) -> str:
        """End the fault now; return what was done. A fault that is already over is success."""

    async def residue(self, lease: Lease) -> str:
        """Return what is left of a fault that should be over, or an empty string."""


class Reaper(Protocol):
    """Ends faults that a substrate keeps a record of itself, whoever injected them and whoever remembers them."""

    async def reap(self, now: datetime | None) -> tuple[str, ...]:
        """End the faults whose deadline has come, by what the substrate itself says of them.

        Args:
            now: aware UTC; None ends all of them, whatever their deadlines.

        Returns:
            What was ended, one line a fault.

        Raises:
            FaultError: when the substrate cannot be asked; what could be ended is.
        """


class LeaseBook(Protocol):
    """Where leases are kept; every call returns only once the change is on disk."""

    async def intend(self, lease: Lease) -> None:
        """Store a new lease."""

    async def move(self, lease_id: str, state: LeaseState, at: datetime, detail: str = "") -> Lease:
        """Record the next state of a lease and return it as it is now; a healed one stays as it is."""

    async def open_leases(self) -> tuple[Lease, ...]:
        """Return the leases that are not healed, oldest first."""

    async def of_drill(self, drill_id: str) -> tuple[Lease, ...]:
        """Return every lease of one drill, oldest first."""
