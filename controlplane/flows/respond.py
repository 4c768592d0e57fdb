"""The journey of what a person says about an incident: checked, stored with its entry in the timeline, shown."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from controlplane.incidents.book import ResponseBook
from controlplane.incidents.incident import Incident
from controlplane.incidents.response import Refused, Verb, Word

log = structlog.get_logger("respond")


@dataclass(frozen=True, slots=True)
class RespondPorts:
    """What this journey touches."""

    service: str
    book: ResponseBook
    changed: Callable[[], None]
    """Told when an incident is not as it was."""
    now: Callable[[], datetime]


async def say(
    ports: RespondPorts, incident_id: str, verb: Verb, who: str, text: str = "", to: str = ""
) -> Incident | Refused:
    """Take what a person says.

    Args:
        ports: what is touched.
        incident_id: what it is about.
        verb: what is done.
        who: the person, as it is known here; never what a request says of itself.
        text: the note, or why.
        to: whom it is given to.

    Returns:
        The incident as it is now, or why not.

    Raises:
        StoreError: when nothing was written.
    """
    said = await ports.book.respond(ports.service, incident_id, Word(verb, who, ports.now(), text.strip(), to.strip()))
    if isinstance(said, Refused):
        return said
    log.info("said", incident=incident_id, verb=verb, who=who)
    ports.changed()
    return said
