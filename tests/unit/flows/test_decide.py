"""What rows mean to each other and what people mean to rows: escalation, brake, pins, approvals; with real flows."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.degradation.actuator import ReceiptState
from controlplane.degradation.instruction import CONTROL_PLANE, Instruction, Kind, Refused
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import AlertFires, Level, Mode, ReleasePlan
from controlplane.degradation.turn import Worry
from controlplane.errors import StoreError
from controlplane.flows import people
from controlplane.flows.lever import Decision
from controlplane.flows.people import Said
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from tests.unit.flows.fakes import FakeInstructions, receipt, split
from tests.unit.flows.world import HOLD_S, P0, P2, Books, FakeLevers, World, running

BY_ALERT = replace(P2, when=AlertFires("Slow"), escalate=Level.P0)
PIN = Said(Kind.PIN, Level.P0, "ann", "trying it", timedelta(minutes=30))
APPROVE = Said(Kind.APPROVE, Level.P0, "ann", "go")
REFUSE = Said(Kind.REFUSE, Level.P0, "ann", "a false alarm")
RELEASE = Said(Kind.RELEASE, Level.P0, "ann", "all is well")
HANDS_OFF = Said(Kind.PIN, Level.NONE, "ann", "we are moving racks")


async def engaged(world: World) -> None:
    world.kill()
    await world.settle()
    assert world.phase() is Phase.ENGAGED


async def flap(world: World) -> None:
    """Break the primary, let it recover, and let everything go back."""
    world.kill()
    await world.settle()
    world.revive()
    await world.tick(4 * int(HOLD_S))


async def test_an_alert_trips_a_row_and_its_end_releases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, BY_ALERT) as world:
        await world.tick(2)
        assert world.phase(Level.P2) is Phase.IDLE
        world.alerts = frozenset({"Slow", "Other"})
        await world.tick(1)
        assert world.phase(Level.P2) is Phase.ENGAGED
        assert world.levers.engaged[0].because == ("alert Slow fires",)
        world.alerts = None
        await world.tick(30)
        assert world.phase(Level.P2) is Phase.ENGAGED, "nobody knows whether it fires"
        world.alerts = frozenset()
        await world.tick(3 * int(HOLD_S))
        assert world.phase(Level.P2) is Phase.IDLE


# -- escalation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [None, ReceiptState.FAILED])
async def test_a_row_that_is_refused_or_fails_tells_the_next_one_to_trip(
    monkeypatch: pytest.MonkeyPatch, result: ReceiptState | None
) -> None:
    async with running(monkeypatch, P0, BY_ALERT) as world:
        world.levers.results[Level.P2] = result
        world.alerts = frozenset({"Slow"})
        await world.tick(1)
        assert world.phase(Level.P0) is Phase.ENGAGED
        decision = world.levers.engaged[1]
        assert decision.row.level is Level.P0
        assert decision.because[0] == "P2 could not mend the harm"
        assert decision.detected_at == world.levers.engaged[0].detected_at
        assert [(t.level, t.worry) for t in world.told] == [(Level.P2, Worry.FAILED)]
        assert world.told[0].text == "P2 could not be put in force; P0 is told to trip"


async def test_a_row_that_is_told_to_trip_and_fails_is_told_of_too_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, P0, BY_ALERT) as world:
        world.levers.engage_result = None
        world.alerts = frozenset({"Slow"})
        await world.tick(40)
        both = [(Level.P2, Worry.FAILED), (Level.P0, Worry.FAILED)]
        assert [(t.level, t.worry) for t in world.told] == both
        assert world.told[1].text == "P0 could not be put in force; no other row is left: a person has to act"
        world.levers.slow = asyncio.Event()
        await world.tick(20)
        assert Phase.ENGAGING in (world.phase(Level.P0), world.phase(Level.P2))
        world.levers.slow.set()
        await world.tick(20)
        assert len(world.told) == 2, "a gate that takes its time is no end of the harm"
        world.alerts = frozenset()
        await world.tick(3)
        world.alerts = frozenset({"Slow"})
        await world.tick(3)
        assert [(t.level, t.worry) for t in world.told] == both * 2, "another harm is another page"


async def test_a_row_that_has_not_helped_in_its_time_escalates_and_people_hear_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = replace(BY_ALERT, within=timedelta(seconds=20))
    async with running(monkeypatch, P0, late) as world:
        world.alerts = frozenset({"Slow"})
        await world.tick(19)
        assert (world.phase(Level.P2), world.phase(Level.P0)) == (Phase.ENGAGED, Phase.IDLE)
        await world.tick(30)
        assert world.phase(Level.P0) is not Phase.IDLE
        assert [(t.level, t.worry) for t in world.told] == [(Level.P2, Worry.LATE)]
        assert (
            world.metrics.registry.get_sample_value(
                "controlplane_worries_total", {"service": "chat", "row": "P2", "worry": "late"}
            )
            == 1
        )


async def test_a_row_that_moved_everything_is_not_late_while_the_pool_it_left_stays_ill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, replace(P0, within=timedelta(seconds=5))) as world:
        await engaged(world)
        await world.tick(60, ok=None)
        assert world.told == []


async def test_the_last_row_that_fails_has_people_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_result = ReceiptState.FAILED
        world.kill()
        await world.tick(30, ok=None)
        assert [t.text for t in world.told] == [
            "P0 could not be put in force; no other row is left: a person has to act"
        ]


# -- the brake ---------------------------------------------------------------------------------------------------------


async def test_rows_that_switch_too_often_brake_themselves_and_a_person_lets_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, switches=2) as world:
        for _ in range(2):
            await flap(world)
        assert len(world.levers.engaged) == 2
        world.kill()
        await world.tick(30, ok=None)
        assert len(world.levers.engaged) == 2, "the third one needs a person"
        standing = world.standing()
        assert standing.braked
        assert standing.brake is not None
        assert standing.brake.who == CONTROL_PLANE
        assert world.row().waits_for == "the brake is on; awaiting approval"
        assert [i.kind for i in world.books.instructions.kept.values()] == [Kind.BRAKE]
        assert [t.worry for t in world.told] == [Worry.BRAKE]
        assert [level for level, _ in world.levers.asked] == [Level.P0]

        await world.say(APPROVE)
        await world.tick(1, ok=None)
        assert world.phase() is Phase.ENGAGED
        world.revive()
        await world.tick(60)
        assert world.phase() is Phase.ENGAGED, "nothing is given back while the brake is on"

        let_go = await people.end(world.people, Kind.BRAKE, Level.NONE, "ann", "mended")
        assert isinstance(let_go, Instruction)
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE
        assert not world.standing().braked
        await flap(world)
        assert len(world.levers.engaged) == 4


async def test_the_brake_never_keeps_users_at_a_primary_that_breaks_on_the_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, switches=1) as world:
        await engaged(world)
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        assert world.phase() is Phase.RELEASING
        world.kill()
        await world.settle()
        assert world.phase() is Phase.ENGAGED
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        assert world.standing().braked
        shifts = len(world.levers.shifts)
        world.revive()
        await world.tick(60)
        assert (world.phase(), len(world.levers.shifts)) == (Phase.ENGAGED, shifts)


async def test_what_a_gate_refuses_is_no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, switches=2) as world:
        world.levers.engage_result = None
        world.kill()
        await world.tick(60, ok=None)
        assert len(world.levers.engaged) > 4
        assert not world.standing().braked


async def test_a_lever_that_does_not_come_back_is_tried_again_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, switches=2) as world:
        await engaged(world)
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        world.levers.shift_ok = False
        world.kill()
        await world.tick(30, ok=None)
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        assert len(world.levers.shifts) > 10
        assert not world.standing().braked


async def test_an_hour_later_the_rows_may_switch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, switches=1) as world:
        await flap(world)
        world.now += 3600.0
        world.looks(ok=True)
        await flap(world)
        assert len(world.levers.engaged) == 2
        assert not world.standing().braked


async def test_a_person_may_pull_the_brake(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        pull = Said(Kind.BRAKE, Level.NONE, "ann", "we measure")
        await world.say(pull)
        assert await world.say(pull) == Refused("the brake is on already")
        world.kill()
        await world.tick(3, ok=None)
        assert (world.phase(), world.levers.engaged) == (Phase.PENDING, [])


# -- pins --------------------------------------------------------------------------------------------------------------


async def test_a_pinned_row_is_put_in_force_and_kept_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await world.tick(2)
        pinned = await world.say(PIN)
        assert isinstance(pinned, Instruction)
        assert world.phase() is Phase.ENGAGED
        assert world.levers.engaged[0].because == (pinned.words,)
        await world.tick(60)
        assert (world.phase(), world.standing().pins) == (Phase.ENGAGED, (pinned,))
        world.clock.at += timedelta(minutes=31)
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE
        assert world.standing().pins == ()
        assert world.books.instructions.kept[pinned.id].ended_why == "its time is over"


async def test_unpinning_gives_the_row_back_to_its_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await world.tick(2)
        await world.say(PIN)
        assert isinstance(await people.end(world.people, Kind.PIN, Level.P0, "bob", "done"), Instruction)
        assert await people.end(world.people, Kind.PIN, Level.P0, "bob", "again") == Refused("nobody has pinned P0")
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE


async def test_unpinning_ends_the_pin_that_is_obeyed_and_the_one_before_it_whose_end_could_not_be_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise StoreError("the database refuses", "disk full", "free space")

    async with running(monkeypatch) as world:
        await world.tick(2)
        await world.say(PIN)
        with monkeypatch.context() as trouble:
            trouble.setattr(FakeInstructions, "end", refuse)
            anew = await world.say(PIN)
        ended = await people.end(world.people, Kind.PIN, Level.P0, "bob", "done")
        assert (ended, world.standing().pins) == (anew, ())
        assert await world.books.instructions.in_force("chat") == ()


async def test_a_pin_to_none_lets_nothing_begin_and_what_is_in_force_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, P0, BY_ALERT) as world:
        await engaged(world)
        await world.say(HANDS_OFF)
        world.alerts = frozenset({"Slow"})
        world.revive()
        await world.tick(4 * int(HOLD_S))
        assert (world.phase(Level.P0), world.phase(Level.P2)) == (Phase.IDLE, Phase.PENDING)
        assert world.row(Level.P2).waits_for == world.standing().pins[0].words
        assert "ann pinned none: we are moving racks" in world.row(Level.P2).waits_for


async def test_a_pin_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books()
    async with running(monkeypatch, books=books) as world:
        await world.tick(1)
        await world.say(PIN)
    async with running(monkeypatch, books=books) as world:
        world.decider.resume((receipt(ReceiptState.VERIFIED),), await books.instructions.in_force("chat"))
        await world.tick(60)
        assert world.phase() is Phase.ENGAGED
        assert [pin.who for pin in world.standing().pins] == ["ann"]


# -- approvals ---------------------------------------------------------------------------------------------------------


async def test_a_row_that_needs_approval_waits_for_it_and_then_engages(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.kill()
        await world.tick(30, ok=None)
        assert (world.phase(), world.levers.engaged) == (Phase.PENDING, [])
        assert world.row().awaits_approval
        assert world.levers.asked == [(Level.P0, "P0 waits for a person: awaiting approval")]
        assert isinstance(await world.say(APPROVE), Instruction)
        assert world.phase() is Phase.ENGAGED
        assert (await world.say(APPROVE)) == Refused("row P0 cannot be approved now: it is engaged")
        world.revive()
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE
        world.kill()
        await world.tick(2, ok=None)
        assert world.phase() is Phase.PENDING, "an approval is for one time"


async def test_a_question_that_cannot_be_stored_is_paged_at_once_and_written_down_when_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.levers.ask_errors = [StoreError("disk full"), StoreError("disk full")]
        world.kill()
        await world.tick(30, ok=None)
        assert world.levers.paged == ["P0 waits for a person: awaiting approval"]
        assert world.levers.asked == [(Level.P0, "P0 waits for a person: awaiting approval")]


@pytest.mark.parametrize("answer", [APPROVE, REFUSE])
async def test_a_question_that_is_answered_is_written_down_no_more(
    monkeypatch: pytest.MonkeyPatch, answer: Said
) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.levers.ask_errors = [StoreError("disk full")] * 10_000
        world.kill()
        await world.tick(2, ok=None)
        await world.say(answer)
        world.levers.ask_errors.clear()
        await world.settle()
        assert (world.levers.asked, len(world.levers.paged)) == ([], 1)


async def test_a_refused_row_is_left_alone_until_its_trigger_has_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.kill()
        await world.tick(2, ok=None)
        await world.say(REFUSE)
        await world.tick(60, ok=None)
        assert (world.phase(), len(world.levers.asked)) == (Phase.PENDING, 1)
        assert "a false alarm" in world.row().waits_for
        world.revive()
        await world.tick(1)
        assert (world.phase(), world.levers.resolved[0][0]) == (Phase.IDLE, Level.P0)
        assert [i.ended_why for i in world.books.instructions.kept.values()] == ["the trigger cleared"]
        world.kill()
        await world.tick(2, ok=None)
        assert len(world.levers.asked) == 2


async def test_a_refusal_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books()
    async with running(monkeypatch, mode=Mode.APPROVE, books=books) as world:
        world.kill()
        await world.tick(2, ok=None)
        await world.say(REFUSE)
    async with running(monkeypatch, mode=Mode.APPROVE, books=books) as world:
        world.decider.resume((), await books.instructions.in_force("chat"))
        world.kill()
        await world.tick(5, ok=None)
        assert world.levers.asked == []


async def test_one_row_may_need_approval_while_the_others_act(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, replace(P0, mode=Mode.APPROVE), P2) as world:
        world.kill()
        await world.tick(1, ok=None)
        assert (world.phase(Level.P0), world.phase(Level.P2)) == (Phase.PENDING, Phase.ENGAGED)


# -- steps of the way back ---------------------------------------------------------------------------------------------


def answers(error_rate: float) -> tuple[Evidence, ...]:
    return (Evidence("error_rate", error_rate, Band.OK, 1000),)


async def test_a_primary_that_is_worse_than_the_standby_goes_back_one_step_and_people_can_read_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = ReleasePlan((0.1, 0.5, 1.0), timedelta(seconds=HOLD_S))
    async with running(monkeypatch, replace(P0, release=steps), switches=1) as world:
        await engaged(world)
        world.revive()
        await world.tick(2 * int(HOLD_S) + 2)
        assert split(world.levers.shifts[-1]) == {"primary": 50, "standby": 50}
        world.beside = {"primary": answers(0.03), "standby": answers(0.001)}
        await world.tick(1)
        assert split(world.levers.shifts[-1]) == {"primary": 10, "standby": 90}
        said = world.levers.said[-1]
        assert said.startswith("one step back, from 50% to 10% of the traffic at the primary pool: ")
        assert "the primary: 3.00% errors of 1000 answers" in said
        assert "the other: 0.10% errors of 1000 answers" in said
        assert world.phase() is Phase.RELEASING
        await world.tick(int(HOLD_S) + 1)
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        assert world.phase() is Phase.ENGAGED
        world.beside = {}
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE
        assert not world.standing().braked, "steps back are no switches"


async def test_a_step_back_that_cannot_be_proven_takes_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await engaged(world)
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        assert world.phase() is Phase.RELEASING
        world.levers.shift_ok = False
        world.beside = {"primary": answers(0.03), "standby": answers(0.001)}
        await world.tick(1)
        assert world.phase() is Phase.ENGAGED
        assert [said.split(",")[0] for said in world.levers.said[-2:]] == ["one step back", "fully engaged again"]


# -- release -----------------------------------------------------------------------------------------------------------


async def test_a_person_releases_a_row_whose_trigger_is_wrong_and_it_stays_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, replace(P0, when=AlertFires("Slow"))) as world:
        world.alerts = frozenset({"Slow"})
        await world.tick(30)
        assert world.phase() is Phase.ENGAGED
        await world.say(RELEASE)
        assert split(world.levers.shifts[-1]) == {"primary": 50, "standby": 50}
        await world.tick(3 * int(HOLD_S))
        assert world.phase() is Phase.PENDING, "the trigger holds, and is not listened to"
        assert len(world.levers.engaged) == 1
        assert "ann released P0" in world.row().waits_for
        world.alerts = frozenset()
        await world.tick(1)
        world.alerts = frozenset({"Slow"})
        await world.tick(1)
        assert len(world.levers.engaged) == 2


async def test_a_release_onto_a_primary_that_is_ill_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await engaged(world)
        refused = await world.say(RELEASE)
        assert isinstance(refused, Refused)
        assert "the primary pool is not well" in refused.why
        assert world.books.instructions.kept == {}


async def test_a_release_ends_the_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await world.tick(2)
        await world.say(PIN)
        await world.tick(2)
        await world.say(RELEASE)
        await world.tick(3 * int(HOLD_S))
        assert (world.phase(), world.standing().pins) == (Phase.IDLE, ())


# -- terms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.OBSERVE])
async def test_an_incident_that_an_earlier_life_left_open_ends_once_its_trigger_is_clear(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    books = Books()
    async with running(monkeypatch, books=books) as world:
        world.levers.engage_result = None
        world.kill()
        await world.settle()
        assert world.phase() is Phase.FAILED
    async with running(monkeypatch, books=books, mode=mode) as world:
        (incident,) = await books.incidents.open_incidents("chat")
        world.kill()
        world.decider.resume((), (), incident.rows)
        world.levers.engage_result = None
        await world.tick(2, ok=None)
        assert await books.incidents.open_incidents("chat") != (), "the harm goes on"
        world.revive()
        await world.tick(2)
        assert world.phase() is Phase.IDLE
        assert await books.incidents.open_incidents("chat") == ()


async def test_an_incident_of_a_harm_that_ended_between_two_lives_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books()
    async with running(monkeypatch, books=books) as world:
        world.levers.engage_result = None
        world.kill()
        await world.settle()
    async with running(monkeypatch, books=books) as world:
        (incident,) = await books.incidents.open_incidents("chat")
        world.decider.resume((), (), incident.rows)
        await world.tick(2)
        assert (world.phase(), world.levers.engaged, world.told) == (Phase.IDLE, [], [])
        assert await books.incidents.open_incidents("chat") == ()


async def test_a_question_of_a_term_that_was_lost_and_regained_ends_with_its_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.kill()
        await world.tick(2, ok=None)
        assert world.row().awaits_approval
        world.decider.resume((), (), {"P0"})
        world.revive()
        await world.tick(1)
        assert (world.phase(), [level for level, _ in world.levers.resolved]) == (Phase.IDLE, [Level.P0])


async def test_whoever_is_in_charge_no_longer_shows_no_row_that_failed_or_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, P0, replace(P2, mode=Mode.APPROVE)) as world:
        world.levers.engage_result = None
        world.kill()
        await world.settle()
        assert (world.phase(Level.P0), world.phase(Level.P2)) == (Phase.FAILED, Phase.PENDING)
        world.acting = False
        world.decider.follow(())
        await world.tick(1, ok=None)
        assert (world.phase(Level.P0), world.phase(Level.P2)) == (Phase.IDLE, Phase.IDLE)
        failed = {"service": "chat", "row": "P0", "phase": "failed"}
        assert world.metrics.registry.get_sample_value("controlplane_row_phase", failed) == 0


async def test_a_lease_that_lapsed_for_a_while_shortens_no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await engaged(world)
        world.revive()
        await world.tick(int(HOLD_S) - 1)
        world.acting = False
        world.kill()
        await world.tick(60, ok=None)
        world.revive()
        await world.tick(1)
        world.acting = True
        await world.tick(2)
        assert (world.phase(), world.levers.shifts) == (Phase.ENGAGED, [])
        await world.tick(int(HOLD_S))
        assert world.phase() is Phase.RELEASING


async def test_a_release_begins_anew_with_a_term_that_was_lost_and_regained(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ReleasePlan((0.1, 0.5, 1.0), timedelta(seconds=HOLD_S))
    async with running(monkeypatch, replace(P0, release=steps)) as world:
        await engaged(world)
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        assert split(world.levers.shifts[-1]) == {"primary": 10, "standby": 90}
        world.acting = False
        await world.tick(int(HOLD_S) - 2)
        world.decider.resume((receipt(ReceiptState.REVERTING, "r1"),))  # Settled: it is fully engaged again.
        world.acting = True
        await world.tick(int(HOLD_S) - 1)
        assert (world.phase(), len(world.levers.shifts)) == (Phase.ENGAGED, 1)
        await world.tick(3)
        assert split(world.levers.shifts[-1]) == {"primary": 10, "standby": 90}


async def test_a_lever_that_still_moves_when_a_term_begins_says_itself_where_its_row_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.levers.slow = asyncio.Event()
        world.kill()
        await world.settle()
        world.decider.resume(())
        assert world.phase() is Phase.ENGAGING
        world.levers.slow.set()
        await world.settle()
        assert world.phase() is Phase.ENGAGED


async def test_one_that_follows_shows_what_the_one_in_charge_has_engaged_and_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.acting = False
        held = receipt(ReceiptState.VERIFIED)
        for _ in range(2):
            world.decider.follow((held,))
            await world.tick(1)
            assert (world.phase(), world.row().since) == (Phase.ENGAGED, held.decided_at)
            assert world.weights() == {"primary": 0, "standby": 100}
        world.decider.follow(())
        assert (world.phase(), world.weights()["primary"]) == (Phase.IDLE, 100)


async def test_a_question_is_written_down_before_the_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said, slow = [], asyncio.Event()

    async def ask(_: FakeLevers, decision: Decision, _text: str) -> None:
        await slow.wait()
        said.append(f"ask {decision.row.level}")

    async def resolve(_: FakeLevers, level: Level, _why: str) -> None:
        said.append(f"end {level}")

    monkeypatch.setattr(FakeLevers, "ask", ask)
    monkeypatch.setattr(FakeLevers, "resolve", resolve)
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.kill()
        await world.tick(1, ok=None)
        world.revive()
        await world.tick(1)
        assert world.phase() is Phase.IDLE
        slow.set()
        await world.settle()
        assert said == ["ask P0", "end P0"]


# -- what cannot be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (replace(PIN, level=Level.P1), "row P1 is not armed; armed: P0"),
        (APPROVE, "row P0 cannot be approved now: it is idle"),
        (REFUSE, "row P0 cannot be refused now: it is idle"),
        (RELEASE, "row P0 cannot be released now: it is idle"),
    ],
)
async def test_an_instruction_that_fits_nothing_is_refused_and_not_stored(
    monkeypatch: pytest.MonkeyPatch, said: Said, why: str
) -> None:
    async with running(monkeypatch) as world:
        await world.tick(1)
        assert await world.say(said) == Refused(why)
        assert world.books.instructions.kept == {}


async def test_a_row_that_only_watches_takes_no_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.OBSERVE) as world:
        assert await world.say(PIN) == Refused("row P0 only watches (mode observe): move the lever by hand")


async def test_what_was_said_stands_on_the_open_incident(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.APPROVE) as world:
        world.kill()
        await world.tick(2, ok=None)
        now = world.clock()
        row = world.row().row
        await people.ask(world.people.told, row.level, ("dead",), now, now, "P0 waits for a person")
        await world.say(APPROVE)
        (incident,) = world.books.incidents.kept.values()
        assert (incident.level, incident.title) == ("P0", "chat: dead")
        assert world.books.incidents.texts("page") == ["P0 waits for a person"]
        assert world.books.incidents.texts("person") == ["ann approved P0: go"]


async def test_a_book_that_cannot_be_written_stops_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, switches=1) as world:
        world.books.instructions.writable = False
        await flap(world)
        world.kill()
        await world.tick(3, ok=None)
        assert world.standing().braked
        world.books.instructions.writable = True
        let_go = await people.end(world.people, Kind.BRAKE, Level.NONE, "ann", "mended")
        assert isinstance(let_go, Instruction), "a brake that could not be stored can be let go of, too"
        assert not world.standing().braked
