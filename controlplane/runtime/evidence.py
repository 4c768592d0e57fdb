"""The drills on record, for rendering without a running server."""

import asyncio
import contextlib

from controlplane.chaos.drill import Drill
from controlplane.policy.load import Loaded
from controlplane.runtime.books import books
from controlplane.runtime.wiring import EVIDENCE_DRILLS
from controlplane.settings import ServeSettings, state_dir_beside
from controlplane.store.database import open_database, sqlite_url


def drills_on_record(loaded: Loaded) -> tuple[Drill, ...]:
    """Return the drills that prove a page's rows, newest first; none where no control plane has run on it."""
    path = ServeSettings(state_dir_beside(loaded.path), experiments_dir=loaded.base).database
    if not path.exists():
        return ()
    with contextlib.closing(open_database(sqlite_url(path))) as database:
        return asyncio.run(books(database).drills.recent(EVIDENCE_DRILLS))
