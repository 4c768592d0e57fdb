"""Looking at an endpoint from outside, as a client would: does it take a connection, does it answer, how soon."""

import asyncio
from contextlib import suppress
from enum import StrEnum
from time import monotonic
from urllib.parse import urlsplit

_TAKEN_UP_S = 0.2
"""How long our own loop may take, after it has stood still, to take up an answer that came meanwhile."""


class Door(StrEnum):
    """What became of a new connection."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"
    """Nothing came back."""


async def door(url: str, within_s: float = 0.5, source: str = "") -> Door:
    """Try to connect to an endpoint's address, from one of this machine's own where `source` names one.

    Silence is the endpoint's, never our own: a loop that stands still for as long as a knock may take finds its time
    over together with the answer.
    """
    async with asyncio.TaskGroup() as tasks:
        knocking = tasks.create_task(_knock(url, source))
        for patience_s in (within_s, _TAKEN_UP_S):
            await asyncio.wait({knocking}, timeout=patience_s)
        unanswered = knocking.cancel()
    return Door.SILENT if unanswered else knocking.result()


async def _knock(url: str, source: str) -> Door:
    address = urlsplit(url)
    here = (source, 0) if source else None
    try:
        _, writer = await asyncio.open_connection(address.hostname, address.port, local_addr=here)
    except TimeoutError:
        return Door.SILENT
    except OSError:
        return Door.REFUSED
    writer.close()
    return Door.OPEN


async def answer_s(url: str, path: str = "/health", within_s: float = 0.5) -> float | None:
    """Ask an endpoint on a new connection; return the seconds until it answered, or None when it did not in time."""
    began = monotonic()
    answered = await _status(url, f"GET {path} HTTP/1.1", b"", within_s)
    return monotonic() - began if answered else None


async def page(url: str, path: str, within_s: float) -> bytes:
    """Get a page on a new connection; return its body, empty when none came whole and in time."""
    address = urlsplit(url)
    head = f"GET {path} HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n\r\n"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head.encode())
            status, _, rest = (await reader.read(-1)).partition(b"\r\n")
    except (OSError, TimeoutError):
        return b""
    finally:
        if writer:
            writer.transport.abort()
    return rest.partition(b"\r\n\r\n")[2] if b" 200 " in status else b""


async def completion_status(url: str, body: bytes, within_s: float) -> int | None:
    """Ask for a completion; return the HTTP status, or None when none came in time."""
    return await _status(url, "POST /v1/completions HTTP/1.1", body, within_s)


async def _status(url: str, request_line: str, body: bytes, within_s: float) -> int | None:
    address = urlsplit(url)
    head = f"{request_line}\r\nhost: {address.netloc}\r\nconnection: close\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(f"{head}\r\n".encode() + body)
            await writer.drain()
            words = (await reader.readline()).split()
            return int(words[1]) if len(words) > 1 else None
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        if writer:
            with suppress(OSError):
                writer.transport.abort()
