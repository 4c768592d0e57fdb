"""An incident, its timeline, and the port it is kept behind; pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    """Users are, or may be, affected."""
    MITIGATED = "mitigated"
    """A lever keeps users served; the cause is still there."""
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: datetime
    kind: str
    """What kind of thing: `detected`, `hint`, `decided`, `gate`, `receipt`, `lever`, `drill`, `note`."""
    text: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One harm to one service, from the first evidence to its end."""

    id: str
    service: str
    level: str
    title: str
    state: IncidentState
    detected_at: datetime
    drill_id: str = ""
    """The drill that caused it; empty for a real one."""
    mitigated_at: datetime | None = None
    resolved_at: datetime | None = None

    @property
    def open(self) -> bool:
        """Tell whether somebody still has to look at it."""
        return self.state is not IncidentState.RESOLVED


class IncidentBook(Protocol):
    """Where incidents are kept."""

    async def begin(self, incident: Incident, entries: tuple[Entry, ...] = ()) -> None:
        """Store a new incident with the beginning of its timeline, both or neither."""

    async def move(self, incident_id: str, state: IncidentState, at: datetime) -> None:
        """Record an incident's next state."""

    async def note(self, incident_id: str, entry: Entry) -> None:
        """Add to an incident's timeline."""

    async def open_incidents(self, service: str) -> tuple[Incident, ...]:
        """Return what is not resolved, oldest first."""
