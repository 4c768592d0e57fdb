"""A version is given traffic by steps, and taken off when worse, unknown, called off, or when a row needs the lever."""

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from controlplane.degradation.actuator import Observed, Progress, Receipt, ReceiptState, RoutePlan
from controlplane.degradation.canary import Health
from controlplane.degradation.gate import PoolFacts
from controlplane.errors import FencedError, StoreError
from controlplane.fleet.model import Endpoint
from controlplane.flows import carry, rollout
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.recover import RecoverPorts, tend_receipts
from controlplane.flows.rollout import Refused, Rollout, RolloutPorts, begin, carry_on, roll_back
from controlplane.probes.probe import Failure, Look
from tests.unit.flows.fakes import (
    SWITCHED,
    Clock,
    FakeActuator,
    FakeDrills,
    FakeLeases,
    FakeReceipts,
    split,
)

WELL = Health(1000, 1, 0.2, 0.2, 1000)
ILL = Health(1000, 200, 0.2, 0.2, 1000)
NEXT = (Endpoint("next-0", "next", "http://n0"),)


class World:
    """Everything a rollout touches."""

    def __init__(self) -> None:
        self.actuator = FakeActuator()
        self.receipts = FakeReceipts(self.actuator.did)
        self.health = {"primary": WELL, "next": WELL}
        self.row = ""
        self.alive = True
        self.plans: list[dict[str, int]] = []
        self.told: list[str] = []
        self.in_hand = InHand()
        self.ports = RolloutPorts(
            Levers(self.actuator), self.receipts, self.complete, lambda pool: NEXT if pool == "next" else (),
            lambda _: PoolFacts(1), lambda pool: self.health[pool], lambda: self.row, self.moved, self.tell, Clock(),
            self.in_hand,
        )  # fmt: skip

    async def complete(self, endpoint: Endpoint) -> Look:
        return Look(endpoint, "inference", 0.0, 0.0, None if self.alive else Failure.REFUSED, "")

    def moved(self, plan: RoutePlan) -> None:
        self.plans.append(split(plan))

    async def tell(self, text: str) -> None:
        self.told.append(text)

    async def begun(self, asked: Rollout) -> Receipt:
        receipt = await begin(self.ports, asked)
        assert isinstance(receipt, Receipt)
        return receipt

    async def tick(self) -> None:
        """See to what is left behind, as the control plane does every few seconds."""
        levers, now = self.ports.levers, self.ports.now
        await tend_receipts(
            RecoverPorts("chat", self.receipts, FakeLeases(), FakeDrills(), levers, None, now, in_hand=self.in_hand)
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    seconds = count(0.0, 1.0)
    monkeypatch.setattr(rollout, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(rollout, "JUDGE_EVERY_S", 0.0)
    monkeypatch.setattr(carry, "monotonic", lambda: next(seconds))
    for pause in ("VERIFY_EVERY_S", "UNDO_AGAIN_S"):
        monkeypatch.setattr(carry, pause, 0.0)
    return World()


def asked(pool: str = "next", episode: int = 1) -> Rollout:
    return Rollout("chat", pool, "ann", episode, hold=timedelta(seconds=5))


async def test_a_version_that_does_well_gets_all_the_traffic_by_steps(world: World) -> None:
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    assert ended.state is ReceiptState.VERIFIED
    assert world.plans == [{"primary": 90, "next": 10}, {"primary": 50, "next": 50}, {"next": 100}]
    assert [step.progress for step in ended.steps] == [Progress.DONE] * 3
    assert world.actuator.did == [
        "receipt intended", "apply next=10 primary=90", "receipt applied", "apply next=50 primary=50",
        "apply next=100", "receipt verified",
    ]  # fmt: skip
    assert list(world.in_hand.receipts) == ["chat/rollout/1"]
    assert world.told == []


@pytest.mark.parametrize("worse_from", [10, 50, 100])
async def test_a_version_that_is_worse_is_taken_off(world: World, worse_from: int) -> None:
    def moved(plan: RoutePlan) -> None:
        world.moved(plan)
        if plan.weights.get("next", 0) >= worse_from:
            world.health["next"] = ILL

    ports = replace(world.ports, moved=moved)
    ended = await carry_on(ports, asked(), await world.begun(asked()))
    assert ended.state is ReceiptState.REVERTED
    assert ReceiptState.REVERTING in ended.times
    assert "next is worse: 20.0% of 1000 answers are errors" in ended.detail
    assert split(world.actuator.plan) == {"primary": 100}
    assert world.plans[-2].get("next") == worse_from
    assert "was rolled back" in world.told[0]
    assert world.in_hand.receipts == {}


async def test_what_is_not_known_goes_no_further(world: World) -> None:
    world.health["next"] = Health(3, 0)
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    assert ended.state is ReceiptState.REVERTED
    assert "nothing is known of next" in ended.detail
    assert world.plans == [{"primary": 90, "next": 10}, {"primary": 100}]


async def test_whoever_calls_it_off_gets_the_traffic_back(world: World) -> None:
    order = asked()
    world.health["next"] = Health(3, 0)
    receipt = await world.begun(order)
    order.stop.set()
    ended = await carry_on(world.ports, order, receipt)
    assert (ended.state, ended.detail) == (ReceiptState.REVERTED, "it was called off")


async def test_one_that_was_seen_through_can_be_taken_back_later(world: World) -> None:
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    back = await roll_back(world.ports, ended, "ann thought better of it")
    assert back.state is ReceiptState.REVERTED
    assert split(world.actuator.plan) == {"primary": 100}


async def test_a_row_that_needs_the_lever_gets_it_and_the_rollout_touches_nothing_more(world: World) -> None:
    def moved(plan: RoutePlan) -> None:
        world.moved(plan)
        world.row = "P0"

    ended = await carry_on(replace(world.ports, moved=moved), asked(), await world.begun(asked()))
    assert ended.state is ReceiptState.REVERTED
    assert ended.detail == "P0 is not idle any more; P0 has the lever"
    assert [what for what in world.actuator.did if what.startswith("apply")] == ["apply next=10 primary=90"]


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("a row is engaged", "P0 is not idle"),
        ("it is dead", "no endpoint of next gives a completion"),
        ("no endpoints", "has no endpoints"),
        ("itself", "primary serves already"),
        ("twice", "a rollout is under way already"),
    ],
)
async def test_what_may_not_begin_is_refused_and_nothing_is_touched(world: World, why: str, said: str) -> None:
    if why == "twice":
        await world.begun(asked())
    world.row = "P0" if why == "a row is engaged" else ""
    world.alive = why != "it is dead"
    pool = {"no endpoints": "elsewhere", "itself": "primary"}.get(why, "next")
    refused = await begin(world.ports, asked(pool, 2 if why == "twice" else 1))
    assert isinstance(refused, Refused)
    assert said in refused.why
    assert [what for what in world.actuator.did if what.startswith("apply")] == []
    assert len(world.receipts.kept) == (1 if why == "twice" else 0)


async def test_a_gateway_that_does_not_obey_ends_the_rollout(world: World) -> None:
    receipt = await world.begun(asked())
    world.actuator.obeys = False
    ended = await carry_on(world.ports, asked(), receipt)
    assert ended.state is ReceiptState.REVERTED
    assert "not seen at the gateway" in ended.detail


async def test_a_lever_that_is_stuck_on_the_way_back_is_a_failure_that_is_told(world: World) -> None:
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    world.actuator.writable = False
    back = await roll_back(world.ports, ended, "worse")
    assert back.state is ReceiptState.FAILED
    assert "the lever is stuck" in world.told[0]


async def test_whoever_is_no_longer_in_charge_leaves_the_rollout_to_the_other(world: World) -> None:
    receipt = await world.begun(asked())
    world.receipts.refuses = {"fenced"}
    with pytest.raises(FencedError):
        await carry_on(world.ports, asked(), receipt)
    assert world.actuator.did[-1] == "apply next=10 primary=90"


async def test_a_tick_while_people_are_told_of_a_roll_back_does_not_make_a_failure_of_it(world: World) -> None:
    async def tell(text: str) -> None:
        await world.tell(text)
        await world.tick()

    world.health["next"] = ILL
    ended = await carry_on(replace(world.ports, tell=tell), asked(), await world.begun(asked()))
    assert len(world.told) == 1
    assert "next is worse" in ended.detail
    assert world.receipts.kept == {ended.id: ended}
    assert ended.state is ReceiptState.REVERTED


async def test_people_are_told_of_a_roll_back_that_cannot_be_stored_and_the_recovery_gets_it(world: World) -> None:
    world.health["next"] = ILL
    world.receipts.refuses = {ReceiptState.REVERTED}
    with pytest.raises(StoreError):
        await carry_on(world.ports, asked(), await world.begun(asked()))
    assert "next is worse" in world.told[0]
    await world.tick()
    assert world.receipts.states() == [ReceiptState.FAILED]


async def test_a_row_that_is_refused_after_all_does_not_leave_the_traffic_where_the_rollout_was(world: World) -> None:
    def moved(_: RoutePlan) -> None:
        world.row = "P0"

    await carry_on(replace(world.ports, moved=moved), asked(), await world.begun(asked()))
    assert split(world.actuator.plan) == {"primary": 90, "next": 10}
    world.row = ""
    await world.tick()
    assert split(world.actuator.plan) == {"primary": 100}


async def test_a_lever_that_was_stuck_on_the_way_back_is_put_back_when_it_moves_again(world: World) -> None:
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    world.actuator.writable = False
    await roll_back(world.ports, ended, "worse")
    world.actuator.writable = True
    await world.tick()
    assert split(world.actuator.plan) == {"primary": 100}


@pytest.mark.parametrize("share", [10, 50, 100])
async def test_a_rollout_that_the_recovery_has_taken_moves_nothing_more(world: World, share: int) -> None:
    def moved(plan: RoutePlan) -> None:
        if plan.weights["next"] == share:
            world.in_hand.receipts.clear()  # As when we are not in charge for a moment.

    receipt = await world.begun(asked())
    with pytest.raises(FencedError):
        await carry_on(replace(world.ports, moved=moved), asked(), receipt)
    assert split(world.actuator.plan)["next"] == share
    assert world.in_hand.receipts == {}
    await world.tick()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert split(world.actuator.plan) == {"primary": 100}


@pytest.mark.parametrize("judged", [1, 3])
async def test_a_rollout_that_is_taken_while_a_step_is_held_moves_nothing_more(world: World, judged: int) -> None:
    looks = count(1)

    def health(pool: str) -> Health:
        if pool == "next" and next(looks) == judged:
            world.in_hand.receipts.clear()
        return world.health[pool]

    receipt = await world.begun(asked())
    with pytest.raises(FencedError):
        await carry_on(replace(world.ports, health=health), asked(), receipt)
    assert [what for what in world.actuator.did if what.startswith("apply")] == ["apply next=10 primary=90"]


async def test_a_rollout_that_breaks_off_for_any_reason_is_left_to_the_recovery(world: World) -> None:
    def health(pool: str) -> Health:
        raise LookupError(pool)

    receipt = await world.begun(asked())
    with pytest.raises(LookupError):
        await carry_on(replace(world.ports, health=health), asked(), receipt)
    await world.tick()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert split(world.actuator.plan) == {"primary": 100}


async def test_one_that_is_called_off_while_its_success_is_stored_is_taken_back(world: World) -> None:
    class Meantime(FakeReceipts):
        async def move(self, receipt_id: str, state: ReceiptState, *more: Any, **changes: Any) -> Receipt:
            if state is ReceiptState.VERIFIED:
                order.stop.set()
            return await super().move(receipt_id, state, *more, **changes)

    order = asked()
    world.receipts = Meantime(world.actuator.did)
    world.ports = replace(world.ports, receipts=world.receipts)
    ended = await carry_on(world.ports, order, await world.begun(order))
    assert (ended.state, ended.detail) == (ReceiptState.REVERTED, "it was called off")
    assert split(world.actuator.plan) == {"primary": 100}


async def test_one_that_is_called_off_while_a_step_is_proven_takes_no_further_one(world: World) -> None:
    order = replace(asked(), hold=timedelta(0))
    ended = await carry_on(replace(world.ports, moved=lambda _: order.stop.set()), order, await world.begun(order))
    assert ended.detail == "it was called off"
    assert [what for what in world.actuator.did if what.startswith("apply")] == [
        "apply next=10 primary=90", "apply primary=100",
    ]  # fmt: skip


@pytest.mark.parametrize("answered", [1, 4])
async def test_a_row_that_is_in_force_before_our_own_proof_keeps_the_lever(world: World, answered: int) -> None:
    """The first three proofs are of the way there, the fourth of the way back."""
    asks = count(1)

    class Overtaken(FakeActuator):
        async def sample(self, requests: int) -> Observed:
            seen = await super().sample(requests)
            if next(asks) == answered:
                world.row, world.in_hand.plan = "P0", SWITCHED
            return seen

    world.ports = replace(world.ports, levers=Levers(Overtaken(world.actuator.did)))
    ended = await carry_on(world.ports, asked(), await world.begun(asked()))
    if ended.state is ReceiptState.VERIFIED:
        ended = await roll_back(world.ports, ended, "worse")
    assert "P0 has the lever" in ended.detail
    assert world.in_hand.plan == SWITCHED
