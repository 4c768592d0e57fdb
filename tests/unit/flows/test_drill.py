"""A drill from its gates to its outcome, whatever its child does: faults end first, and nothing is believed."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.chaos.drill import Halt, Outcome
from controlplane.chaos.experiment import Walk
from controlplane.chaos.fault import MAX_LEASE, FaultKind, Lease, LeaseState
from controlplane.chaos.guard import Reading
from controlplane.chaos.redundancy import BlastRadius
from controlplane.chaos.safety import Go, Refusal
from controlplane.errors import ExperimentError, FaultError, FencedError, StoreError, UsageError
from controlplane.flows.drill import Order, dry_run, run, start
from controlplane.flows.faults import FaultRequest, OwnLeases, Stops, heal, inject, until_healed
from controlplane.flows.halt import halt, resume
from tests.unit.flows.drilling import COMPLETED, PLAN, Bench, FakeHalts, FakeLog, TimedLeases, names, refuse, utcnow
from tests.unit.flows.fakes import FakeDrills, FakeDriver


async def good(bench: Bench, order: Order) -> Walk:
    await bench.break_primaries(order)
    bench.counted = (100.0, 1.0)
    await heal(bench.faults, order.drill_id)
    return COMPLETED


async def hangs(bench: Bench, order: Order) -> Walk:
    await bench.break_primaries(order)
    await asyncio.sleep(3600)
    return COMPLETED


def states(bench: Bench) -> set[LeaseState]:
    return {lease.state for lease in bench.leases.kept.values()}


async def within(seconds: float, bench: Bench) -> None:
    """Wait until the faults are in force."""
    async with asyncio.timeout(seconds):
        while states(bench) != {LeaseState.PROVEN}:  # noqa: ASYNC110 - the fakes tell nobody
            await asyncio.sleep(0.01)


async def test_a_drill_that_does_what_it_says_passes_and_is_published(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path)
    ended = await run(bench.ports, await bench.begun())
    assert (ended.outcome, ended.reasons) == (Outcome.PASSED, ())
    assert bench.published == [ended]
    assert bench.drills.kept[ended.id] == ended
    assert states(bench) == {LeaseState.HEALED}
    assert sum(part.requests for part in ended.users.values()) == 100.0
    assert bench.log.kept[0].kind == "gate"
    assert len(bench.log.texts("fault")) == 2
    assert bench.log.texts("end") == ["passed"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"readings": {"availability": Reading(0.5)}}, "guard availability: availability is 50%, below 99%"),
        ({"readings": {}}, "guard availability: availability is unknown"),
        ({"leads": False}, "this control plane no longer leads"),
        ({"halts.kept": Halt("smoke", "ann", utcnow())}, "halted by ann: smoke"),
    ],
    ids=["breach", "unknown", "not leading", "halted elsewhere"],
)
async def test_a_run_is_stopped_its_faults_ended_its_child_killed(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    for name, value in change.items():
        holder, _, attribute = name.rpartition(".")
        setattr(bench.halts if holder else bench, attribute, value)
    ended = await asyncio.wait_for(running, 10)
    assert ended.outcome is Outcome.ABORTED
    assert ended.reasons[0].startswith(why)
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    assert states(bench) == {LeaseState.HEALED}
    assert bench.ended_child.is_set()
    assert bench.log.texts("guard")[0].startswith(f"stopped: {why}")


async def test_a_drill_that_somebody_else_called_off_is_stopped(tmp_path: Path) -> None:
    bench = Bench(hangs, tmp_path)
    started = await bench.begun()
    running = asyncio.create_task(run(bench.ports, started))
    await within(10, bench)
    theirs = await bench.drills.end(replace(started.drill, outcome=Outcome.ABORTED, reasons=("it stood still",)))
    assert await asyncio.wait_for(running, 10) == theirs
    assert bench.log.texts("guard") == ["stopped: called off by another control plane"]
    assert states(bench) == {LeaseState.HEALED}


async def residue_only(bench: Bench) -> None:
    """Wait until a drill of `leaves_one` has been walked, and waits for what it left."""
    async with asyncio.timeout(10):
        while states(bench) != {LeaseState.HEALED, LeaseState.PROVEN}:  # noqa: ASYNC110 - the fakes tell nobody
            await asyncio.sleep(0.01)


async def leaves_one(bench: Bench, order: Order) -> Walk:
    first, _ = await bench.break_primaries(order)
    bench.driver.left[first.id] = "nft set still holds it"
    return COMPLETED


async def test_what_another_control_plane_said_of_a_drill_is_what_is_published(tmp_path: Path) -> None:
    bench = Bench(leaves_one, tmp_path)
    started = await bench.begun()
    running = asyncio.create_task(run(bench.ports, started))
    await residue_only(bench)
    theirs = await bench.drills.end(replace(started.drill, outcome=Outcome.ABORTED, reasons=("it stood still",)))
    bench.driver.left.clear()
    assert await asyncio.wait_for(running, 10) == theirs
    assert bench.published == [theirs]
    assert bench.log.texts("end") == ["aborted it stood still"]


@pytest.mark.parametrize("why", ["halted by ann: smoke", "aborted by ann: smoke"])
async def test_a_word_to_stop_after_the_last_step_counts(tmp_path: Path, why: str) -> None:
    bench = Bench(leaves_one, tmp_path)
    started = await bench.begun()
    running = asyncio.create_task(run(bench.ports, started))
    await residue_only(bench)
    if why.startswith("halted"):
        await halt(bench.halting, "smoke", "ann")
        await resume(bench.halting, "ann")
    else:
        await bench.drills.call_off(started.drill.id, why)
    bench.driver.left.clear()
    ended = await asyncio.wait_for(running, 10)
    assert (ended.outcome, ended.reasons) == (Outcome.ABORTED, (why,))


async def test_a_store_that_cannot_be_asked_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)

    async def refuses(*_: object) -> Halt | None:
        raise StoreError("the database refuses", "disk full", "free space")

    monkeypatch.setattr(type(bench.halts), "current", refuses)
    ended = await asyncio.wait_for(running, 10)
    assert ended.outcome is Outcome.ABORTED
    assert "cannot be evaluated: the database refuses: disk full" in ended.reasons[0]
    assert states(bench) == {LeaseState.HEALED}


async def test_a_child_that_is_dead_or_lies_changes_nothing_about_safety(tmp_path: Path) -> None:
    async def dies(bench: Bench, order: Order) -> Walk:
        await bench.break_primaries(order)
        raise ExperimentError("the runner was ended", "`kill` did not end in time")

    async def lies(_: Bench, __: Order) -> Walk:
        return COMPLETED

    bench = Bench(dies, tmp_path)
    ended = await run(bench.ports, await bench.begun())
    assert ended.outcome is Outcome.ABORTED
    assert ended.reasons[0] == "the runner was ended: `kill` did not end in time"
    assert states(bench) == {LeaseState.HEALED}
    liar = Bench(lies, tmp_path)
    assert (await run(liar.ports, await liar.begun())).outcome is Outcome.INVALID


async def test_a_fault_that_stays_is_said_and_fails_the_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.flows.faults.HEAL_WITHIN_S", 0.2)
    monkeypatch.setattr("controlplane.flows.drill.until_healed.__defaults__", (0.2,))

    async def sticks(bench: Bench, order: Order) -> Walk:
        first, _ = await bench.break_primaries(order)
        bench.driver.left[first.id] = "nft set still holds it"
        return COMPLETED

    bench = Bench(sticks, tmp_path)
    ended = await run(bench.ports, await bench.begun())
    assert ended.outcome is Outcome.FAILED
    assert "left behind: nft set still holds it" in ended.reasons
    assert states(bench) == {LeaseState.HEALED, LeaseState.PROVEN}


async def test_a_process_that_stops_ends_its_faults_on_the_way_out(tmp_path: Path) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    assert bench.ended_child.is_set()


# -- a database that refuses -------------------------------------------------------------------------------------------


@pytest.fixture
def again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.flows.drill.STORE_AGAIN_S", 0.01)


@pytest.mark.usefixtures("again_soon")
async def test_faults_that_cannot_be_looked_up_are_ended_once_they_can_and_the_drill_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(hangs, tmp_path)
    ports, started = bench.ports, await bench.begun()
    running = asyncio.create_task(run(ports, started))
    await within(10, bench)
    assert ports.walked == {started.drill.id}
    refuse(monkeypatch, TimedLeases, "of_drill", 10)
    ended = await asyncio.wait_for(running, 10)
    assert ended.outcome is Outcome.ABORTED
    assert "cannot be evaluated: the database refuses: disk full" in ended.reasons[0]
    assert bench.drills.kept[ended.id] == ended
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    assert states(bench) == {LeaseState.HEALED}
    assert bench.ended_child.is_set()
    assert ports.walked == set()


@pytest.mark.usefixtures("again_soon")
@pytest.mark.parametrize(
    ("book", "call"), [(TimedLeases, "of_drill"), (TimedLeases, "move"), (FakeLog, "note"), (FakeDrills, "end")]
)
async def test_a_stopped_drill_is_seen_through_whatever_the_database_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, book: type, call: str
) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    refuse(monkeypatch, book, call, 10)
    bench.leads = False
    ended = await asyncio.wait_for(running, 10)
    assert (ended.outcome, bench.drills.kept[ended.id]) == (Outcome.ABORTED, ended)
    assert states(bench) == {LeaseState.HEALED}
    assert bench.log.texts("end") == ["aborted this control plane no longer leads"]


async def test_a_stop_whose_end_was_proven_late_because_of_the_database_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.flows.drill.STORE_AGAIN_S", 0.1)
    monkeypatch.setattr("controlplane.flows.drill.VERIFIED_WITHIN_S", 0.05)
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    refuse(monkeypatch, TimedLeases, "of_drill", 10)
    await asyncio.wait_for(running, 10)
    assert "not proven healed within 0.05 s of the stop" in bench.log.texts("heal")


@pytest.mark.usefixtures("again_soon")
async def test_a_drill_is_judged_once_the_database_says_what_its_row_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, Bench, "_row_times", 2)
    bench = Bench(good, tmp_path)
    ended = await run(bench.ports, await bench.begun())
    assert (ended.outcome, ended.reasons) == (Outcome.PASSED, ())


@pytest.mark.usefixtures("again_soon")
async def test_a_fault_that_ends_by_itself_is_closed_though_the_database_refused_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(bench: Bench, order: Order) -> Walk:
        leases = await bench.break_primaries(order)
        refuse(monkeypatch, TimedLeases, "move", 1)
        bench.leases.kept = {lease.id: replace(lease, deadline=utcnow()) for lease in leases}
        while states(bench) != {LeaseState.HEALED}:
            await bench.tick()
        return COMPLETED

    bench = Bench(waits, tmp_path)
    ended = await asyncio.wait_for(run(bench.ports, await bench.begun()), 10)
    assert ended.outcome is Outcome.PASSED


async def test_a_process_that_stops_does_not_wait_for_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    refuse(monkeypatch, TimedLeases, "of_drill", 1_000_000)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert bench.ended_child.is_set()
    assert set(bench.driver.reverted) == set(bench.leases.kept)


async def test_a_drill_of_one_that_has_been_taken_over_from_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, FakeDrills, "end", 1_000_000, FencedError)
    bench = Bench(good, tmp_path)
    ports = bench.ports
    with pytest.raises(FencedError):
        await asyncio.wait_for(run(ports, await bench.begun()), 10)
    assert states(bench) == {LeaseState.HEALED}
    assert ports.walked == set()


async def test_a_drill_whose_gates_cannot_be_noted_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, FakeLog, "note", 1)
    bench = Bench(good, tmp_path)
    ended = await run(bench.ports, await bench.begun())
    assert ended.outcome is Outcome.PASSED
    assert bench.log.texts("gate") == []


# -- starting ----------------------------------------------------------------------------------------------------------


async def test_a_closed_gate_refuses_and_nothing_is_stored(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path, facts={"open_incidents": 1})
    assert await start(bench.ports, "node-kill", PLAN, "ann") == Refusal(("1 incident is open",))
    assert bench.drills.kept == {}
    assert bench.log.kept == []


async def test_a_gate_that_is_unknown_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path, facts={"budget_left": None})
    asked = asyncio.create_task(start(bench.ports, "node-kill", PLAN, "ann"))
    await asyncio.sleep(0)
    bench.facts["budget_left"] = 0.9
    assert not isinstance(await asyncio.wait_for(asked, 10), Refusal)


async def test_a_gate_that_stays_unknown_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.flows.drill.SETTLE_S", 0.0)
    bench = Bench(good, tmp_path, facts={"budget_left": None})
    assert isinstance(await start(bench.ports, "node-kill", PLAN, "ann"), Refusal)


async def test_a_dry_run_tells_and_touches_nothing(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path)
    preview, asked = await dry_run(bench.ports, "node-kill", PLAN)
    assert isinstance(asked, Go)
    assert preview.survivors == ("standby-0",)
    narrow = replace(PLAN, blast_radius=BlastRadius(0.25))
    assert isinstance((await dry_run(bench.ports, "node-kill", narrow))[1], Refusal)
    assert (bench.drills.kept, bench.leases.kept, bench.log.kept) == ({}, {}, [])


# -- injecting ---------------------------------------------------------------------------------------------------------

REQUEST = FaultRequest(FaultKind.NODE_KILL, "primary", 1.0, timedelta(seconds=30))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (replace(REQUEST, lasts=MAX_LEASE + timedelta(seconds=1)), "may not last"),
        (replace(REQUEST, lasts=timedelta(0)), "may not last"),
        (replace(REQUEST, pool="vanished"), "nothing to break in pool vanished"),
    ],
)
async def test_what_is_not_allowed_is_not_injected(tmp_path: Path, request_: FaultRequest, said: str) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    with pytest.raises(UsageError) as error:
        await inject(bench.faults, drill, request_)
    assert said in error.value.what
    assert bench.leases.kept == {}


async def test_a_node_takes_along_whatever_else_of_the_pool_stands_on_it(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path, radius=BlastRadius(endpoints=0.25))
    drill = (await bench.begun()).drill
    together = tuple(replace(endpoint, node="gpu-1") for endpoint in names("primary"))
    ports = replace(bench.faults, endpoints=lambda _: together)
    one = replace(REQUEST, share=0.5)
    with pytest.raises(UsageError, match="2 of 4 endpoints would be broken at once"):
        await inject(ports, drill, one)
    apart = tuple(replace(endpoint, node=endpoint.name) for endpoint in together)
    assert len(await inject(replace(bench.faults, endpoints=lambda _: apart), drill, one)) == 1


async def test_faults_that_add_up_to_more_than_the_blast_radius_are_refused(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    await inject(bench.faults, drill, REQUEST)
    with pytest.raises(UsageError, match="3 of 4 endpoints would be broken at once"):
        await inject(bench.faults, drill, replace(REQUEST, pool="standby"))
    assert len(bench.leases.kept) == 2


async def test_one_endpoint_that_cannot_be_broken_leaves_no_other_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    refused, did = asyncio.Event(), list[str]()

    async def the_first_refuses(_: object, lease: Lease) -> str:
        if lease.endpoint.name == "primary-0":
            refused.set()
            raise FaultError("primary-0 cannot be broken", "permission denied")
        await refused.wait()
        await bench.tick()  # The refusal has got about before the harm is done.
        did.append("broke")
        return "broke it"

    async def ends(_: object, lease: Lease) -> str:
        if lease.endpoint.name == "primary-1":
            did.append("ended")
        return "let go"

    monkeypatch.setattr(type(bench.driver), "apply", the_first_refuses)
    monkeypatch.setattr(type(bench.driver), "revert", ends)
    with pytest.raises(FaultError, match="primary-0 cannot be broken"):
        await inject(bench.faults, drill, REQUEST)
    assert did == ["broke", "ended"]


async def test_what_was_broken_while_the_database_went_away_is_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill

    async def the_database_goes_away(_: object, lease: Lease) -> str:
        refuse(monkeypatch, FakeHalts, "current", 1_000_000)
        refuse(monkeypatch, TimedLeases, "of_drill", 1_000_000)
        return f"broke {lease.endpoint.name}"

    monkeypatch.setattr(type(bench.driver), "apply", the_database_goes_away)
    with pytest.raises(StoreError):
        await inject(bench.faults, drill, REQUEST)
    assert set(bench.driver.reverted) == set(bench.leases.kept)


async def test_nothing_is_being_closed_any_more_once_a_database_that_refused_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    first, second = await inject(bench.faults, drill, REQUEST)
    residue = type(bench.driver).residue

    async def the_second_takes_longer(driver: FakeDriver, lease: Lease) -> str:
        if lease.id == second.id:
            await bench.tick()
        return await residue(driver, lease)

    monkeypatch.setattr(type(bench.driver), "residue", the_second_takes_longer)
    refuse(monkeypatch, TimedLeases, "move", 1)
    with pytest.raises(StoreError):
        await until_healed(bench.faults, drill.id)
    assert (bench.leases.kept[first.id].open, bench.leases.kept[second.id].open) == (True, False)


async def test_a_drill_that_ended_was_stopped_or_halted_injects_nothing(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    with pytest.raises(UsageError, match="has ended"):
        await inject(bench.faults, replace(drill, outcome=Outcome.PASSED), REQUEST)
    bench.halts.kept = Halt("smoke", "ann", utcnow())
    with pytest.raises(UsageError, match="being stopped"):
        await inject(bench.faults, drill, REQUEST)
    bench.halts.kept = None
    bench.stops.stop(drill.id, "a guard broke")
    with pytest.raises(UsageError, match="being stopped"):
        await inject(bench.faults, drill, REQUEST)
    assert bench.leases.kept == {}


async def test_a_stop_that_comes_while_faults_are_injected_heals_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill

    async def stopped_meanwhile(_: object, lease: Lease) -> str:
        bench.stops.stop(drill.id, "a guard broke")
        return f"broke {lease.endpoint.name}"

    monkeypatch.setattr(type(bench.driver), "apply", stopped_meanwhile)
    with pytest.raises(FaultError, match="stopped while it injected"):
        await inject(bench.faults, drill, REQUEST)
    assert set(bench.driver.reverted) == set(bench.leases.kept)


# -- halting -----------------------------------------------------------------------------------------------------------


class HeldWatch:
    """Holds the watch in the middle of a look, as a process that stands still does: what is shown is not its doing."""

    def __init__(self) -> None:
        self._held, self._looks, self._goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def leading(self) -> bool:
        """Look whether this control plane leads, as late as the test wants."""
        if self._held.is_set():
            self._looks.set()
            await self._goes_on.wait()
        return True

    async def hold(self) -> None:
        """Return once the watch stands still."""
        self._held.set()
        await asyncio.wait_for(self._looks.wait(), 10)

    def go_on(self) -> None:
        """Let the watch look again."""
        self._goes_on.set()


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> HeldWatch:
    holder = HeldWatch()
    monkeypatch.setattr(Bench, "leading", holder.leading)
    return holder


async def test_a_halt_at_another_control_plane_stops_a_drill_that_looks_only_after_it(
    tmp_path: Path, held: HeldWatch
) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    await held.hold()
    theirs = replace(bench.halting, stops=Stops(), own=OwnLeases(), walked=())
    await halt(theirs, "smoke", "ann")
    await resume(theirs, "ann")
    held.go_on()
    ended = await asyncio.wait_for(running, 10)
    assert (ended.outcome, ended.reasons) == (Outcome.ABORTED, ("halted by ann: smoke",))


async def test_a_drill_whose_step_a_halt_refused_is_aborted_though_its_watch_did_not_see_it(
    tmp_path: Path, held: HeldWatch
) -> None:
    async def goes_on_after_a_halt(bench: Bench, order: Order) -> Walk:
        await held.hold()
        bench.halts.kept = Halt("smoke", "ann", utcnow())
        await bench.break_primaries(order)
        return COMPLETED

    bench = Bench(goes_on_after_a_halt, tmp_path)
    ended = await asyncio.wait_for(run(bench.ports, await bench.begun()), 10)
    assert ended.outcome is Outcome.ABORTED
    assert "halted by ann: smoke" in ended.reasons
    assert bench.leases.kept == {}


async def test_a_halt_ends_every_fault_stops_the_drill_and_blocks_the_next(tmp_path: Path) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    in_force, done = await halt(bench.halting, "smoke", "ann")
    assert (in_force.why, len(done)) == ("smoke", 2)
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    ended = await asyncio.wait_for(running, 10)
    assert (ended.outcome, ended.reasons) == (Outcome.ABORTED, ("halted by ann: smoke",))
    assert await start(bench.ports, "node-kill", PLAN, "ann") == Refusal(("drills are halted: smoke",))
    assert await resume(bench.halting, "bob") == in_force
    assert not isinstance(await start(bench.ports, "node-kill", PLAN, "ann"), Refusal)


async def test_a_fault_that_begins_after_a_halt_closed_its_lease_is_ended_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    drill = (await bench.begun()).drill
    applying, halted, did = asyncio.Event(), asyncio.Event(), list[str]()

    async def waits_for_the_fence(_: object, lease: Lease) -> str:
        applying.set()
        await halted.wait()
        did.append(f"broke {lease.id}")
        return "broke it"

    async def ends(_: object, lease: Lease) -> str:
        did.append(f"ended {lease.id}")
        return "let go"

    monkeypatch.setattr(type(bench.driver), "apply", waits_for_the_fence)
    monkeypatch.setattr(type(bench.driver), "revert", ends)
    injecting = asyncio.create_task(inject(bench.faults, drill, REQUEST))
    await applying.wait()
    await halt(bench.halting, "smoke", "ann")
    assert states(bench) == {LeaseState.HEALED}
    halted.set()
    with pytest.raises(FaultError, match="was called off while it was injected"):
        await injecting
    async with asyncio.timeout(10):
        while len(did) < 6:  # noqa: ASYNC110 - the fakes tell nobody
            await asyncio.sleep(0.01)
    for lease in bench.leases.kept:
        mine = [done.split()[0] for done in did if done.endswith(lease)]
        assert mine == ["ended", "broke", "ended"]


async def test_a_halt_ends_the_faults_even_when_it_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    await inject(bench.faults, (await bench.begun()).drill, REQUEST)

    async def refuses(*_: object) -> None:
        raise StoreError("the database refuses", "disk full", "free space")

    monkeypatch.setattr(type(bench.halts), "halt", refuses)
    with pytest.raises(StoreError):
        await halt(bench.halting, "smoke", "ann")
    assert states(bench) == {LeaseState.HEALED}


@pytest.mark.usefixtures("again_soon")
async def test_a_halt_ends_what_this_process_broke_while_the_database_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: HeldWatch
) -> None:
    bench = Bench(hangs, tmp_path)
    running = asyncio.create_task(run(bench.ports, await bench.begun()))
    await within(10, bench)
    await held.hold()
    for book, call in (
        (FakeHalts, "halt"), (FakeDrills, "recent"), (TimedLeases, "open_leases"), (TimedLeases, "move"),
    ):  # fmt: skip
        refuse(monkeypatch, book, call, 1)
    with pytest.raises(StoreError):
        await halt(bench.halting, "smoke", "ann")
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    held.go_on()
    ended = await asyncio.wait_for(running, 10)
    assert (ended.outcome, ended.reasons) == (Outcome.ABORTED, ("halted by ann: smoke",))
    assert states(bench) == {LeaseState.HEALED}
    assert bench.own.all() == ()


async def test_a_fault_whose_end_cannot_be_recorded_is_ended_and_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(good, tmp_path)
    await inject(bench.faults, (await bench.begun()).drill, REQUEST)
    refuse(monkeypatch, TimedLeases, "move", 1)
    _, done = await halt(bench.halting, "smoke", "ann")
    assert sum("ended, but not recorded: disk full" in line for line in done) == 1
    assert set(bench.driver.reverted) == set(bench.leases.kept)
    assert states(bench) == {LeaseState.HEALED, LeaseState.PROVEN}
    assert {lease.id for lease in bench.own.all()} == {lease.id for lease in bench.leases.kept.values() if lease.open}


async def test_one_fault_that_cannot_be_ended_keeps_no_other_from_it(tmp_path: Path) -> None:
    bench = Bench(good, tmp_path)
    first, second = await inject(bench.faults, (await bench.begun()).drill, REQUEST)
    bench.driver.broken.add(first.id)
    _, done = await halt(bench.halting, "smoke", "ann")
    assert sum("not healed" in line for line in done) == 1
    assert bench.leases.kept[second.id].state is LeaseState.HEALED
    assert bench.leases.kept[first.id].state is LeaseState.PROVEN
