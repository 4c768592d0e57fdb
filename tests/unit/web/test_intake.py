"""The door that webhooks are posted at: who is let in, what is turned away for good and what only for now."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from controlplane.errors import StoreError
from controlplane.security.roles import Role
from controlplane.security.tokens import Principal
from controlplane.telemetry import Metrics
from controlplane.web import intake
from controlplane.web.intake import BODY_AT_MOST, PATH, DoorPorts, IntakeDoor, WebhookCheck
from tests.support.webhooks import GRAFANA, GRAFANA_ALERT, TOKEN, Desk, alert, asgi, desk, told, webhook
from tests.unit.web.test_api import serving

ONE = webhook([told(alert("A", service="chat"))])


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as opened:
        yield opened


# -- who is let in -----------------------------------------------------------------------------------------------------


KNOWN = {role.value: Principal("somebody", role, "id") for role in Role}


async def known(text: str) -> Principal | None:
    """Know a token by its role's name; the store is down for one of them."""
    if text == "down":
        raise StoreError("the database does not answer", "it is down", "wait")
    return KNOWN.get(text)


check = WebhookCheck(TOKEN, known)


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "given", [f"Bearer {TOKEN}".encode(), f"bearer {TOKEN}".encode(), basic(f"grafana:{TOKEN}"), basic(f":{TOKEN}")]
)
async def test_the_token_lets_in_as_bearer_and_as_a_password(given: bytes) -> None:
    assert await check(given)


@pytest.mark.parametrize(
    "given",
    [b"", b"Bearer", b"Bearer ", b"Bearer wrong", f"Bearer {TOKEN}x".encode(), TOKEN.encode(), basic(TOKEN), b"Basic !",
     basic(f"{TOKEN}:"), basic(f"a:b:{TOKEN}"), f"Digest {TOKEN}".encode(), b"Bearer \xff", b"Basic \xff"],
)  # fmt: skip
async def test_nothing_else_lets_in(given: bytes) -> None:
    assert not await check(given)


async def test_stored_tokens_let_in_when_they_are_for_webhooks_or_of_an_admin() -> None:
    assert {role for role in KNOWN if await check(f"Bearer {role}".encode())} == {"webhook", "admin"}


async def test_a_token_that_nobody_can_look_up_now_is_503_and_not_401(at: Desk) -> None:
    door = IntakeDoor(at.door, DoorPorts(at.take, at.put, check, Metrics().webhooks_refused))
    got = await asgi(door, ONE, token="down")
    assert (got.status, got.headers["retry-after"]) == (503, "5")
    assert (await asgi(door, ONE)).status == 200


async def test_without_the_token_nothing_is_stored(at: Desk) -> None:
    got = await asgi(at.door, ONE, token="wrong")
    assert got.status == 401
    assert got.headers["www-authenticate"] == "Bearer"
    assert json.loads(got.body)["status"] == 401
    assert TOKEN.encode() not in got.body
    assert await at.firing() == set()
    assert at.count("controlplane_webhooks_refused_total", reason="token") == 1


# -- what is taken -----------------------------------------------------------------------------------------------------


async def test_a_webhook_is_acknowledged_with_nothing_but_a_status(at: Desk) -> None:
    got = await asgi(at.door, ONE, pieces=7)
    assert (got.status, got.body) == (200, b"")
    assert await at.firing() == {alert("A", service="chat").fingerprint}


async def test_grafana_is_taken_like_alertmanager(at: Desk) -> None:
    assert await at.post(webhook([told(alert("G")) | GRAFANA_ALERT], **GRAFANA)) == 200
    assert [change.source for change in at.changes] == ["grafana"]


async def test_ten_thousand_labels_are_no_reason_to_lose_an_alert_or_its_neighbours(at: Desk) -> None:
    huge = alert("Huge", "firing", 0.0, None, **{f"label{i}": "x" * 20 for i in range(10_000)})
    assert await at.post(webhook([told(huge), told(alert("Small"))])) == 200
    assert await at.firing() == {huge.fingerprint, alert("Small").fingerprint}


async def test_every_other_path_is_the_applications(at: Desk) -> None:
    for path in ("/", "/hooks", PATH + "/", "/api/v1/alerts"):
        assert await at.post(ONE, path=path) == 404
    assert await at.firing() == set()


async def test_webhooks_are_posted(at: Desk) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        got = await asgi(at.door, ONE, method=method)
        assert (got.status, got.headers["allow"]) == (405, "POST")


# -- what is turned away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff\xfe\x00", b'{"alerts": [{"labels": "\xe2\x28\xa1"}]}', b"[" * 9999]
)
async def test_what_can_never_be_right_is_a_bad_request(at: Desk, body: bytes) -> None:
    got = await asgi(at.door, body)
    assert got.status == 400
    assert "retry-after" not in got.headers
    assert got.headers["content-type"] == "application/problem+json"
    assert at.count("controlplane_webhooks_refused_total", reason="unreadable") == 1


async def test_one_alert_that_cannot_be_read_keeps_its_whole_webhook_out(at: Desk) -> None:
    assert await at.post(webhook([told(alert("A")), told(alert("B"), startsAt="soon")])) == 400
    assert await at.firing() == set()


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(at: Desk, *, announced: bool) -> None:
    body = b" " * (BODY_AT_MOST + 1)
    headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
    announcing = [(b"content-length", str(len(body)).encode())] if announced else []
    got = await asgi(at.door, body, pieces=10, headers=headers + announcing)
    assert got.status == 413
    assert got.headers["connection"] == "close"
    assert at.door._held == 0


async def test_more_bodies_than_are_held_at_once_are_asked_to_come_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "HELD_AT_MOST", len(ONE) - 1)
    for pieces in (1, 3):
        got = await asgi(at.door, ONE, pieces=pieces)
        assert got.status == 503
        assert int(got.headers["retry-after"]) > 0
    monkeypatch.undo()
    assert await at.post(ONE) == 200
    assert at.door._held == 0


async def test_who_goes_away_in_the_middle_is_not_answered_and_stores_nothing(at: Desk) -> None:
    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-length", b"999")]

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        raise AssertionError(message)

    await at.door({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive, send)
    assert at.count("controlplane_webhooks_refused_total", reason="gone") == 1


async def test_a_locked_database_is_503_until_it_is_let_go_of(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.database.run(lambda c: c.exec_driver_sql("PRAGMA busy_timeout = 50"))
        with closing(sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            got = await asgi(at.door, ONE)
            assert got.status == 503
            assert int(got.headers["retry-after"]) > 0
            other.execute("ROLLBACK")
        assert await at.post(ONE) == 200
        assert await at.firing() == {alert("A", service="chat").fingerprint}
        assert at.count("controlplane_webhooks_refused_total", reason="store") == 1


# -- over sockets ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(folder: Path, body_within_s: float = 10.0) -> AsyncIterator[tuple[Desk, int]]:
    async with desk(folder, body_within_s=body_within_s) as at, serving(at.door) as url:  # type: ignore[arg-type]
        yield at, int(url.rsplit(":", 1)[1])


def head(length: int) -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


async def answer(port: int, sent: bytes) -> bytes:
    """Send a request; return the first line of the answer, empty where the connection was cut instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
        with suppress(ConnectionError):
            return (await reader.readline()).strip()
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_fifty_megabytes_are_refused_and_the_next_webhook_is_taken(tmp_path: Path) -> None:
    async with served(tmp_path) as (at, port):
        # Whoever goes on sending may find the connection cut before the answer is read.
        assert await answer(port, head(50_000_000) + b" " * 50_000_000) in (b"HTTP/1.1 413 ", b"")
        assert at.count("controlplane_webhooks_refused_total", reason="size") == 1
        assert await answer(port, head(len(ONE)) + ONE) == b"HTTP/1.1 200 OK"


async def test_who_sends_byte_by_byte_holds_nobody_up_and_is_sent_away(tmp_path: Path) -> None:
    async with served(tmp_path, body_within_s=0.2) as (at, port):
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for i, (_, writer) in enumerate(slow):
            writer.write(head(len(ONE)) + ONE[: i * 3] if i % 2 else head(len(ONE))[:40])
        assert await answer(port, head(len(ONE)) + ONE) == b"HTTP/1.1 200 OK"
        for i, (reader, _) in enumerate(slow):
            if i % 2:
                assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        assert at.count("controlplane_webhooks_refused_total", reason="slow") == 25
        assert at.door._held == 0
        assert at.count("controlplane_alerts_received_total") == 1
        for _, writer in slow:
            writer.close()
