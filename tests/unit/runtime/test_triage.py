"""Which drills an alert may belong to, and a person's word that is heard though nothing can be counted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.chaos.drill import Drill
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.errors import StoreError
from controlplane.fleet.model import Endpoint
from controlplane.incidents.incident import Incident, IncidentState
from controlplane.incidents.reading import AFTERMATH
from controlplane.incidents.response import Verb
from controlplane.runtime.books import books
from controlplane.runtime.leader import Leadership
from controlplane.runtime.triage import handling, join, rehearsals
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import Database
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics
from tests.support import overviews
from tests.support.incident_books import write
from tests.support.incident_pages import policy
from tests.unit.flows.fakes import FakeLeases

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def drill(ended: float | None) -> Drill:
    """Give a drill that started ten minutes ago, and ended so many seconds ago."""
    one = Drill("d1", "node-kill", "P0", timedelta(minutes=5), "ann", ago(600))
    return one if ended is None else replace(one, ended_at=ago(ended))


def leased(*, injected: bool) -> FakeLeases:
    """Give a book with one lease that was intended nine minutes ago, and perhaps injected a second later."""
    endpoint = Endpoint("primary-0", "primary", "http://10.0.0.1:8000")
    lease = Lease("l1", "d1", FaultKind.NODE_KILL, endpoint, NOW, LeaseState.INTENDED, ago(540))
    return FakeLeases({"l1": replace(lease, injected_at=ago(539)) if injected else lease})


@pytest.mark.parametrize("ended", [None, 60])
async def test_a_drill_that_has_broken_nothing_causes_no_alert(ended: float | None) -> None:
    assert await rehearsals([drill(ended)], FakeLeases(), NOW) == ()


async def test_an_alert_is_a_drills_from_its_first_fault_until_some_time_after_its_end() -> None:
    (one,) = await rehearsals([drill(60)], leased(injected=True), NOW)
    assert [one.covers(ago(seconds)) for seconds in (590, 540, 539, 60)] == [False, False, True, True]
    assert one.covers(ago(60) + AFTERMATH)
    assert not one.covers(ago(59) + AFTERMATH)


async def test_a_fault_that_is_being_injected_counts_until_the_drill_ends_without_it() -> None:
    (one,) = await rehearsals([drill(None)], leased(injected=False), NOW)
    assert one.covers(ago(540))
    assert await rehearsals([drill(60)], leased(injected=False), NOW) == ()


async def test_a_word_is_heard_though_nothing_can_be_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, kept = policy(), books(database)
    one = Incident("one", page.service, "P0", "gone", IncidentState.OPEN, ago(60))
    write(database, one)
    metrics = Metrics()
    leadership = Leadership(StoredTerms(database), page.service, "a", metrics)
    desk = join(page, kept, StoredAlerts(database), leadership, lambda: None, metrics, lambda: NOW)

    async def broken(*_: object) -> tuple[Incident, ...]:
        raise StoreError("the database refuses", "locked", "stop the other process")

    monkeypatch.setattr(kept.incidents, "find", broken)
    ports = handling(desk, lambda: overviews.idle().standing, lambda: None)
    said = await ports.say("one", Verb.NOTE, "ann", "the rack is dark", "")
    assert said == one
    found = await kept.incidents.get("one")
    assert found
    assert [entry.text for entry in found[1]] == ["the rack is dark"]
