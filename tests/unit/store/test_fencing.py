"""One control plane is in charge at a time, and one that no longer is can write nothing."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.chaos.drill import Drill, Outcome
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.degradation.action import Notify, Scale, Shed
from controlplane.degradation.actuator import Progress, Receipt, ReceiptState, RoutePlan, Step
from controlplane.degradation.fencing import Held, Term
from controlplane.degradation.matrix import Level
from controlplane.errors import FencedError
from controlplane.fleet.model import Endpoint
from controlplane.store import leader
from controlplane.store.database import Database
from controlplane.store.drills import StoredDrills, StoredLeases
from controlplane.store.leader import StoredTerms
from controlplane.store.receipts import StoredReceipts

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
LONG_S = 600.0


def receipt(episode: int, level: Level = Level.P0) -> Receipt:
    return Receipt(
        f"chat/{level}/{episode}", "chat", level, "switch_pool to standby", RoutePlan({"primary": 100}),
        RoutePlan({"standby": 100}, level), ReceiptState.INTENDED, (), T0, T0, {ReceiptState.INTENDED: T0},
        episode=episode,
    )  # fmt: skip


async def term_of(database: Database, holder: str, ttl_s: float = LONG_S) -> Term:
    """Put somebody in charge."""
    term = await StoredTerms(database).take("chat", holder, ttl_s)
    assert isinstance(term, Term)
    return term


async def test_the_lease_is_one_control_planes_until_it_runs_out(database: Database, other: Database) -> None:
    ours, theirs = StoredTerms(database), StoredTerms(other)
    assert await ours.take("chat", "a", LONG_S) == Term("chat", "a", 1)
    held = await theirs.take("chat", "b", LONG_S)
    assert isinstance(held, Held)
    assert (held.holder, 0 < held.left_s <= LONG_S) == ("a", True)
    assert await theirs.take("other", "b", LONG_S) == Term("other", "b", 1)
    assert await theirs.newest("chat") == Term("chat", "a", 1)
    assert await theirs.newest("nobody's") == Term("nobody's", "", 0)


async def test_a_number_that_somebody_else_gives_must_be_larger_than_any_before(
    database: Database, other: Database
) -> None:
    ours, theirs = StoredTerms(database), StoredTerms(other)
    assert await ours.take("chat", "a", 0.0, token=7) == Term("chat", "a", 7)
    for stale in (3, 7):
        assert await theirs.take("chat", "b", LONG_S, token=stale) == Held("a", 0.0)
    assert await theirs.take("chat", "b", LONG_S, token=9) == Term("chat", "b", 9)
    assert await ours.take("chat", "b", LONG_S, token=9) == Held("b", 0.0), "nor may it be the same one"


async def test_the_databases_clock_is_compared_with_ours(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = StoredTerms(database)
    assert abs(await terms.clock_off_s()) < 1.0, "both run on this machine"
    monkeypatch.setattr(leader, "time", lambda: time.time() - 30.0)
    assert 29.0 < await terms.clock_off_s() < 31.0, "it is ahead of us"


async def test_a_lease_that_ran_out_is_taken_over_with_a_larger_token(database: Database, other: Database) -> None:
    ours, theirs = StoredTerms(database), StoredTerms(other)
    old = await ours.take("chat", "a", 0.0)
    new = await theirs.take("chat", "b", LONG_S)
    assert isinstance(old, Term)
    assert new == Term("chat", "b", old.token + 1)
    assert not await ours.renew(old, LONG_S)
    with pytest.raises(FencedError, match="not in charge"):
        await ours.confirm(old)
    await theirs.confirm(new)


async def test_a_lease_that_ran_out_and_nobody_took_is_still_ours(database: Database) -> None:
    terms = StoredTerms(database)
    term = await terms.take("chat", "a", 0.0)
    assert isinstance(term, Term)
    await terms.confirm(term)
    assert await terms.renew(term, LONG_S)


async def test_a_control_plane_need_not_wait_for_its_own_earlier_life(database: Database) -> None:
    terms = StoredTerms(database)
    assert await terms.take("chat", "a", LONG_S) == Term("chat", "a", 1)
    assert await terms.take("chat", "a", LONG_S) == Term("chat", "a", 2)


async def test_one_that_resigns_leaves_no_wait_behind(database: Database, other: Database) -> None:
    ours = StoredTerms(database)
    term = await ours.take("chat", "a", LONG_S)
    assert isinstance(term, Term)
    await ours.resign(term)
    assert await StoredTerms(other).take("chat", "b", LONG_S) == Term("chat", "b", 2)
    await ours.resign(term)
    assert isinstance(await StoredTerms(other).take("chat", "c", LONG_S), Held)


async def test_of_many_that_want_the_lease_at_once_one_gets_it(database: Database, other: Database) -> None:
    books = (StoredTerms(database), StoredTerms(other))
    taken = await asyncio.gather(*(books[i % 2].take("chat", f"plane-{i}", LONG_S) for i in range(20)))
    assert len([term for term in taken if isinstance(term, Term)]) == 1


async def test_whoever_lost_the_lease_writes_no_receipt(database: Database, other: Database) -> None:
    old = await term_of(database, "a", 0.0)
    ours = StoredReceipts(database, lambda: old)
    assert await ours.intend(receipt(1))
    new = await term_of(other, "b")
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


async def test_whoever_lost_the_lease_begins_no_drill_and_leases_no_fault(database: Database, other: Database) -> None:
    old = await term_of(database, "a", 0.0)
    drills, leases = StoredDrills(database, lambda: old), StoredLeases(database, lambda: old)
    drill = Drill("d1", "node-kill", "P0", timedelta(minutes=5), "ann", T0)
    assert await drills.begin(drill)
    new = await term_of(other, "b")
    lease = Lease("l1", "d1", FaultKind.NODE_KILL, Endpoint("e", "p", "http://x"), T0, LeaseState.INTENDED, T0)
    for work in (drills.begin(replace(drill, id="d2")), leases.intend(lease)):
        with pytest.raises(FencedError):
            await work
    await StoredDrills(other).end(replace(drill, outcome=Outcome.ABORTED, reasons=("taken over",)))
    ended = await drills.end(replace(drill, outcome=Outcome.PASSED))
    assert await drills.get("d1") == ended
    assert (ended.outcome, ended.reasons) == (Outcome.ABORTED, ("taken over",)), "it was called off, and stays so"
    assert await StoredDrills(other, lambda: new).begin(replace(drill, id="d3"))
    await StoredLeases(other, lambda: new).intend(replace(lease, drill_id="d3"))


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
