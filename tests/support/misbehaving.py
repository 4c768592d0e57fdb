"""A small HTTP server whose paths misbehave, each in its own way; on 127.0.0.1 only, closed when the test ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PAGES = Path(__file__).parent.parent / "pages"
GOOD = (PAGES / "vllm-0.32.0-cpu-underload.prom").read_bytes()
LINE = b'vllm:num_requests_running{engine="0",model_name="m"} '

BAD = (
    "truncated", "cut", "huge", "encoding", "words", "duplicate", "endless", "redirect", "slow", "reset", "garbage",
    "empty", "status",
)  # fmt: skip
"""Paths whose answers no probe can use."""


@dataclass(slots=True)
class Server:
    """The server while it runs."""

    port: int = 0
    pages: dict[str, bytes] = field(default_factory=dict)
    """By path: what is answered with a 200, besides the paths below."""
    asked: list[str] = field(default_factory=list)
    """Every request line's target, in order."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _page(body: bytes, head: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


_WHOLE: Mapping[str, bytes] = {
    "good": _page(GOOD),
    "truncated": _page(GOOD[: len(GOOD) // 2].rpartition(b"\n")[0] + b"\nvllm:num_requests_runn"),
    "cut": _page(GOOD)[: len(GOOD) // 2],
    "encoding": _page(GOOD + b'vllm:num_requests_running{engine="0",model_name="\xff\xfe"} 1\n'),
    "words": _page(GOOD + LINE + b"many\n"),
    "duplicate": _page(GOOD + GOOD),
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01 this is no HTTP\r\n\r\n",
    "empty": _page(b""),
    "status": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",
    "nan": _page(LINE + b"NaN\nvllm:kv_cache_usage_perc 0.25\nvllm:num_requests_waiting +Inf\n"),
}


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10\r\n# nothing here \n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


async def _huge(writer: asyncio.StreamWriter) -> None:
    block = b"# a page of a hundred megabytes\n" * 32_768
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {100 * len(block)}\r\n\r\n".encode())
    for _ in range(100):
        writer.write(block)
        await writer.drain()


async def _slow(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


_RUNNING: Mapping[str, Callable[[asyncio.StreamWriter], object]] = {"endless": _endless, "huge": _huge, "slow": _slow}


@asynccontextmanager
async def misbehaving() -> AsyncIterator[Server]:
    """Run the server."""
    server, tasks = Server(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ")[1].decode()
                server.asked.append(target)
                if not await _answer(server, target, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, IndexError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = running.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        running.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(server: Server, target: str, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; False ends the connection."""
    path = target.partition("?")[0]
    name = path.strip("/").split("/")[0]
    if path in server.pages:
        writer.write(_page(server.pages[path]))
        return True
    if name == "redirect":
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n".encode())
        return True
    if name == "reset":
        writer.transport.abort()
        return False
    if name in _RUNNING:
        await _RUNNING[name](writer)  # type: ignore[misc]
        return False
    writer.write(_WHOLE.get(name, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    await writer.drain()
    return name in _WHOLE and name not in ("cut", "garbage")


def vector(*series: tuple[Mapping[str, str], float], **more: object) -> bytes:
    """Return an answer of Prometheus' query API."""
    result = [{"metric": dict(labels), "value": [1.0, str(value)]} for labels, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more}).encode()
