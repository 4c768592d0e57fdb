"""One control plane is in charge at a time, and one that no longer is can write nothing."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.degradation.action import Notify, Scale, Shed
from controlplane.degradation.actuator import Progress, Receipt, ReceiptState, RoutePlan, Step
from controlplane.degradation.fencing import Term
from controlplane.degradation.matrix import Level
from controlplane.errors import FencedError
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.leader import StoredTerms
from controlplane.store.receipts import StoredReceipts

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
LONG_S = 600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controlplane.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = open_database(sqlite_url(path))
    yield opened
    opened.close()


@pytest.fixture
def other(path: Path, database: Database) -> Iterator[Database]:
    """The same database, opened by another control plane."""
    assert database
    opened = open_database(sqlite_url(path))
    yield opened
    opened.close()


def receipt(episode: int, level: Level = Level.P0) -> Receipt:
    return Receipt(
        f"chat/{level}/{episode}", "chat", level, "switch_pool to standby", RoutePlan({"primary": 100}),
        RoutePlan({"standby": 100}, level), ReceiptState.INTENDED, (), T0, T0, {ReceiptState.INTENDED: T0},
        episode=episode,
    )  # fmt: skip


async def test_the_lease_is_one_control_planes_until_it_runs_out(database: Database, other: Database) -> None:
    ours, theirs = StoredTerms(database), StoredTerms(other)
    assert await ours.take("chat", "a", LONG_S) == Term("chat", "a", 1)
    assert await theirs.take("chat", "b", LONG_S) is None
    assert await theirs.take("other", "b", LONG_S) == Term("other", "b", 1)
    assert await theirs.holder("chat") == "a"


async def test_a_lease_that_ran_out_is_taken_over_with_a_larger_token(database: Database, other: Database) -> None:
    ours, theirs = StoredTerms(database), StoredTerms(other)
    old = await ours.take("chat", "a", 0.0)
    assert old
    new = await theirs.take("chat", "b", LONG_S)
    assert new == Term("chat", "b", old.token + 1)
    assert not await ours.renew(old, LONG_S)
    with pytest.raises(FencedError, match="not in charge"):
        await ours.confirm(old)
    await theirs.confirm(new)


async def test_a_lease_that_ran_out_and_nobody_took_is_still_ours(database: Database) -> None:
    terms = StoredTerms(database)
    term = await terms.take("chat", "a", 0.0)
    assert term
    await terms.confirm(term)
    assert await terms.renew(term, LONG_S)


async def test_a_control_plane_need_not_wait_for_its_own_earlier_life(database: Database) -> None:
    terms = StoredTerms(database)
    assert await terms.take("chat", "a", LONG_S) == Term("chat", "a", 1)
    assert await terms.take("chat", "a", LONG_S) == Term("chat", "a", 2)


async def test_one_that_resigns_leaves_no_wait_behind(database: Database, other: Database) -> None:
    ours = StoredTerms(database)
    term = await ours.take("chat", "a", LONG_S)
    assert term
    await ours.resign(term)
    assert await StoredTerms(other).take("chat", "b", LONG_S) == Term("chat", "b", 2)
    await ours.resign(term)
    assert await StoredTerms(other).take("chat", "c", LONG_S) is None


async def test_of_many_that_want_the_lease_at_once_one_gets_it(database: Database, other: Database) -> None:
    books = (StoredTerms(database), StoredTerms(other))
    taken = await asyncio.gather(*(books[i % 2].take("chat", f"plane-{i}", LONG_S) for i in range(20)))
    assert len([term for term in taken if term]) == 1


async def test_whoever_lost_the_lease_writes_no_receipt(database: Database, other: Database) -> None:
    old = await StoredTerms(database).take("chat", "a", 0.0)
    ours = StoredReceipts(database, lambda: old)
    assert await ours.intend(receipt(1))
    new = await StoredTerms(other).take("chat", "b", LONG_S)
    theirs = StoredReceipts(other, lambda: new)
    for work in (
        ours.intend(receipt(1, Level.P2)),
        ours.move("chat/P0/1", ReceiptState.APPLIED, T0),
        ours.note_steps("chat/P0/1", (Step("x"),)),
    ):
        with pytest.raises(FencedError):
            await work
    moved = await theirs.move("chat/P0/1", ReceiptState.APPLIED, T0)
    assert (moved.state, moved.token, moved.steps) == (ReceiptState.APPLIED, 2, ())


async def test_without_a_lease_nothing_is_written(database: Database) -> None:
    with pytest.raises(FencedError):
        await StoredReceipts(database, lambda: None).intend(receipt(1))


async def test_a_row_is_engaged_once_and_each_episode_once(database: Database, other: Database) -> None:
    ours, theirs = StoredReceipts(database), StoredReceipts(other)
    assert await ours.next_episode("chat", "P0") == 1
    began = await asyncio.gather(*((ours, theirs)[i % 2].intend(receipt(1)) for i in range(20)))
    assert sorted(began) == [False] * 19 + [True]
    assert not await theirs.intend(receipt(2)), "the row is engaged"
    assert await theirs.intend(receipt(1, Level.P2)), "another row is another matter"
    await ours.move("chat/P0/1", ReceiptState.REVERTED, T0)
    assert not await theirs.intend(receipt(1)), "a trigger that comes late finds its episode dealt with"
    assert not await theirs.intend(receipt(3)), "no episode is left out"
    assert await theirs.next_episode("chat", "P0") == 2
    assert await theirs.intend(receipt(2))


async def test_a_row_can_engage_again_as_soon_as_its_traffic_is_back(database: Database) -> None:
    book = StoredReceipts(database)
    await book.intend(replace(receipt(1), steps=(Step("switch_pool to standby"),)))
    await book.move("chat/P0/1", ReceiptState.REVERTING, T0)
    assert not await book.intend(receipt(2)), "some of it is still away"
    await book.note_steps("chat/P0/1", (Step("switch_pool to standby", progress=Progress.UNDONE),))
    assert await book.intend(receipt(2))


@pytest.mark.parametrize("over", [ReceiptState.REVERTED, ReceiptState.FAILED])
async def test_a_receipt_that_is_over_stays_as_it_is(database: Database, over: ReceiptState) -> None:
    book = StoredReceipts(database)
    await book.intend(receipt(1))
    await book.move("chat/P0/1", over, T0, "why")
    late = await book.move("chat/P0/1", ReceiptState.VERIFIED, T0, "a late writer")
    assert (late.state, late.detail) == (over, "why")


async def test_plans_and_steps_come_back_as_they_were(database: Database) -> None:
    steps = (
        Step("switch_pool to standby; shed to 9/s"),
        Step(
            "scale deployment/x to replicas 4", Scale("deployment/x", replicas=4), before={"replicas": 2, "max": None}
        ),
        Step("notify oncall", Notify("oncall"), Progress.STUCK, {}, "gone"),
    )
    plan = RoutePlan({"standby": 100}, Level.P0, Shed(9.0, floor=2), ("primary-1",))
    stored = replace(receipt(1), after=plan, steps=steps)
    book = StoredReceipts(database)
    await book.intend(stored)
    assert await book.open_receipts("chat") == (stored,)
    done = replace(steps[0], progress=Progress.DONE)
    await book.note_steps("chat/P0/1", (done, *steps[1:]))
    (seen,) = await book.open_receipts("chat")
    assert seen.steps == (done, *steps[1:])
