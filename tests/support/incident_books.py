"""Incidents as they stand in the database, written down without being correlated."""

from sqlalchemy import insert

from controlplane.incidents.incident import Incident
from controlplane.store.database import Database
from controlplane.store.incidents import _values
from controlplane.store.schema import incidents


def write(database: Database, incident: Incident) -> None:
    """Store an incident as it is."""
    database.run_now(lambda c: c.execute(insert(incidents).values(_values(incident))))
