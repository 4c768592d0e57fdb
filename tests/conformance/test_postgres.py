"""What SQLite does for one machine PostgreSQL does for several: the same books, the same lease, nobody twice."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from controlplane.degradation.action import Scale
from controlplane.degradation.actuator import Receipt, ReceiptState, RoutePlan, Step
from controlplane.degradation.fencing import Held, Term
from controlplane.degradation.matrix import Level
from controlplane.errors import FencedError, StoreError
from controlplane.incidents.alert import Alert, Source, Status, latest
from controlplane.incidents.correlate import row_moves
from controlplane.incidents.incident import Entry
from controlplane.security.chain import Deed
from controlplane.store.alerts import StoredAlerts
from controlplane.store.audit import StoredAudit
from controlplane.store.database import Database, open_database
from controlplane.store.incidents import StoredIncidents
from controlplane.store.leader import StoredTerms
from controlplane.store.receipts import StoredReceipts
from tests.support.postgres import Server, server_or_skip
from tests.support.webhooks import alert, asgi, at_desk, later, told, webhook

pytestmark = [pytest.mark.journey, pytest.mark.debian("postgresql")]

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
LONG_S = 600.0
STEPS = (Step("scale deployment/x to replicas 4", Scale("deployment/x", replicas=4), before={"replicas": 2}),)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server_or_skip() as running:
        yield running


@pytest.fixture
def planes(running: Server) -> Iterator[tuple[Database, Database]]:
    url = running.fresh()
    with closing(open_database(url)) as first, closing(open_database(url)) as second:
        yield first, second
    running.drop(url)


def receipt(episode: int) -> Receipt:
    return Receipt(
        f"chat/P0/{episode}", "chat", Level.P0, "switch_pool to standby", RoutePlan({"primary": 100}),
        RoutePlan({"standby": 100}, Level.P0), ReceiptState.INTENDED, ("why",), T0, T0, {ReceiptState.INTENDED: T0},
        episode=episode, steps=STEPS,
    )  # fmt: skip


async def test_one_of_many_that_want_the_lease_gets_it_and_a_later_one_a_larger_token(
    planes: tuple[Database, Database],
) -> None:
    books = [StoredTerms(database) for database in planes]
    taken = await asyncio.gather(*(books[i % 2].take("chat", f"plane-{i}", 0.0) for i in range(2)))
    first = next(term for term in taken if isinstance(term, Term))
    new = await books[1].take("chat", "later", LONG_S)
    assert isinstance(new, Term)
    assert new.token > first.token
    assert isinstance(await books[0].take("chat", "too late", LONG_S), Held)
    assert not await books[0].renew(first, LONG_S)
    with pytest.raises(FencedError):
        await books[0].confirm(first)
    await books[1].resign(new)
    assert await books[0].take("chat", "next", LONG_S) == Term("chat", "next", new.token + 1)


async def test_an_episode_is_begun_once_whoever_asks_and_only_by_who_is_in_charge(
    planes: tuple[Database, Database],
) -> None:
    old = await StoredTerms(planes[0]).take("chat", "a", 0.0)
    assert isinstance(old, Term)
    unfenced = [StoredReceipts(database) for database in planes]
    began = await asyncio.gather(*(unfenced[i % 2].intend(receipt(1)) for i in range(20)))
    assert sorted(began) == [False] * 19 + [True]
    new = await StoredTerms(planes[1]).take("chat", "b", LONG_S)
    assert isinstance(new, Term)
    ours, theirs = StoredReceipts(planes[0], lambda: old), StoredReceipts(planes[1], lambda: new)
    with pytest.raises(FencedError):
        await ours.move("chat/P0/1", ReceiptState.APPLIED, T0)
    moved = await theirs.move("chat/P0/1", ReceiptState.APPLIED, T0)
    expected = replace(receipt(1), state=ReceiptState.APPLIED, token=2)
    assert moved == replace(expected, times={**expected.times, ReceiptState.APPLIED: T0})
    await theirs.move("chat/P0/1", ReceiptState.REVERTED, T0)
    assert not await theirs.intend(receipt(1))
    assert await theirs.next_episode("chat", "P0") == 2


async def test_an_incident_is_stored_with_the_beginning_of_its_timeline_or_not_at_all(
    planes: tuple[Database, Database],
) -> None:
    book = StoredIncidents(planes[0])
    entries = (Entry(T0, "detected", "x"), Entry(T0, "decided", "y"))
    ruling = await book.take("chat", (row_moves("chat", "P0", "down", T0, T0, entries),), T0)
    ((stored, timeline),) = await StoredIncidents(planes[1]).recent("chat", 5)
    assert stored.id == ruling.incident_of("row/P0")
    assert (stored.title, stored.rows) == ("chat: down", ("P0",))
    assert [entry.text for entry in timeline] == ["x", "y"]


async def test_two_control_planes_keep_one_audit_chain_that_the_database_lets_nobody_change(
    planes: tuple[Database, Database],
) -> None:
    books = (StoredAudit(planes[0]), StoredAudit(planes[1]))
    deed = Deed(T0, "ann", "operator", "file", "::1", "POST /api/v1/heal", "why", "done 200")
    await asyncio.gather(*(books[i % 2].append(replace(deed, why=str(i))) for i in range(40)))
    checked = await books[1].check(None)
    assert (checked.rows, checked.breaks) == (40, ())
    for statement in ("UPDATE audit SET why = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(StoreError, match="refuses") as refused:
            planes[0].run_now(lambda c, s=statement: c.execute(text(s)))  # type: ignore[misc]
        assert "append-only" in refused.value.why
    assert (await books[0].check(checked.head)).breaks == ()


async def test_alerts_that_two_control_planes_take_in_at_once_count_once(planes: tuple[Database, Database]) -> None:
    books = [StoredAlerts(database) for database in planes]
    many = latest(alert("Storm", id=str(i)) for i in range(300))
    changes = await asyncio.gather(*(books[i % 2].keep(many, later(0)) for i in range(4)))
    assert sorted(len(some) for some in changes) == [0, 0, 0, 300]
    assert await books[0].tally() == {("Storm", "", Source.ALERTMANAGER): 300}
    ends = latest(alert("Storm", "resolved", 0.0, 1.0, id=str(i)) for i in range(300))
    ended = await books[1].keep(ends, later(2))
    assert {(change.was, change.status) for change in ended} == {(Status.FIRING, Status.RESOLVED)}
    assert await books[0].keep(many, later(3)) == ()
    assert len(await books[0].keep(many[:7], later(4), asked_at=later(3))) == 7


async def test_alerts_are_paged_ended_and_forgotten_here_too(planes: tuple[Database, Database]) -> None:
    book = StoredAlerts(planes[0])
    seen: list[Alert] = []
    for i in range(3):
        await book.keep((alert("A", id=str(i), text="\N{SNOWMAN} %s ?"),), later(float(i)))
    page = await book.page(2)
    assert page.after
    seen = [*page.alerts, *(await book.page(2, page.after)).alerts]
    assert [a.labels["id"] for a in seen] == ["2", "1", "0"]
    assert len(await book.end(tuple(a.fingerprint for a in seen), later(5), later(5))) == 3
    assert await book.forget(later(9), 10) == 3


async def test_a_webhook_with_what_postgresql_has_no_room_for_is_taken(planes: tuple[Database, Database]) -> None:
    odd = alert("Nul\0", "firing", 0.0, None, long="x" * 100_000)
    async with at_desk(planes[0]) as at:
        assert await at.post(webhook([told(odd), told(alert("Plain"))])) == 200
        assert len(await at.firing()) == 2


async def test_a_server_that_went_away_is_503_until_it_is_back_and_nothing_taken_is_lost() -> None:
    with server_or_skip() as running, closing(open_database(running.url())) as database:
        async with at_desk(database) as at:
            before, meanwhile = alert("Before"), webhook([told(alert("Meanwhile"))])
            assert await at.post(webhook([told(before)])) == 200
            running.stop()
            for _ in range(2):
                answer = await asgi(at.door, meanwhile)
                assert (answer.status, "retry-after" in answer.headers) == (503, True)
            running.start()
            assert await at.firing() == {before.fingerprint}
            assert await at.post(meanwhile) == 200, "the very first call finds the server again"
            assert len(await at.firing()) == 2
            assert at.count("controlplane_webhooks_refused_total", reason="store") == 2
