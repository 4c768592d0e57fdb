"""After a crash nothing is half done: every action is either untouched or in force, every overdue fault is over."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from controlplane.chaos.drill import Drill, Outcome
from controlplane.degradation.action import Scale, SwitchPool, UsePool
from controlplane.degradation.actuator import Observed, Progress, Receipt, ReceiptState, RoutePlan, Step
from controlplane.degradation.matrix import Condition, Level, ReleasePlan, Row
from controlplane.errors import FaultError, StoreError
from controlplane.flows import carry
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.recover import (
    RecoverPorts,
    end_abandoned,
    heal_all,
    heal_expired,
    reap,
    settle_drills,
    settle_receipts,
    settle_rows,
    tend_receipts,
)
from tests.unit.flows.fakes import (
    NORMAL,
    SWITCHED,
    T0,
    FakeActuator,
    FakeDrills,
    FakeDriver,
    FakeHand,
    FakeLeases,
    FakeReceipts,
    fixed,
    lease,
    receipt,
    split,
)

NOW = T0 + timedelta(minutes=1)
ROWS = {
    level: Row(level, Condition("endpoints_down", above=1.0), do, timedelta(minutes=5), ReleasePlan())
    for level, do in ((Level.P0, (SwitchPool(),)), (Level.P2, (UsePool("base", 0.5),)))
}
ELSEWHERE = RoutePlan({"base": 100}, Level.P2)
HALF = RoutePlan({"primary": 50, "next": 50})


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification waits in a time of its own: every look at the clock takes a second."""
    seconds = count(0.0, 1.0)
    monkeypatch.setattr(carry, "monotonic", lambda: next(seconds))
    for pause in ("VERIFY_EVERY_S", "ERRAND_EVERY_S", "UNDO_AGAIN_S"):
        monkeypatch.setattr(carry, pause, 0.0)


class World:
    """Everything recovery touches."""

    def __init__(self, *receipts: Receipt, plan: RoutePlan = NORMAL, proves: bool = True) -> None:
        self.actuator = FakeActuator(plan=plan)
        self.receipts = FakeReceipts(kept={r.id: r for r in receipts})
        self.leases = FakeLeases()
        self.drills = FakeDrills()
        self.driver = FakeDriver()
        self.actuator.answers = proves
        self.in_hand = InHand()

    def ports(self, **changes: object) -> RecoverPorts:
        made = RecoverPorts(
            "chat", self.receipts, self.leases, self.drills, Levers(self.actuator), self.driver, fixed(NOW), ROWS,
            in_hand=self.in_hand,
        )  # fmt: skip
        return replace(made, **changes)  # type: ignore[arg-type]


async def test_an_intended_action_whose_lever_never_moved_is_left_untouched() -> None:
    world = World(receipt(ReceiptState.INTENDED))
    assert await settle_receipts(world.ports()) == ()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert world.actuator.did == []
    assert world.actuator.plan == NORMAL


async def test_an_intended_action_whose_lever_had_moved_is_finished() -> None:
    world = World(receipt(ReceiptState.INTENDED), plan=SWITCHED)
    (engaged,) = await settle_receipts(world.ports())
    assert engaged.state is ReceiptState.VERIFIED
    assert engaged.times.keys() >= {ReceiptState.APPLIED, ReceiptState.VERIFIED}
    assert engaged.detail == "after a restart: weights standby 100 %; level P0; answered by somebody"


@pytest.mark.parametrize("plan", [NORMAL, SWITCHED, ELSEWHERE])
@pytest.mark.parametrize("state", [ReceiptState.APPLIED, ReceiptState.VERIFIED, ReceiptState.REVERTING])
async def test_an_action_that_had_begun_is_in_force_again_wherever_the_lever_was_found(
    state: ReceiptState, plan: RoutePlan
) -> None:
    world = World(receipt(state), plan=plan)
    (engaged,) = await settle_receipts(world.ports())
    assert engaged.state in (ReceiptState.VERIFIED, ReceiptState.REVERTING)
    assert split(world.actuator.plan) == split(SWITCHED)


@pytest.mark.parametrize("state", [ReceiptState.REVERTED, ReceiptState.FAILED])
async def test_an_action_that_is_over_is_not_touched(state: ReceiptState) -> None:
    world = World(receipt(state))
    assert await settle_receipts(world.ports()) == ()
    assert world.receipts.states() == [state]
    assert world.actuator.did == []


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("state", [ReceiptState.INTENDED, ReceiptState.APPLIED])
async def test_an_action_that_never_was_proven_and_cannot_be_now_is_undone(
    state: ReceiptState, *, readable: bool
) -> None:
    world = World(receipt(state), plan=SWITCHED, proves=False)
    world.actuator.readable = readable
    assert await settle_receipts(world.ports()) == ()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert split(world.actuator.plan) == {"primary": 100}


@pytest.mark.parametrize("state", [ReceiptState.VERIFIED, ReceiptState.REVERTING])
async def test_an_action_that_was_proven_stays_in_force_while_the_gateway_cannot_be_read(state: ReceiptState) -> None:
    world = World(receipt(state), plan=SWITCHED, proves=False)
    world.actuator.readable = False
    (engaged,) = await settle_receipts(world.ports())
    assert engaged.state is state
    assert split(world.actuator.plan) == split(SWITCHED)


async def test_settling_twice_is_settling_once() -> None:
    world = World(receipt(ReceiptState.APPLIED), plan=SWITCHED)
    first = await settle_receipts(world.ports())
    states = world.receipts.states()
    assert await settle_receipts(world.ports()) == first
    assert world.receipts.states() == states


async def test_with_nothing_engaged_a_leftover_of_another_life_is_put_right() -> None:
    world = World(plan=ELSEWHERE)
    assert await settle_receipts(world.ports()) == ()
    assert split(world.actuator.plan) == {"primary": 100}


async def test_a_lever_in_its_normal_place_is_not_moved() -> None:
    world = World()
    await settle_receipts(world.ports())
    assert world.actuator.did == []


async def test_in_observe_mode_a_split_that_people_made_is_left_as_it_is() -> None:
    world = World(plan=ELSEWHERE)
    await settle_receipts(world.ports(hands_off=True))
    assert world.actuator.did == []


async def test_without_a_gateway_there_is_nothing_to_settle() -> None:
    world = World(receipt(ReceiptState.VERIFIED))
    assert await settle_receipts(world.ports(levers=None)) == ()
    assert world.receipts.states() == [ReceiptState.VERIFIED]


async def test_an_unreadable_gateway_with_nothing_engaged_is_left_alone_until_it_can_be_read() -> None:
    world = World(plan=ELSEWHERE)
    world.actuator.readable = False
    assert await settle_receipts(world.ports()) == ()
    assert world.actuator.did == []
    world.actuator.readable = True
    await tend_receipts(world.ports())
    assert split(world.actuator.plan) == {"primary": 100}


async def test_what_an_earlier_term_had_in_hand_is_in_nobodys_hand_from_the_first_moment() -> None:
    class Shut(FakeReceipts):
        async def open_receipts(self, service: str) -> tuple[Receipt, ...]:
            raise StoreError("the database refuses", "disk full", "free space")

    world = World()
    world.in_hand.receipts["r1"] = receipt(ReceiptState.VERIFIED)
    with pytest.raises(StoreError):
        await settle_receipts(world.ports(receipts=Shut()))
    assert world.in_hand.receipts == {}


async def test_of_several_engaged_rows_the_lever_ends_where_the_newest_left_it() -> None:
    both = RoutePlan({"base": 50, "standby": 50}, Level.P0)
    half = RoutePlan({"primary": 50, "base": 50}, Level.P2)
    world = World(
        receipt(ReceiptState.VERIFIED, "new", T0 + timedelta(seconds=9), before=half, after=both),
        receipt(ReceiptState.VERIFIED, "old", T0, level=Level.P2, after=half),
        plan=NORMAL,
    )
    assert [r.id for r in await settle_receipts(world.ports())] == ["old", "new"]
    assert split(world.actuator.plan) == split(both)
    assert world.actuator.plan.level is Level.P0


async def test_a_row_that_is_no_longer_on_the_page_is_not_engaged_and_its_traffic_goes_back() -> None:
    world = World(receipt(ReceiptState.VERIFIED), plan=SWITCHED)
    assert await settle_receipts(world.ports(rows={})) == ()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert split(world.actuator.plan) == {"primary": 100}


@pytest.mark.parametrize(("gateway", "ended"), [(True, [Level.P1]), (False, [Level.P0, Level.P1])])
async def test_the_incidents_of_rows_that_nobody_can_move_any_more_are_ended(
    ended: list[Level], *, gateway: bool
) -> None:
    resolved: list[Level] = []

    async def resolve(level: Level, why: str) -> None:
        assert why
        resolved.append(level)

    world = World()
    levers = world.ports().levers if gateway else None
    await settle_rows(world.ports(resolve=resolve, levers=levers), ("P1", "P0"))
    assert resolved == ended


async def test_an_expired_fault_is_healed_and_one_that_is_not_due_is_left_alone() -> None:
    world = World()
    for key, due in (("past", NOW - timedelta(seconds=1)), ("now", NOW), ("later", NOW + timedelta(seconds=1))):
        await world.leases.intend(lease(key, due))
    done = await heal_expired(world.ports())
    assert done == ("node-kill on past: let go; healed", "node-kill on now: let go; healed")
    assert [held.id for held in await world.leases.open_leases()] == ["later"]
    assert world.leases.kept["past"].healed_at == NOW


async def test_a_fault_of_which_something_is_left_stays_leased_until_it_is_gone() -> None:
    world = World()
    await world.leases.intend(lease("past", T0))
    world.driver.left = {"past": "primary-0 does not accept connections yet"}
    (told,) = await heal_expired(world.ports())
    assert "waiting: primary-0 does not accept connections yet" in told
    assert len(await world.leases.open_leases()) == 1
    world.driver.left = {}
    await heal_expired(world.ports())
    assert await world.leases.open_leases() == ()


async def test_a_fault_that_cannot_be_healed_stays_leased_and_keeps_no_other_from_it() -> None:
    world = World()
    await world.leases.intend(lease("broken", T0))
    await world.leases.intend(lease("fine", T0))
    world.driver.broken = {"broken"}
    done = await heal_expired(world.ports())
    assert done[0] == "node-kill on broken: not healed: cannot heal (permission denied)"
    assert done[1].endswith("healed")
    assert [held.id for held in await world.leases.open_leases()] == ["broken"]


async def test_a_fault_whose_drill_is_over_is_healed_before_its_deadline_and_one_of_a_running_drill_is_left_to_it() -> (
    None
):
    world = World()
    for drill, outcome in (("over", Outcome.ABORTED), ("running", Outcome.RUNNING)):
        await world.drills.begin(Drill(drill, "node-kill", "P0", timedelta(minutes=5), "ann", T0, outcome=outcome))
    for drill in ("over", "running", "unknown"):
        await world.leases.intend(replace(lease(f"{drill}-0", NOW + timedelta(hours=1)), drill_id=drill))
    world.driver.left = {"over-0": "over-0 does not accept connections yet"}
    (told,) = await heal_expired(world.ports())
    assert "waiting: over-0 does not accept connections yet" in told
    world.driver.left = {}
    assert await heal_expired(world.ports()) == ("node-kill on over-0: let go; healed",)
    assert [held.id for held in await world.leases.open_leases()] == ["running-0", "unknown-0"]


async def test_a_person_heals_everything_at_once_whatever_its_deadline() -> None:
    world = World()
    await world.leases.intend(lease("later", NOW + timedelta(hours=1)))
    assert len(await heal_all(world.ports())) == 1
    assert await world.leases.open_leases() == ()
    assert await heal_all(world.ports()) == ()


class FakeReaper:
    """A substrate's own record of what is broken."""

    def __init__(self, *broken: tuple[str, datetime], able: bool = True) -> None:
        self.broken = dict(broken)
        self.able = able

    async def reap(self, now: datetime | None) -> tuple[str, ...]:
        if not self.able:
            raise FaultError("cannot look for jobs of faults", "this account may not list jobs.batch", "let it")
        over = [name for name, until in self.broken.items() if now is None or until <= now]
        return tuple(f"removed {name}" for name in over if self.broken.pop(name))


async def test_what_the_substrate_itself_remembers_is_ended_in_its_time_though_no_lease_is_stored() -> None:
    world = World()
    reaper = FakeReaper(("past", T0), ("later", NOW + timedelta(hours=1)))
    assert await reap(world.ports(reaper=reaper)) == ("removed past",)
    assert await reap(world.ports(reaper=reaper)) == ()
    await settle_drills(world.ports(reaper=reaper))
    assert "later" in reaper.broken  # It may be another control plane's, and has its time.
    assert await heal_all(world.ports(reaper=reaper)) == ("removed later",)


async def test_a_substrate_that_cannot_be_asked_is_told_to_whoever_heals_by_hand() -> None:
    world = World()
    await world.leases.intend(lease("past", T0))
    done = await heal_all(world.ports(reaper=FakeReaper(able=False)))
    assert len(done) == 2
    assert "may not list jobs.batch" in done[1]
    assert await reap(world.ports(reaper=FakeReaper(able=False))) == ()
    assert await reap(world.ports()) == ()


async def test_a_fault_without_a_substrate_says_so_and_stays_leased() -> None:
    world = World()
    await world.leases.intend(lease("past", T0))
    (told,) = await heal_all(world.ports(driver=None))
    assert "fleet.substrate" in told
    assert len(await world.leases.open_leases()) == 1


async def test_a_drill_that_was_running_is_called_off_and_its_faults_ended() -> None:
    world = World()
    ended = Drill("old", "node-kill", "P0", timedelta(minutes=5), "ann", T0, outcome=Outcome.PASSED)
    running = Drill("new", "node-kill", "P0", timedelta(minutes=5), "ann", T0)
    await world.drills.begin(ended)
    await world.drills.begin(running)
    await world.leases.intend(lease("later", NOW + timedelta(hours=1)))
    await settle_drills(world.ports())
    assert world.drills.kept["old"] == ended
    assert world.drills.kept["new"].outcome is Outcome.ABORTED
    assert world.drills.kept["new"].ended_at == NOW
    assert world.drills.kept["new"].reasons
    assert await world.leases.open_leases() == ()


async def test_a_drill_that_nobody_walks_is_called_off_and_its_faults_ended_and_any_other_is_let_be() -> None:
    world = World()
    minutes_ago, now = NOW - timedelta(minutes=5), NOW
    made = {
        "over": Drill("over", "node-kill", "P0", timedelta(minutes=5), "ann", minutes_ago, outcome=Outcome.PASSED),
        "walked": Drill("walked", "node-kill", "P0", timedelta(minutes=5), "ann", minutes_ago),
        "beginning": Drill("beginning", "node-kill", "P0", timedelta(minutes=5), "ann", now),
    }
    for drill in made.values():
        await world.drills.begin(drill)
    await world.drills.begin(replace(made["walked"], id="abandoned"))
    for drill_id in ("walked", "abandoned"):
        await world.leases.intend(replace(lease(f"{drill_id}-0", NOW + timedelta(hours=1)), drill_id=drill_id))
    ports = world.ports(walked={"walked"})
    await end_abandoned(ports)
    await heal_expired(ports)
    ended = world.drills.kept.pop("abandoned")
    assert (ended.outcome, ended.reasons, ended.ended_at) == (Outcome.ABORTED, ("its journey broke off",), NOW)
    assert world.drills.kept == made
    assert [held.id for held in await world.leases.open_leases()] == ["walked-0"]


# -- errands, and what a living process left behind -------------------------------------------------------------------

SCALE = Scale("deployment/x", replicas=4)
MIXED = (Step("switch_pool to standby"), Step("scale deployment/x to replicas 4", SCALE, before={"was": 3}))
ERRAND_FIRST = (MIXED[1], MIXED[0])


def handed(world: World, **changes: object) -> tuple[RecoverPorts, FakeHand]:
    hand = FakeHand(world.actuator.did)
    return replace(world.ports(), levers=Levers(world.actuator, {Scale: hand}), **changes), hand  # type: ignore[arg-type]


async def test_the_errands_of_an_action_whose_split_is_in_force_are_finished() -> None:
    world = World(receipt(ReceiptState.INTENDED, steps=MIXED), plan=SWITCHED)
    ports, hand = handed(world)
    (engaged,) = await settle_receipts(ports)
    assert engaged.state is ReceiptState.VERIFIED
    assert [step.progress for step in engaged.steps] == [Progress.DONE, Progress.DONE]
    assert hand.keys == ["r1/1"], "the key that it would have had without the crash"
    assert ports.in_hand.receipts.keys() == {"r1"}


async def test_what_cannot_be_looked_at_is_proven_by_what_the_process_before_has_stored() -> None:
    done = tuple(replace(step, progress=Progress.DONE, detail="it answered 200") for step in MIXED)
    world = World(receipt(ReceiptState.APPLIED, steps=done), plan=SWITCHED)
    ports, hand = handed(world)
    hand.looks = False
    (engaged,) = await settle_receipts(ports)
    assert engaged.state is ReceiptState.VERIFIED
    assert "scale deployment/x to replicas 4: it answered 200" in engaged.detail
    assert hand.keys == [], "it is not done again"


@pytest.mark.parametrize("progress", [Progress.WAITING, Progress.DONE])
async def test_an_errand_that_may_be_done_before_the_split_moved_is_undone(progress: Progress) -> None:
    first = replace(ERRAND_FIRST[0], progress=progress)
    world = World(receipt(ReceiptState.INTENDED, steps=(first, ERRAND_FIRST[1])))
    ports, hand = handed(world)
    assert await settle_receipts(ports) == ()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert hand.did == ["undo scale deployment/x to replicas 4 to 3"]
    assert split(world.actuator.plan) == {"primary": 100}


async def test_an_action_whose_traffic_was_all_back_is_closed_and_its_errands_undone() -> None:
    told: list[tuple[Level, str]] = []

    async def resolve(level: Level, why: str) -> None:
        told.append((level, why))

    back = (replace(MIXED[0], progress=Progress.UNDONE), replace(MIXED[1], progress=Progress.DONE))
    world = World(
        receipt(ReceiptState.REVERTING, "old", T0, steps=back),
        receipt(ReceiptState.VERIFIED, "new", T0 + timedelta(seconds=9)),
        plan=SWITCHED,
    )
    ports, hand = handed(world, resolve=resolve)
    assert [r.id for r in await settle_receipts(ports)] == ["new"]
    assert world.receipts.states() == [ReceiptState.REVERTED, ReceiptState.VERIFIED]
    assert hand.did[0] == "undo scale deployment/x to replicas 4 to 3"
    assert told == [(Level.P0, "all traffic is back at the primary pool")]


async def test_a_receipt_whose_journey_broke_off_is_undone_by_the_living_process() -> None:
    done = tuple(replace(step, progress=Progress.DONE) for step in MIXED)
    world = World(receipt(ReceiptState.APPLIED, steps=done), plan=SWITCHED)
    world.in_hand.plan = NORMAL
    ports, hand = handed(world)
    await tend_receipts(ports)
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert "undo scale deployment/x to replicas 4 to 3" in hand.did
    assert split(world.actuator.plan) == {"primary": 100}


async def test_what_is_in_force_and_could_not_be_written_down_is_written_down_at_last() -> None:
    world = World(receipt(ReceiptState.INTENDED), plan=SWITCHED)
    world.in_hand.receipts["r1"] = receipt(ReceiptState.VERIFIED, detail="seen")
    world.in_hand.plan = SWITCHED
    await tend_receipts(world.ports())
    assert world.receipts.states() == [ReceiptState.VERIFIED]
    assert world.receipts.kept["r1"].detail == "seen"
    assert world.actuator.did == []


async def test_a_lever_that_somebody_else_moved_is_put_back_but_never_while_ours_moves() -> None:
    world = World(plan=ELSEWHERE)
    world.in_hand.plan = NORMAL
    world.in_hand.moving = 1
    await tend_receipts(world.ports())
    await tend_receipts(world.ports(hands_off=True))
    assert world.actuator.did == []
    world.in_hand.moving = 0
    await tend_receipts(world.ports())
    assert world.actuator.did == ["apply primary=100"]
    await tend_receipts(world.ports())
    assert len(world.actuator.did) == 1


class Meanwhile(FakeActuator):
    """A gateway at which something happens while it is read."""

    def __init__(self, plan: RoutePlan, happens: Callable[[], None]) -> None:
        super().__init__(plan=plan)
        self.happens = happens

    async def configured(self) -> Observed:
        seen = await super().configured()
        self.happens()
        return seen


async def test_a_switch_that_ends_while_the_gateway_is_read_is_not_taken_for_drift() -> None:
    world = World()
    world.in_hand.plan = NORMAL
    world.actuator = Meanwhile(SWITCHED, lambda: setattr(world.in_hand, "plan", SWITCHED))
    await tend_receipts(world.ports())
    assert world.actuator.did == []


async def test_a_lever_is_not_put_back_once_a_journey_has_begun_to_move_it() -> None:
    world, read = World(), asyncio.Event()
    world.in_hand.plan = NORMAL
    world.actuator = Meanwhile(ELSEWHERE, read.set)
    ports = world.ports()
    assert ports.levers
    async with ports.levers.lock:  # Somebody hands a split over.
        tending = asyncio.create_task(tend_receipts(ports))
        await read.wait()
        world.in_hand.moving = 1
    await tending
    assert world.actuator.did == []


async def test_a_receipt_whose_journey_ends_while_another_is_seen_to_is_left_alone() -> None:
    class Meantime(FakeReceipts):
        async def move(self, receipt_id: str, state: ReceiptState, *more: Any, **changes: Any) -> Receipt:
            world.in_hand.receipts.pop("r2", None)
            self.kept["r2"] = replace(self.kept["r2"], state=ReceiptState.REVERTED)
            return await super().move(receipt_id, state, *more, **changes)

    done = tuple(replace(step, progress=Progress.DONE) for step in MIXED)
    ending = receipt(ReceiptState.VERIFIED, "r2", T0 + timedelta(seconds=9), level=Level.P2, steps=done)
    world = World(receipt(ReceiptState.APPLIED), ending)
    world.receipts = Meantime(kept=world.receipts.kept)
    world.in_hand.receipts["r2"] = ending
    ports, hand = handed(world)
    await tend_receipts(ports)
    assert world.receipts.states() == [ReceiptState.FAILED, ReceiptState.REVERTED]
    assert hand.did == []


# -- rollouts ----------------------------------------------------------------------------------------------------------


def rollout(state: ReceiptState) -> Receipt:
    steps = (Step("50% to next", progress=Progress.DONE), Step("100% to next"))
    return receipt(state, "chat/rollout/1", level=Level.NONE, after=RoutePlan({"next": 100}), steps=steps)


@pytest.mark.parametrize("hands_off", [False, True])
@pytest.mark.parametrize("state", [ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.REVERTING])
async def test_the_traffic_of_a_rollout_that_broke_off_goes_back(state: ReceiptState, *, hands_off: bool) -> None:
    shown: list[RoutePlan] = []
    world = World(rollout(state), plan=HALF)
    world.in_hand.plan = HALF
    ports = world.ports(hands_off=hands_off, moved=shown.append)
    await tend_receipts(ports)
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert world.receipts.kept["chat/rollout/1"].detail == "its journey broke off; undone"
    assert split(world.actuator.plan) == {"primary": 100}
    assert shown == [NORMAL]
    await tend_receipts(ports)
    assert world.actuator.did == ["apply primary=100"]


async def test_a_rollout_that_broke_off_gives_back_nothing_that_a_row_has_moved() -> None:
    engaged = receipt(ReceiptState.VERIFIED)
    world = World(engaged, rollout(ReceiptState.APPLIED), plan=SWITCHED)
    world.in_hand = InHand({engaged.id: engaged}, plan=SWITCHED)
    await tend_receipts(world.ports())
    assert world.receipts.states() == [ReceiptState.VERIFIED, ReceiptState.FAILED]
    assert world.actuator.did == []


async def test_a_rollout_that_broke_off_while_the_gateway_could_not_be_read_goes_back_when_it_can() -> None:
    world = World(rollout(ReceiptState.APPLIED), plan=HALF)
    world.in_hand.plan = HALF
    world.actuator.readable = False
    await tend_receipts(world.ports())
    world.actuator.readable = True
    await tend_receipts(world.ports())
    assert split(world.actuator.plan) == {"primary": 100}


@pytest.mark.parametrize("hands_off", [False, True])
async def test_a_rollout_that_was_under_way_at_a_crash_goes_back(*, hands_off: bool) -> None:
    world = World(rollout(ReceiptState.APPLIED), plan=HALF)
    assert await settle_receipts(world.ports(hands_off=hands_off)) == ()
    assert world.receipts.states() == [ReceiptState.FAILED]
    assert split(world.actuator.plan) == {"primary": 100}


async def test_a_rollout_that_a_row_has_taken_over_is_in_hand_until_that_is_stored() -> None:
    engaged, stands = receipt(ReceiptState.VERIFIED), rollout(ReceiptState.VERIFIED)
    world = World(engaged, stands, plan=SWITCHED)
    world.in_hand = InHand({r.id: r for r in (engaged, stands)}, plan=SWITCHED)
    world.receipts.refuses = {ReceiptState.REVERTED}
    with pytest.raises(StoreError):
        await tend_receipts(world.ports())
    world.receipts.refuses = set()
    await tend_receipts(world.ports())
    assert world.receipts.states() == [ReceiptState.VERIFIED, ReceiptState.REVERTED]
    assert world.receipts.kept[stands.id].detail == "a row took the lever over"
    assert world.in_hand.receipts.keys() == {engaged.id}
