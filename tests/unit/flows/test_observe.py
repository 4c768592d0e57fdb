"""Looks become verdicts, verdicts move rows, rows move levers; whatever a lever does, nothing gets stuck."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.degradation.actuator import ReceiptState
from controlplane.degradation.machine import RETRY_AFTER_S, Phase
from controlplane.degradation.matrix import Condition, Level, Mode
from controlplane.degradation.turn import primary_is_well
from controlplane.errors import ActuatorError, ControlplaneError, FencedError, StoreError
from controlplane.fleet.model import Endpoint
from controlplane.flows.vantage import ASKED_ENOUGH
from controlplane.probes.gateway_counts import Count
from controlplane.probes.probe import Failure, Look
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from tests.unit.flows.fakes import receipt, split
from tests.unit.flows.world import HOLD_S, P0, P2, PRIMARY, STANDBY, World, running


async def test_hard_evidence_on_the_whole_pool_engages_at_once_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        await world.tick(5, ok=None)
        (decision,) = world.levers.engaged
        assert split(decision.before) == {"primary": 100}
        assert split(decision.after) == {"standby": 100}
        assert decision.because == ("endpoints_down is 100% (at or above 100%)",)
        assert decision.detected_at <= decision.decided_at
        assert world.phase() is Phase.ENGAGED
        assert world.decider.level is Level.P0
        assert world.weights() == {"primary": 0, "standby": 100}


async def test_one_dead_endpoint_of_two_engages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill(PRIMARY[0])
        await world.tick(1, ok=None)
        assert world.levers.engaged == []


async def test_a_pool_that_answers_the_gateway_is_given_up_once_the_gateway_says_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        for n in range(20):
            world.counted = {"primary": Count(10.0 * n, 10.0 * n)}
            world.observer.ask_gateway()
            await world.tick(1, ok=n < 5)
        world.counted = None
        for _ in range(ASKED_ENOUGH):
            assert world.levers.engaged == []
            world.observer.ask_gateway()
            await world.tick(1, ok=False)
        assert len(world.levers.engaged) == 1


async def test_soft_evidence_dwells_before_it_engages(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = replace(P0, when=Condition("availability", below=0.5, dwell=timedelta(seconds=2)))
    async with running(monkeypatch, soft) as world:
        await world.tick(5)
        phases = []
        for _ in range(6):
            await world.tick(1, ok=False)
            phases.append(world.phase())
        assert phases == [Phase.IDLE, Phase.IDLE, Phase.PENDING, Phase.PENDING, Phase.ENGAGED, Phase.ENGAGED]
        assert len(world.levers.engaged) == 1
        (decision,) = world.levers.engaged
        assert decision.decided_at > decision.detected_at


async def test_no_data_engages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await world.tick(60, ok=None)
        assert world.phase() is Phase.IDLE
        assert world.levers.engaged == []


async def test_traffic_returns_by_steps_once_the_primary_is_well_and_the_receipt_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        await world.tick(int(HOLD_S) - 1)
        assert world.levers.shifts == []
        await world.tick(3 * int(HOLD_S))
        assert [split(plan) for plan in world.levers.shifts] == [{"primary": 50, "standby": 50}, {"primary": 100}]
        assert [r.id for r in world.levers.closed] == ["r1"]
        assert (world.phase(), world.decider.level) == (Phase.IDLE, Level.NONE)
        assert world.weights() == {"primary": 100, "standby": 0}


async def test_nothing_is_given_back_while_the_primary_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        await world.tick(60, ok=None)
        assert world.levers.shifts == []
        assert world.phase() is Phase.ENGAGED


async def test_a_primary_that_dies_again_on_the_way_back_loses_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        await world.tick(int(HOLD_S) + 1)
        assert split(world.levers.shifts[-1]) == {"primary": 50, "standby": 50}
        world.kill()
        await world.settle()
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        assert world.phase() is Phase.ENGAGED
        assert len(world.levers.engaged) == 1


@pytest.mark.parametrize("error", [ActuatorError("stuck", "why"), StoreError("disk full", "why")])
async def test_a_lever_that_raises_makes_a_failed_row_that_tries_again(
    monkeypatch: pytest.MonkeyPatch, error: ControlplaneError
) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_error = error
        world.kill()
        await world.settle()
        assert world.phase() is Phase.FAILED
        assert world.decider.level is Level.NONE
        assert world.weights()["primary"] == 100
        world.levers.engage_error = None
        await world.tick(int(RETRY_AFTER_S) + 1, ok=None)
        assert world.phase() is Phase.ENGAGED
        assert len(world.levers.engaged) == 2


@pytest.mark.parametrize("result", [None, ReceiptState.FAILED])
async def test_a_switch_that_was_refused_or_failed_ends_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, result: ReceiptState | None
) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_result = result
        world.kill()
        await world.settle()
        assert world.phase() is Phase.FAILED
        world.revive()
        await world.tick(1)
        assert world.phase() is Phase.IDLE
        assert [level for level, _ in world.levers.resolved] == [Level.P0]


async def test_a_shift_that_raises_takes_the_traffic_back_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.kill()
        await world.settle()
        world.revive()
        world.levers.shift_error = ActuatorError("stuck", "why")
        await world.tick(int(HOLD_S) + 1)
        assert world.phase() is Phase.ENGAGED
        assert split(world.levers.shifts[-1]) == {"standby": 100}
        world.levers.shift_error = None
        await world.tick(4 * int(HOLD_S))
        assert world.phase() is Phase.IDLE


async def go_home(world: World, errors: list[ControlplaneError]) -> None:
    """Engage P0 and give everything back, while the row cannot be closed for these reasons."""
    world.kill()
    await world.settle()
    world.revive()
    world.levers.close_errors = errors
    await world.tick(4 * int(HOLD_S))


async def test_a_closing_that_cannot_be_stored_is_tried_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await go_home(world, [StoreError("disk full"), StoreError("disk full")])
        assert [r.id for r in world.levers.closed] == ["r1"]


async def test_a_closing_is_left_to_the_other_when_another_one_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        await go_home(world, [FencedError("not in charge")])
        assert world.levers.close_errors == [], "it was tried"
        assert world.levers.closed == [], "and not again"
        assert (world.phase(), world.decider.level) == (Phase.IDLE, Level.NONE)


async def test_a_row_that_engages_anew_shows_that_and_the_receipt_before_is_still_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        await go_home(world, [StoreError("disk full")] * 10_000)
        assert world.phase() is Phase.RELEASING, "all traffic is back, and that is not stored"
        world.kill()
        await world.settle()
        assert world.phase() is Phase.ENGAGED
        world.levers.close_errors.clear()
        await world.settle()
        assert [r.id for r in world.levers.closed] == ["r1"]
        assert world.phase() is Phase.ENGAGED


async def test_a_receipt_that_is_taken_over_while_it_cannot_be_closed_is_not_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        await go_home(world, [StoreError("disk full")] * 10_000)
        world.decider.resume((receipt(ReceiptState.REVERTING, "r1"),))
        await world.settle()
        world.levers.close_errors.clear()
        await world.settle()
        assert world.levers.closed == []
        assert world.phase() is Phase.ENGAGED


async def test_the_incident_of_a_row_that_is_in_force_again_is_not_ended_by_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.levers.engage_result = None
        world.kill()
        await world.settle()
        world.levers.close_errors = [StoreError("disk full")] * 10_000
        world.revive()
        await world.tick(2)
        assert world.phase() is Phase.IDLE
        world.levers.engage_result = ReceiptState.VERIFIED
        world.kill()
        await world.settle()
        world.levers.close_errors.clear()
        await world.settle()
        assert world.phase() is Phase.ENGAGED
        assert world.levers.resolved == []


async def test_observe_mode_says_what_it_sees_and_moves_no_lever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, mode=Mode.OBSERVE) as world:
        world.kill()
        await world.tick(60, ok=None)
        assert world.levers.engaged == []
        assert world.phase() is Phase.PENDING
        assert world.standing().rows[0].because[0] == "endpoints_down is 100% (at or above 100%)"


async def test_a_row_whose_errands_are_still_being_undone_keeps_no_other_from_the_lever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, P0, P2) as world:
        async with world.levers.undone(P2):
            world.kill(PRIMARY[0])
            await world.settle()
            assert (world.phase(Level.P2), world.levers.engaged) == (Phase.ENGAGING, [])
            world.kill()
            await world.settle()
            assert world.phase(Level.P0) is Phase.ENGAGED
        await world.settle()
        assert [d.row.level for d in world.levers.engaged] == [Level.P0, Level.P2]
        assert split(world.levers.engaged[1].before) == {"standby": 100}


async def test_rows_that_trip_together_pull_one_lever_and_their_plans_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, P0, P2) as world:
        world.levers.slow = asyncio.Event()
        world.kill()
        await world.settle()
        assert len(world.levers.engaged) == 1
        world.levers.slow.set()
        await world.settle()
        plans = [split(decision.after) for decision in world.levers.engaged]
        assert len(plans) == 2
        assert plans[-1] == {"base": 50, "standby": 50}
        assert world.levers.engaged[1].before == world.levers.engaged[0].after
        assert world.decider.level is Level.P0


async def test_rows_that_were_engaged_before_a_restart_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.decider.resume((receipt(ReceiptState.VERIFIED),))
        assert (world.decider.level, world.phase()) == (Level.P0, Phase.ENGAGED)
        assert world.weights() == {"primary": 0, "standby": 100}
        assert world.standing().why == ("endpoints_down is 100%",)
        await world.tick(4 * int(HOLD_S))
        assert [r.id for r in world.levers.closed] == ["r1"]
        assert world.levers.engaged == []


async def test_a_receipt_of_a_row_that_left_the_page_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.decider.resume((replace(receipt(ReceiptState.VERIFIED), level=Level.P2),))
        assert world.decider.level is Level.NONE


async def test_the_inventory_is_followed_and_each_endpoint_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        assert world.holding == {"primary-0", "primary-1", "standby-0"}
        world.endpoints = (PRIMARY[0],)
        world.observer.follow_inventory()
        await world.settle()
        assert world.holding == {"primary-0"}


async def test_an_endpoint_that_became_another_where_it_stands_is_held_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        world.endpoints = (*(replace(endpoint, node="gpu-1", zone="b") for endpoint in PRIMARY), STANDBY)
        world.observer.follow_inventory()
        assert len(world.watchers) == 3
        assert world.let_go == set()
        for endpoint, report in world.watchers.items():
            if endpoint.pool == "primary":
                report(Look(endpoint, "held", world.now, 0.0, Failure.REFUSED, "refused"))
        await world.settle()
        assert [order.row.level for order in world.levers.engaged] == [Level.P0]


async def test_a_changed_inventory_is_followed_and_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.endpoints = (STANDBY,)
        world.observer.inventory_changed()
        assert world.holding == {"standby-0"}
        await world.settle()
        assert [order.row.level for order in world.levers.engaged] == [Level.P0], "a pool that everybody left is down"


async def test_a_look_at_an_endpoint_that_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        world.endpoints = (PRIMARY[0], STANDBY)
        world.observer.follow_inventory()
        world.kill(PRIMARY[1])
        await world.tick(1, ok=None)
        assert world.levers.engaged == []


async def test_an_endpoint_whose_last_look_has_not_ended_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stalled:
        name = "http"
        every = timedelta(seconds=1)

        def __init__(self) -> None:
            self.begun: list[str] = []

        async def look(self, endpoint: Endpoint) -> Look:
            self.begun.append(endpoint.name)
            await asyncio.Event().wait()
            raise AssertionError

    async with running(monkeypatch) as world:
        probe = Stalled()
        for _ in range(2):
            for endpoint in world.observer.targets:
                world.observer.look(probe, endpoint)
            await world.settle()
        assert sorted(probe.begun) == ["primary-0", "primary-1", "standby-0"]
        skipped = world.metrics.registry.get_sample_value("controlplane_probes_skipped_total", {"probe": "http"})
        assert skipped == 3


async def test_whoever_shows_the_standing_is_told_of_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as world:
        before = world.changes
        await world.tick(3)
        assert world.changes >= before + 3
        standing = world.standing()
        assert [p.name for p in standing.pools] == ["primary", "standby"]
        assert standing.pools[0].verdict.band is Band.OK
        assert standing.pools[1].verdict.band is Band.UNKNOWN


@pytest.mark.parametrize(
    ("bands", "well"),
    [
        ({}, False),
        ({"availability": Band.UNKNOWN}, False),
        ({"availability": Band.WARN}, False),
        ({"availability": Band.OK}, True),
        ({"availability": Band.OK, "latency_p99": Band.UNKNOWN}, True),
        ({"availability": Band.OK, "latency_p99": Band.BREACH}, False),
        ({"availability": Band.OK, "error_rate": Band.BREACH}, False),
        ({"availability": Band.OK, "gpu_utilization": Band.BREACH}, True),
    ],
)
def test_only_positive_evidence_makes_a_primary_well(bands: dict[str, Band], *, well: bool) -> None:
    assert primary_is_well({name: Evidence(name, 1.0, band) for name, band in bands.items()}) is well


async def test_a_scrape_of_us_sees_the_verdicts_and_the_signals_that_are_known_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        await world.tick(1)
        seen = world.metrics.registry.get_sample_value
        primary = {"service": "chat", "pool": "primary"}
        assert seen("controlplane_verdict", {**primary, "verdict": "ok"}) == 1
        assert seen("controlplane_verdict", {**primary, "verdict": "breach"}) == 0
        assert seen("controlplane_signal_value", {**primary, "signal": "availability"}) == 1
        assert seen("controlplane_signal_value", {**primary, "signal": "queue_depth"}) is None
        world.now += 60.0
        world.observer.evaluate()
        assert seen("controlplane_signal_value", {**primary, "signal": "availability"}) is None
        assert seen("controlplane_probes_total", {"probe": "http", "result": "ok"}) == 4
