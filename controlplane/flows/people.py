"""What people tell the matrix, and what they are told: stored first, noted on the timelines, then acted on.

`web` and the command line bring instructions; `decide` says what people have to hear.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from controlplane.degradation.instruction import Instruction, InstructionBook, Kind, Refused
from controlplane.degradation.matrix import Level
from controlplane.degradation.turn import Told, Worry
from controlplane.errors import StoreError
from controlplane.incidents.book import IncidentBook
from controlplane.incidents.correlate import row_moves
from controlplane.incidents.incident import Entry

log = structlog.get_logger("people")


async def _nobody(_: str) -> None:
    """Page nobody: no receiver is on the page."""


@dataclass(frozen=True, slots=True)
class TellPorts:
    """What telling people touches."""

    service: str
    book: InstructionBook
    incidents: IncidentBook
    now: Callable[[], datetime]
    page: Callable[[str], Awaitable[None]] = _nobody
    """Reaches people who look at no console."""
    why_not: dict[Level, str] = field(default_factory=dict)
    """Why a row could not be put in force the last time, until people have been told."""


@dataclass(frozen=True, slots=True)
class PeoplePorts:
    """What following people's instructions touches."""

    told: TellPorts
    refusal: Callable[[Kind, Level], str]
    """Says why the matrix has no use for an instruction now; an empty string when it has."""
    take: Callable[[Instruction], None]
    """Hands the matrix what was said, and is stored."""
    drop: Callable[[Instruction], None]
    """Lets the matrix forget what was ended, and is stored."""
    held: Callable[[], tuple[Instruction, ...]] = tuple
    """The pins and the brake that the matrix obeys, those among them that could not be stored too."""


@dataclass(frozen=True, slots=True)
class Said:
    """One instruction as a person gives it."""

    kind: Kind
    level: Level
    who: str
    why: str
    lasts: timedelta | None = None
    """How long a pin holds; None: until somebody ends it."""


async def instruct(ports: PeoplePorts, said: Said) -> Instruction | Refused:
    """Store what a person said, and act on it; nothing is stored of what the matrix has no use for."""
    why_not = ports.refusal(said.kind, said.level)
    if why_not:
        return Refused(why_not)
    now = ports.told.now()
    instruction = Instruction(
        id=f"{ports.told.service}/{said.kind}/{said.level}/{now.isoformat(timespec='microseconds')}",
        service=ports.told.service,
        kind=said.kind,
        level=said.level,
        who=said.who,
        why=said.why,
        at=now,
        until=now + said.lasts if said.lasts else None,
    )
    await ports.told.book.begin(instruction)
    ports.take(instruction)
    await _note(ports.told, said.level, Entry(now, "person", instruction.words))
    return instruction


async def end(ports: PeoplePorts, kind: Kind, level: Level, who: str, why: str) -> Instruction | Refused:
    """End a pin, or let go of the brake.

    What the matrix obeys goes first. An older one, whose end could not be stored, ends with it: it would be back after
    a restart.
    """
    stored = await ports.told.book.in_force(ports.told.service)
    found = {i.id: i for i in (*ports.held(), *stored) if (i.kind, i.level) == (kind, level)}
    if not found:
        what = "the brake is not on" if kind is Kind.BRAKE else f"nobody has pinned {level}"
        return Refused(what)
    now, ended = ports.told.now(), next(iter(found.values()))
    for instruction in found.values():
        await ports.told.book.end(instruction.id, now, who, why)
    ports.drop(ended)
    what = "let go of the brake" if kind is Kind.BRAKE else f"ended the pin of {level}"
    await _note(ports.told, level, Entry(now, "person", f"{who} {what}: {why}"))
    return ended


async def begun(ports: TellPorts, instruction: Instruction) -> None:
    """Store what the control plane told the matrix by itself."""
    await ports.book.begin(instruction)


async def lapsed(ports: TellPorts, instruction: Instruction, why: str) -> None:
    """Record that an instruction holds no longer, without anybody's doing."""
    now = ports.now()
    await ports.book.end(instruction.id, now, "", why)
    if instruction.kind is Kind.PIN:
        text = f"the pin of {instruction.level} by {instruction.who} is over: {why}"
        await _note(ports, instruction.level, Entry(now, "person", text))


async def tell(ports: TellPorts, told: Told) -> None:
    """Tell people what they have to hear, and why: where they are paged, and on the timeline of what is open.

    The page goes first: it is said once, and must not wait for a database in trouble.
    """
    why = ports.why_not.pop(told.level, "") if told.worry is Worry.FAILED else ""
    text = f"{told.text} ({why})" if why else told.text
    at = ports.now()
    await ports.page(text)
    try:
        await _note(ports, told.level, Entry(at, "page", text))
    except StoreError as error:
        log.error("not noted", text=text, what=error.what, why=error.why, fix=error.fix)


async def ask(
    ports: TellPorts, level: Level, because: tuple[str, ...], detected_at: datetime, decided_at: datetime, text: str,
    drill_id: str = "",
) -> None:  # fmt: skip
    """Open the incident of a row that may not engage without a person, or join it, and say what it waits for.

    Whoever asks has paged them already; this may be tried again.

    Raises:
        StoreError: when the question could not be written down.
    """
    why = "; ".join(because)
    found = Entry(detected_at, "detected", why)
    moves = row_moves(ports.service, level, why, decided_at, detected_at, (found,), drill_id)
    incident = (await ports.incidents.take(ports.service, (moves,), ports.now())).incident_of(moves.key)
    if incident:
        await ports.incidents.note(incident, Entry(decided_at, "page", text))


async def _note(ports: TellPorts, level: Level, entry: Entry) -> None:
    """Write on the timelines of the open incidents that it is about: the row's, or all of them."""
    for incident in await ports.incidents.open_incidents(ports.service):
        if level in (Level.NONE, incident.level, *incident.rows):
            await ports.incidents.note(incident.id, entry)
