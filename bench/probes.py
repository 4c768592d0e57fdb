"""What a health check costs, against the active checkers of HAProxy, Envoy and Prometheus' blackbox_exporter.

Everyone checks `/health` of the same simulated endpoints (127.x.y.z, one process on the other core), one core each,
interleaved in three rounds. Ours is the whole path: pace, wire, time-out, look, window, verdict pass every 0.5 s.
HAProxy's checks open a connection each (it has no other); Envoy's and ours keep theirs. A peer that is not installed
is left out, aloud. The bare loop is the limit that is left: the same writes and reads with nothing done about them.
Then: how soon a killed endpoint is known to be dead, and a hanging one to hang.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from bench.bare import bare
from bench.deaths import deaths, hangs
from bench.figures import Figure
from bench.prober import probed, simulated
from bench.simulated import address

COMMAND = "make bench ONLY=probes"
ROUNDS = 3
PEER_TARGETS = 4_000
PEER_EVERY_S = 2
SETTLE_S, MEASURE_S = 8, 6
BLACKBOX_CHECKS = 1_500


def run() -> list[Figure]:
    """Measure ours and every peer that is there."""
    peers: dict[str, Callable[[int], float | None]] = {"HAProxy": _haproxy, "Envoy": _envoy, "blackbox": _blackbox}
    costs: dict[str, list[float]] = {name: [] for name in peers}
    paced: list[dict[str, float]] = []
    floor: list[float] = []
    with simulated() as port:
        plan = {"port": port, "http_s": 1, "cpu": 0, "warm_s": 12, "seconds": 6, "endpoints": 10_000}
        for _ in range(ROUNDS):
            paced.append(probed(plan))
            floor.append(bare(port))
            for name, measure in peers.items():
                cost = measure(port)
                if cost is None:
                    print(f"NOT INSTALLED: {name} - left out", file=sys.stderr)
                else:
                    costs[name].append(cost)
    ours = statistics.median(p["us_a_look"] for p in paced) / 1e3
    share = statistics.median(p["cpu_share"] for p in paced) * 100
    figures = [
        Figure("10,000 checks/s, share of one core", round(share, 1), "%", ROUNDS, COMMAND, "< 30 %", share < 30),
        Figure("checks a second that were made", round(statistics.median(p["looks"] / 6 for p in paced)), "/s", ROUNDS,
               COMMAND),
    ]  # fmt: skip
    least = statistics.median(floor)
    figures.append(
        Figure("CPU per 1,000 checks, against the bare loop", round(ours, 4), "s", ROUNDS, COMMAND, "", None,
               "a write and a read on uvloop", round(least, 4), ours / least)
    )  # fmt: skip
    goals = {"HAProxy": 0.5, "Envoy": 0.5, "blackbox": 1 / 15}
    for name, found in costs.items():
        if found:
            peer = statistics.median(found)
            goal = f"<= {goals[name]:.2f} of the peer's"
            figures.append(
                Figure(f"CPU per 1,000 checks, against {name}", round(ours, 4), "s", ROUNDS, COMMAND, goal,
                       ours <= goals[name] * peer, name, round(peer, 4), ours / peer)
            )  # fmt: skip
    return [*figures, *deaths(COMMAND), *hangs(COMMAND)]


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _steady(port: int, command: list[str]) -> float:
    """Run a checker on core 0 and return its CPU seconds per 1,000 checks that arrived."""
    with subprocess.Popen(
        ["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            time.sleep(SETTLE_S)
            cpu, checks = _cpu_s(child.pid), _answered(port)
            time.sleep(MEASURE_S)
            cpu, checks = _cpu_s(child.pid) - cpu, _answered(port) - checks
        finally:
            child.kill()
    if checks < PEER_TARGETS / PEER_EVERY_S * MEASURE_S / 2:
        raise SystemExit(f"{command[0]} made only {checks} checks")
    return cpu / checks * 1e3


def _answered(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/answered", timeout=5) as answer:
        return int(answer.read())


def _haproxy(port: int) -> float | None:
    if not (binary := shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")):
        return None
    servers = "\n".join(f"  server s{i} {address(i)}:{port} check inter {PEER_EVERY_S}s" for i in range(PEER_TARGETS))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "haproxy.cfg"
        page.write_text(
            "global\n  nbthread 1\n  maxconn 1000\n  spread-checks 50\ndefaults\n  mode http\n  timeout connect 1s\n"
            "  timeout client 5s\n  timeout server 5s\n  timeout check 1s\nfrontend f\n"
            f"  bind 127.0.0.1:{_free_port()}\n  default_backend b\nbackend b\n  option httpchk GET /health\n"
            f"{servers}\n"
        )
        return _steady(port, [binary, "-f", str(page), "-db"])


def _envoy(port: int) -> float | None:
    binary = next(Path(sys.prefix).glob("lib/python*/site-packages/envoy/_bin/envoy"), None)
    if binary is None:
        return None
    check = {
        "timeout": "1s", "interval": f"{PEER_EVERY_S}s", "no_traffic_interval": f"{PEER_EVERY_S}s",
        "no_traffic_healthy_interval": f"{PEER_EVERY_S}s", "unhealthy_threshold": 2, "healthy_threshold": 1,
        "reuse_connection": True, "initial_jitter": f"{PEER_EVERY_S}s", "http_health_check": {"path": "/health"},
    }  # fmt: skip
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": address(i), "port_value": port}}}}
        for i in range(PEER_TARGETS)
    ]
    cluster = {
        "name": "c", "type": "STATIC", "connect_timeout": "1s", "health_checks": [check],
        "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": hosts}]},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "envoy.json"
        page.write_text(json.dumps({"static_resources": {"clusters": [cluster]}}))
        arguments = ["-c", str(page), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        return _steady(port, [str(binary), *arguments])


def _blackbox(port: int) -> float | None:
    """Have it check 100 endpoints over and over, asked by a few threads on the other core."""
    if not (binary := shutil.which("prometheus-blackbox-exporter")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        page, listen = Path(folder) / "blackbox.yml", f"127.0.0.1:{_free_port()}"
        page.write_text("modules: { http_2xx: { prober: http, timeout: 5s, http: { preferred_ip_protocol: ip4 } } }\n")
        arguments = [f"--config.file={page}", f"--web.listen-address={listen}", "--log.level=error"]
        environment = os.environ | {"GOMAXPROCS": "1"}
        command = ["taskset", "-c", "0", binary, *arguments]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as child:
            try:
                _wait_for(f"http://{listen}/-/healthy")
                cpu = _cpu_s(child.pid)
                urls = [
                    f"http://{listen}/probe?module=http_2xx&target=http://{address(i % 100)}:{port}/health"
                    for i in range(BLACKBOX_CHECKS)
                ]
                with ThreadPoolExecutor(8) as pool:
                    succeeded = sum(b"probe_success 1" in body for body in pool.map(_get, urls))
                cpu = _cpu_s(child.pid) - cpu
            finally:
                child.kill()
    if succeeded != BLACKBOX_CHECKS:
        raise SystemExit(f"blackbox: {succeeded} of {BLACKBOX_CHECKS} checks succeeded")
    return cpu / BLACKBOX_CHECKS * 1e3


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - always http://127.x.y.z
        body: bytes = answer.read()
        return body


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            _get(url)
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"no answer: {url}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
