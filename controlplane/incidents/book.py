"""Where incidents are kept, and where what people say about them is."""

from datetime import datetime
from typing import Protocol

from controlplane.incidents.correlate import Notice, Ruling
from controlplane.incidents.incident import Entry, Incident, IncidentState
from controlplane.incidents.response import Refused, Word


class IncidentBook(Protocol):
    """Where incidents are kept."""

    async def take(self, service: str, notices: tuple[Notice, ...], now: datetime) -> Ruling:
        """Correlate notices with the incidents there are and store what comes of it, in one transaction.

        Returns:
            What was decided; what was known already is ignored, so that a repetition changes nothing.

        Raises:
            FencedError: when this control plane is not in charge.
            StoreError: when nothing was written.
        """

    async def move(self, incident_id: str, state: IncidentState, at: datetime) -> None:
        """Record an incident's next state; the moment when it was first mitigated stays."""

    async def note(self, incident_id: str, entry: Entry) -> None:
        """Add to an incident's timeline."""

    async def open_incidents(self, service: str) -> tuple[Incident, ...]:
        """Return what is not resolved, oldest first."""


class ResponseBook(Protocol):
    """Where people's words about incidents are kept."""

    async def respond(self, service: str, incident_id: str, word: Word) -> Incident | Refused:
        """Take what a person says, in one transaction with its entry in the timeline.

        Returns:
            The incident as it is now, or why it cannot be.

        Raises:
            StoreError: when nothing was written.
        """
