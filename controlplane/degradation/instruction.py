"""What people tell the matrix: who, why, since when and how long; pure, with the port it is kept behind."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from controlplane.degradation.matrix import Level


class Kind(StrEnum):
    """What a person wants."""

    PIN = "pin"
    """The row in force, whatever its trigger says; level `none`: no row begins anything."""
    APPROVE = "approve"
    """The row that asked may engage, and act by itself until its trigger has cleared."""
    REFUSE = "refuse"
    """The row is to be left alone until its trigger has cleared."""
    RELEASE = "release"
    """The row's traffic is to be given back now."""
    BRAKE = "brake"
    """Nothing engages or is given back by itself."""


LASTING = (Kind.PIN, Kind.BRAKE)
"""What holds until it is ended; the others are said once."""

CONTROL_PLANE = "the control plane"
"""Who pulls the brake when no person does."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One thing that a person told the matrix of one service."""

    id: str
    service: str
    kind: Kind
    level: Level
    """The row; `none` for the whole matrix."""
    who: str
    why: str
    at: datetime
    until: datetime | None = None
    """When a pin ends by itself; None: when somebody ends it."""
    ended_at: datetime | None = None
    ended_by: str = ""
    ended_why: str = ""

    def holds(self, now: datetime) -> bool:
        """Tell whether it is in force."""
        return self.ended_at is None and (self.until is None or now < self.until)

    @property
    def words(self) -> str:
        """Say it as a line of a timeline, such as `ann pinned P1 until 14:30: peak hours`."""
        verb = {
            Kind.PIN: "pinned", Kind.APPROVE: "approved", Kind.REFUSE: "refused", Kind.RELEASE: "released",
            Kind.BRAKE: "pulled the brake",
        }[self.kind]  # fmt: skip
        what = "" if self.kind is Kind.BRAKE else f" {self.level}"
        until = f" until {self.until:%H:%M} UTC" if self.until else ""
        return f"{self.who} {verb}{what}{until}: {self.why}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an instruction cannot be followed now."""

    why: str


class InstructionBook(Protocol):
    """Where instructions are kept; every call returns only once the change is on disk."""

    async def begin(self, instruction: Instruction) -> None:
        """Store a new instruction."""

    async def end(self, instruction_id: str, at: datetime, by: str, why: str) -> None:
        """Record that an instruction holds no longer; one that has ended stays as it is."""

    async def in_force(self, service: str) -> tuple[Instruction, ...]:
        """Return what has not ended, oldest first."""

    async def recent(self, service: str, limit: int) -> tuple[Instruction, ...]:
        """Return the newest first."""
