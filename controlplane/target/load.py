"""An open-loop load generator: requests leave at their intended times, however slow the answers are.

Latency counts from the intended time, so a stalled server cannot hide its stall (no coordinated omission). One
JSON line per request is the record; ``report`` turns the lines into a summary, printed and written beside the record.
"""

import asyncio
import json
import math
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TextIO

import aiohttp
import uvloop

from controlplane.target.errors import TargetError
from controlplane.target.prompts import LENGTHS, Prompts
from controlplane.target.report import print_summary, summary_file, write_summary
from controlplane.target.rundir import writing
from controlplane.target.spec import LoadSpec

LEAD_S = 0.05
"""Time between the start and the first possible arrival."""


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to one request; times in unix seconds."""

    intended: float
    sent: float
    done: float
    latency_s: float
    """From ``intended`` to ``done``."""
    status: int
    """HTTP status; 0 is no answer."""
    served_by: str | None
    level: str | None
    error: str | None
    ttft_s: float | None = None
    """From ``intended`` to the first byte of a streamed answer."""
    cache: str | None = None
    """What ``x-cache`` said."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Unix time that does not jump: the wall clock at the start, then the monotonic one."""

    wall: float
    mono: float

    def unix(self) -> float:
        """Return the time now, in unix seconds."""
        return self.wall + time.monotonic() - self.mono


def arrivals(spec: LoadSpec, rng: random.Random) -> Iterator[float]:
    """Yield arrival times in seconds from the start, until ``spec.duration_s``."""
    at = 0.0
    while spec.duration_s is None or at < spec.duration_s:
        yield at
        at += rng.expovariate(spec.rate_per_s) if spec.arrivals == "poisson" else 1.0 / spec.rate_per_s


def run_load(spec: LoadSpec) -> int:
    """Drive load until the duration is over or SIGINT or SIGTERM comes, then print a summary.

    Returns:
        The process's exit code: 0 (failed requests are a finding, not a failure of the generator).

    Raises:
        TargetError: when a setting makes no sense or the record cannot be written.
    """
    _check(spec)
    with writing(spec.out):
        spec.out.parent.mkdir(parents=True, exist_ok=True)
        out = spec.out.open("a", encoding="utf-8", buffering=1)
    with out:
        records = uvloop.run(_drive(spec, out))
    write_summary(summary_file(spec.out), records)
    if not spec.quiet:
        print_summary(records)
    return 0


def _check(spec: LoadSpec) -> None:
    if spec.arrivals not in {"poisson", "constant"}:
        raise TargetError(f"unknown arrivals {spec.arrivals!r}", "there are two kinds", "Choose poisson or constant.")
    if not 0 < spec.rate_per_s < math.inf:
        raise TargetError(
            f"cannot send {spec.rate_per_s} requests per second", "the rate must be above 0", "Choose another rate."
        )
    if spec.lengths not in LENGTHS:
        raise TargetError(
            f"unknown prompt lengths {spec.lengths!r}", "there is no such distribution",
            f"Choose one of {', '.join(LENGTHS)}.",
        )  # fmt: skip
    if not 1 <= spec.prompt_bytes[0] <= spec.prompt_bytes[1]:
        raise TargetError(
            f"prompt lengths {spec.prompt_bytes} make no range", "the first is the shortest", "Swap them."
        )


async def _drive(spec: LoadSpec, out: TextIO) -> list[Record]:
    """Send every request at its time; the last ones get ``spec.timeout_s`` to be answered."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    records: list[Record] = []
    rng = random.Random(spec.seed)  # noqa: S311 - a repeatable load, not a secret
    clock = Clock(time.time(), time.monotonic())
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(spec.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        asyncio.TaskGroup() as group,
    ):
        sender = Sender(spec, session, clock, out, records)
        low, high = spec.prompt_bytes
        prompts = Prompts(spec.lengths, low, high, spec.prompts, spec.seed)
        for offset in arrivals(spec, rng):
            intended = clock.wall + LEAD_S + offset
            if await _stopped_before(stop, intended - clock.unix()):
                break
            group.create_task(sender.send(intended, prompts.draw()))
    return records


async def _stopped_before(stop: asyncio.Event, seconds: float) -> bool:
    """Wait until a send is due; return whether the load was stopped meanwhile."""
    if seconds > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
    return stop.is_set()


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends one request and records what became of it."""

    spec: LoadSpec
    session: aiohttp.ClientSession
    clock: Clock
    out: TextIO
    records: list[Record]

    async def send(self, intended: float, text: str) -> None:
        """Send one completion; a failure is a record too."""
        sent = self.clock.unix()
        seen = _Seen()
        await self._ask(text, seen)
        done = self.clock.unix()
        record = Record(
            intended,
            sent,
            done,
            done - intended,
            seen.status,
            seen.served_by,
            seen.level,
            seen.error,
            None if seen.first is None else seen.first - intended,
            seen.cache,
        )
        self.records.append(record)
        self.out.write(json.dumps(asdict(record)) + "\n")

    async def _ask(self, text: str, seen: "_Seen") -> None:
        spec = self.spec
        asked = {"messages": [{"role": "user", "content": text}]} if spec.chat else {"prompt": text}
        body = {"model": spec.model, "max_tokens": spec.max_tokens, "temperature": 0, "stream": spec.stream, **asked}
        path = "/v1/chat/completions" if spec.chat else "/v1/completions"
        try:
            async with asyncio.timeout(spec.timeout_s), self.session.post(path, json=body) as answer:
                content = bytearray()
                async for part in answer.content.iter_any():
                    if spec.stream and seen.first is None:
                        seen.first = self.clock.unix()
                    content += part
                seen.status, seen.cache = answer.status, answer.headers.get("x-cache")
                seen.served_by = answer.headers.get("x-served-by")
                seen.level = answer.headers.get("x-degradation-level")
                seen.error = _complaint(answer.status, bytes(content), stream=spec.stream)
        except TimeoutError:
            seen.error = f"no answer within {spec.timeout_s} s"
        except (aiohttp.ClientError, OSError) as error:
            seen.error = f"{type(error).__name__}: {error}"


@dataclass(slots=True)
class _Seen:
    """What is known of an answer so far; a request without a whole answer keeps status 0."""

    status: int = 0
    served_by: str | None = None
    level: str | None = None
    error: str | None = None
    first: float | None = None
    """Unix seconds of the first byte of a stream."""
    cache: str | None = None


def _complaint(status: int, content: bytes, *, stream: bool) -> str | None:
    """Say what is wrong with an answer: an error status, or a stream that was cut."""
    if status >= 400:
        return content[:200].decode(errors="replace")
    if stream and not content.endswith(b"data: [DONE]\n\n"):
        return "the stream ended early"
    return None
