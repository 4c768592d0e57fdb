"""Posting alerts as fast as they are taken, or at a rate: the same loader for Alertmanager and for us.

`python -m bench.poster FORM PORT ALERTS BATCH CONNECTIONS [RATE]` makes every request first, so that its own time is
little of what is measured, posts them over connections that stay open, and prints one line of JSON: alerts that were
acknowledged, what else was answered, seconds, and quantiles of the time to the acknowledgement. FORM is `v2`
(Alertmanager's API) or `webhook` (its payload). Every alert is another one.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import cast

import uvloop

TOKEN = "bench-token"  # noqa: S105 - of a server that lives for seconds
_63_BITS, _NEVER = (1 << 63) - 1, "0001-01-01T00:00:00Z"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_LABELS = (
    '"labels":{"alertname":"LLMHighLatency","severity":"critical","cluster":"c%d","instance":"10.0.0.%d:8000",'
    '"model":"qwen-72b","id":"%s-%d"},"annotations":{"summary":"P99 TTFT above 2s for cluster",'
    '"runbook_url":"http://127.0.0.1/runbook"},"startsAt":"%s","generatorURL":"http://127.0.0.1:9090/graph"'
)


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of one burst."""

    acked: int
    """Alerts whose request was answered 200."""
    refused: int
    """Requests that were answered otherwise."""
    seconds: float
    p50_s: float
    p99_s: float

    @property
    def per_s(self) -> float:
        """Acknowledged alerts a second."""
        return self.acked / self.seconds


def requests(form: str, port: int, alerts: int, batch: int, run: str) -> list[bytes]:
    """Make every request of a burst."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    made = []
    for first in range(0, alerts, batch):
        told = (_LABELS % (i % 50, i % 250, run, i, now) for i in range(first, min(first + batch, alerts)))
        if form == "v2":
            path, body = "/api/v2/alerts", "[" + ",".join("{" + one + "}" for one in told) + "]"
        else:
            path = "/hooks/alertmanager"
            each = ",".join(
                f'{{"status":"firing","endsAt":"{_NEVER}","fingerprint":"{hash((run, i)) & _63_BITS:016x}",{one}}}'
                for i, one in enumerate(told, first)
            )
            body = (
                '{"version":"4","groupKey":"{}","truncatedAlerts":0,"status":"firing","receiver":"hook","groupLabels":{},'
                '"commonLabels":{},"commonAnnotations":{},"externalURL":"http://127.0.0.1:9093","alerts":['
                + each
                + "]}"
            )
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append((head + body).encode())
    return made


class _Line(asyncio.Protocol):
    """One connection with one request under way at most."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[int] | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """Send a request; the future is its status."""
        self._got = b""
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, rest = self._got.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(rest) >= (int(length[1]) if length else 0) and self.answered and not self.answered.done():
            self.answered.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.answered and not self.answered.done():
            self.answered.set_result(0)


async def post(port: int, made: list[bytes], alerts: int, batch: int, connections: int, rate: float) -> Posted:
    """Post every request: as fast as they are taken where the rate is 0, else so many a second, taken or not."""
    loop = asyncio.get_running_loop()
    lines = [(await loop.create_connection(_Line, "127.0.0.1", port))[1] for _ in range(connections)]
    took, acked, refused, following = [], 0, 0, iter(range(len(made)))
    began = time.perf_counter()

    async def work(line: _Line) -> None:
        nonlocal acked, refused
        for i in following:
            due = began + i / rate if rate else time.perf_counter()
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            status = await line.ask(made[i])
            took.append(time.perf_counter() - due)
            if status == 200:
                acked += min(batch, alerts - i * batch)
            else:
                refused += 1

    await asyncio.gather(*map(work, lines))
    seconds = time.perf_counter() - began
    for line in lines:
        line.transport.close()
    took.sort()
    return Posted(acked, refused, seconds, took[len(took) // 2], took[int(len(took) * 0.99)])


def poster(form: str, port: int, alerts: int, batch: int, connections: int, rate: float = 0.0) -> Posted:
    """Post from a process of its own."""
    words = [form, port, alerts, batch, connections, rate]
    command = [sys.executable, "-m", "bench.poster", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    return Posted(**json.loads(done.stdout))


def main() -> None:
    """Post as the command line says."""
    form, port, alerts, batch, connections = sys.argv[1], *map(int, sys.argv[2:6])
    made = requests(form, port, alerts, batch, f"{time.time_ns():x}")
    done = uvloop.run(post(port, made, alerts, batch, connections, float(sys.argv[6])))
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
