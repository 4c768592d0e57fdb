"""Every book of the database, opened together."""

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.degradation.fencing import Term
from controlplane.store.database import Database
from controlplane.store.drills import StoredDrills, StoredHalts, StoredLeases
from controlplane.store.histories import StoredHistories
from controlplane.store.incidents import StoredIncidents
from controlplane.store.instructions import StoredInstructions
from controlplane.store.receipts import StoredReceipts


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that is stored."""

    receipts: StoredReceipts
    incidents: StoredIncidents
    drills: StoredDrills
    leases: StoredLeases
    halts: StoredHalts
    instructions: StoredInstructions
    histories: StoredHistories


def books(database: Database, term: Callable[[], Term | None] | None = None) -> Books:
    """Open every book of a database; whoever acts gives the term it holds; each write asks whether it is the newest."""
    return Books(
        StoredReceipts(database, term), StoredIncidents(database, term), StoredDrills(database, term),
        StoredLeases(database, term),
        StoredHalts(database), StoredInstructions(database), StoredHistories(database),
    )  # fmt: skip
