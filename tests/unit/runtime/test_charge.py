"""Doing what is ours: what keeps us from it is told, and forgotten when it is over."""

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.chaos.drill import Drill, Outcome
from controlplane.degradation.fencing import Term
from controlplane.errors import FencedError, StoreError
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.recover import RecoverPorts
from controlplane.runtime.charge import Charge
from controlplane.runtime.leader import Leadership
from tests.unit.flows.fakes import T0, FakeActuator, FakeDrills, FakeDriver, FakeLeases, FakeReceipts, fixed, lease


class Shelf:
    """Receipts that can be out of reach."""

    def __init__(self) -> None:
        self.wrong: StoreError | None = None
        self.during: Callable[[], None] = lambda: None
        """What happens elsewhere while it is read."""

    async def open_receipts(self, _service: str) -> tuple[()]:
        self.during()
        if self.wrong:
            raise self.wrong
        return ()

    async def in_force(self, _service: str) -> tuple[()]:
        return ()

    async def rows(self, _service: str) -> frozenset[str]:
        return frozenset({"P0", "P2"})

    async def recent(self, limit: int) -> tuple[()]:
        return ()

    async def open_leases(self) -> tuple[()]:
        return ()


class Share:
    """A share in the lease that a test sets."""

    def __init__(self) -> None:
        self.term: Term | None = None
        self.lapsed = False
        self.acting = False

    def settled(self, _term: Term) -> None:
        self.acting = True

    async def still_acting(self) -> bool:
        return self.acting


class World:
    """A follower's part, unless a test makes it more: it only reads what the one in charge has engaged."""

    def __init__(self, recovering: RecoverPorts | None = None) -> None:
        self.shelf, self.share = Shelf(), Share()
        self.followed: list[tuple[Any, ...]] = []
        self.resumed: list[tuple[Any, ...]] = []
        self.ended: list[str] = []
        self.in_hand = SimpleNamespace(receipts={"chat/P0/1": "engaged"}, moving=0)
        books: Any = SimpleNamespace(receipts=self.shelf, instructions=self.shelf, incidents=self.shelf)
        decider: Any = SimpleNamespace(
            follow=lambda *told: self.followed.append(told), resume=lambda *told: self.resumed.append(told)
        )
        hearing: Any = SimpleNamespace(resumed=lambda _: None)

        async def resolve(level: str, _why: str) -> None:
            self.ended.append(level)

        ports: Any = recovering or SimpleNamespace(
            in_hand=self.in_hand, levers=None, resolve=resolve, drills=self.shelf, leases=self.shelf
        )
        self.ours = Charge("chat", cast("Leadership", self.share), books, decider, hearing, ports)


async def test_a_database_that_does_not_answer_is_named_until_it_answers_again() -> None:
    world = World()
    world.shelf.wrong = StoreError("the database does not answer", "connection refused", "start it")
    with pytest.raises(StoreError):
        await world.ours.tick()
    assert world.ours.unable == "the database does not answer: connection refused"
    world.shelf.wrong = None
    await world.ours.tick()
    assert world.ours.unable == ""


async def test_another_in_charge_is_no_reason_not_to_be_ready() -> None:
    world = World()
    world.shelf.wrong = FencedError("not in charge", "the lease is not ours", "ask the one in charge")
    with pytest.raises(FencedError):
        await world.ours.tick()
    assert world.ours.unable == ""


async def test_a_follower_has_nothing_in_hand_and_shows_what_the_one_in_charge_engaged() -> None:
    world = World()
    await world.ours.tick()
    assert world.in_hand.receipts == {}
    assert (world.followed, world.resumed) == ([((), ())], [])


async def test_whoever_comes_to_be_in_charge_knows_which_rows_have_an_open_incident() -> None:
    world = World()
    world.share.term = Term("chat", "a", 1)
    await world.ours.tick()
    assert world.resumed == [((), (), {"P0", "P2"})]
    assert world.ended == ["P0", "P2"], "without a gateway no row ends its own"
    assert (world.followed, world.share.acting) == ([], True)


async def test_a_lease_that_ran_out_in_a_stall_takes_nothing_out_of_its_holders_hands() -> None:
    """It may be renewed in the next moment, in the same term: what was engaged is put back by whoever engaged it."""
    world = World()
    world.share.lapsed = True
    await world.ours.tick()
    world.share.lapsed = False
    world.shelf.during = lambda: setattr(world.share, "term", Term("chat", "a", 1))
    await world.ours.tick()
    assert world.in_hand.receipts == {"chat/P0/1": "engaged"}
    assert (world.followed, world.resumed) == ([], [])


async def test_whoever_is_in_charge_ends_the_drill_that_nobody_walks_and_what_it_broke() -> None:
    drills, leases, later = FakeDrills(), FakeLeases(), T0 + timedelta(hours=1)
    ports = RecoverPorts(
        "chat", FakeReceipts(), leases, drills, Levers(FakeActuator()), FakeDriver(), fixed(later), in_hand=InHand()
    )
    await drills.begin(Drill("drill", "node-kill", "P0", timedelta(minutes=5), "ann", T0))
    await leases.intend(lease("primary-0", later + timedelta(hours=1)))
    world = World(ports)
    world.share.term, world.share.acting = Term("chat", "a", 1), True
    await world.ours.tick()
    assert drills.kept["drill"].outcome is Outcome.ABORTED
    assert await leases.open_leases() == ()
