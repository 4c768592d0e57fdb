"""Noting what happens in a drill: a note that is lost stops nothing."""

import structlog

from controlplane.chaos.drill import DrillLog, Event
from controlplane.errors import StoreError

log = structlog.get_logger("drill")


async def note(book: DrillLog, drill_id: str, event: Event) -> None:
    """Note something that happened in a drill; the drill goes on where that is not stored."""
    try:
        await book.note(drill_id, event)
    except StoreError as error:
        log.error("not noted", drill=drill_id, text=event.text, what=error.what, why=error.why)
