"""Ending every leased fault with the control plane dead: the third net, for a person."""

import asyncio
import contextlib
import getpass
from pathlib import Path

from controlplane.clock import utcnow
from controlplane.errors import StoreError
from controlplane.flows.recover import RecoverPorts, heal_all, reap_all
from controlplane.policy.load import Loaded
from controlplane.runtime.books import books
from controlplane.runtime.doors import note_offline
from controlplane.runtime.grounds import fault_driver, reaper_of
from controlplane.runtime.state_dir import held
from controlplane.settings import ServeSettings
from controlplane.store.database import open_database, sqlite_url


def heal_offline(loaded: Loaded, state_dir: Path) -> tuple[str, ...]:
    """End every leased fault without a running server.

    Returns:
        What was done, one line a fault.

    Raises:
        ControlplaneError: when the state cannot be used.
    """
    settings = ServeSettings(state_dir, experiments_dir=loaded.base)
    reaper = reaper_of(loaded)
    if not settings.database.exists():
        return asyncio.run(reap_all(reaper))

    with held(settings), contextlib.closing(open_database(sqlite_url(settings.database))) as database:
        book = books(database)
        ports = RecoverPorts(
            loaded.policy.service, book.receipts, book.leases, book.drills, None,
            fault_driver(loaded, settings.state_dir), utcnow, reaper=reaper,
        )  # fmt: skip
        # The log never stands between a person and the end of a fault: what cannot be recorded is done all the same.
        healed = asyncio.run(heal_all(ports))
        with contextlib.suppress(StoreError):
            note_offline(database, "controlplane heal", f"done, {len(healed)} faults", getpass.getuser())
        return healed
