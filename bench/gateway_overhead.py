"""What the gateway, and the link in front of every endpoint, add to one request: with it and without it, in turns.

One client on one kept connection each way asks for the endpoint's list of models, which costs next to nothing. Every
round asks the endpoint itself, its link, and the gateway, in changing order; a difference is between medians of the
same run.
"""

import itertools
import json
import socket
import time
from statistics import median
from urllib.parse import urlsplit

from bench.figures import Figure
from bench.target.fleet import fleet

COMMAND = "make bench ONLY=gateway-overhead"
POOLS = '{"pools": {"primary": PoolSpec(1, "base")}}'
REQUEST = b"GET /v1/models HTTP/1.1\r\nhost: bench\r\n\r\n"
WARM_UP = 200
ROUNDS = 3000
GATEWAY_GOAL_MS = 1.0
LINK_GOAL_MS = 0.3


def run() -> list[Figure]:
    """Measure all three ways."""
    with fleet(POOLS) as (run_dir, ready):
        node = json.loads((run_dir / "nodes" / "node-primary-0.json").read_text())
        ways = {"direct": node["backend_url"], "link": node["url"], "gateway": ready["gateway"]}
        seconds = measure(ways)
    direct, link, gateway = (1000 * median(seconds[name]) for name in ("direct", "link", "gateway"))
    return [
        _added("gateway overhead, p50 at one request at a time", gateway - link, GATEWAY_GOAL_MS, gateway, link),
        _added("link relay overhead, p50 at one request at a time", link - direct, LINK_GOAL_MS, link, direct),
    ]


def measure(ways: dict[str, str]) -> dict[str, list[float]]:
    """Ask each way in turn; return the seconds of each request."""
    connections = {name: _dial(url) for name, url in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # Who follows whom changes: a request finds caches and clock as the one before has left them.
    turns = list(itertools.permutations(ways))
    for number in range(WARM_UP + ROUNDS):
        for name in turns[number % len(turns)]:
            took = _ask(connections[name])
            if number >= WARM_UP:
                seconds[name].append(took)
    for connection in connections.values():
        connection.close()
    return seconds


def _dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.sendall(REQUEST)
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    if b" 200 " not in head:
        raise SystemExit(f"unexpected answer: {head!r}")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return time.perf_counter() - began


def _added(name: str, added_ms: float, goal_ms: float, with_ms: float, without_ms: float) -> Figure:
    return Figure(
        name, round(added_ms, 4), "ms", ROUNDS, COMMAND, f"< {goal_ms:g} ms", added_ms < goal_ms, "without",
        round(without_ms, 4), round(with_ms / without_ms, 3),
    )  # fmt: skip
