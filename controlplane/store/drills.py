"""Drills and leases in the database: `chaos.drill.DrillBook` and `chaos.fault.LeaseBook`."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.fleet.model import Endpoint
from controlplane.store.database import Database
from controlplane.store.schema import drills, leases


class StoredDrills:
    """Every drill, and how it ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, drill: Drill) -> bool:
        """Store a new drill; False when its slot has been run already."""
        row = {
            "id": drill.id,
            "experiment": drill.experiment,
            "row": drill.row,
            "objective_s": round(drill.objective.total_seconds()),
            "requested_by": drill.requested_by,
            "slot": drill.slot or None,
            "started_at": drill.started_at,
            **_outcome(drill),
        }

        def work(connection: Connection) -> bool:
            try:
                connection.execute(insert(drills).values(row))
            except IntegrityError:
                connection.rollback()
                return False
            return True

        return await self._database.run(work)

    async def end(self, drill: Drill) -> None:
        """Store how it ended."""
        await self._database.run(
            lambda c: c.execute(update(drills).where(drills.c.id == drill.id).values(_outcome(drill)))
        )

    async def recent(self, limit: int) -> tuple[Drill, ...]:
        """Return the newest drills first."""
        query = select(drills).order_by(drills.c.started_at.desc()).limit(limit)
        return await self._database.run(lambda c: tuple(_drill(r) for r in c.execute(query)))

    async def get(self, drill_id: str) -> Drill | None:
        """Return one drill."""
        query = select(drills).where(drills.c.id == drill_id)
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        return _drill(row) if row else None


class StoredLeases:
    """Every fault that was ever promised to end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def intend(self, lease: Lease) -> None:
        """Store a new lease."""
        row = {
            "id": lease.id,
            "drill_id": lease.drill_id,
            "kind": lease.kind.value,
            "endpoint": asdict(lease.endpoint),
            "parameters": dict(lease.parameters),
            "state": lease.state.value,
            "deadline": lease.deadline,
            "intended_at": lease.intended_at,
        }
        await self._database.run(lambda c: c.execute(insert(leases).values(row)))

    async def move(self, lease_id: str, state: LeaseState, at: datetime, detail: str = "") -> Lease:
        """Record the next state of a lease; details add up, one a line. A healed lease stays as it is."""

        def work(connection: Connection) -> Lease:
            query = select(leases).where(leases.c.id == lease_id)
            before = connection.execute(query).one()
            if before.state == LeaseState.HEALED.value:
                return _lease(before)
            values = {
                "state": state.value,
                f"{state.value}_at": at,
                "detail": "\n".join(text for text in (before.detail, detail) if text),
            }
            connection.execute(update(leases).where(leases.c.id == lease_id).values(values))
            return _lease(connection.execute(query).one())

        return await self._database.run(work)

    async def open_leases(self) -> tuple[Lease, ...]:
        """Return the leases that are not healed, oldest first."""
        query = select(leases).where(leases.c.state != LeaseState.HEALED.value).order_by(leases.c.intended_at)
        return await self._database.run(lambda c: tuple(_lease(r) for r in c.execute(query)))

    async def of_drill(self, drill_id: str) -> tuple[Lease, ...]:
        """Return every lease of one drill, oldest first."""
        query = select(leases).where(leases.c.drill_id == drill_id).order_by(leases.c.intended_at)
        return await self._database.run(lambda c: tuple(_lease(r) for r in c.execute(query)))


def _outcome(drill: Drill) -> dict[str, Any]:
    return {
        "outcome": drill.outcome.value,
        "reasons": list(drill.reasons),
        "phases": {phase.value: at.isoformat() for phase, at in drill.phases.items()},
        "ended_at": drill.ended_at,
        "journal": drill.journal,
    }


def _drill(row: Row[Any]) -> Drill:
    return Drill(
        id=row.id,
        experiment=row.experiment,
        row=row._mapping["row"],  # noqa: SLF001 - SQLAlchemy's own name for it; `row.row` would be ambiguous
        objective=timedelta(seconds=row.objective_s),
        requested_by=row.requested_by,
        started_at=row.started_at,
        slot=row.slot or "",
        outcome=Outcome(row.outcome),
        reasons=tuple(row.reasons),
        ended_at=row.ended_at,
        phases={DrillPhase(phase): datetime.fromisoformat(at) for phase, at in row.phases.items()},
        journal=row.journal,
    )


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        id=row.id,
        drill_id=row.drill_id,
        kind=FaultKind(row.kind),
        endpoint=Endpoint(**row.endpoint),
        deadline=row.deadline,
        state=LeaseState(row.state),
        intended_at=row.intended_at,
        injected_at=row.injected_at,
        proven_at=row.proven_at,
        healed_at=row.healed_at,
        detail=row.detail,
        parameters=row.parameters,
    )
