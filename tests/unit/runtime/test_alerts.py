"""Which alerts fire is known only while an Alertmanager says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from controlplane.chaos.alertmanager import NAMELESS, Alertmanager
from controlplane.chaos.contract import Firing
from controlplane.degradation.matrix import AlertFires, AtLeast, Truth, evaluate
from controlplane.errors import UnreachableError
from controlplane.incidents.alert import Source, Status
from controlplane.incidents.firing import Change
from controlplane.runtime.alerts import FiringAlerts


def alert(name: str, **labels: str) -> dict[str, object]:
    return {"labels": {"alertname": name, **labels}, "startsAt": "2026-01-01T00:00:00.000Z"}


async def asked(answer: Callable[[], web.Response], times: int = 1) -> FiringAlerts:
    app = web.Application()

    async def alerts(_: web.Request) -> web.Response:
        return answer()

    app.router.add_get("/api/v2/alerts", alerts)
    async with TestServer(app) as server, ClientSession() as session:
        firing = FiringAlerts(Alertmanager(session, str(server.make_url(""))).firing, "chat")
        for _ in range(times):
            await firing.ask()
    return firing


async def test_without_an_alertmanager_nothing_fires() -> None:
    firing = FiringAlerts(None, "chat")
    await firing.ask()
    assert firing.names == frozenset()


def test_before_an_alertmanager_was_asked_nobody_knows() -> None:
    async def never() -> tuple[Firing, ...]:
        raise AssertionError

    assert FiringAlerts(never, "chat").names is None


async def test_ours_and_those_of_no_service_count_and_other_services_do_not() -> None:
    found = [alert("Overloaded", service="chat"), alert("DiskFull"), alert("Theirs", service="search")]
    firing = await asked(lambda: web.json_response(found))
    assert firing.names == {"Overloaded", "DiskFull"}


async def test_a_strangers_alert_without_a_name_hides_no_other() -> None:
    nameless = {"labels": {"team": "search"}, "startsAt": "2026-01-01T00:00:00.000Z"}
    firing = await asked(lambda: web.json_response([nameless, alert("Overloaded", service="chat")]))
    assert firing.names == {"Overloaded", NAMELESS}


async def test_an_alertmanager_that_fails_makes_it_unknown_again() -> None:
    answers = iter([web.json_response([alert("Overloaded")]), web.Response(status=500)])
    firing = await asked(lambda: next(answers), times=2)
    assert firing.names is None


async def test_every_answer_is_told_and_silence_is_not() -> None:
    heard: list[bool] = []
    answers = iter([True, False, True])

    async def firing() -> tuple[Firing, ...]:
        if next(answers):
            return ()
        raise UnreachableError("silent")

    alerts = FiringAlerts(firing, "chat", answered=lambda: heard.append(True))
    for _ in range(3):
        await alerts.ask()
    assert len(heard) == 2


# -- what webhooks tell ------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """An Alertmanager that is asked, and webhooks beside it."""

    listed: tuple[str, ...] | None = ()
    woken: int = 0
    while_asked: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.firing = FiringAlerts(self.answer, "chat", frozenset({"Overloaded"}), self.wake)

    def wake(self) -> None:
        self.woken += 1

    async def answer(self) -> tuple[Firing, ...]:
        self.firing.heard(self.while_asked)
        if self.listed is None:
            raise UnreachableError("Alertmanager does not answer", "connection refused", "start it")
        return tuple(Firing(name, datetime.now(UTC), "chat") for name in self.listed)


def began(name: str, source: Source = Source.ALERTMANAGER, service: str = "chat") -> Change:
    return Change(f"{name}{service}", name, service, source, None, Status.FIRING)


def ended(name: str) -> Change:
    return Change(f"{name}chat", name, "chat", Source.ALERTMANAGER, Status.FIRING, Status.RESOLVED)


async def test_what_a_webhook_tells_fires_at_once_and_wakes_whoever_decides() -> None:
    told = Told()
    await told.firing.ask()
    told.woken = 0
    told.firing.heard([began("Other"), began("Overloaded", service="search")])
    assert told.woken == 0, "no row waits for these"
    told.firing.heard([began("Overloaded")])
    assert told.woken == 1
    assert told.firing.names == {"Other", "Overloaded"}
    told.firing.heard([began("Overloaded")])
    assert told.woken == 1


async def test_what_another_replica_was_told_fires_as_soon_as_it_is_counted() -> None:
    told = Told()
    await told.firing.ask()
    told.woken = 0
    told.firing.counted({("Overloaded", "chat", Source.ALERTMANAGER): 1})
    assert told.firing.names == {"Overloaded"}
    assert told.woken == 1
    await told.firing.ask()
    assert told.firing.names == frozenset(), "Alertmanager, asked since, knows better"
    told.firing.counted({("Overloaded", "chat", Source.ALERTMANAGER): 2})
    assert told.firing.names == frozenset(), "that it still is in the books is no news"


async def test_what_alertmanager_does_not_list_any_more_has_ended_though_no_webhook_said_so() -> None:
    told = Told()
    await told.firing.ask()
    told.firing.heard([began("Overloaded")])
    await told.firing.ask()
    assert told.firing.names == frozenset()


async def test_what_was_told_while_alertmanager_was_asked_is_newer_than_its_answer() -> None:
    told = Told(while_asked=[began("Overloaded")])
    await told.firing.ask()
    assert told.firing.names == {"Overloaded"}


async def test_what_only_grafana_tells_of_fires_until_it_says_otherwise() -> None:
    told = Told()
    told.firing.heard([began("Overloaded", Source.GRAFANA)])
    await told.firing.ask()
    await told.firing.ask()
    assert told.firing.names == {"Overloaded"}


async def test_while_alertmanager_does_not_answer_what_was_told_fires_and_of_the_rest_nobody_knows() -> None:
    told = Told(listed=None)
    told.firing.counted({("Overloaded", "chat", Source.ALERTMANAGER): 1})
    before = told.firing.names
    assert before is None, "what fired before a restart may have ended since: it is asked first"
    await told.firing.ask()
    assert type(told.firing.names) is AtLeast
    answers = [evaluate(AlertFires(name), {}, {}, 0.0, told.firing.names)[0] for name in ("Overloaded", "Other")]
    assert [answer.truth for answer in answers] == [Truth.YES, Truth.UNKNOWN]
    told.firing.heard([ended("Overloaded")])
    assert told.firing.names is None


def test_without_an_alertmanager_on_the_page_what_was_told_is_all_there_is() -> None:
    firing = FiringAlerts(None, "chat")
    firing.counted({("Overloaded", "", Source.ALERTMANAGER): 1, ("Theirs", "search", Source.GRAFANA): 1})
    assert firing.names == {"Overloaded"}
    firing.heard([began("Slow"), ended("Overloaded")])
    assert firing.names == {"Overloaded", "Slow"}, "the one of no service goes on"
