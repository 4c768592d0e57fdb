"""Drills, their events and dates, halts and leases in the database: the books of `chaos.drill` and `chaos.fault`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from controlplane.chaos.drill import Drill, DrillPhase, Event, Halt, Measured, Outcome, Slot, SlotState
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.degradation.fencing import Term
from controlplane.fleet.model import Endpoint
from controlplane.store.database import Database
from controlplane.store.leader import guard
from controlplane.store.pages import Mark, newest
from controlplane.store.schema import drill_events, drill_slots, drills, halts, leases


class StoredDrills:
    """Every drill, and how it ended."""

    def __init__(self, database: Database, term: Callable[[], Term | None] | None = None) -> None:
        """Take what it works with.

        Args:
            database: the opened store.
            term: gives our term while we are in charge; without it nobody is asked (a tool of one process).
        """
        self._database = database
        self._term = term

    async def begin(self, drill: Drill) -> bool:
        """Store a new drill; False when its slot has been run already, or another drill runs.

        Raises:
            FencedError: when we are not in charge.
        """
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
            if self._term:
                guard(connection, self._term())
            try:
                connection.execute(insert(drills).values(row))
            except IntegrityError:
                connection.rollback()
                return False
            return True

        return await self._database.change(work)

    async def end(self, drill: Drill) -> Drill:
        """Store how it ended, and return it as it is stored: one that another has called off meanwhile stays so."""
        known = drills.c.id == drill.id
        ended = update(drills).where(known, drills.c.outcome == Outcome.RUNNING.value).values(_outcome(drill))

        def work(connection: Connection) -> Drill:
            connection.execute(ended)
            return _drill(connection.execute(select(drills).where(known)).one())

        return await self._database.run(work)

    async def call_off(self, drill_id: str, why: str) -> Drill | None:
        """Tell a drill to stop, wherever it runs, and return it; the first reason stays. None when it does not run."""
        running = (drills.c.id == drill_id) & (drills.c.outcome == Outcome.RUNNING.value)
        first = func.coalesce(func.nullif(drills.c.called_off, ""), why)
        told = update(drills).where(running).values(called_off=first)

        def work(connection: Connection) -> Drill | None:
            connection.execute(told)
            row = connection.execute(select(drills).where(running)).one_or_none()
            return _drill(row) if row else None

        return await self._database.run(work)

    async def recent(self, limit: int, after: Mark | None = None) -> tuple[Drill, ...]:
        """Return the newest drills first, those behind a mark where one is given."""
        query = newest(select(drills), drills.c.started_at, drills.c.id, limit, after)
        return await self._database.run(lambda c: tuple(_drill(r) for r in c.execute(query)))

    async def get(self, drill_id: str) -> Drill | None:
        """Return one drill."""
        query = select(drills).where(drills.c.id == drill_id)
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        return _drill(row) if row else None

    async def note(self, drill_id: str, event: Event) -> None:
        """Store something that happened in a drill."""
        values = {"drill_id": drill_id, "at": event.at, "kind": event.kind, "text": event.text}
        await self._database.run(lambda c: c.execute(insert(drill_events).values(values)))

    async def events(self, drill_id: str) -> tuple[Event, ...]:
        """Return what happened in a drill, oldest first."""
        query = select(drill_events).where(drill_events.c.drill_id == drill_id).order_by(drill_events.c.id)
        return await self._database.run(lambda c: tuple(Event(r.at, r.kind, r.text) for r in c.execute(query)))

    async def running(self) -> Drill | None:
        """Return the drill that runs, if any; there is never more than one."""
        query = select(drills).where(drills.c.outcome == Outcome.RUNNING.value).limit(1)
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        return _drill(row) if row else None

    async def last_passed(self) -> Mapping[str, datetime]:
        """Return when each experiment passed last; those that never did are missing."""
        query = (
            select(drills.c.experiment, func.max(drills.c.ended_at))
            .where(drills.c.outcome == Outcome.PASSED.value)
            .group_by(drills.c.experiment)
        )
        return await self._database.run(lambda c: {row[0]: row[1] for row in c.execute(query)})

    async def ran(self, experiment: str, slot: str) -> bool:
        """Tell whether a slot of an experiment has been run, by whichever control plane."""
        query = select(drills.c.id).where(drills.c.experiment == experiment, drills.c.slot == slot)
        return await self._database.run(lambda c: c.execute(query).first() is not None)

    async def plan_slot(self, slot: Slot) -> None:
        """Store a date that is to come; one that is known stays as it stands."""
        row = {
            "experiment": slot.experiment, "slot": slot.name, "due_at": slot.due_at, "state": slot.state.value,
            "reasons": list(slot.reasons), "attempts": slot.attempts, "at": slot.at,
        }  # fmt: skip

        def work(connection: Connection) -> None:
            if connection.execute(select(drill_slots.c.slot).where(_same(slot))).first() is not None:
                return
            try:
                connection.execute(insert(drill_slots).values(row))
            except IntegrityError:  # Another control plane was first, and stored the same.
                connection.rollback()

        await self._database.change(work)

    async def keep_slot(self, slot: Slot) -> None:
        """Store how an attempt at a date ended; attempts add up."""
        values = {"state": slot.state.value, "reasons": list(slot.reasons), "at": slot.at}
        again = update(drill_slots).where(_same(slot)).values(**values, attempts=drill_slots.c.attempts + 1)
        await self._database.run(lambda c: c.execute(again))

    async def due_slots(self, now: datetime) -> tuple[Slot, ...]:
        """Return the dates that have come and are neither started nor missed, oldest first."""
        waiting = (SlotState.PLANNED.value, SlotState.POSTPONED.value)
        query = (
            select(drill_slots)
            .where(drill_slots.c.state.in_(waiting), drill_slots.c.due_at <= now)
            .order_by(drill_slots.c.due_at)
        )
        return await self._database.run(lambda c: tuple(_slot(r) for r in c.execute(query)))

    async def known_since(self) -> Mapping[str, datetime]:
        """Return since when each experiment is on the schedule."""
        query = select(drill_slots.c.experiment, func.min(drill_slots.c.due_at)).group_by(drill_slots.c.experiment)
        return await self._database.run(lambda c: {row[0]: row[1] for row in c.execute(query)})

    async def slots(self, limit: int) -> tuple[Slot, ...]:
        """Return how the newest slots stand, the newest first."""
        query = select(drill_slots).order_by(drill_slots.c.due_at.desc()).limit(limit)
        return await self._database.run(lambda c: tuple(_slot(r) for r in c.execute(query)))


class StoredHalts:
    """Every halt; the one that has not been resumed is in force."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def halt(self, halt: Halt) -> None:
        """Store a halt; one that is in force stays, with its own reason."""

        def work(connection: Connection) -> None:
            if connection.execute(_IN_FORCE).first() is None:
                connection.execute(insert(halts).values(why=halt.why, by=halt.by, at=halt.at))

        await self._database.change(work)

    async def resume(self, by: str, at: datetime) -> Halt | None:
        """End the halt; return the one that was in force, if any."""

        def work(connection: Connection) -> Halt | None:
            row = connection.execute(_IN_FORCE).first()
            connection.execute(update(halts).where(halts.c.resumed_at.is_(None)).values(resumed_by=by, resumed_at=at))
            return Halt(row.why, row.by, row.at) if row else None

        return await self._database.change(work)

    async def current(self) -> Halt | None:
        """Return the halt in force, if any."""
        row = await self._database.run(lambda c: c.execute(_IN_FORCE).first())
        return Halt(row.why, row.by, row.at) if row else None


_IN_FORCE = select(halts).where(halts.c.resumed_at.is_(None)).order_by(halts.c.id).limit(1)


class StoredLeases:
    """Every fault that was ever promised to end."""

    def __init__(self, database: Database, term: Callable[[], Term | None] | None = None) -> None:
        """Take what it works with, as `StoredDrills` does."""
        self._database = database
        self._term = term

    async def intend(self, lease: Lease) -> None:
        """Store a new lease.

        Raises:
            FencedError: when we are not in charge.
        """
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

        def work(connection: Connection) -> None:
            if self._term:
                guard(connection, self._term())
            connection.execute(insert(leases).values(row))

        await self._database.change(work)

    async def move(self, lease_id: str, state: LeaseState, at: datetime, detail: str = "") -> Lease:
        """Record the next state of a lease; details add up, one a line. A healed lease stays as it is.

        Whoever injects and whoever halts may do this at once, at different control planes: one waits for the other.
        """

        def work(connection: Connection) -> Lease:
            query = select(leases).where(leases.c.id == lease_id)
            before = connection.execute(query.with_for_update()).one()
            if before.state == LeaseState.HEALED.value:
                return _lease(before)
            values = {
                "state": state.value,
                f"{state.value}_at": at,
                "detail": "\n".join(text for text in (before.detail, detail) if text),
            }
            connection.execute(update(leases).where(leases.c.id == lease_id).values(values))
            return _lease(connection.execute(query).one())

        return await self._database.change(work)

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
        "users": {part: asdict(measured) for part, measured in drill.users.items()},
    }


def _same(slot: Slot) -> ColumnElement[bool]:
    return (drill_slots.c.experiment == slot.experiment) & (drill_slots.c.slot == slot.name)


def _slot(row: Row[Any]) -> Slot:
    return Slot(row.experiment, row.slot, row.due_at, SlotState(row.state), tuple(row.reasons), row.at, row.attempts)


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
        users={part: Measured(**measured) for part, measured in row.users.items()},
        called_off=row.called_off,
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
