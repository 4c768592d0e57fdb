"""A version is given traffic by steps, and taken off when worse, unknown, called off, or when a row needs the lever."""

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from controlplane.degradation.actuator import Progress, Receipt, ReceiptState, RoutePlan
from controlplane.degradation.canary import Health
from controlplane.degradation.gate import PoolFacts
from controlplane.errors import FencedError
from controlplane.fleet.model import Endpoint
from controlplane.flows import carry, rollout
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.rollout import Refused, Rollout, RolloutPorts, begin, carry_on, roll_back
from controlplane.probes.probe import Failure, Look
from tests.unit.flows.fakes import Clock, FakeActuator, FakeReceipts, split

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
