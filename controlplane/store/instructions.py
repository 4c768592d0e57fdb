"""What people told the matrix, in the database: `degradation.instruction.InstructionBook`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from controlplane.degradation.instruction import Instruction, Kind
from controlplane.degradation.matrix import Level
from controlplane.store.database import Database
from controlplane.store.pages import Mark, newest
from controlplane.store.schema import instructions


class StoredInstructions:
    """Every pin, approval, refusal, release and brake, with who and why."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, instruction: Instruction) -> None:
        """Store a new instruction."""
        row = {
            "id": instruction.id,
            "service": instruction.service,
            "kind": instruction.kind.value,
            "level": instruction.level.value,
            "who": instruction.who,
            "why": instruction.why,
            "at": instruction.at,
            "until": instruction.until,
            "ended_by": "",
            "ended_why": "",
        }
        await self._database.run(lambda c: c.execute(insert(instructions).values(row)))

    async def end(self, instruction_id: str, at: datetime, by: str, why: str) -> None:
        """Record that an instruction holds no longer; one that has ended stays as it is."""
        chosen = update(instructions).where(instructions.c.id == instruction_id, instructions.c.ended_at.is_(None))
        await self._database.run(lambda c: c.execute(chosen.values(ended_at=at, ended_by=by, ended_why=why)))

    async def in_force(self, service: str) -> tuple[Instruction, ...]:
        """Return what has not ended, oldest first."""
        query = (
            select(instructions)
            .where(instructions.c.service == service, instructions.c.ended_at.is_(None))
            .order_by(instructions.c.at)
        )
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))

    async def recent(self, service: str, limit: int, after: Mark | None = None) -> tuple[Instruction, ...]:
        """Return the newest first, those behind a mark where one is given."""
        mine = select(instructions).where(instructions.c.service == service)
        query = newest(mine, instructions.c.at, instructions.c.id, limit, after)
        return await self._database.run(lambda c: tuple(_from_row(r) for r in c.execute(query)))


def _from_row(row: Row[Any]) -> Instruction:
    return Instruction(
        id=row.id,
        service=row.service,
        kind=Kind(row.kind),
        level=Level(row.level),
        who=row.who,
        why=row.why,
        at=row.at,
        until=row.until,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        ended_why=row.ended_why,
    )
