"""The gateway under trouble: overload, too many requests, a client's deadline, a dead Envoy, a trace collector."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.support.fleets import complete, fleet, kill, metric, node, page
from tests.support.processes import gone, until

pytestmark = pytest.mark.journey
ONE = '{"primary": PoolSpec(1, "base")}'
TWO = '{"primary": PoolSpec(2, "base", failover=("standby",)), "standby": PoolSpec(1, "base")}'


def test_full_queues_are_refused_without_ejecting_a_host_or_asking_it_again(tmp_path: Path) -> None:
    # Nobody is tried elsewhere for waiting long: on a slow machine that would eject hosts, and ask them again.
    with fleet(tmp_path, pools=TWO, max_queue="1", gateway="GatewaySpec(hung_after_s=None)") as (_, ready):
        with ThreadPoolExecutor(150) as users:
            asked = [users.submit(complete, ready["gateway"], prompt=f"p{n}", max_tokens=200) for n in range(150)]
            answers = [one.result() for one in asked]
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 503}
        assert all(headers["retry-after"] == "1" for status, headers, _ in answers if status == 503)
        stats = page(f"{ready['admin']}/stats/prometheus")
        assert metric(stats, "outlier_detection_ejections_enforced_total") == 0
        tries = metric(stats, "envoy_cluster_upstream_rq_total", "-endpoints")
        assert tries <= 2 * len(answers) + 10
        assert {headers["x-served-by"] for status, headers, _ in answers if status == 200} == {
            "primary-0", "primary-1", "standby-0",
        }  # fmt: skip


def test_a_killed_endpoint_costs_nothing_and_is_ejected(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=TWO) as (_, ready), ThreadPoolExecutor(8) as users:
        asked = [users.submit(complete, ready["gateway"], prompt=f"p{n}", max_tokens=20) for n in range(200)]
        until(lambda: sum(one.done() for one in asked) > 40)
        kill(node(tmp_path, "primary-0"))
        assert {one.result()[0] for one in asked} == {200}


def test_too_many_requests_get_429_and_are_told_when_to_come_back(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=ONE, gateway="GatewaySpec(rate_per_s=2.0, burst=3)") as (_, ready):

        def refusal() -> dict[str, str]:
            status, headers, _ = complete(ready["gateway"], max_tokens=1)
            return headers if status == 429 else {}

        time.sleep(1.6)  # The bucket is full again, whatever the fleet's start took out of it.
        began = time.monotonic()
        statuses = [complete(ready["gateway"], max_tokens=1)[0] for _ in range(8)]
        took_s = time.monotonic() - began
        assert set(statuses) <= {200, 429}
        assert 3 <= statuses.count(200) <= 3 + 1 + 2 * took_s, "the burst, and what came back meanwhile"
        assert until(refusal)["retry-after"] == "1"
        time.sleep(1.1)
        assert complete(ready["gateway"], max_tokens=1)[0] == 200


def test_a_client_may_shorten_its_deadline(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=ONE, gateway="GatewaySpec(deadline_s=30.0)") as (_, ready):
        endpoint = node(tmp_path, "primary-0")
        os.kill(endpoint["pid"], signal.SIGSTOP)
        began = time.monotonic()
        status, _, _ = complete(ready["gateway"], {"x-envoy-upstream-rq-timeout-ms": "300"})
        assert status == 504
        assert time.monotonic() - began < 10.0
        os.kill(endpoint["pid"], signal.SIGCONT)


def test_endpoints_that_hang_with_their_connections_open_cost_no_request(tmp_path: Path) -> None:
    """Every endpoint of the pool is stopped under load; each client waits ten seconds at most."""
    with fleet(tmp_path, pools=TWO) as (_, ready), ThreadPoolExecutor(40) as users:

        def one(number: int) -> tuple[int, str]:
            status, headers, _ = complete(ready["gateway"], prompt=f"p{number}", max_tokens=8)
            return status, headers.get("x-served-by", "")

        asked = [users.submit(one, number) for number in range(40)]
        until(lambda: sum(each.done() for each in asked) > 20)
        stopped = [node(tmp_path, f"primary-{n}")["pid"] for n in range(2)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        asked += [users.submit(one, number) for number in range(40, 300)]
        answers = [each.result() for each in asked]
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert {status for status, _ in answers} == {200}
    assert {by for _, by in answers[-100:]} <= {"standby-0", "primary-0", "primary-1"}
    assert sum(by == "standby-0" for _, by in answers) > 200


def test_envoys_addresses_survive_its_death(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=ONE) as (process, ready):
        (envoy,) = [child for child in psutil.Process(process.pid).children() if "envoy" in child.name()]
        admin = (tmp_path / "gateway" / "admin").read_text()
        envoy.kill()
        until(lambda: gone(envoy))

        def back() -> bool:
            try:
                return complete(ready["gateway"], max_tokens=1)[0] == 200
            except OSError:
                return False

        until(back)
        assert (tmp_path / "gateway" / "admin").read_text() == admin
        assert ready["admin"] == f"http://{admin.strip()}"
        assert "LIVE" in page(f"{ready['admin']}/server_info")


def test_the_access_log_says_who_answered_and_how_often_it_was_tried(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=ONE) as (_, ready):
        complete(ready["gateway"], {"x-request-id": "find-me"}, max_tokens=1)
        log = tmp_path / "logs" / "access.log"

        def line() -> str:
            return next((text for text in log.read_text().splitlines() if "find-me" in text), "")

        entry = json.loads(until(line, 15.0))
        assert (entry["status"], entry["served_by"], entry["attempts"], entry["level"]) == (200, "primary-0", 1, "none")


def test_spans_reach_the_collector_when_there_is_one(tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.unchunked()))
            self.send_response(200)
            self.end_headers()

        def unchunked(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            return content

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_address[1]}"
        with fleet(tmp_path, pools=ONE, gateway=f'GatewaySpec(otlp_url="{url}")') as (_, ready):
            # An export that takes long is dropped, so that one request may leave no span.
            until(lambda: complete(ready["gateway"], max_tokens=1)[0] == 200 and received)
        collector.shutdown()
    assert received[0][0] == "/v1/traces"
    assert b"gateway" in received[0][1]
