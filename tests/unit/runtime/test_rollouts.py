"""Rollouts are asked for in one place: one at a time, by the control plane in charge."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

import pytest

from controlplane.degradation.actuator import Receipt, ReceiptState
from controlplane.degradation.canary import Health
from controlplane.degradation.fencing import Held, Term
from controlplane.degradation.gate import PoolFacts
from controlplane.fleet.model import Endpoint
from controlplane.flows import rollout
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.rollout import Refused, RolloutPorts
from controlplane.probes.probe import Look
from controlplane.runtime.leader import Leadership
from controlplane.runtime.rollouts import RolloutDesk
from controlplane.telemetry import Metrics
from tests.unit.flows.fakes import Clock, FakeActuator, FakeReceipts, split

STEPS, HOLD = (0.5, 1.0), timedelta(0)


class Book(FakeReceipts):
    """Receipts with the numbers of their rollouts."""

    async def next_episode(self, service: str, level: str) -> int:
        return 1 + max((r.episode for r in self.kept.values()), default=0)

    async def recent(self, service: str, limit: int) -> tuple[Receipt, ...]:
        return tuple(reversed(self.kept.values()))[:limit]


class Terms:
    """A lease that is always free."""

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | Held:
        return Term(service, holder, 1)

    async def renew(self, term: Term, ttl_s: float) -> bool:
        return True

    async def resign(self, term: Term) -> None:
        """Let go."""

    async def confirm(self, term: Term) -> None:
        """Say yes."""


class World:
    """A desk and what it works with."""

    def __init__(self) -> None:
        self.actuator, self.book = FakeActuator(), Book()
        self.health = {"primary": Health(1000, 0, 0.2, 0.2, 1000), "next": Health(1000, 0, 0.2, 0.2, 1000)}
        self.leadership = Leadership(Terms(), "chat", "a", Metrics())
        self.tasks: list[asyncio.Task[None]] = []
        self.telling, self.heard = asyncio.Event(), asyncio.Event()
        self.heard.set()
        ports = RolloutPorts(
            Levers(self.actuator), self.book, self.complete, lambda pool: (Endpoint("next-0", pool, "http://n"),),
            lambda _: PoolFacts(1), lambda pool: self.health[pool], lambda: "", lambda _: None, self.tell, Clock(),
            InHand(),
        )  # fmt: skip
        self.desk = RolloutDesk("chat", ports, self.book, self.leadership, self.spawn)

    async def complete(self, endpoint: Endpoint) -> Look:
        return Look(endpoint, "inference", 0.0, 0.0)

    async def tell(self, text: str) -> None:
        assert text
        self.telling.set()
        await self.heard.wait()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def lead(self) -> None:
        await self.leadership.turn()
        assert self.leadership.term
        self.leadership.settled(self.leadership.term)

    async def ended(self) -> None:
        await asyncio.gather(*self.tasks)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(rollout, "JUDGE_EVERY_S", 0.0)
    return World()


async def test_one_that_does_well_is_seen_through_and_can_be_taken_back(world: World) -> None:
    await world.lead()
    begun = await world.desk.start("chat", "next", STEPS, HOLD, "ann")
    assert isinstance(begun, Receipt)
    await world.ended()
    newest = await world.desk.newest()
    assert newest
    assert (newest.id, newest.state) == ("chat/rollout/1", ReceiptState.VERIFIED)
    assert split(world.actuator.plan) == {"next": 100}
    back = await world.desk.abort("ann")
    assert isinstance(back, Receipt)
    assert (back.state, back.detail) == (ReceiptState.REVERTED, "called off by ann")
    assert split(world.actuator.plan) == {"primary": 100}


async def test_one_that_is_under_way_is_called_off_and_keeps_another_from_beginning(world: World) -> None:
    await world.lead()
    world.health["next"] = Health(3, 0)
    await world.desk.start("chat", "next", STEPS, timedelta(hours=1), "ann")
    second = await world.desk.start("chat", "next", STEPS, HOLD, "bob")
    assert isinstance(second, Refused)
    assert "under way already" in second.why
    called_off = await world.desk.abort("bob")
    assert isinstance(called_off, Receipt)
    await world.ended()
    newest = await world.desk.newest()
    assert newest
    assert (newest.state, newest.detail) == (ReceiptState.REVERTED, "it was called off")
    assert isinstance(await world.desk.abort("bob"), Refused)


async def test_one_that_begins_while_people_hear_of_the_one_before_can_be_called_off(world: World) -> None:
    await world.lead()
    world.heard.clear()
    world.health["next"] = Health(1000, 200, 0.2, 0.2, 1000)
    await world.desk.start("chat", "next", STEPS, timedelta(hours=1), "ann")
    await world.telling.wait()
    world.health["next"] = Health(3, 0)
    second = await world.desk.start("chat", "next", STEPS, timedelta(hours=1), "bob")
    assert isinstance(second, Receipt)
    world.heard.set()
    await world.tasks[0]
    assert isinstance(await world.desk.abort("bob"), Receipt)
    async with asyncio.timeout(5):  # One that nobody can call off is held for hours.
        await world.ended()
    assert [receipt.detail for receipt in world.book.kept.values()][1] == "it was called off"
    assert split(world.actuator.plan) == {"primary": 100}


async def test_one_that_breaks_off_is_left_to_the_recovery(world: World) -> None:
    await world.lead()
    world.book.refuses = {"fenced"}
    await world.desk.start("chat", "next", STEPS, HOLD, "ann")
    await world.ended()
    assert world.desk._ports.in_hand.receipts == {}
    assert world.book.states() == [ReceiptState.INTENDED]


@pytest.mark.parametrize("steps", [(), (0.5,), (0.5, 0.5, 1.0), (0.9, 0.1, 1.0), (0.0, 1.0)])
async def test_steps_that_do_not_rise_to_the_whole_are_refused(world: World, steps: tuple[float, ...]) -> None:
    await world.lead()
    refused = await world.desk.start("chat", "next", steps, HOLD, "ann")
    assert refused == Refused("the steps must rise to 100%")


async def test_only_the_one_in_charge_of_this_service_rolls_out(world: World) -> None:
    refused = await world.desk.start("chat", "next", STEPS, HOLD, "ann")
    assert isinstance(refused, Refused)
    assert "not in charge" in refused.why
    await world.lead()
    other = await world.desk.start("other", "next", STEPS, HOLD, "ann")
    assert other == Refused("this control plane is in charge of chat")
    assert world.book.kept == {}
