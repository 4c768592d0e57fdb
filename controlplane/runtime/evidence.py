"""Drills and incidents on record, for rendering without a running server."""

import asyncio
import contextlib

from controlplane.chaos.drill import Drill
from controlplane.incidents.incident import Incident
from controlplane.policy.load import Loaded
from controlplane.runtime.books import Books, books
from controlplane.runtime.wiring import EVIDENCE_DRILLS, EVIDENCE_INCIDENTS
from controlplane.settings import ServeSettings, state_dir_beside
from controlplane.store.database import open_database, sqlite_url


def on_record(loaded: Loaded) -> tuple[tuple[Drill, ...], tuple[Incident, ...]]:
    """Return the drills and incidents of a page, newest first; none where no control plane has run on it."""
    path = ServeSettings(state_dir_beside(loaded.path), experiments_dir=loaded.base).database
    if not path.exists():
        return (), ()
    with contextlib.closing(open_database(sqlite_url(path))) as database:
        return asyncio.run(_read(books(database), loaded.policy.service))


async def _read(book: Books, service: str) -> tuple[tuple[Drill, ...], tuple[Incident, ...]]:
    found = await book.incidents.recent(service, EVIDENCE_INCIDENTS)
    return await book.drills.recent(EVIDENCE_DRILLS), tuple(incident for incident, _ in found)
