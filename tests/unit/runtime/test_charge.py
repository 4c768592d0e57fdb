"""Doing what is ours: what keeps us from it is told, and forgotten when it is over."""

from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.errors import FencedError, StoreError
from controlplane.runtime.charge import Charge


class Shelf:
    """Receipts that can be out of reach."""

    def __init__(self) -> None:
        self.wrong: StoreError | None = None

    async def open_receipts(self, _service: str) -> tuple[()]:
        if self.wrong:
            raise self.wrong
        return ()

    async def in_force(self, _service: str) -> tuple[()]:
        return ()


def charge(shelf: Shelf) -> Charge:
    """Return a follower's part: it only reads what the one in charge has engaged."""
    books: Any = SimpleNamespace(receipts=shelf, instructions=shelf)
    nothing: Any = SimpleNamespace(
        term=None, resume=lambda *_: None, resumed=lambda *_: None, in_hand=SimpleNamespace(receipts={})
    )
    return Charge("chat", nothing, books, nothing, nothing, nothing)


async def test_a_database_that_does_not_answer_is_named_until_it_answers_again() -> None:
    shelf = Shelf()
    ours = charge(shelf)
    shelf.wrong = StoreError("the database does not answer", "connection refused", "start it")
    with pytest.raises(StoreError):
        await ours.tick()
    assert ours.unable == "the database does not answer: connection refused"
    shelf.wrong = None
    await ours.tick()
    assert ours.unable == ""


async def test_another_in_charge_is_no_reason_not_to_be_ready() -> None:
    shelf = Shelf()
    shelf.wrong = FencedError("not in charge", "the lease is not ours", "ask the one in charge")
    ours = charge(shelf)
    with pytest.raises(FencedError):
        await ours.tick()
    assert ours.unable == ""
