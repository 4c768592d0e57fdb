"""What is stored comes back as it was, once, and in order."""

import asyncio
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, text, update
from sqlalchemy.event import listen

from controlplane.chaos.drill import Drill, DrillBook, DrillPhase, Event, Halt, Measured, Outcome, Slot, SlotState
from controlplane.chaos.fault import FaultKind, Lease, LeaseBook, LeaseState
from controlplane.degradation.actuator import Receipt, ReceiptBook, ReceiptState, RoutePlan
from controlplane.degradation.matrix import Level
from controlplane.errors import StoreError
from controlplane.fleet.model import Endpoint
from controlplane.incidents.alert import Status
from controlplane.incidents.book import IncidentBook
from controlplane.incidents.correlate import LATE, Notice, row_is_back, row_moves
from controlplane.incidents.incident import Entry, Incident, IncidentState
from controlplane.incidents.response import Verb, Word
from controlplane.store.database import Database
from controlplane.store.drills import StoredDrills, StoredHalts, StoredLeases
from controlplane.store.incidents import StoredIncidents
from controlplane.store.receipts import StoredReceipts
from controlplane.store.schema import leases
from tests.support.incident_books import write

T0 = datetime(2026, 3, 3, 10, 0, 0, 123456, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def receipt(
    key: str = "r1", seconds: float = 0, service: str = "chat", level: Level = Level.P0, episode: int = 1
) -> Receipt:
    return Receipt(
        key, service, level, "switch_pool to standby", RoutePlan({"primary": 100}),
        RoutePlan({"primary": 10, "standby": 90}, Level.P0), ReceiptState.INTENDED, ("endpoints_down is 100%", "ü"),
        at(seconds - 1), at(seconds), {ReceiptState.INTENDED: at(seconds)}, "", episode,
    )  # fmt: skip


def drill(key: str = "d1", seconds: float = 0, slot: str = "") -> Drill:
    return Drill(key, "node-kill", "P0", timedelta(minutes=5), "ann", at(seconds), slot, journal="j.json")


def lease(key: str = "l1", seconds: float = 0) -> Lease:
    endpoint = Endpoint("primary-0", "primary", "http://10.0.0.1:8000", "rack-1", "full")
    return Lease(key, "d1", FaultKind.NODE_KILL, endpoint, at(60), LeaseState.INTENDED, at(seconds))


def incident(key: str = "i1", seconds: float = 0, service: str = "chat") -> Incident:
    return Incident(key, service, Level.P0, "chat: down", IncidentState.OPEN, at(seconds), "d1")


def test_every_book_fulfils_its_port(database: Database) -> None:
    receipts: ReceiptBook = StoredReceipts(database)
    incidents: IncidentBook = StoredIncidents(database)
    drills: DrillBook = StoredDrills(database)
    lent: LeaseBook = StoredLeases(database)
    assert receipts and incidents and drills and lent  # noqa: PT018 - that they may be assigned is the test


async def test_a_receipt_comes_back_as_it_was(database: Database) -> None:
    book = StoredReceipts(database)
    assert await book.intend(receipt())
    assert await book.open_receipts("chat") == (receipt(),)


async def test_a_key_is_stored_once_and_the_first_one_stays(database: Database) -> None:
    book = StoredReceipts(database)
    assert await book.intend(receipt())
    assert not await book.intend(replace(receipt(), action="something else"))
    assert await book.intend(receipt("r2", 1, level=Level.P2))
    assert [r.action for r in await book.recent("chat", 9)] == ["switch_pool to standby"] * 2


async def test_each_state_of_a_receipt_keeps_its_time_and_an_empty_detail_the_one_before(database: Database) -> None:
    book = StoredReceipts(database)
    await book.intend(receipt())
    await book.move("r1", ReceiptState.APPLIED, at(1))
    moved = await book.move("r1", ReceiptState.VERIFIED, at(2), "seen")
    moved = await book.move("r1", ReceiptState.REVERTING, at(3))
    assert moved.state is ReceiptState.REVERTING
    assert moved.detail == "seen"
    assert moved.times == {
        ReceiptState.INTENDED: at(0), ReceiptState.APPLIED: at(1), ReceiptState.VERIFIED: at(2),
        ReceiptState.REVERTING: at(3),
    }  # fmt: skip


@pytest.mark.parametrize("state", ReceiptState)
async def test_a_receipt_is_open_while_its_lever_may_be_away(database: Database, state: ReceiptState) -> None:
    book = StoredReceipts(database)
    await book.intend(receipt())
    await book.move("r1", state, at(1))
    is_open = bool(await book.open_receipts("chat"))
    assert is_open == (state not in (ReceiptState.REVERTED, ReceiptState.FAILED))


async def test_receipts_are_told_by_service_open_ones_oldest_first_recent_ones_newest_first(
    database: Database,
) -> None:
    book = StoredReceipts(database)
    levels = {"a": Level.P0, "b": Level.P1, "c": Level.P2, "x": Level.P0}
    for key, seconds, service in (("b", 2, "chat"), ("a", 1, "chat"), ("c", 3, "chat"), ("x", 2, "other")):
        await book.intend(receipt(key, seconds, service, levels[key]))
    assert [r.id for r in await book.open_receipts("chat")] == ["a", "b", "c"]
    assert [r.id for r in await book.recent("chat", 2)] == ["c", "b"]


async def test_moving_what_is_not_there_is_a_store_error(database: Database) -> None:
    with pytest.raises(StoreError):
        await StoredReceipts(database).move("absent", ReceiptState.APPLIED, T0)
    with pytest.raises(StoreError):
        await StoredLeases(database).move("absent", LeaseState.HEALED, T0)


async def test_a_time_of_another_zone_comes_back_as_the_same_moment_in_utc(database: Database) -> None:
    shanghai = timezone(timedelta(hours=8))
    book = StoredReceipts(database)
    await book.intend(replace(receipt(), decided_at=T0.astimezone(shanghai)))
    (stored,) = await book.open_receipts("chat")
    assert stored.decided_at == T0
    assert stored.decided_at.tzinfo == UTC


async def test_a_drill_comes_back_as_it_began_and_as_it_ended(database: Database) -> None:
    book = StoredDrills(database)
    assert await book.begin(drill())
    assert await book.get("d1") == drill()
    ended = replace(
        drill(), outcome=Outcome.FAILED, reasons=("late", "left behind"), ended_at=at(9),
        phases={DrillPhase.FAULT: at(1), DrillPhase.VERIFIED: at(2)},
        users={"during": Measured(200.0, 1.0, 0.4, 0.5), "after": Measured(0.0, 0.0)},
    )  # fmt: skip
    await book.end(ended)
    assert await book.get("d1") == ended
    assert await book.get("absent") is None


async def test_a_drill_that_runs_is_called_off_once_and_how_it_ends_does_not_undo_that(database: Database) -> None:
    book = StoredDrills(database)
    assert await book.call_off("d1", "aborted by mei: smoke") is None
    assert await book.begin(drill())
    told = replace(drill(), called_off="aborted by mei: smoke")
    assert await book.call_off("d1", told.called_off) == told
    assert await book.call_off("d1", "aborted by ann: me too") == told
    ended = replace(drill(), outcome=Outcome.ABORTED, reasons=(told.called_off,), ended_at=at(9))
    await book.end(ended)
    assert await book.get("d1") == replace(ended, called_off=told.called_off)
    assert await book.call_off("d1", "too late") is None


async def test_a_slot_is_run_once_and_drills_that_people_ask_for_have_none(database: Database) -> None:
    book = StoredDrills(database)

    async def runs(begun: Drill) -> bool:
        if not await book.begin(begun):
            return False
        await book.end(replace(begun, outcome=Outcome.PASSED))
        return True

    assert await runs(drill("a", slot="monthly/2026-03-03"))
    assert not await runs(drill("b", slot="monthly/2026-03-03"))
    assert await runs(replace(drill("c", slot="monthly/2026-03-03"), experiment="network-partition"))
    assert await runs(drill("d", slot="monthly/2026-04-07"))
    assert await runs(drill("e"))
    assert await runs(drill("f"))
    assert await book.get("b") is None


async def test_only_one_drill_runs_at_a_time(database: Database) -> None:
    book = StoredDrills(database)
    assert await book.begin(drill("a"))
    assert not await book.begin(drill("b", slot="monthly/2026-03-03"))
    assert (running := await book.running())
    assert running.id == "a"
    await book.end(replace(drill("a"), outcome=Outcome.ABORTED))
    assert await book.running() is None
    assert await book.begin(drill("b", slot="monthly/2026-03-03"))


async def test_what_happens_in_a_drill_is_kept_in_order(database: Database) -> None:
    book = StoredDrills(database)
    await book.begin(drill())
    events = (Event(at(2), "step", "begins: kill"), Event(at(1), "fault", "primary-0"))
    for event in events:
        await book.note("d1", event)
    assert await book.events("d1") == events
    with pytest.raises(StoreError):
        await book.note("absent", events[0])


async def test_a_halt_stays_with_its_first_reason_until_it_is_resumed(database: Database) -> None:
    book = StoredHalts(database)
    assert await book.current() is None
    assert await book.resume("ann", at(0)) is None
    await book.halt(Halt("smoke", "ann", at(1)))
    await book.halt(Halt("fire", "bob", at(2)))
    assert await book.current() == Halt("smoke", "ann", at(1))
    assert await book.resume("bob", at(3)) == Halt("smoke", "ann", at(1))
    assert await book.current() is None
    await book.halt(Halt("fire", "bob", at(4)))
    assert await book.current() == Halt("fire", "bob", at(4))


async def test_a_slot_is_kept_once_with_its_last_state_and_its_attempts(database: Database) -> None:
    book = StoredDrills(database)
    slot = Slot("node-kill", "monthly/x", at(5), SlotState.PLANNED, (), at(0))
    await book.plan_slot(slot)
    assert await book.due_slots(at(4)) == ()
    assert await book.due_slots(at(5)) == (slot,)
    late = replace(slot, state=SlotState.POSTPONED, reasons=("an incident is open",), at=at(6), attempts=1)
    await book.keep_slot(late)
    await book.plan_slot(slot)
    assert await book.due_slots(at(7)) == (late,)
    await book.keep_slot(replace(slot, state=SlotState.STARTED, at=at(8)))
    assert await book.due_slots(at(9)) == ()
    assert await book.slots(5) == (replace(slot, state=SlotState.STARTED, at=at(8), attempts=2),)
    assert await book.known_since() == {"node-kill": at(5)}


async def test_the_last_pass_of_each_experiment_and_the_slots_that_ran_are_known(database: Database) -> None:
    book = StoredDrills(database)
    for key, ended, outcome in (("a", 1, Outcome.PASSED), ("b", 3, Outcome.PASSED), ("c", 5, Outcome.FAILED)):
        begun = drill(key, slot=f"monthly/{key}")
        await book.begin(begun)
        await book.end(replace(begun, outcome=outcome, ended_at=at(ended)))
    assert await book.last_passed() == {"node-kill": at(3)}
    assert await book.ran("node-kill", "monthly/c")
    assert not await book.ran("node-kill", "monthly/d")


async def test_drills_are_told_newest_first(database: Database) -> None:
    book = StoredDrills(database)
    for key, seconds in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        await book.begin(drill(key, seconds))
        await book.end(replace(drill(key, seconds), outcome=Outcome.PASSED))
    assert [d.id for d in await book.recent(2)] == ["c", "b"]


async def test_a_lease_comes_back_and_its_details_add_up(database: Database) -> None:
    await StoredDrills(database).begin(drill())
    book = StoredLeases(database)
    await book.intend(lease())
    assert await book.open_leases() == (lease(),)
    await book.move("l1", LeaseState.INJECTED, at(1), "SIGKILL")
    await book.move("l1", LeaseState.PROVEN, at(2), "gone")
    healed = await book.move("l1", LeaseState.HEALED, at(3))
    assert (healed.injected_at, healed.proven_at, healed.healed_at) == (at(1), at(2), at(3))
    assert healed.detail == "SIGKILL\ngone"
    assert await book.open_leases() == ()
    assert await book.of_drill("d1") == (healed,)


async def test_a_healed_lease_stays_as_it_is(database: Database) -> None:
    await StoredDrills(database).begin(drill())
    book = StoredLeases(database)
    await book.intend(lease())
    healed = await book.move("l1", LeaseState.HEALED, at(3), "nothing left")
    assert await book.move("l1", LeaseState.HEALED, at(9), "again") == healed
    assert await book.move("l1", LeaseState.INJECTED, at(9)) == healed


async def test_a_lease_that_another_control_plane_heals_at_that_moment_stays_healed(
    database: Database, other: Database
) -> None:
    book = StoredLeases(database)
    await StoredDrills(database).begin(drill())
    await book.intend(lease())
    healed, asked = threading.Event(), threading.Event()

    def heals(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":  # A machine under load may stand still for longer than that.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        values = {"state": LeaseState.HEALED.value, "healed_at": at(3)}
        connection.execute(update(leases).values(values))
        healed.set()
        asked.wait(10)
        time.sleep(0.1)  # Let whoever asks read what stands there without us.

    healing = asyncio.create_task(other.change(heals))
    assert await asyncio.to_thread(healed.wait, 10)
    listen(database._engine, "before_cursor_execute", lambda *_: asked.set())
    moved = await book.move("l1", LeaseState.INJECTED, at(4), "broke it")
    await healing
    assert (moved.state, moved.healed_at) == (LeaseState.HEALED, at(3))
    assert await book.open_leases() == ()


async def test_leases_are_told_oldest_first(database: Database) -> None:
    await StoredDrills(database).begin(drill())
    book = StoredLeases(database)
    for key, seconds in (("b", 2.0), ("a", 1.0)):
        await book.intend(lease(key, seconds))
    assert [held.id for held in await book.open_leases()] == ["a", "b"]


async def test_a_lease_without_its_drill_is_refused(database: Database) -> None:
    with pytest.raises(StoreError):
        await StoredLeases(database).intend(lease())


async def test_an_incident_keeps_when_it_was_mitigated_and_resolved_and_its_timeline_in_order(
    database: Database,
) -> None:
    book = StoredIncidents(database)
    write(database, incident())
    assert await book.open_incidents("chat") == (incident(),)
    entries = tuple(Entry(at(i % 2), "note", f"entry {i}") for i in range(3))
    for entry in entries:
        await book.note("i1", entry)
    await book.move("i1", IncidentState.MITIGATED, at(5))
    await book.move("i1", IncidentState.MITIGATED, at(7))
    assert [i.state for i in await book.open_incidents("chat")] == [IncidentState.MITIGATED]
    await book.move("i1", IncidentState.RESOLVED, at(9))
    assert await book.open_incidents("chat") == ()
    ((stored, timeline),) = await book.recent("chat", 5)
    assert (stored.mitigated_at, stored.resolved_at, stored.drill_id) == (at(5), at(9), "d1")
    assert timeline == tuple(sorted(entries, key=lambda entry: entry.at)), "by time, then as they were written"


async def test_incidents_are_told_by_service_open_ones_oldest_first_recent_ones_newest_first(
    database: Database,
) -> None:
    book = StoredIncidents(database)
    for key, seconds, service in (("b", 2, "chat"), ("a", 1, "chat"), ("x", 3, "other")):
        write(database, incident(key, seconds, service))
    assert [i.id for i in await book.open_incidents("chat")] == ["a", "b"]
    assert [i.id for i, _ in await book.recent("chat", 5)] == ["b", "a"]


async def test_every_open_incident_comes_before_the_newest_others_however_old_it_is(database: Database) -> None:
    book = StoredIncidents(database)
    for key, seconds in (("old", 0), ("older", -1), *((f"n{i:02}", i) for i in range(1, 14))):
        write(database, incident(key, seconds))
        await book.note(key, Entry(T0, "note", key))
    for i in range(1, 14):
        await book.move(f"n{i:02}", IncidentState.RESOLVED, at(20))
    await book.move("older", IncidentState.MITIGATED, at(20))
    found = await book.open_first("chat", 3)
    assert [i.id for i, _ in found] == ["old", "older", "n13", "n12", "n11"]
    assert [[entry.text for entry in entries] for _, entries in found] == [["old"], ["older"], ["n13"], [], []]
    assert [i.id for i, _ in await book.open_first("other", 3)] == []


async def test_the_rows_that_are_not_over_are_those_of_the_open_incidents(database: Database) -> None:
    book = StoredIncidents(database)
    for level in ("P0", "P2"):
        await book.take("chat", (row_moves("chat", level, "down", at(0), at(0), ()),), at(0))
    await book.take("other", (row_moves("other", "P1", "down", at(0), at(0), ()),), at(0))
    assert await book.rows("chat") == {"P0", "P2"}
    for level in ("P2", "P0"):
        await book.take("chat", (row_is_back("chat", level, at(1), Entry(at(1), "lever", "back")),), at(1))
        assert await book.rows("chat") == ({"P0"} if level == "P2" else set())


async def test_what_a_person_says_of_an_old_incident_is_not_undone_by_an_alert_of_it_that_ends_at_that_moment(
    database: Database, other: Database
) -> None:
    book, theirs = StoredIncidents(database), StoredIncidents(other)
    alert = Notice("f1", "Slow", "chat", Status.FIRING, at(0))
    incident_id = (await book.take("chat", (alert,), at(0))).incident_of("f1")
    await book.respond("chat", incident_id, Word(Verb.RESOLVE, "ann", at(1), "it is gone"))
    read, said = threading.Event(), threading.Event()

    def give_way(*given: object) -> None:
        if "IN (SELECT incident_members" in str(given[2]):  # The old incidents have been read.
            read.set()
            said.wait(0.3)

    async def reopen() -> None:
        assert await asyncio.to_thread(read.wait, 10)
        await theirs.respond("chat", incident_id, Word(Verb.REOPEN, "bob", at(2), "it is back"))
        said.set()

    def be_patient(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":  # A machine under load may stand still for longer than its limits.
            for limit in ("idle_in_transaction_session_timeout", "lock_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")

    for engine in (database._engine, other._engine):
        listen(engine, "begin", be_patient)
    listen(database._engine, "after_cursor_execute", give_way)
    over = replace(alert, status=Status.RESOLVED, ends_at=at(3))
    await asyncio.gather(reopen(), book.take("chat", (over,), at(3) + 2 * LATE))
    found = await book.get(incident_id)
    assert found is not None
    assert (found[0].state, found[0].reopened_by) == (IncidentState.OPEN, "bob")


async def test_a_note_on_an_incident_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(StoreError):
        await StoredIncidents(database).note("absent", Entry(T0, "note", "x"))


async def test_what_a_call_returned_from_is_there_after_a_crash(database: Database, other: Database) -> None:
    await StoredReceipts(database).intend(receipt())
    assert await StoredReceipts(other).open_receipts("chat") == (receipt(),)


async def test_a_refused_key_leaves_the_database_usable(database: Database) -> None:
    book = StoredReceipts(database)
    await book.intend(receipt())
    for _ in range(3):
        assert not await book.intend(receipt())
    assert await book.intend(receipt("r2", 1, level=Level.P2))
