"""What people said to other replicas: stored by whoever heard it, followed by the one in charge.

Any replica takes a pin, a word or the brake: it stores it and says so. The one in charge looks twice a second for what
it has not heard yet, and whether what it holds has been ended by somebody. Joined by `wiring`, run by `server`.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from time import monotonic

import structlog

from controlplane.degradation.instruction import Instruction, InstructionBook, Kind
from controlplane.errors import ControlplaneError
from controlplane.flows.decide import Decider

HEAR_EVERY_S = 0.5
PATIENCE_S = 5.0
"""How long an instruction waits for a row whose lever is just being moved, before it is ended with the reason."""
REMEMBERED = 1000
"""Instructions that are known by their ids; far more than ever hold at once."""

_SHOWN = (Kind.PIN, Kind.BRAKE)
"""What a matrix may be told that moves nothing."""

log = structlog.get_logger("hearing")


class Hearing:
    """Tells the matrix of the one in charge what is stored, each instruction once."""

    def __init__(
        self,
        service: str,
        book: InstructionBook,
        decider: Decider,
        acting: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        """Take what it works with.

        Args:
            service: whose instructions.
            book: where they are stored.
            decider: moves the matrix.
            acting: whether we are in charge.
            now: aware UTC.
        """
        self._service = service
        self._book = book
        self._decider = decider
        self._acting = acting
        self._now = now
        self._known: dict[str, None] = {}
        self._stored: frozenset[str] = frozenset()
        self._waiting: dict[str, float] = {}

    def resumed(self, said: tuple[Instruction, ...]) -> None:
        """Take note of what the matrix was told when it was resumed."""
        self._stored = frozenset(instruction.id for instruction in said)
        self._note(self._stored)

    def take(self, instruction: Instruction) -> None:
        """Tell the matrix what somebody said to us, which is stored already; once, whoever is quicker.

        One that is not in charge shows a pin or the brake at once. A word about a row would move it: that is left to
        the one in charge, which may be us again at the next tick.
        """
        self._stored |= {instruction.id}
        if instruction.id not in self._known and (self._acting() or instruction.kind in _SHOWN):
            self._note((instruction.id,))
            self._decider.instruct(instruction)

    async def listen(self) -> None:
        """Look again and again, until called off."""
        while True:
            await asyncio.sleep(HEAR_EVERY_S)
            try:
                await self.tick()
            except ControlplaneError as error:
                log.warning("instructions not read", what=error.what, why=error.why, fix=error.fix)

    async def tick(self) -> None:
        """Look once what is new and what has been ended; one that is not in charge does nothing.

        Raises:
            StoreError: when the database refuses.
        """
        if not self._acting():
            return
        before = self._stored
        said = await self._book.in_force(self._service)
        if not self._acting():
            return
        held, stored = self._decider.held(), frozenset(instruction.id for instruction in said)
        self._note(instruction.id for instruction in held)
        for instruction in held:
            if instruction.id in before - stored:
                log.info("ended elsewhere", instruction=instruction.id)
                self._decider.drop(instruction)
        self._stored = stored | (self._stored - before)  # What was said to us while the database answered.
        self._waiting = {key: since for key, since in self._waiting.items() if key in stored}
        for instruction in said:
            if instruction.id not in self._known:
                await self._follow(instruction)

    async def _follow(self, instruction: Instruction) -> None:
        why_not = self._decider.refusal(instruction.kind, instruction.level)
        if not why_not:
            log.info("heard", instruction=instruction.id, words=instruction.words)
            self.take(instruction)
        elif monotonic() - self._waiting.setdefault(instruction.id, monotonic()) >= PATIENCE_S:
            log.warning("not followed", instruction=instruction.id, why=why_not)
            await self._book.end(instruction.id, self._now(), "", f"not followed: {why_not}")

    def _note(self, ids: Iterable[str]) -> None:
        self._known.update(dict.fromkeys(ids))
        for old in list(self._known)[: max(0, len(self._known) - REMEMBERED)]:
            del self._known[old]
