"""Which alerts fire is known only while an Alertmanager says so."""

from collections.abc import Callable

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from controlplane.chaos.alertmanager import Alertmanager
from controlplane.chaos.contract import Firing
from controlplane.errors import UnreachableError
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

    alerts = FiringAlerts(firing, "chat", lambda: heard.append(True))
    for _ in range(3):
        await alerts.ask()
    assert len(heard) == 2
