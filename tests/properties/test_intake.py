"""Whatever is posted, in whatever order and however often: it is stored whole, once, or not at all."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.incidents.alert import Alert, Status, latest, read_webhook, supersedes
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import open_database, sqlite_url
from tests.support.webhooks import T0, alert, asgi, desk, told, webhook

SECONDS = st.integers(0, 4).map(float)
TEXT = st.text(max_size=12)


@st.composite
def tellings(draw: st.DrawFn) -> Alert:
    """One of few alerts at one of few times, so that they meet."""
    starts, fires = draw(SECONDS), draw(st.booleans())
    ends = None if fires else starts + draw(SECONDS)
    return alert(draw(st.sampled_from("AB")), "firing" if fires else "resolved", starts, ends)


def in_a_folder(work: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))


def state(found: Alert) -> tuple[str, Status, object]:
    """What counts of an alert."""
    return found.fingerprint, found.status, found.starts_at


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(tellings(), max_size=4), max_size=8))
def test_the_database_keeps_what_the_rule_says(groups: list[list[Alert]]) -> None:
    async def work(folder: Path) -> None:
        database = open_database(sqlite_url(folder / "a.db"))
        with contextlib.closing(database):
            book, known = StoredAlerts(database), dict[str, Alert]()
            for group in groups:
                changes = await book.keep(latest(group), T0)
                changed = set()
                for telling in latest(group):
                    old = known.get(telling.fingerprint)
                    if old is None or supersedes(telling, old):
                        known[telling.fingerprint] = replace(
                            telling, starts_at=max(telling.starts_at, old.starts_at) if old else telling.starts_at
                        )
                        changed.add((telling.fingerprint, old.status if old else None, telling.status))
                assert {(c.fingerprint, c.was, c.status) for c in changes} == changed
            firing = (await book.page(100)).alerts
            assert {state(a) for a in firing} == {state(a) for a in known.values() if a.status is Status.FIRING}

    in_a_folder(work)


@settings(deadline=None)
@given(st.lists(tellings(), min_size=1, max_size=6), st.data())
def test_a_storm_told_twice_and_out_of_order_ends_as_one_told_once(told_once: list[Alert], data: st.DataObject) -> None:
    """Where an alert's end comes before its next start, as they do."""
    episodes = [a for a in told_once if a.ends_at is None or a.ends_at == a.starts_at]
    shuffled = data.draw(st.permutations(episodes + episodes))
    assert {state(a) for a in latest(shuffled)} == {state(a) for a in latest(episodes)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ODD_ALERT = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["firing", "resolved"]) | JSON,
        "labels": st.dictionaries(TEXT, TEXT, max_size=4) | JSON,
        "startsAt": st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()) | JSON,
    },
    optional={
        "endsAt": st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()) | JSON,
        "annotations": st.dictionaries(TEXT, TEXT, max_size=4) | JSON,
        "fingerprint": TEXT | JSON,
        "generatorURL": TEXT | JSON,
        "values": JSON,
    },
)
GOOD_ALERT = tellings().map(told)
ODD_BODY = st.fixed_dictionaries(
    {"alerts": st.lists(GOOD_ALERT | ODD_ALERT, max_size=4) | JSON},
    optional={"truncatedAlerts": st.integers() | JSON, "orgId": st.integers() | JSON, "version": JSON},
)
BODIES = st.one_of(
    st.lists(GOOD_ALERT, max_size=4).map(webhook),
    ODD_BODY.map(lambda body: json.dumps(body).encode()),
    ODD_BODY.map(lambda body: json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    JSON.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=64),
    st.tuples(
        st.lists(GOOD_ALERT, min_size=1, max_size=2).map(webhook), st.integers(0, 400), st.binary(max_size=3)
    ).map(lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(BODIES, st.integers(1, 5)), min_size=1, max_size=8))
def test_whatever_is_posted_is_taken_or_turned_away_and_never_half_stored(posts: list[tuple[bytes, int]]) -> None:
    async def work(folder: Path) -> None:
        async with desk(folder) as at:
            statuses = await asyncio.gather(*(asgi(at.door, body, pieces=pieces) for body, pieces in posts))
            assert {got.status for got in statuses} <= {200, 400}
            taken = []
            for (body, _), got in zip(posts, statuses, strict=True):
                read = read_webhook(body)
                assert hasattr(read, "alerts") == (got.status == 200)
                taken += list(getattr(read, "alerts", ()))
            kept = {a.fingerprint for a in taken}
            rows = await at.database.run(lambda c: c.exec_driver_sql("SELECT fingerprint FROM alerts").fetchall())
            assert {row[0] for row in rows} == kept
            assert at.count("controlplane_alerts_received_total") == len(taken)

    in_a_folder(work)
