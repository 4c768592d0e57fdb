"""One action from gate to proof: stored before it touches anything, and put back when it cannot be proven."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count

import pytest

from controlplane.degradation.action import Cordon, Errand, Notify, Run, Scale, Shed, SwitchPool, UsePool
from controlplane.degradation.actuator import Observed, Progress, ReceiptState, RoutePlan, shows, traffic_is_back
from controlplane.degradation.fencing import FencedActuator, FencedHand
from controlplane.degradation.matrix import Level
from controlplane.errors import FencedError, StoreError
from controlplane.fleet.model import Endpoint
from controlplane.flows import carry
from controlplane.flows.carry import Levers, verify
from controlplane.flows.switch import Order, SwitchPorts, close, engage, resolve, shift
from controlplane.incidents.correlate import Notice, Ruling
from controlplane.incidents.incident import IncidentState
from controlplane.probes.probe import Failure, Look
from tests.unit.flows.fakes import (
    NORMAL,
    SWITCHED,
    T0,
    Clock,
    FakeActuator,
    FakeHand,
    FakeIncidents,
    FakeReceipts,
    p0_row,
    spell,
)

STANDBY = (Endpoint("standby-0", "standby", "http://s0"), Endpoint("standby-1", "standby", "http://s1"))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification waits in a time of its own: every look at the clock takes a second."""
    seconds = count(0.0, 1.0)
    monkeypatch.setattr(carry, "monotonic", lambda: next(seconds))
    for pause in ("VERIFY_EVERY_S", "ERRAND_EVERY_S", "UNDO_AGAIN_S"):
        monkeypatch.setattr(carry, pause, 0.0)


class World:
    """Everything a switch touches, with one record of what happened in which order."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.actuator = FakeActuator(self.did)
        self.receipts = FakeReceipts(self.did)
        self.incidents = FakeIncidents()
        self.dead: set[str] = set()
        self.standby: tuple[Endpoint, ...] = STANDBY
        self.ports = SwitchPorts(
            Levers(self.actuator), self.receipts, self.incidents, self.complete, lambda _: self.standby, Clock()
        )

    async def complete(self, endpoint: Endpoint) -> Look:
        self.did.append(f"ask {endpoint.name}")
        failure = Failure.REFUSED if endpoint.name in self.dead else None
        return Look(endpoint, "inference", 0.0, 0.0, failure, "nothing listens" if failure else "")

    def incident(self) -> IncidentState:
        (incident,) = self.incidents.kept.values()
        return incident.state


@pytest.fixture
def world() -> World:
    return World()


def order(**changes: object) -> Order:
    made = Order("chat", p0_row(), NORMAL, SWITCHED, ("endpoints_down is 100%",), T0, T0)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_the_gate_is_asked_then_the_intent_is_stored_then_the_lever_moves(world: World) -> None:
    receipt = await engage(world.ports, order())
    assert receipt is not None
    assert receipt.state is ReceiptState.VERIFIED
    assert world.did == [
        "ask standby-0", "ask standby-1", "receipt intended", "apply standby=100", "receipt applied",
        "receipt verified",
    ]  # fmt: skip


async def test_a_verified_receipt_tells_when_each_thing_happened_and_what_proved_it(world: World) -> None:
    receipt = await engage(world.ports, order())
    assert receipt is not None
    times = [receipt.times[s] for s in (ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED)]
    assert times == sorted(times)
    assert receipt.detected_at == T0
    assert "standby 100 %" in receipt.detail
    assert "level P0" in receipt.detail
    assert receipt.id == "chat/P0/1"


async def test_an_incident_is_opened_with_what_was_detected_and_is_mitigated_by_the_proof(world: World) -> None:
    await engage(world.ports, order(drill_id="d1"))
    (incident,) = world.incidents.kept.values()
    assert (incident.state, incident.level, incident.drill_id) == (IncidentState.MITIGATED, Level.P0, "d1")
    assert world.incidents.texts("detected") == ["endpoints_down is 100%"]
    assert world.incidents.texts("decided") == ["P0: switch_pool to standby"]
    assert "P0 verified" in world.incidents.texts("receipt")[0]


async def test_a_dead_standby_refuses_the_switch_and_nothing_is_touched(world: World) -> None:
    world.dead = {"standby-0", "standby-1"}
    assert await engage(world.ports, order()) is None
    assert world.did == ["ask standby-0", "ask standby-1"]
    assert world.receipts.kept == {}
    assert world.actuator.plan == NORMAL
    (refusal,) = world.incidents.texts("gate")
    assert "standby-0: refused nothing listens" in refusal
    assert world.incident() is IncidentState.OPEN


async def test_a_standby_without_endpoints_refuses_the_switch(world: World) -> None:
    world.standby = ()
    assert await engage(world.ports, order()) is None
    assert world.did == []
    assert "pool standby has no endpoints" in world.incidents.texts("gate")[0]


async def test_one_living_endpoint_of_the_standby_is_enough(world: World) -> None:
    world.dead = {"standby-0"}
    receipt = await engage(world.ports, order())
    assert receipt is not None
    assert receipt.state is ReceiptState.VERIFIED


async def test_a_key_that_is_already_stored_does_nothing(world: World) -> None:
    await engage(world.ports, order())
    world.did.clear()
    incidents = dict(world.incidents.kept)
    assert await engage(world.ports, order()) is None
    assert [what for what in world.did if not what.startswith("ask")] == []
    assert world.incidents.kept == incidents
    assert world.receipts.states() == [ReceiptState.VERIFIED]


async def test_a_second_engagement_of_a_level_joins_its_open_incident(world: World) -> None:
    world.dead = {"standby-0", "standby-1"}
    await engage(world.ports, order())
    world.dead = set()
    await engage(world.ports, order(decided_at=T0.replace(minute=1)))
    assert len(world.incidents.kept) == 1
    assert world.incident() is IncidentState.MITIGATED


async def test_a_lever_that_does_not_move_is_a_failed_receipt(world: World) -> None:
    world.actuator.writable = False
    receipt = await engage(world.ports, order())
    assert receipt is not None
    assert receipt.state is ReceiptState.FAILED
    assert "No space left" in receipt.detail
    assert world.incident() is IncidentState.OPEN


@pytest.mark.parametrize("fault", ["does not obey", "cannot be read", "does not answer"])
async def test_what_cannot_be_proven_has_failed_and_the_lever_is_put_back(world: World, fault: str) -> None:
    world.actuator.obeys = fault != "does not obey"
    world.actuator.readable = fault != "cannot be read"
    world.actuator.answers = fault != "does not answer"
    receipt = await engage(world.ports, order())
    assert receipt is not None
    assert receipt.state is ReceiptState.FAILED
    patience = "60 s" if fault == "does not answer" else "10 s"
    assert receipt.detail.startswith(f"not seen at the gateway within {patience}")
    assert world.did[-3:] == ["receipt applied", "apply primary=100", "receipt failed"]
    assert world.incident() is IncidentState.OPEN


async def test_an_intent_that_cannot_be_stored_moves_no_lever(world: World) -> None:
    world.receipts.refuses = {"intend"}
    with pytest.raises(StoreError):
        await engage(world.ports, order())
    assert not [what for what in world.did if what.startswith("apply")]


@pytest.mark.parametrize("state", [ReceiptState.APPLIED, ReceiptState.VERIFIED])
async def test_a_lever_that_moved_stays_when_the_database_fails_afterwards(world: World, state: ReceiptState) -> None:
    """Users come first: the intent is stored, so that a start-up finds it; turning back would hurt them."""
    world.receipts.refuses = {state}
    receipt = await engage(world.ports, order())
    assert receipt is not None
    assert receipt.state is ReceiptState.VERIFIED
    assert {ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED} <= set(receipt.times)
    assert world.actuator.plan == order().after


async def test_a_way_back_is_recorded_before_the_lever_moves_and_proven_after(world: World) -> None:
    receipt = await engage(world.ports, order())
    assert receipt is not None
    world.did.clear()
    step = RoutePlan({"primary": 10, "standby": 90}, Level.P0)
    assert await shift(world.ports, receipt, step, "10% goes back")
    assert world.did == ["receipt reverting", "apply primary=10 standby=90"]
    assert world.incidents.texts("lever")[-1] == "10% goes back"


@pytest.mark.parametrize("fault", ["does not move", "does not obey"])
async def test_a_step_that_is_not_proven_is_no_step(world: World, fault: str) -> None:
    receipt = await engage(world.ports, order())
    assert receipt is not None
    world.actuator.writable = fault != "does not move"
    world.actuator.obeys = fault != "does not obey"
    assert not await shift(world.ports, receipt, NORMAL, "100% goes back")


async def test_rows_of_one_harm_share_an_incident_which_ends_with_the_last_of_them(world: World) -> None:
    milder = order(row=replace(p0_row(), level=Level.P2, do=(UsePool("base", 0.5),)))
    first = await engage(world.ports, milder)
    second = await engage(world.ports, order(decided_at=T0.replace(minute=1)))
    assert first is not None
    assert second is not None
    (incident,) = world.incidents.kept.values()
    assert (incident.level, incident.rows) == (Level.P0, ("P0", "P2"))
    assert "the level rises from P2 to P0: P0" in world.incidents.texts("triage")
    assert (await close(world.ports, second)).state is ReceiptState.REVERTED
    assert world.incident() is IncidentState.MITIGATED
    assert (await close(world.ports, first)).state is ReceiptState.REVERTED
    assert world.incident() is IncidentState.RESOLVED


async def test_a_refused_switch_whose_cause_went_away_is_resolved_with_the_reason(world: World) -> None:
    world.dead = {"standby-0", "standby-1"}
    await engage(world.ports, order())
    await resolve(world.incidents, world.ports.now, "chat", Level.P0, "cleared without the lever")
    assert world.incident() is IncidentState.RESOLVED
    assert world.incidents.texts("lever") == ["cleared without the lever"]


ANSWERED = Observed({"standby": 100}, "P0", ("standby-0",) * 3, ("P0",) * 3)


@pytest.mark.parametrize(
    ("seen", "proven"),
    [
        (ANSWERED, True),
        (replace(ANSWERED, weights={"primary": 100}), False),
        (replace(ANSWERED, weights={"standby": 99, "primary": 1}), False),
        (replace(ANSWERED, answered_by=()), False),
        (replace(ANSWERED, answered_by=("standby-0", "", "standby-0")), False),
        (replace(ANSWERED, answered_level=("P0", "none", "P0")), False),
    ],
)
def test_a_plan_shows_when_weights_and_every_answer_say_so(seen: Observed, *, proven: bool) -> None:
    assert shows(seen, SWITCHED) is proven


async def test_a_gateway_that_takes_its_time_is_waited_for() -> None:
    actuator = FakeActuator(plan=NORMAL)
    looks = 0

    class Slow(FakeActuator):
        async def configured(self) -> Observed:
            nonlocal looks
            looks += 1
            return await (FakeActuator(plan=SWITCHED) if looks > 3 else actuator).configured()

        async def sample(self, requests: int) -> Observed:
            return await FakeActuator(plan=SWITCHED).sample(requests)

    proof = await verify(Slow(), SWITCHED, 10.0)
    assert proof.ok
    assert looks == 4


async def test_a_pool_that_is_short_of_breath_is_waited_for_longer_than_a_gateway_that_does_not_obey() -> None:
    samples = 0

    class Breathless(FakeActuator):
        async def sample(self, requests: int) -> Observed:
            nonlocal samples
            samples += 1
            self.answers = samples > 15  # A second each, by the clock of these tests.
            return await super().sample(requests)

    assert not (await verify(Breathless(plan=SWITCHED), SWITCHED, 10.0)).ok
    samples = 0
    assert (await verify(Breathless(plan=SWITCHED), SWITCHED, 10.0, 60.0)).ok


@pytest.fixture
def stalls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stop the process for longer than anything is waited for, where this is called; no time passes otherwise."""
    now = [0.0]
    monkeypatch.setattr(carry, "monotonic", lambda: now[0])
    return lambda: now.append(now.pop() + 2 * carry.ANSWER_WITHIN_S)


@pytest.mark.parametrize("while_asked", [False, True])
async def test_a_gateway_is_looked_at_once_more_after_a_stall(stalls: Callable[[], None], *, while_asked: bool) -> None:
    class Stalled(FakeActuator):
        """Shows the plan from the moment of the stall on, or gets answers from then on."""

        async def configured(self) -> Observed:
            seen = await super().configured()
            if not while_asked and self.plan is NORMAL:
                self.plan = SWITCHED
                stalls()
            return seen

        async def sample(self, requests: int) -> Observed:
            seen = await super().sample(requests)
            if not self.answers:
                self.answers = True
                stalls()
            return seen

    stalled = Stalled(plan=SWITCHED if while_asked else NORMAL, answers=not while_asked)
    assert (await verify(stalled, SWITCHED, 10.0, 60.0)).ok


async def test_a_gateway_that_shows_nothing_after_a_stall_either_has_failed(stalls: Callable[[], None]) -> None:
    class Stalled(FakeActuator):
        async def configured(self) -> Observed:
            stalls()
            return await super().configured()

    assert "not seen at the gateway" in (await verify(Stalled(), SWITCHED, 10.0)).detail


async def test_an_errand_is_looked_at_once_more_after_a_stall(
    world: World, hand: FakeHand, stalls: Callable[[], None]
) -> None:
    class Stalled(FakeHand):
        async def observe(self, errand: Errand, key: str, done: str) -> str:
            if self.seen:
                return await super().observe(errand, key, done)
            self.seen = True
            stalls()
            return ""

    stalled = Stalled(world.did, seen=False)
    world.ports = replace(world.ports, levers=Levers(world.actuator, {Notify: hand, Scale: stalled}))
    receipt = await engage(world.ports, several())
    assert receipt is not None
    assert receipt.state is ReceiptState.VERIFIED


def test_an_order_says_its_action_as_a_person_would() -> None:
    assert order().action == "switch_pool to standby"
    assert order(row=replace(p0_row(), do=(UsePool("base", 0.5),))).action == "use_pool base for 50%"
    assert spell(SWITCHED) == "standby=100"


# -- rows with several actions -----------------------------------------------------------------------------------------

SCALE, NOTE, RUN = Scale("deployment/x", replicas=4), Notify("oncall"), Run("drain")
SEVERAL = (NOTE, SwitchPool(), Cordon("primary-0"), SCALE, Shed(9.0))


@pytest.fixture
def hand(world: World) -> FakeHand:
    made = FakeHand(world.did)
    world.ports = replace(world.ports, levers=Levers(world.actuator, {Scale: made, Notify: made, Run: made}))
    return made


def several(**changes: object) -> Order:
    return order(row=replace(p0_row(), do=SEVERAL), **changes)


async def test_actions_are_carried_out_in_the_pages_order_and_the_splits_as_one(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None
    assert receipt.state is ReceiptState.VERIFIED
    assert world.did[2:] == [
        "receipt intended", "do notify oncall", "apply standby=100", "do scale deployment/x to replicas 4",
        "receipt applied", "receipt verified",
    ]  # fmt: skip
    assert [step.progress for step in receipt.steps] == [Progress.DONE] * 3
    assert receipt.steps[2].before == {"was": 3}
    assert "notify oncall: seen" in receipt.detail
    assert hand.keys == ["chat/P0/1/0", "chat/P0/1/2"]


@pytest.mark.parametrize("who", ["a hand", "nobody", "the standby"])
async def test_everything_is_asked_before_anything_is_touched(world: World, hand: FakeHand, who: str) -> None:
    why_not: dict[Level, str] = {}
    hand.refuses = "no such deployment" if who == "a hand" else ""
    world.dead = {"standby-0", "standby-1"} if who == "the standby" else set()
    levers = Levers(world.actuator, {} if who == "nobody" else world.ports.levers.hands)
    world.ports = replace(world.ports, levers=levers, why_not=why_not.__setitem__)
    assert await engage(world.ports, several()) is None
    assert [what for what in world.did if not what.startswith("ask")] == []
    assert world.receipts.kept == {}
    (refusal,) = world.incidents.texts("gate")
    assert {"a hand": "no such deployment", "nobody": "nobody can scale", "the standby": "completion"}[who] in refusal
    assert list(why_not) == [Level.P0]
    assert "was refused" in why_not[Level.P0]


async def test_what_fails_in_the_middle_is_undone_in_the_opposite_order(world: World, hand: FakeHand) -> None:
    broken = FakeHand(world.did, able=False)
    world.ports = replace(world.ports, levers=Levers(world.actuator, {Notify: hand, Scale: broken}))
    receipt = await engage(world.ports, several())
    assert receipt is not None
    assert receipt.state is ReceiptState.FAILED
    assert "scale deployment/x to replicas 4: cannot do it" in receipt.detail
    assert world.did[-4:] == [
        "undo scale deployment/x to replicas 4 to 3", "apply primary=100", "undo notify oncall to 3", "receipt failed",
    ]  # fmt: skip


async def test_an_errand_that_is_not_seen_from_outside_has_failed(world: World, hand: FakeHand) -> None:
    hand.seen = False
    receipt = await engage(world.ports, several())
    assert receipt is not None
    assert receipt.state is ReceiptState.FAILED
    assert "notify oncall was not seen within 10 s" in receipt.detail
    assert {step.progress for step in receipt.steps} == {Progress.UNDONE}


async def test_what_cannot_be_undone_is_said_and_people_are_told(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None
    hand.revertible = False
    closed = await close(world.ports, receipt)
    assert closed.state is ReceiptState.FAILED
    assert "to be undone by hand: notify oncall (cannot undo it: gone)" in closed.detail
    assert world.incident() is IncidentState.RESOLVED


async def test_closing_undoes_the_errands_and_leaves_the_split_alone(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None
    world.did.clear()
    assert (await close(world.ports, receipt)).state is ReceiptState.REVERTED
    assert world.did == [
        "undo scale deployment/x to replicas 4 to 3", "undo notify oncall to 3", "receipt reverted",
    ]  # fmt: skip
    assert hand.keys[2:] == ["chat/P0/1/2", "chat/P0/1/0"]
    assert world.ports.in_hand.receipts == {}


@dataclass(slots=True)
class Stuttering(FakeIncidents):
    """An incident book that cannot be written for a while."""

    refuses: bool = False

    async def take(self, service: str, notices: tuple[Notice, ...], now: datetime) -> Ruling:
        if self.refuses:
            raise StoreError("the database refuses", "disk full", "free space")
        return await FakeIncidents.take(self, service, notices, now)


async def test_a_row_that_engages_anew_before_its_end_is_stored_keeps_its_errands_and_its_incident(
    world: World, hand: FakeHand
) -> None:
    world.incidents = Stuttering()
    world.ports = replace(world.ports, incidents=world.incidents)
    first = await engage(world.ports, several())
    assert first is not None
    assert await shift(world.ports, first, NORMAL, "100% goes back")
    world.incidents.refuses = True
    with pytest.raises(StoreError):
        await close(world.ports, first)
    world.incidents.refuses = False
    second = await engage(world.ports, several(episode=2))
    assert second is not None
    hand.keys.clear()
    assert (await close(world.ports, first)).state is ReceiptState.REVERTED
    assert hand.keys == []
    assert world.incident() is IncidentState.MITIGATED
    assert world.ports.in_hand.receipts.keys() == {second.id}
    assert (await close(world.ports, second)).state is ReceiptState.REVERTED
    assert world.incident() is IncidentState.RESOLVED


async def test_what_is_left_for_people_is_told_once_however_often_its_end_must_be_stored(
    world: World, hand: FakeHand
) -> None:
    paged: list[str] = []

    async def page(text: str) -> None:
        paged.append(text)

    world.ports = replace(world.ports, page=page)
    receipt = await engage(world.ports, several())
    assert receipt is not None
    hand.revertible = False
    world.receipts.refuses = {ReceiptState.FAILED}
    for _ in range(2):
        with pytest.raises(StoreError):
            await close(world.ports, receipt)
    assert len(paged) == 1
    assert "to be undone by hand: notify oncall" in paged[0]


@pytest.mark.usefixtures("hand")
async def test_whoever_is_no_longer_in_charge_closes_nothing_and_leaves_it_to_the_recovery(world: World) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None
    world.receipts.refuses = {"fenced"}
    with pytest.raises(FencedError):
        await close(world.ports, receipt)
    assert world.ports.in_hand.receipts == {}
    world.receipts.refuses = set()
    world.did.clear()
    assert await close(world.ports, receipt) == receipt
    assert world.did == []


async def test_traffic_that_is_back_stays_there_while_the_database_is_away(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None
    world.receipts.refuses = {"steps"}
    assert await shift(world.ports, receipt, NORMAL, "100% goes back")
    assert world.actuator.plan == NORMAL
    assert (await close(world.ports, receipt)).state is ReceiptState.REVERTED
    assert {step.progress for step in world.receipts.kept[receipt.id].steps} == {Progress.UNDONE}
    assert len(hand.keys) == 4


async def test_a_milder_row_whose_closing_breaks_off_under_a_worse_one_is_known_to_be_over(
    world: World, hand: FakeHand
) -> None:
    async def fence() -> None:
        raise FencedError("not in charge")

    milder = order(row=replace(p0_row(), level=Level.P2, do=(UsePool("base", 0.5), NOTE)))
    first, second = await engage(world.ports, milder), await engage(world.ports, order())
    assert first is not None
    assert second is not None
    assert await shift(world.ports, first, SWITCHED, "100% goes back")
    world.ports = replace(world.ports, levers=Levers(world.actuator, {Notify: FencedHand(hand, fence)}))
    with pytest.raises(FencedError):
        await close(world.ports, first)
    assert world.ports.in_hand.receipts.keys() == {second.id}
    assert traffic_is_back(world.receipts.kept[first.id].steps), "or the recovery would put it in force again"


async def test_what_a_new_term_has_settled_is_not_closed_by_the_one_before(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, several())
    assert receipt is not None

    class Slow(FakeHand):
        async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
            assert receipt is not None
            world.ports.in_hand.receipts[receipt.id] = replace(receipt)  # The lease is lost and won meanwhile.
            return await super().revert(errand, key, before)

    world.ports = replace(world.ports, levers=Levers(world.actuator, {Notify: Slow(world.did), Scale: hand}))
    assert (await close(world.ports, receipt)).state is ReceiptState.VERIFIED
    assert world.receipts.states() == [ReceiptState.VERIFIED]
    assert world.incident() is IncidentState.MITIGATED


async def test_a_row_without_a_split_still_marks_the_answers(world: World, hand: FakeHand) -> None:
    receipt = await engage(world.ports, order(row=replace(p0_row(), do=(NOTE,))))
    assert receipt is not None
    assert [step.action for step in receipt.steps] == ["mark answers P0", "notify oncall"]
    assert "apply standby=100" in world.did
    assert hand.did


async def test_whoever_is_no_longer_in_charge_stops_and_leaves_the_rest_to_the_other(world: World) -> None:
    world.receipts.refuses = {"fenced"}
    with pytest.raises(FencedError):
        await engage(world.ports, order())
    assert world.did[-1] == "apply standby=100"
    assert world.ports.in_hand.receipts == {}


async def test_a_fenced_lever_does_not_move(world: World, hand: FakeHand) -> None:
    async def fence() -> None:
        raise FencedError("not in charge")

    levers = Levers(FencedActuator(world.actuator, fence), {Notify: FencedHand(hand, fence)})
    world.ports = replace(world.ports, levers=levers)
    for do in ((SwitchPool(),), (NOTE, SwitchPool())):
        with pytest.raises(FencedError):
            await engage(world.ports, order(row=replace(p0_row(), do=do), episode=len(do)))
        world.receipts.kept.clear()
    assert not [what for what in world.did if what.startswith(("apply", "do "))]


async def test_two_moves_to_the_same_split_are_two_keys(world: World) -> None:
    keys: list[str] = []

    class Noting(FakeActuator):
        async def apply(self, plan: RoutePlan, key: str) -> None:
            keys.append(key)
            await FakeActuator.apply(self, plan, key)

    world.ports = replace(world.ports, levers=Levers(Noting(world.did)))
    receipt = await engage(world.ports, order())
    assert receipt is not None
    for _ in range(2):
        assert await shift(world.ports, receipt, NORMAL, "back")
    assert len(set(keys)) == 3
    assert keys[0] == "chat/P0/1/0"
