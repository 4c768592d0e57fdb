"""From committed alerts to incidents, with a real database: once, whoever is in charge and whenever it restarts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from controlplane.errors import FencedError, StoreError
from controlplane.flows.triage import AT_ONCE, Triage, TriagePorts
from controlplane.incidents.alert import Alert, fingerprint, latest
from controlplane.incidents.correlate import HOLD, row_is_back, row_moves
from controlplane.incidents.incident import Entry, Incident, IncidentState, Severity, Wanted
from controlplane.incidents.reading import Habits, Rehearsal
from controlplane.incidents.response import Refused, Verb, Word
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Verdict
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.incidents import StoredIncidents
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics
from tests.support.webhooks import alert, later

HABITS = Habits("chat", frozenset({"ControlPlaneSlow"}), frozenset({"DrillOverdue"}))


@dataclass
class World:
    database: Database
    now: datetime = field(default_factory=lambda: later(60))
    acting: bool = True
    follows: bool = False
    drills: tuple[Rehearsal, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.alerts, self.incidents = StoredAlerts(self.database), StoredIncidents(self.database)
        self.triage = self.born()

    def born(self) -> Triage:
        """Return a triage as it is after a start: it remembers nothing."""

        async def drills() -> tuple[Rehearsal, ...]:
            return self.drills

        return Triage(
            TriagePorts(
                HABITS, self.incidents, self.incidents.holding, self.alerts, drills, lambda: self.acting,
                lambda: self.follows, lambda: None, self.metrics, lambda: self.now,
            )
        )  # fmt: skip

    async def told(self, *alerts: Alert) -> tuple[Incident, ...]:
        self.now += timedelta(milliseconds=1)  # No two commits are of one moment.
        await self.alerts.keep(latest(alerts), self.now)
        return await self.after(0)

    async def after(self, seconds: float) -> tuple[Incident, ...]:
        """Let time pass and the triage look; return every incident, the oldest first."""
        self.now += timedelta(seconds=seconds)
        await self.triage.tick()
        return (await self.incidents.find("chat", Wanted(), 99))[::-1]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = open_database(sqlite_url(tmp_path / "a.db"))
    yield World(database)
    database.close()


def bad(name: str, starts: float = 0.0, **labels: str) -> Alert:
    return named(alert(name, "firing", starts), labels)


def over(name: str, starts: float = 0.0, ends: float = 70.0, **labels: str) -> Alert:
    return named(alert(name, "resolved", starts, ends), labels)


def named(one: Alert, labels: dict[str, str]) -> Alert:
    """Give an alert labels: of our service, critical and of P1 unless they say otherwise."""
    whole = {**one.labels, "service": "chat", "severity": "critical", "level": "P1", **labels}
    return structs.replace(one, fingerprint=fingerprint(whole), service="chat", labels=whole)


async def test_an_alert_opens_an_incident_a_second_one_joins_and_both_ends_resolve_it(world: World) -> None:
    (one,) = await world.told(bad("Slow"))
    assert (one.state, one.level, one.severity) == (IncidentState.OPEN, "P1", Severity.CRITICAL)
    assert one.began_at == later(0)
    (one,) = await world.told(bad("Failing", level="P0"))
    assert one.level == "P0"
    assert await world.told(over("Slow"))
    (one,) = await world.told(over("Failing", ends=80.0, level="P0"))
    assert one.open
    (one,) = await world.after(HOLD.total_seconds() + 21)
    assert (one.state, one.resolved_at) == (IncidentState.RESOLVED, later(80))
    found = await world.incidents.get(one.id)
    assert found
    said = [entry.text for entry in found[1]]
    assert "the level rises from P1 to P0: Failing" in said
    assert any(text.startswith("Slow has ended") for text in said)
    assert {m.name for m in await world.incidents.members(one.id, 9)} == {"Slow", "Failing"}


async def test_a_restart_at_any_moment_repeats_nothing_and_misses_nothing(world: World) -> None:
    await world.told(bad("Slow"))
    await world.alerts.keep((bad("Failing"),), world.now)  # Written down, and killed before anybody looked.
    world.triage = world.born()
    (one,) = await world.after(300)
    whole = await world.incidents.get(one.id)
    world.triage = world.born()
    assert await world.after(1) == (one,)
    assert await world.incidents.get(one.id) == whole
    assert len(await world.incidents.members(one.id, 9)) == 2


async def test_only_the_one_in_charge_writes_and_one_that_comes_to_be_in_charge_catches_up(world: World) -> None:
    world.acting = False
    assert await world.told(bad("Slow")) == ()
    world.acting = True
    assert len(await world.after(1)) == 1
    await StoredTerms(world.database).take("chat", "another", 600.0)
    fenced = StoredIncidents(world.database, lambda: None)
    with pytest.raises(FencedError):
        await fenced.take("chat", (), world.now)


async def test_what_fires_again_soon_opens_the_incident_again_and_later_a_new_one(world: World) -> None:
    await world.told(bad("Slow"))
    await world.told(over("Slow"))
    (one,) = await world.after(HOLD.total_seconds() + 30)
    assert not one.open
    (one,) = await world.told(bad("Slow", 200.0))
    assert one.open
    await world.told(over("Slow", 200.0, 210.0))
    await world.after(HOLD.total_seconds())
    await world.after(1000)
    first, second = await world.told(bad("Slow", 1300.0))
    assert (first.open, second.open) == (False, True)


@pytest.mark.parametrize(
    "ignored",
    [
        alert("Watchdog", severity="none"), alert("X", service="other"), bad("Cpu", severity="info"),
        bad("DrillOverdue", severity="warning"), over("Old", -9999.0, -9990.0),
    ],
    ids=["watchdog", "another service", "info", "drills", "long over"],
)  # fmt: skip
async def test_what_nobody_has_to_hear_opens_nothing_and_is_counted(world: World, ignored: Alert) -> None:
    assert await world.told(ignored) == ()
    assert world.metrics.registry.get_sample_value("controlplane_triage_decisions_total", {"decision": "ignore"})


async def test_another_pool_and_the_control_plane_itself_are_harms_of_their_own(world: World) -> None:
    found = await world.told(
        bad("Slow", pool="gateway"), bad("Stalled", pool="primary"), bad("NotReady", pool="standby"),
        bad("ControlPlaneSlow"), bad("Expires", cause="certificate"),
    )  # fmt: skip
    assert {(i.pool, i.about) for i in found} == {
        ("", "serving"), ("standby", "serving"), ("", "control plane"), ("", "certificate"),
    }  # fmt: skip
    assert {i.pool for i in await world.incidents.find("chat", Wanted(pool="standby"), 9)} == {"standby"}
    assert len(await world.incidents.find("chat", Wanted(pool="primary"), 9)) == 1


@pytest.mark.parametrize("first", ["row", "alert"])
async def test_a_row_and_its_alert_are_one_incident_that_ends_when_both_do(world: World, first: str) -> None:
    row = row_moves("chat", "P0", "endpoints_down is 100%", world.now, world.now, (Entry(world.now, "decided", "go"),))
    if first == "row":
        await world.incidents.take("chat", (row,), world.now)
    await world.told(bad("DegradationEngaged"))
    if first == "alert":
        await world.incidents.take("chat", (row,), world.now)
    (one,) = await world.after(1)
    assert (one.level, one.rows) == ("P0", ("P0",))
    refused = await world.incidents.respond("chat", one.id, Word(Verb.RESOLVE, "ann", world.now, "done"))
    assert isinstance(refused, Refused)
    assert "P0" in refused.why
    back = row_is_back("chat", "P0", world.now, Entry(world.now, "lever", "back"))
    await world.incidents.take("chat", (back,), world.now)
    (one,) = await world.after(300)
    assert one.open, "its alert fires"
    await world.told(over("DegradationEngaged", ends=100.0))
    (one,) = await world.after(300)
    assert not one.open


async def moves(world: World, level: str, *, refused: bool = False) -> None:
    """Have a row move its lever, at the present moment, and prove it; a row that is refused proves nothing."""
    row = row_moves("chat", level, "it is bad", world.now, world.now, (Entry(world.now, "decided", "go"),))
    incident_id = (await world.incidents.take("chat", (row,), world.now)).incident_of(row.key)
    if not refused:
        await world.incidents.move(incident_id, IncidentState.MITIGATED, world.now)


async def back(world: World, level: str) -> None:
    over = row_is_back("chat", level, world.now, Entry(world.now, "lever", "back"))
    await world.incidents.take("chat", (over,), world.now)


async def test_an_incident_is_mitigated_only_while_a_row_keeps_users_served(world: World) -> None:
    await world.told(bad("Slow"), bad("Failing"))
    await moves(world, "P0")
    (one,) = await world.after(60)
    first = one.mitigated_at
    assert (one.state, first) == (IncidentState.MITIGATED, world.now - timedelta(seconds=60))
    await back(world, "P0")
    (one,) = await world.after(60)
    assert one.state is IncidentState.OPEN, "an alert fires, and no lever is in force"
    await moves(world, "P0", refused=True)
    await world.told(bad("Stalled"))
    (one,) = await world.after(60)
    assert one.state is IncidentState.OPEN, "the row was refused"
    await moves(world, "P0")
    (one,) = await world.after(1)
    assert (one.state, one.mitigated_at) == (IncidentState.MITIGATED, first), (
        "users were served then for the first time"
    )
    found = await world.incidents.get(one.id)
    assert found
    said = [entry.text for entry in found[1]]
    assert said.count("not mitigated any more: no row is in force, and something still fires") == 1


async def test_an_incident_with_two_rows_is_mitigated_until_the_last_of_them_is_back(world: World) -> None:
    await world.told(bad("Slow"))
    await moves(world, "P2")
    (one,) = await world.after(60)
    assert one.state is IncidentState.MITIGATED
    await moves(world, "P0", refused=True)
    (one,) = await world.after(60)
    assert one.state is IncidentState.OPEN, "what P2 did is not enough"
    await world.incidents.move(one.id, IncidentState.MITIGATED, world.now)
    await back(world, "P0")
    (one,) = await world.after(60)
    assert one.state is IncidentState.MITIGATED, "P2 is in force"
    await back(world, "P2")
    (one,) = await world.after(60)
    assert one.state is IncidentState.OPEN


async def test_what_began_in_a_drill_is_the_drills_until_something_else_joins(world: World) -> None:
    world.drills = (Rehearsal("d1", later(-2)),)
    (one,) = await world.told(bad("Slow"))
    assert (one.drill_id, one.began_at) == ("d1", later(-2))
    (one,) = await world.told(bad("Failing", -60.0))
    assert one.drill_id == ""
    assert [i.id for i in await world.incidents.find("chat", Wanted(drill=False), 9)] == [one.id]
    assert await world.incidents.find("chat", Wanted(drill=True), 9) == ()


async def test_people_are_heard_with_their_names_and_what_they_opened_again_stays_open(world: World) -> None:
    await world.told(bad("Slow"))
    (one,) = await world.told(over("Slow"))
    for verb, text in ((Verb.ACKNOWLEDGE, ""), (Verb.NOTE, "the rack is dark"), (Verb.RESOLVE, "power is back")):
        said = await world.incidents.respond("chat", one.id, Word(verb, "ann", world.now, text))
        assert isinstance(said, Incident)
    assert await world.incidents.respond("chat", one.id, Word(Verb.REOPEN, "bob", world.now, "no, it is not"))
    (one,) = await world.after(2000)
    assert (one.open, one.acknowledged_by, one.reopened_by) == (True, "ann", "bob")
    found = await world.incidents.get(one.id)
    assert found
    people = [(e.who, e.text) for e in found[1] if e.who]
    assert people == [
        ("ann", "acknowledged"), ("ann", "the rack is dark"), ("ann", "resolved: power is back"),
        ("bob", "opened again: no, it is not"),
    ]  # fmt: skip
    gone = await world.incidents.respond("other", one.id, Word(Verb.NOTE, "ann", world.now, "x"))
    assert gone == Refused("there is no such incident", missing=True)


async def test_a_storm_is_one_incident_with_one_entry_for_each_transaction_of_it(world: World) -> None:
    (one,) = await world.told(*(bad("Storm", id=str(i)) for i in range(1200)))
    assert len(await world.incidents.members(one.id, 9999)) == 1200
    found = await world.incidents.get(one.id)
    assert found
    assert len([e for e in found[1] if e.kind == "alert"]) == 1200 / AT_ONCE
    assert len(await world.told(*(over("Storm", id=str(i)) for i in range(1200)))) == 1
    (one,) = await world.after(HOLD.total_seconds() + 11)
    assert not one.open


async def test_a_verdict_that_changes_stands_on_the_timeline_of_what_is_open(world: World) -> None:
    (one,) = await world.told(bad("Slow"))
    for band in (Band.OK, Band.BREACH, Band.BREACH):
        world.triage.judged({"primary": Verdict("primary", band, ())})
    await world.after(1)
    found = await world.incidents.get(one.id)
    assert found
    assert [e.text for e in found[1] if e.kind == "verdict"] == ["pool primary: ok -> breach"]


async def verdicts(world: World, incident: Incident) -> list[str]:
    """Give the verdicts on an incident's timeline."""
    found = await world.incidents.get(incident.id)
    assert found
    return [entry.text for entry in found[1] if entry.kind == "verdict"]


def turns_ill(world: World) -> None:
    for band in (Band.OK, Band.BREACH):
        world.triage.judged({"primary": Verdict("primary", band, ())})


async def test_a_verdict_that_cannot_be_stored_is_stored_later_and_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await world.told(bad("Slow"))
    turns_ill(world)
    world.triage.judged({"primary": Verdict("primary", Band.OK, ())})
    note, answers = world.incidents.note, iter([True, False])

    async def refused(incident_id: str, entry: Entry) -> None:
        if not next(answers, True):
            raise StoreError("the database refuses", "locked", "stop the other process")
        await note(incident_id, entry)

    monkeypatch.setattr(world.incidents, "note", refused)
    with pytest.raises(StoreError):
        await world.after(1)
    assert await verdicts(world, one) == ["pool primary: ok -> breach"]
    await world.after(1)
    assert await verdicts(world, one) == ["pool primary: ok -> breach", "pool primary: breach -> ok"]


@pytest.mark.parametrize(("follows", "kept"), [(False, ["pool primary: ok -> breach"]), (True, [])])
async def test_a_verdict_outlives_a_lease_that_ran_out_but_not_another_leader(
    world: World, *, follows: bool, kept: list[str]
) -> None:
    (one,) = await world.told(bad("Slow"))
    turns_ill(world)
    world.acting, world.follows = False, follows
    await world.after(1)
    world.acting, world.follows = True, False
    await world.after(1)
    assert await verdicts(world, one) == kept


async def test_an_end_that_no_webhook_told_is_found_by_the_sweep(world: World) -> None:
    (one,) = await world.told(bad("Slow"))
    key = (await world.incidents.holding("chat"))[0]
    world.now += timedelta(seconds=30)
    await world.alerts.end((key,), later(-9999), world.now)  # As if it had changed long before.
    (one,) = await world.after(61)
    assert await world.incidents.holding("chat") == ()
    (one,) = await world.after(HOLD.total_seconds())
    assert not one.open


@pytest.mark.parametrize("looked", [True, False], ids=["triage saw the end", "triage saw neither"])
async def test_what_is_listed_again_with_the_start_it_had_keeps_its_incident_open(
    world: World, *, looked: bool
) -> None:
    """An Alertmanager that was restarted, or that Prometheus did not reach for some minutes."""
    await world.told(bad("Slow"))
    if looked:
        await world.told(over("Slow"))
    else:
        await world.alerts.keep((over("Slow"),), world.now)
    world.now += timedelta(seconds=30)
    await world.alerts.keep((bad("Slow"),), world.now, asked_at=world.now)
    (one,) = await world.after(HOLD.total_seconds() + 60)
    assert one.open
    await world.told(over("Slow", ends=(world.now - later(0)).total_seconds()))
    (one,) = await world.after(HOLD.total_seconds() + 60)
    assert not one.open


async def test_what_is_listed_again_after_its_incident_resolved_opens_it_again(world: World) -> None:
    await world.told(bad("Slow"))
    await world.told(over("Slow"))
    (one,) = await world.after(HOLD.total_seconds() + 30)
    assert not one.open
    await world.alerts.keep((bad("Slow"),), world.now, asked_at=world.now)
    (one,) = await world.after(60)
    assert one.open
