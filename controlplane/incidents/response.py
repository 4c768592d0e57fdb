"""What people say about an incident, and what becomes of it; pure."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from controlplane.incidents.incident import Entry, Incident, IncidentState

TEXT_AT_MOST = 4000
"""Characters of a note or a reason."""
NAME_AT_MOST = 128


class Verb(StrEnum):
    """What a person does."""

    ACKNOWLEDGE = "acknowledge"
    ASSIGN = "assign"
    NOTE = "note"
    RESOLVE = "resolve"
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True)
class Word:
    """One thing that a person says."""

    verb: Verb
    who: str
    at: datetime
    text: str = ""
    """The note, or why; resolving and reopening need it."""
    to: str = ""
    """Whom it is given to; empty takes it from whoever has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a person's word cannot be followed."""

    why: str
    missing: bool = False
    """There is no such incident."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A word that was taken."""

    incident: Incident
    entry: Entry


def respond(incident: Incident, word: Word, engaged: tuple[str, ...] = ()) -> Heard | Refused:
    """Take what a person says.

    Args:
        incident: as it is.
        word: what is said.
        engaged: the rows of the matrix that are in force because of it.

    Returns:
        The incident as it is then, with the entry of its timeline; or why not.
    """
    wrong = _wrong(incident, word, engaged)
    if wrong:
        return Refused(wrong)
    why = f": {word.text}" if word.text else ""
    changed, text = {
        Verb.ACKNOWLEDGE: (
            replace(incident, acknowledged_at=word.at, acknowledged_by=word.who), f"acknowledged{why}"
        ),
        Verb.ASSIGN: (
            replace(incident, assignee=word.to),
            f"gave it to {word.to}{why}" if word.to else f"took it from {incident.assignee or 'nobody'}{why}",
        ),
        Verb.NOTE: (incident, word.text),
        Verb.RESOLVE: (
            replace(
                incident, state=IncidentState.RESOLVED, resolved_at=word.at, resolved_by=word.who, reopened_by=""
            ),
            f"resolved{why}",
        ),
        Verb.REOPEN: (
            replace(incident, state=IncidentState.OPEN, resolved_at=None, resolved_by="", reopened_by=word.who),
            f"opened again{why}",
        ),
    }[word.verb]  # fmt: skip
    kind = "note" if word.verb is Verb.NOTE else "person"
    return Heard(changed, Entry(word.at, kind, text, word.who))


def _wrong(incident: Incident, word: Word, engaged: tuple[str, ...]) -> str:
    """Say what is wrong with a word; an empty string when nothing is."""
    if not word.who.strip():
        return "nobody says it: a name is needed"
    if len(word.text) > TEXT_AT_MOST or len(word.to) > NAME_AT_MOST or len(word.who) > NAME_AT_MOST:
        return f"it is too long: a text has {TEXT_AT_MOST} characters at most, a name {NAME_AT_MOST}"
    if word.verb is not Verb.ACKNOWLEDGE and word.verb is not Verb.ASSIGN and not word.text.strip():
        return "a note says something" if word.verb is Verb.NOTE else "a reason is needed"
    if word.verb is Verb.REOPEN:
        return "it is open" if incident.open else ""
    if word.verb is Verb.NOTE:
        return ""
    if not incident.open:
        return "it is resolved; open it again first"
    if word.verb is Verb.ACKNOWLEDGE and incident.acknowledged_at:
        return f"{incident.acknowledged_by} has acknowledged it at {incident.acknowledged_at:%H:%M:%S}"
    if word.verb is Verb.ASSIGN and word.to == incident.assignee:
        return f"{word.to} has it already" if word.to else "nobody has it"
    if word.verb is Verb.RESOLVE and engaged:
        return f"row {', '.join(engaged)} is in force: release it first"
    return ""
