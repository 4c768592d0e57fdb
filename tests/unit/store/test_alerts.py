"""Alerts are written down once, all of a webhook or none, and in pieces of any size."""

from datetime import timedelta

import pytest

from controlplane.incidents.alert import Alert, Source, Status, latest
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import Database, open_database
from tests.support.webhooks import alert, later


@pytest.fixture
def book(database: Database) -> StoredAlerts:
    return StoredAlerts(database)


def many(count: int, status: str = "firing", starts: float = 0.0, ends: float | None = None) -> tuple[Alert, ...]:
    return latest(alert("Many", status, starts, ends, id=str(i)) for i in range(count))


async def test_every_number_of_alerts_is_kept_whole(book: StoredAlerts) -> None:
    assert await book.keep((), later(0)) == ()
    for count in (1, 3, 5, 21, 85, 342):
        changes = await book.keep(many(count, starts=float(count)), later(0))
        assert len(changes) == count
    assert await book.tally() == {("Many", "", Source.ALERTMANAGER): 342}


async def test_a_telling_counts_once_and_says_what_it_changed(book: StoredAlerts) -> None:
    first, end, again = alert("A"), alert("A", "resolved", 0.0, 5.0), alert("A", starts=10.0)
    seen = []
    for telling in (first, first, end, end, first, again, end, first):
        seen += [(change.was, change.status) for change in await book.keep((telling,), later(0))]
    firing, resolved = Status.FIRING, Status.RESOLVED
    assert seen == [(None, firing), (firing, resolved), (resolved, firing)]


async def test_an_alert_is_given_back_as_it_was_told(book: StoredAlerts) -> None:
    told = alert("A", starts=1.5, service="chat", text="\u2603 'quoted' %s ? :x")
    await book.keep((told,), later(2))
    (found,) = (await book.page(10)).alerts
    assert found == told
    assert await book.firing(Source.ALERTMANAGER) == {told.fingerprint: later(2)}
    assert await book.firing(Source.GRAFANA) == {}
    assert await book.heard_at("A") == {Source.ALERTMANAGER: later(2)}


async def test_what_alertmanager_lists_fires_even_if_its_end_was_told_before(book: StoredAlerts) -> None:
    told = alert("A")
    await book.keep((alert("A", "resolved", 0.0, 5.0),), later(6))
    assert await book.keep((told,), later(7)) == ()
    assert await book.keep((told,), later(8), asked_at=later(6)) == ()
    (change,) = await book.keep((told,), later(8), asked_at=later(7))
    assert (change.was, change.status) == (Status.RESOLVED, Status.FIRING)
    (end,) = await book.keep((alert("A", "resolved", 0.0, 9.0),), later(10))
    assert end.status is Status.RESOLVED


async def test_what_is_listed_after_its_end_begins_anew_and_late_tellings_change_nothing(book: StoredAlerts) -> None:
    told, old_end = alert("A"), alert("A", "resolved", 0.0, 5.0)
    await book.keep((told,), later(1))
    await book.keep((old_end,), later(6))
    await book.keep((told,), later(8), asked_at=later(7))
    for late in (told, old_end):
        assert await book.keep((late,), later(9)) == ()
    assert await book.keep((told,), later(10), asked_at=later(9)) == (), "it is no news at the next look"
    assert [found.starts_at for found in (await book.page(9)).alerts] == [later(7)]
    await book.end((told.fingerprint,), later(12), later(11))
    later_start = alert("A", starts=20.0)
    await book.keep((later_start,), later(31), asked_at=later(30))
    assert (await book.page(9)).alerts == (later_start,), "it says itself that it began anew"


async def test_what_is_listed_with_a_start_that_is_to_come_never_begins_earlier(book: StoredAlerts) -> None:
    """As somebody tells it whose clock is ahead of ours."""
    told = alert("A", starts=100.0)
    await book.keep((told,), later(1))
    await book.end((told.fingerprint,), later(3), later(2))
    assert len(await book.keep((told,), later(5), asked_at=later(4))) == 1
    assert (await book.page(9)).alerts == (told,)


async def test_what_has_ended_is_ended_unless_it_was_told_of_since(book: StoredAlerts) -> None:
    old, new = alert("Old"), alert("New")
    await book.keep((old,), later(0))
    await book.keep((new,), later(5))
    changes = await book.end((old.fingerprint, new.fingerprint, "unknown"), later(6), later(3))
    assert [(change.name, change.was, change.status) for change in changes] == [
        ("Old", Status.FIRING, Status.RESOLVED)
    ]  # fmt: skip
    assert await book.end((old.fingerprint,), later(7), later(7)) == ()
    assert await book.end((), later(7), later(7)) == ()
    assert {found.name for found in (await book.page(10)).alerts} == {"New"}


async def test_what_ended_long_ago_or_beyond_a_number_is_forgotten_and_what_fires_never(book: StoredAlerts) -> None:
    await book.keep(many(10, "resolved", 0.0, 1.0), later(0))
    await book.keep(latest(alert("Kept", "resolved", 100.0 + i, 200.0, id=str(i)) for i in range(5)), later(150))
    await book.keep((alert("Fires"),), later(0))
    assert await book.forget(later(50), 100) == 10
    assert await book.forget(later(50), 2) == 3
    assert await book.forget(later(50), 2) == 0
    assert await book.forget(later(1000), 2) == 2
    assert {found.name for found in (await book.page(10)).alerts} == {"Fires"}


async def test_pages_follow_each_other_without_a_gap_or_a_double(book: StoredAlerts) -> None:
    for i in range(4):
        await book.keep(latest(alert("A", id=str(i * 3 + j)) for j in range(3)), later(float(i)))
    await book.keep((alert("Ended", "resolved", 0.0, 1.0),), later(0))
    seen: list[Alert] = []
    page = await book.page(4)
    while page.after:
        seen += page.alerts
        page = await book.page(4, page.after)
    seen += page.alerts
    assert len({found.fingerprint for found in seen}) == len(seen) == 12
    assert [int(found.labels["id"]) // 3 for found in seen] == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]


async def test_a_restart_knows_what_fires(url: str) -> None:
    first = open_database(url)
    await StoredAlerts(first).keep(many(3), later(0) + timedelta(milliseconds=1))
    first.close()
    second = open_database(url)
    assert await StoredAlerts(second).tally() == {("Many", "", Source.ALERTMANAGER): 3}
    second.close()
