"""Receipts in the database: `degradation.actuator.ReceiptBook`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from controlplane.degradation.action import Errand, Shed
from controlplane.degradation.actuator import (
    BLOCKING_STATES,
    OPEN_STATES,
    Progress,
    Receipt,
    ReceiptState,
    RoutePlan,
    Step,
    traffic_is_back,
)
from controlplane.degradation.fencing import Term
from controlplane.degradation.matrix import Level
from controlplane.incidents.incident import Incident
from controlplane.store.database import Database
from controlplane.store.leader import guard
from controlplane.store.schema import receipts

OF_AN_INCIDENT = 50
"""How many actions of one incident are shown; the newest, where a row failed again and again."""

_KINDS: Mapping[str, type[Errand]] = {kind.__name__: kind for kind in get_args(Errand)}


class StoredReceipts:
    """Every action ever intended, and how far it got."""

    def __init__(self, database: Database, term: Callable[[], Term | None] | None = None) -> None:
        """Take what it works with.

        Args:
            database: the opened store.
            term: gives our term while we are in charge; without it nobody is asked (a tool of one process).
        """
        self._database = database
        self._term = term

    def _guard(self, connection: Connection) -> int:
        return guard(connection, self._term()) if self._term else 0

    async def next_episode(self, service: str, level: str) -> int:
        """Return the number that the next engagement of a row has: of those that are stored, one more than the last."""
        return await self._database.run(lambda c: _next_episode(c, service, level))

    async def intend(self, receipt: Receipt) -> bool:
        """Store a new receipt; False when its row is engaged already, or its episode is not the next one."""

        def work(connection: Connection) -> bool:
            token = self._guard(connection)
            if receipt.episode != _next_episode(connection, receipt.service, receipt.level):
                return False
            if _engaged(connection, receipt.service, receipt.level):
                return False
            try:
                connection.execute(insert(receipts).values({**_to_row(receipt), "token": token}))
            except IntegrityError:
                connection.rollback()
                return False
            return True

        return await self._database.change(work)

    async def move(
        self, receipt_id: str, state: ReceiptState, at: datetime, detail: str = "", steps: tuple[Step, ...] = ()
    ) -> Receipt:
        """Record the next state of a receipt; an empty detail and no steps keep those before."""
        values: dict[str, Any] = {"state": state.value, f"{state.value}_at": at}
        if detail:
            values["detail"] = detail
        if steps:
            values["steps"] = [_step_to_json(step) for step in steps]
        return await self._database.change(lambda c: self._update(c, receipt_id, values))

    async def note_steps(self, receipt_id: str, steps: tuple[Step, ...]) -> None:
        """Record how far the steps of a receipt are."""
        values = {"steps": [_step_to_json(step) for step in steps]}
        await self._database.change(lambda c: self._update(c, receipt_id, values))

    def _update(self, connection: Connection, receipt_id: str, values: Mapping[str, Any]) -> Receipt:
        token = self._guard(connection)
        mine = receipts.c.id == receipt_id
        still_open = mine & receipts.c.state.in_([s.value for s in OPEN_STATES])
        connection.execute(update(receipts).where(still_open).values({**values, "token": token}))
        return _from_row(connection.execute(select(receipts).where(mine)).one())

    async def open_receipts(self, service: str) -> tuple[Receipt, ...]:
        """Return the receipts whose lever is, or may be, away from its normal place, oldest first."""
        query = (
            select(receipts)
            .where(receipts.c.service == service, receipts.c.state.in_([s.value for s in OPEN_STATES]))
            .order_by(receipts.c.decided_at)
        )
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))

    async def recent(self, service: str, limit: int) -> tuple[Receipt, ...]:
        """Return the newest receipts first."""
        query = (
            select(receipts).where(receipts.c.service == service).order_by(receipts.c.decided_at.desc()).limit(limit)
        )
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))

    async def of_incident(self, incident: Incident) -> tuple[Receipt, ...]:
        """Return what was done about an incident, oldest first: its rows' actions from its beginning to its end."""
        rows = receipts.c.level.in_((incident.level, *incident.rows))
        mine = (receipts.c.service == incident.service) & rows
        query = select(receipts).where(mine, receipts.c.decided_at >= incident.detected_at)
        if incident.resolved_at:
            query = query.where(receipts.c.decided_at <= incident.resolved_at)
        newest = query.order_by(receipts.c.decided_at.desc()).limit(OF_AN_INCIDENT)
        found = await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(newest)))
        return found[::-1]


def _next_episode(connection: Connection, service: str, level: str) -> int:
    mine = (receipts.c.service == service) & (receipts.c.level == level)
    return int(connection.execute(select(func.max(receipts.c.episode)).where(mine)).scalar() or 0) + 1


def _engaged(connection: Connection, service: str, level: str) -> bool:
    mine = (receipts.c.service == service) & (receipts.c.level == level)
    still_open = receipts.c.state.in_([s.value for s in OPEN_STATES])
    found = connection.execute(select(receipts.c.state, receipts.c.steps).where(mine & still_open))
    return any(
        state in BLOCKING_STATES or not traffic_is_back([_step_from_json(step) for step in steps])
        for state, steps in found
    )


def _plan_to_json(plan: RoutePlan) -> dict[str, Any]:
    return {
        "weights": dict(plan.weights),
        "level": plan.level.value,
        "shed": asdict(plan.shed) if plan.shed else None,
        "cordoned": list(plan.cordoned),
    }


def _plan_from_json(stored: Mapping[str, Any]) -> RoutePlan:
    """Read a plan; one from before the fencing has neither what is shed nor who is cordoned."""
    shed = stored.get("shed")
    return RoutePlan(
        stored["weights"], Level(stored["level"]), Shed(**shed) if shed else None, tuple(stored.get("cordoned", ()))
    )


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "errand": {"kind": type(step.errand).__name__, **asdict(step.errand)} if step.errand else None,
        "progress": step.progress.value,
        "before": dict(step.before),
        "detail": step.detail,
    }


def _step_from_json(stored: Mapping[str, Any]) -> Step:
    errand = dict(stored["errand"] or {})
    kind = _KINDS.get(errand.pop("kind", ""))
    return Step(
        stored["action"], kind(**errand) if kind else None, Progress(stored["progress"]), stored["before"],
        stored["detail"],
    )  # fmt: skip


def _to_row(receipt: Receipt) -> dict[str, Any]:
    return {
        "id": receipt.id,
        "service": receipt.service,
        "level": receipt.level.value,
        "action": receipt.action,
        "before": _plan_to_json(receipt.before),
        "after": _plan_to_json(receipt.after),
        "state": receipt.state.value,
        "because": list(receipt.because),
        "detected_at": receipt.detected_at,
        "decided_at": receipt.decided_at,
        **{f"{state.value}_at": at for state, at in receipt.times.items()},
        "detail": receipt.detail,
        "episode": receipt.episode,
        "steps": [_step_to_json(step) for step in receipt.steps],
    }


def _from_row(row: Row[Any]) -> Receipt:
    moments = {state: getattr(row, f"{state.value}_at") for state in ReceiptState}
    return Receipt(
        id=row.id,
        service=row.service,
        level=Level(row.level),
        action=row.action,
        before=_plan_from_json(row.before),
        after=_plan_from_json(row.after),
        state=ReceiptState(row.state),
        because=tuple(row.because),
        detected_at=row.detected_at,
        decided_at=row.decided_at,
        times={state: at for state, at in moments.items() if at},
        detail=row.detail,
        episode=row.episode,
        steps=tuple(_step_from_json(step) for step in row.steps),
        token=row.token,
    )
