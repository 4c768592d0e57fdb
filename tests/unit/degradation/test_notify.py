"""People are told when it begins and when it is over, by whatever they listen to."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.degradation.action import Notify
from controlplane.degradation.actuators import post
from controlplane.degradation.actuators.notify import NotifyHand
from controlplane.degradation.errand import ReceiverSpec, wrong_with_receiver
from controlplane.errors import ActuatorError
from tests.support.traffic import served
from tests.unit.flows.fakes import fixed

AT = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
SECRETS = {"env:SLACK": "", "env:TOKEN": "t0ken"}


@dataclass(slots=True)
class Inbox:
    """A server that takes anything."""

    url: str = ""
    got: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    """Path, body and headers of every message."""
    status: int = 200

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((request.path, await request.json(), headers))
        return web.Response(status=self.status, text="so be it")


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    found, app = Inbox(), web.Application()
    app.router.add_post("/{path:.*}", found.take)
    async with served(app) as url:
        found.url = url
        yield found


@pytest.fixture
async def hand(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NotifyHand]:
    monkeypatch.setattr(post, "FIRST_PAUSE_S", 0.001)
    receivers = {
        "alerts": ReceiverSpec(alertmanager=f"{inbox.url}/am/", token="env:TOKEN"),
        "hook": ReceiverSpec(webhook=f"{inbox.url}/hook"),
        "chat": ReceiverSpec(slack="env:SLACK"),
    }
    secrets = SECRETS | {"env:SLACK": f"{inbox.url}/services/T0/B0/secret"}
    async with aiohttp.ClientSession() as session:
        yield NotifyHand(session, "chat", receivers, lambda place: secrets.get(place, place), lambda: AT)


async def test_alertmanager_gets_an_alert_that_begins_and_the_same_one_that_ends(
    hand: NotifyHand, inbox: Inbox
) -> None:
    assert await hand.apply(Notify("alerts"), "chat/P0/1") == "alerts (alertmanager) answered 200"
    await hand.revert(Notify("alerts"), "chat/P0/1", {})
    (path, (begun,), headers), (_, (ended,), _) = inbox.got
    assert path == "/am/api/v2/alerts"
    assert headers["authorization"] == "Bearer t0ken"
    assert begun["labels"] == ended["labels"]
    assert begun["labels"]["alertname"] == "ControlplaneDegradation"
    assert begun["startsAt"] == AT.isoformat()
    assert begun["endsAt"] > AT.isoformat()
    assert ended["endsAt"] == AT.isoformat()
    assert "chat/P0/1" in begun["annotations"]["summary"]


async def test_a_webhook_gets_json_with_a_key_of_its_own_for_each_message(hand: NotifyHand, inbox: Inbox) -> None:
    errand = Notify("hook")
    for _ in range(2):
        assert await hand.apply(errand, "k") == "hook (webhook) answered 200"
    await hand.revert(errand, "k", {})
    assert [body["status"] for _, body, _ in inbox.got] == ["firing", "firing", "resolved"]
    keys = [headers["idempotency-key"] for _, _, headers in inbox.got]
    assert keys == ["k/hook/firing", "k/hook/firing", "k/hook/resolved"]


async def test_two_rows_that_tell_the_same_receiver_are_two_alerts(hand: NotifyHand, inbox: Inbox) -> None:
    for key in ("chat/P1/1/0", "chat/P0/1/0"):
        await hand.apply(Notify("alerts"), key)
    await hand.revert(Notify("alerts"), "chat/P1/1/0", {})
    milder, worse, over = [alert["labels"] for _, (alert,), _ in inbox.got]
    assert milder == over != worse
    assert (milder["row"], worse["row"]) == ("P1", "P0")


async def test_whoever_shows_nothing_has_answered_as_it_was_stored(hand: NotifyHand) -> None:
    assert await hand.observe(Notify("hook"), "k", "") == ""
    assert await hand.observe(Notify("hook"), "k", "hook (webhook) answered 200") == "hook (webhook) answered 200"


async def test_slack_gets_its_own_shape_and_its_address_is_never_shown(hand: NotifyHand, inbox: Inbox) -> None:
    await hand.apply(Notify("chat"), "k")
    assert list(inbox.got[0][1]) == ["text"]
    assert inbox.got[0][0] == "/services/T0/B0/secret"
    inbox.status = 404
    with pytest.raises(ActuatorError) as failed:
        await hand.apply(Notify("chat"), "k")
    assert "secret" not in f"{failed.value.what} {failed.value.why} {failed.value.fix}"
    assert "receiver chat" in failed.value.what


async def test_a_page_reaches_every_receiver_as_an_alert_of_its_own(hand: NotifyHand, inbox: Inbox) -> None:
    await hand.page("P1 has not mended the harm in its time; no other row is left: a person has to act")
    assert [path for path, _, _ in inbox.got] == ["/am/api/v2/alerts", "/hook", "/services/T0/B0/secret"]
    (alert,) = inbox.got[0][1]
    assert alert["labels"]["alertname"] == "ControlplaneNeedsAPerson"
    assert alert["endsAt"] == "2026-03-03T11:00:00+00:00"
    assert all("a person has to act" in str(body) for _, body, _ in inbox.got)


async def test_every_page_is_an_alert_of_its_own_so_that_somebody_hears_the_second_one(inbox: Inbox) -> None:
    receivers = {"oncall": ReceiverSpec(alertmanager=inbox.url)}
    async with aiohttp.ClientSession() as session:
        for at in (AT, AT + timedelta(minutes=5)):
            await NotifyHand(session, "chat", receivers, str, fixed(at)).page("P0 waits for a person")
    first, second = [alert["labels"] for _, (alert,), _ in inbox.got]
    assert first != second
    assert first | {"page": ""} == second | {"page": ""}


async def test_a_receiver_that_fails_keeps_no_other_from_being_paged(hand: NotifyHand, inbox: Inbox) -> None:
    inbox.status = 400
    with pytest.raises(ActuatorError, match="chat"):
        await hand.page("P0 waits")
    assert {path for path, _, _ in inbox.got} >= {"/am/api/v2/alerts", "/hook", "/services/T0/B0/secret"}


async def test_a_receiver_that_is_not_known_is_refused_by_name(hand: NotifyHand, inbox: Inbox) -> None:
    assert "no receiver oncall" in (await hand.preflight(Notify("oncall"))).refusal
    with pytest.raises(ActuatorError, match="oncall"):
        await hand.apply(Notify("oncall"), "k")
    assert (await hand.preflight(Notify("hook"))).preview == "hook would be told (webhook)"
    assert inbox.got == []


async def test_a_receiver_that_does_not_answer_is_an_error_that_hides_its_address() -> None:
    async with aiohttp.ClientSession() as session:
        receivers = {"chat": ReceiverSpec(slack="env:SLACK")}
        hand = NotifyHand(session, "chat", receivers, lambda _: "http://127.0.0.1:1/secret", lambda: AT)
        with pytest.raises(ActuatorError) as failed:
            await hand.apply(Notify("chat"), "k")
    assert "secret" not in f"{failed.value.what} {failed.value.why}"


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (ReceiverSpec(), "exactly one"),
        (ReceiverSpec(alertmanager="http://a", webhook="http://b"), "exactly one"),
        (ReceiverSpec(slack="https://hooks.example.com/T/B/x"), "is a secret"),
        (ReceiverSpec(webhook="http://a", token="hunter2"), "is a secret"),
        (ReceiverSpec(alertmanager="10.0.0.1:9093"), "no URL"),
        (ReceiverSpec(alertmanager="http://10.0.0.1:9093"), ""),
        (ReceiverSpec(webhook="file:hook", token="env:TOKEN"), ""),
        (ReceiverSpec(slack="env:SLACK"), ""),
    ],
)
def test_a_receiver_that_cannot_be_used_says_why(spec: ReceiverSpec, wrong: str) -> None:
    assert wrong in wrong_with_receiver(spec)
    assert bool(wrong) == bool(wrong_with_receiver(spec))
