"""Who is in charge: the lease is taken, renewed, lost by one's own clock, and given back."""

import asyncio
from asyncio import sleep
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.chaos.drill import Drill, Outcome
from controlplane.degradation.fencing import Held, Term
from controlplane.errors import FencedError, StoreError
from controlplane.runtime import leader
from controlplane.runtime.books import books
from controlplane.runtime.leader import Leadership, holder_name
from controlplane.store.database import open_database, sqlite_url
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics

DRILL = Drill("d1", "node-kill", "P0", timedelta(minutes=5), "ann", datetime(2026, 3, 3, tzinfo=UTC))


class Book:
    """A lease in memory."""

    def __init__(self) -> None:
        self.held: Term | None = None
        self.left_s = 3.0
        self.works = True
        self.resigned: list[Term] = []

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | Held:
        await sleep(0)  # Others run meanwhile, as they do while a database answers.
        self._must_work()
        if self.held and self.held.holder != holder:
            return Held(self.held.holder, self.left_s)
        self.held = Term(service, holder, self.held.token + 1 if self.held else 1)
        return self.held

    async def renew(self, term: Term, ttl_s: float) -> bool:
        await sleep(0)
        self._must_work()
        return self.held == term

    async def resign(self, term: Term) -> None:
        self._must_work()
        self.resigned.append(term)

    async def confirm(self, term: Term) -> None:
        self._must_work()
        if self.held != term:
            raise FencedError("not in charge any more")

    def _must_work(self) -> None:
        if not self.works:
            raise StoreError("the database refuses", "disk full", "free space")


class World:
    """One control plane, a lease and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.book = Book()
        self.metrics = Metrics()
        self.ours = Leadership(self.book, "chat", "a", self.metrics, ttl_s=4.0)

    def token(self) -> int:
        """Return the number of the term we are in; 0 for none."""
        return self.ours.term.token if self.ours.term else 0

    def shown(self) -> tuple[float | None, float | None]:
        value = self.metrics.registry.get_sample_value
        labels = {"service": "chat"}
        return value("controlplane_leader", labels), value("controlplane_leader_term", labels)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(leader, "monotonic", lambda: made.now)
    return made


async def test_a_free_lease_is_taken_and_kept(world: World) -> None:
    assert world.token() == 0
    for _ in range(3):
        await world.ours.turn()
        world.now += 1.0
    assert world.token() == 1
    assert world.shown() == (1.0, 1.0)
    await world.ours.confirm()


async def test_in_charge_is_not_acting_until_what_was_left_is_settled(world: World) -> None:
    await world.ours.turn()
    assert not world.ours.acting
    assert world.ours.term
    world.ours.settled(world.ours.term)
    assert world.ours.acting


async def test_a_lease_that_ran_out_while_the_machine_stood_still_is_asked_for_before_it_is_given_up(
    world: World,
) -> None:
    await world.ours.turn()
    assert world.ours.term
    world.ours.settled(world.ours.term)
    world.now += 10.0
    assert (world.ours.acting, world.ours.held is None) == (False, False)
    assert await world.ours.still_acting()
    assert world.token() == 1
    world.now += 10.0
    world.book.works = False
    assert not await world.ours.still_acting()
    world.book.works, world.book.held = True, Term("chat", "b", 2)
    assert not await world.ours.still_acting()
    assert (world.ours.role, world.ours.leader, world.ours.held) == ("follower", "b", None)


async def test_two_turns_at_once_are_one_term(world: World) -> None:
    await world.ours.turn()
    world.now += 10.0
    world.book.held = None
    await asyncio.gather(world.ours.turn(), world.ours.still_acting(), world.ours.turn())
    assert world.book.held == world.ours.term
    assert world.token() == 1


async def test_while_another_holds_it_there_is_nothing_to_do(world: World) -> None:
    world.book.held = Term("chat", "b", 7)
    await world.ours.turn()
    assert world.token() == 0
    assert world.shown() == (0.0, 0.0)
    with pytest.raises(FencedError):
        await world.ours.confirm()


async def test_every_one_knows_who_is_in_charge_and_what_it_is_itself(world: World) -> None:
    assert (world.ours.role, world.ours.leader) == ("follower", "")
    world.book.held = Term("chat", "b", 7)
    await world.ours.turn()
    assert (world.ours.role, world.ours.leader) == ("follower", "b")
    assert not world.ours.gained.is_set()
    world.book.held = None
    await world.ours.turn()
    assert (world.ours.role, world.ours.leader) == ("taking over", "a")
    assert world.ours.gained.is_set()
    assert world.ours.term
    world.ours.settled(world.ours.term)
    assert world.ours.role == "leader"


async def test_one_that_waits_is_there_in_the_moment_that_the_lease_runs_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.now += seconds
        world.book.left_s -= seconds
        if world.book.left_s < 0.001:
            world.book.held = None
        if len(slept) == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    world.book.held, world.book.left_s = Term("chat", "b", 7), 2.3
    await world.ours.turn()
    with pytest.raises(asyncio.CancelledError):
        await world.ours.keep()
    assert slept == pytest.approx([1.0, 1.0, 0.3, 1.0, 1.0, 1.0])
    assert world.token() == 1


async def test_a_book_that_fails_is_not_asked_without_a_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.now += seconds
        if len(slept) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    world.book.works = False
    with pytest.raises(asyncio.CancelledError):
        await world.ours.keep()
    assert min(slept[1:]) >= leader.TURN_EVERY_S


async def test_a_lease_that_could_not_be_renewed_ends_by_our_own_clock(world: World) -> None:
    await world.ours.turn()
    world.book.works = False
    world.now += 3.0
    await world.ours.turn()
    assert world.token() == 1
    world.now += 1.0
    assert world.token() == 0
    with pytest.raises(FencedError):
        await world.ours.confirm()
    world.book.works = True
    await world.ours.turn()
    assert world.token() == 1, "nobody took it meanwhile"


async def test_whoever_was_asleep_for_too_long_finds_the_other_in_charge(world: World) -> None:
    await world.ours.turn()
    assert world.ours.term
    world.ours.settled(world.ours.term)
    world.book.held = Term("chat", "b", 2)
    with pytest.raises(FencedError):
        await world.ours.confirm()
    await world.ours.turn()
    assert world.token() == 0
    assert not world.ours.acting
    world.book.held = Term("chat", "a", 2)
    await world.ours.turn()
    assert world.token() == 3
    assert not world.ours.acting, "the other one may have left something half done"


async def test_whoever_was_stopped_while_the_database_answered_moves_nothing(world: World) -> None:
    await world.ours.turn()
    answered = world.book.confirm

    async def late(term: Term) -> None:
        await answered(term)
        world.now += 5.0

    world.book.confirm = late  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        await world.ours.confirm()


async def test_a_lease_is_given_back_and_one_that_cannot_be_is_left_to_run_out(world: World) -> None:
    await world.ours.turn()
    await world.ours.resign()
    assert world.book.resigned == [Term("chat", "a", 1)]
    assert world.token() == 0
    await world.ours.resign()
    await world.ours.turn()
    world.book.works = False
    await world.ours.resign()
    assert world.token() == 0


async def test_what_a_turn_takes_that_was_called_off_is_given_back(world: World) -> None:
    keeping = asyncio.ensure_future(world.ours.turn())
    await sleep(0)
    await sleep(0)
    keeping.cancel()
    await world.ours.resign()
    assert keeping.cancelled()
    assert world.book.resigned == [Term("chat", "a", 1)]


async def test_a_move_is_confirmed_in_the_term_that_it_was_begun_in(world: World) -> None:
    await world.ours.turn()
    world.now += 10.0
    await world.ours.confirm()
    world.now += 10.0
    world.book.held = Term("chat", "a", 5)  # Another one had it meanwhile, and gave it back.
    with pytest.raises(FencedError):
        await world.ours.confirm()
    assert world.token() == 6


async def test_what_is_under_way_while_the_lease_lapses_is_written_down_unless_another_one_took_it(
    tmp_path: Path,
) -> None:
    with closing(open_database(sqlite_url(tmp_path / "state.db"))) as database:
        ours = Leadership(StoredTerms(database), "chat", "a", Metrics(), ttl_s=0.0)
        opened = books(database, lambda: ours.held)
        await ours.turn()
        assert ours.lapsed
        assert await opened.drills.begin(DRILL)
        await opened.drills.end(replace(DRILL, outcome=Outcome.PASSED))
        theirs = await StoredTerms(database).take("chat", "b", 600.0)
        assert isinstance(theirs, Term)
        with pytest.raises(FencedError):
            await opened.drills.begin(replace(DRILL, id="d2"))


def test_a_control_plane_is_named_by_its_machine_and_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "rack-1")
    assert holder_name(tmp_path) == f"rack-1:{tmp_path}"
    assert len(holder_name(tmp_path / ("x" * 400))) == 255
