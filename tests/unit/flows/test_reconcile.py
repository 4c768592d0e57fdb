"""What no webhook told is made good by asking: what was never heard of is taken in, what ended unheard is ended."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from controlplane.errors import UnreachableError
from controlplane.flows.reconcile import Look, ReconcilePorts, reconcile, remember
from controlplane.incidents.alert import Alert, Source
from controlplane.incidents.firing import WATCHDOG, Change, Kind, Tally
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import open_database, sqlite_url
from controlplane.telemetry import Metrics
from tests.support.webhooks import alert


@dataclass
class World:
    """An Alertmanager that lists what it is told to, and everything else for real."""

    book: StoredAlerts
    listed: list[Alert] = field(default_factory=list)
    body: bytes | None = None
    away: bool = False
    tally: Tally = field(default_factory=Tally)
    heard: list[Change] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    look: Look = field(default_factory=Look)
    at: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at

    async def listing(self) -> bytes:
        if self.away:
            raise UnreachableError("no", "connection refused", "start it")
        if self.body is not None:
            return self.body
        return json.dumps(
            [{"labels": dict(a.labels), "startsAt": a.starts_at.isoformat(), "fingerprint": a.fingerprint,
              "status": {"state": "active"}, "receivers": []} for a in self.listed]
        ).encode()  # fmt: skip

    async def tell(self, *alerts: Alert) -> None:
        await self.book.keep(alerts, self.now())

    async def ask(self) -> None:
        self.look = await reconcile(self.ports, self.look)

    @property
    def ports(self) -> ReconcilePorts:
        def heard(changes: Sequence[Change]) -> None:
            self.heard.extend(changes)
            self.tally.take(changes)

        def counted(counts: Mapping[Kind, int]) -> None:
            self.tally.reset(counts)

        return ReconcilePorts(self.listing, self.book, heard, counted, self.metrics, self.now)

    def done(self, what: str) -> float:
        return self.metrics.registry.get_sample_value("controlplane_alerts_reconciled_total", {"what": what}) or 0.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = open_database(sqlite_url(tmp_path / "a.db"))
    yield World(StoredAlerts(database))
    database.close()


async def test_what_was_never_heard_of_is_taken_in(world: World) -> None:
    world.listed = [alert("A"), alert("B")]
    await world.tell(alert("A"))
    await world.ask()
    assert [change.name for change in world.heard] == ["B"]
    assert world.tally.names("chat") == {"A", "B"}
    assert world.done("taken_in") == 1


async def test_what_ended_while_we_were_away_is_ended_at_the_second_look(world: World) -> None:
    await world.tell(alert("A"))
    await world.ask()
    assert world.tally.names("chat") == {"A"}, "an Alertmanager that has just started lists nothing yet"
    await world.ask()
    assert world.tally.names("chat") == frozenset()
    assert world.done("ended") == 1


async def test_what_is_listed_again_has_not_ended(world: World) -> None:
    await world.tell(alert("A"))
    for listed in ([], [alert("A")], [], [alert("A")]):
        world.listed = listed
        await world.ask()
    assert world.tally.names("chat") == {"A"}
    assert world.heard == []


async def test_an_alert_that_fires_again_with_the_start_it_had_is_taken_in(world: World) -> None:
    await world.tell(alert("A"))
    await world.tell(alert("A", "resolved", 0.0, 5.0))
    world.listed = [alert("A")]
    await world.ask()
    assert world.tally.names("chat") == {"A"}


async def test_what_only_grafana_tells_of_is_not_ended_by_alertmanager(world: World) -> None:
    await world.tell(structs.replace(alert("G"), source=Source.GRAFANA))
    for _ in range(3):
        await world.ask()
    assert world.tally.names("chat") == {"G"}


@pytest.mark.parametrize("away", [True, False], ids=["nobody there", "no list"])
async def test_a_look_that_found_nobody_is_no_look(world: World, *, away: bool) -> None:
    await world.tell(alert("A"))
    await world.ask()
    world.away, world.body = away, b"[1]"
    await world.ask()
    world.away, world.body, world.listed = False, None, [alert("A")]
    await world.ask()
    assert world.tally.names("chat") == {"A"}
    assert world.done("ended") == 0


async def test_at_a_start_it_is_known_what_fired_and_when_the_watchdog_was_heard(world: World) -> None:
    await world.tell(alert(WATCHDOG), alert("A"))
    await remember(world.ports)
    assert world.tally.names("chat") == {WATCHDOG, "A"}
    heard = world.metrics.registry.get_sample_value(
        "controlplane_watchdog_last_heard_timestamp_seconds", {"source": "alertmanager"}
    )
    assert heard == world.at.timestamp()
