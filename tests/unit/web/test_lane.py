"""The fast lane: the same answers as through uvicorn and the door, in the same order, whatever a connection brings."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import uvicorn

from controlplane.errors import StoreError
from controlplane.incidents.alert import Alert
from controlplane.incidents.firing import Change
from controlplane.telemetry import Metrics
from controlplane.web import intake, lane
from controlplane.web.intake import PATH, DoorPorts, IntakeDoor, WebhookCheck
from controlplane.web.lane import HEADS_KNOWN, Lane, LaneProtocol
from tests.support.webhooks import TOKEN, Desk, alert, desk, not_found, told, webhook
from tests.unit.flows.test_intake import Slow, settled


@dataclass(slots=True)
class Served:
    """A door behind a lane, on a port."""

    at: Desk
    port: int
    server: uvicorn.Server
    running: "asyncio.Task[None]"
    slow: list[str] = field(default_factory=list)
    """What came to the door and not through the lane."""

    async def talk(self, *pieces: bytes, answers: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
        """Send pieces one after another over one connection, and read so many answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return [await answer(reader) for _ in range(answers)]
        finally:
            await hang_up(writer)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(30):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("transfer-encoding") == "chunked":
            await reader.readuntil(b"0\r\n\r\n")
    return int(lines[0].split()[1]), headers, body


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def served(folder: Path, inbox: object = None, keep_alive_s: int = 120) -> AsyncIterator[Served]:
    async with desk(folder, inbox) as at:
        slow: list[str] = []

        async def app(scope: intake.Scope, receive: intake.Receive, send: intake.Send) -> None:
            slow.append(scope["path"])
            await at.door(scope, receive, send)

        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False,
            timeout_keep_alive=keep_alive_s, timeout_graceful_shutdown=2,
            http=partial(LaneProtocol, lane=Lane(at.door)),  # type: ignore[arg-type]
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(config)
            running = asyncio.create_task(server._serve([listener]))
            while not server.started:  # noqa: ASYNC110 - uvicorn's own flag
                await asyncio.sleep(0.005)
            try:
                yield Served(at, listener.getsockname()[1], server, running, slow)
            finally:
                server.should_exit = True
                await running


def post(
    body: bytes, *more: str, token: str = TOKEN, line: str = f"POST {PATH} HTTP/1.1", length: bool = True
) -> bytes:
    """Write a webhook as a client sends it."""
    sized = [f"Content-Length: {len(body)}"] if length else []
    lines = [line, "Host: x", f"Authorization: Bearer {token}", *sized, *more, "", ""]
    return "\r\n".join(lines).encode() + body


def one(name: str) -> bytes:
    return webhook([told(alert(name))])


def names(served: Served) -> list[str]:
    return [change.name for change in served.at.changes]


GET = b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_whole_webhook_takes_the_lane_and_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        for name in "AB":
            ((status, headers, body),) = await here.talk(post(one(name)))
            assert (status, body) == (200, b"")
            assert set(headers) == {"date", "content-length"}
        assert await here.at.firing() == {alert("A").fingerprint, alert("B").fingerprint}
        assert here.slow == []
        assert here.at.door._held == 0


async def test_what_is_pipelined_is_answered_in_its_order_whoever_answers_it(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        sent = post(one("A")) + GET + post(one("B")) + post(b"{}") + post(one("C")) + GET + post(one("D"))
        got = await here.talk(sent, answers=7)
        assert [status for status, _, _ in got] == [200, 404, 200, 400, 200, 404, 200]
        assert names(here) == ["A", "B", "C", "D"]
        assert here.at.door._held == 0


async def test_two_hundred_webhooks_in_one_piece_are_all_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        got = await here.talk(b"".join(post(one(f"A{i}")) for i in range(200)), answers=200)
        assert {status for status, _, _ in got} == {200}
        assert names(here) == [f"A{i}" for i in range(200)]


@pytest.mark.parametrize("at", [1, 20, 60, -600, -1])
async def test_what_comes_in_two_pieces_is_taken_too(tmp_path: Path, at: int) -> None:
    async with served(tmp_path) as here:
        sent = post(one("A"))
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("first")))
        assert (await answer(reader))[0] == 200
        writer.write(sent[:at])
        await asyncio.sleep(0.02)  # So that they are two for the server, too; it is right if they are not.
        writer.write(sent[at:] + post(one("last")))
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
        assert names(here) == ["first", "A", "last"]
        await hang_up(writer)


CHUNKED = post(b"", "Transfer-Encoding: chunked", length=False) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(one("A")), one("A"))


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED,
        post(one("A"), line=f"POST {PATH}?a=b HTTP/1.1"),
        post(one("A"), line=f"POST {PATH} HTTP/1.0"),
        post(one("A"), "Connection: close"),
        post(one("A"), "Connection: keep-alive"),
        post(one("A"), *(f"X-{i}: {'x' * 200}" for i in range(20))),
    ],
)
async def test_what_is_out_of_the_ordinary_goes_the_old_way_and_is_taken(tmp_path: Path, sent: bytes) -> None:
    async with served(tmp_path) as here:
        ((status, _, _),) = await here.talk(sent)
        assert status == 200
        assert names(here) == ["A"]


async def test_who_expects_to_be_told_to_go_on_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        sent = post(one("A"), "Expect: 100-continue")
        start = len(sent) - len(one("A"))
        writer.write(sent[:start])
        assert (await answer(reader))[0] == 100
        writer.write(sent[start:])
        assert (await answer(reader))[0] == 200
        assert here.slow == [PATH]
        await hang_up(writer)


async def test_after_an_upgrade_was_asked_for_nothing_is_taken_for_a_webhook(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await answer(reader))[0] == 404
        writer.write(post(one("A")))
        with suppress(TimeoutError, asyncio.IncompleteReadError):
            await answer(reader)
        assert names(here) == ([] if here.slow == ["/x"] else ["A"])
        await hang_up(writer)


@pytest.mark.parametrize(
    "more",
    [
        ("Content-Length: 3",), ("Transfer-Encoding: chunked",), ("Content-Length : 3",), ("X\0Y: 1",), (" folded",),
    ],
)  # fmt: skip
async def test_a_head_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    async with served(tmp_path) as here:
        ((status, _, _),) = await here.talk(post(one("A"), *more))
        assert status == 400
        assert names(here) == []


async def test_a_head_that_is_known_lets_nobody_else_in(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        sent = post(one("A")) + post(one("B"), token="wrong" + TOKEN[5:])
        got = await here.talk(sent, answers=2)
        assert [status for status, _, _ in got] == [200, 401]
        assert names(here) == ["A"]
        assert here.at.count("controlplane_webhooks_refused_total", reason="token") == 1


async def test_only_heads_with_the_files_token_are_remembered_and_not_without_end(at_door: IntakeDoor) -> None:
    known = Lane(at_door)
    assert known.length(post(b"", token="wrong").replace(b"Length: 0", b"Length: 7")) == -1
    assert known._heads == {}
    for i in range(HEADS_KNOWN + 5):
        assert known.length(post(b"").replace(b"Length: 0", f"Length: {i + 1}".encode())) == i + 1
    assert len(known._heads) == 5


@pytest.mark.parametrize("length", ["0", "-1", "+5", "5000001", "99999999999999999999", "1_0", "0x5"])
async def test_a_length_out_of_bounds_is_not_for_the_lane(at_door: IntakeDoor, length: str) -> None:
    assert Lane(at_door).length(post(b"").replace(b"Length: 0", f"Length: {length}".encode())) == -1


@pytest.fixture
def at_door() -> IntakeDoor:
    async def take(_: object) -> None:
        raise AssertionError

    async def of_token(_: str) -> None:
        return None

    def put(*_: object) -> None:
        raise AssertionError

    return IntakeDoor(not_found, DoorPorts(take, put, WebhookCheck(TOKEN, of_token), Metrics().webhooks_refused))


async def test_what_cannot_be_read_is_a_problem_and_the_connection_stays(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        refused, taken = await here.talk(post(b"nonsense") + post(one("A")), answers=2)
        assert (refused[0], taken[0]) == (400, 200)
        assert refused[1]["content-type"] == "application/problem+json"
        assert refused[1]["x-content-type-options"] == "nosniff"
        assert json.loads(refused[2])["status"] == 400
        assert here.at.count("controlplane_webhooks_refused_total", reason="unreadable") == 1
        assert here.slow == []


async def test_more_than_is_held_at_once_is_asked_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as here:
        monkeypatch.setattr(intake, "HELD_AT_MOST", 10)
        ((status, headers, _),) = await here.talk(post(one("A")))
        assert (status, headers["retry-after"]) == (503, "5")
        assert here.at.door._held == 0


# -- while the commit is under way -------------------------------------------------------------------------------------


@dataclass
class SlowBook(Slow):
    """A store that commits when it is let, and then really."""

    kept: list[str] = field(default_factory=list)

    async def keep_next(self, gather: Callable[[], tuple[tuple[Alert, ...], object]]) -> tuple[Change, ...]:
        async with self.turn:
            found, _ = gather()
            if found:
                await self.let.wait()
                if self.error:
                    raise self.error
                self.kept += [each.name for each in found]
        return ()


async def waits(here: Served) -> None:
    await settled(lambda: here.at.door._held > 0)


async def test_what_waits_for_its_commit_is_not_idle(tmp_path: Path) -> None:
    book = SlowBook()
    async with served(tmp_path, book, keep_alive_s=0) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        book.let.set()
        writer.write(post(one("A")))
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""  # Idle, and closed.
        await hang_up(writer)
        book.let.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("B")))
        await waits(here)
        await asyncio.sleep(0.05)
        book.let.set()
        assert (await answer(reader))[0] == 200
        await hang_up(writer)


async def test_who_goes_away_meanwhile_harms_nobody(tmp_path: Path) -> None:
    book = SlowBook()
    async with served(tmp_path, book) as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("A")) + post(one("never")))
        await waits(here)
        await hang_up(writer)
        await settled(lambda: not here.server.server_state.connections)
        book.let.set()
        await settled(lambda: here.at.door._held == 0)
        ((status, _, _),) = await here.talk(post(one("B")))
        assert status == 200
        assert book.kept == ["A", "B"]


async def test_a_store_that_refuses_is_503_and_the_connection_stays(tmp_path: Path) -> None:
    book = SlowBook(error=StoreError("the database refuses", "locked", "stop the other"))
    book.let.set()
    async with served(tmp_path, book) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("A")))
        status, headers, _ = await answer(reader)
        assert (status, headers["retry-after"]) == (503, "5")
        book.error = None
        writer.write(post(one("A")))
        assert (await answer(reader))[0] == 200
        await hang_up(writer)


async def test_a_stop_waits_for_the_commit_and_says_that_it_was_the_last(tmp_path: Path) -> None:
    book = SlowBook()
    async with served(tmp_path, book) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("A")) + post(one("late")))
        await waits(here)
        here.server.should_exit = True
        await settled(lambda: any(each._last for each in here.server.server_state.connections))  # type: ignore[union-attr]
        book.let.set()
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""
        assert book.kept == ["A"]
        await here.running
        await hang_up(writer)


async def test_a_stop_that_finds_the_store_hanging_acknowledges_nothing(tmp_path: Path) -> None:
    book = SlowBook()
    got = b"not yet"
    async with served(tmp_path, book) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(post(one("A")))
        await waits(here)
        here.server.should_exit = True
        await here.running
    with suppress(ConnectionError):
        got = await reader.readline()
    assert not got.startswith(b"HTTP/1.1 200")
    assert book.kept == []
    await hang_up(writer)


def test_the_line_of_the_lane_is_the_line_of_the_door() -> None:
    assert f"POST {intake.PATH} HTTP/1.1\r\n".encode() == lane._LINE
