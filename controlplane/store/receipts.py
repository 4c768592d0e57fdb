"""Receipts in the database: `degradation.actuator.ReceiptBook`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from controlplane.degradation.actuator import OPEN_STATES, Receipt, ReceiptState, RoutePlan
from controlplane.degradation.matrix import Level
from controlplane.store.database import Database
from controlplane.store.schema import receipts


class StoredReceipts:
    """Every action ever intended, and how far it got."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def intend(self, receipt: Receipt) -> bool:
        """Store a new receipt; False when its key is already there."""

        def work(connection: Connection) -> bool:
            try:
                connection.execute(insert(receipts).values(_to_row(receipt)))
            except IntegrityError:
                connection.rollback()
                return False
            return True

        return await self._database.run(work)

    async def move(self, receipt_id: str, state: ReceiptState, at: datetime, detail: str = "") -> Receipt:
        """Record the next state of a receipt; an empty detail keeps the one before."""

        def work(connection: Connection) -> Receipt:
            values: dict[str, Any] = {"state": state.value, f"{state.value}_at": at}
            if detail:
                values["detail"] = detail
            connection.execute(update(receipts).where(receipts.c.id == receipt_id).values(values))
            return _from_row(connection.execute(select(receipts).where(receipts.c.id == receipt_id)).one())

        return await self._database.run(work)

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


def _to_row(receipt: Receipt) -> dict[str, Any]:
    return {
        "id": receipt.id,
        "service": receipt.service,
        "level": receipt.level.value,
        "action": receipt.action,
        "before": {"weights": dict(receipt.before.weights), "level": receipt.before.level.value},
        "after": {"weights": dict(receipt.after.weights), "level": receipt.after.level.value},
        "state": receipt.state.value,
        "because": list(receipt.because),
        "detected_at": receipt.detected_at,
        "decided_at": receipt.decided_at,
        **{f"{state.value}_at": at for state, at in receipt.times.items()},
        "detail": receipt.detail,
    }


def _from_row(row: Row[Any]) -> Receipt:
    moments = {state: getattr(row, f"{state.value}_at") for state in ReceiptState}
    return Receipt(
        id=row.id,
        service=row.service,
        level=Level(row.level),
        action=row.action,
        before=RoutePlan(row.before["weights"], Level(row.before["level"])),
        after=RoutePlan(row.after["weights"], Level(row.after["level"])),
        state=ReceiptState(row.state),
        because=tuple(row.because),
        detected_at=row.detected_at,
        decided_at=row.decided_at,
        times={state: at for state, at in moments.items() if at},
        detail=row.detail,
    )
