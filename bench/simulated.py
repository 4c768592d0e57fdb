"""Thousands of endpoints in one process: it answers for every address 127.x.y.z, on one port.

`python -m bench.simulated CPU` prints its port and serves until its standard input ends. `/health` and `/metrics`
(about 100 series, 5 histograms, vLLM's names) come from memory, so that it costs less than whoever asks.
"""

import asyncio
import os
import sys
from time import monotonic
from typing import cast

import uvloop

EDGES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
HISTOGRAMS = (
    "vllm:e2e_request_latency_seconds",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
)
_LABELS = 'engine="0",model_name="full"'
RENDER_S = 0.25


def address(index: int) -> str:
    """Return the address of the n-th endpoint."""
    return f"127.{1 + index // 62500}.{1 + index // 250 % 250}.{1 + index % 250}"


def page(seconds: float) -> bytes:
    """Render a page as it is so many seconds after the start: 20 requests a second, a P99 of about 0.9 s."""
    requests = round(seconds * 20)
    lines = []
    for name in HISTOGRAMS:
        lines += [f"# HELP {name} A histogram.", f"# TYPE {name} histogram"]
        shares = [min(1.0, (edge / 0.95) ** 0.5) for edge in EDGES]
        lines += [
            f'{name}_bucket{{{_LABELS},le="{edge}"}} {int(requests * share)}.0'
            for edge, share in zip(EDGES, shares, strict=True)
        ]
        lines += [f'{name}_bucket{{{_LABELS},le="+Inf"}} {requests}.0', f"{name}_count{{{_LABELS}}} {requests}.0"]
        lines.append(f"{name}_sum{{{_LABELS}}} {requests * 0.31!r}")
    lines += ["# TYPE http_requests_total counter"]
    lines += [f'http_requests_total{{handler="/v1/completions",status="2xx"}} {requests}.0']
    lines += ['http_requests_total{handler="/v1/completions",status="5xx"} 0.0']
    lines += [f"vllm:generation_tokens_total{{{_LABELS}}} {requests * 64}.0"]
    lines += [f"vllm:num_requests_running{{{_LABELS}}} 6.0", f"vllm:num_requests_waiting{{{_LABELS}}} 1.0"]
    lines += [f"vllm:kv_cache_usage_perc{{{_LABELS}}} 0.41"]
    lines += [f"vllm:filler_{i}_total{{{_LABELS}}} {requests + i}.0" for i in range(4)]
    return ("\n".join(lines) + "\n").encode()


def written(body: bytes) -> bytes:
    """Return a whole answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Answers:
    """What is answered now."""

    health = written(b'{"status":"ok"}')
    metrics = b""
    given = 0


class Endpoint(asyncio.Protocol):
    """One connection; requests come whole, one at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection from this machine; cut any other."""
        self._transport = cast("asyncio.Transport", transport)
        if not transport.get_extra_info("peername")[0].startswith("127."):
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer a request."""
        if data.startswith(b"GET /metrics"):
            answer = Answers.metrics
        elif data.startswith(b"GET /answered"):
            answer = written(b"%d" % Answers.given)
        else:
            Answers.given += 1
            answer = Answers.health
        self._transport.write(answer)
        if b"HTTP/1.0" in data:
            self._transport.close()


async def serve() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    began = monotonic() - 1000
    Answers.metrics = written(page(1000))
    server = await loop.create_server(Endpoint, "0.0.0.0", 0, backlog=4096)  # noqa: S104 - every 127.x.y.z; others are cut
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.run_in_executor(None, sys.stdin.read)
    while not ended.done():
        await asyncio.sleep(RENDER_S)
        Answers.metrics = written(page(monotonic() - began))
    server.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(serve())
