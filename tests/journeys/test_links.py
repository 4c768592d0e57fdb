"""The network of one endpoint broken on purpose, from a control file, and healed by its own deadline."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from tests.support.fleets import fleet, kill, metric, node, page, write
from tests.support.processes import until

pytestmark = pytest.mark.journey
POOLS = '{"primary": PoolSpec(1, "base")}'
SHORT_S = 6.0
"""How long a fault lasts that ends by itself: longer than what is looked at while it lasts takes on a busy machine."""
LONG_S = 30.0
"""How long one lasts that the test ends."""
BODY = b'{"model": "reference", "prompt": "one way", "max_tokens": 2}'
COMPLETION = (
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
)
COMPLETION %= (len(BODY), BODY)
REQUEST = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("links")
    with fleet(folder, pools=POOLS):
        yield folder


def dial(run_dir: Path, timeout_s: float = 15.0) -> socket.socket:
    parts = urlsplit(node(run_dir, "primary-0")["url"])
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout_s)


def healthy(connection: socket.socket) -> bool:
    connection.sendall(REQUEST)
    return b"200 OK" in connection.recv(4096)


def broken(run_dir: Path, for_s: float, **fault: Any) -> Path:
    """Break the link; return its control file once the relay obeys it, or has thrown it away."""
    control, log = run_dir / "links" / "node-primary-0.link", run_dir / "logs" / "link-node-primary-0.log"
    lease = f"lease-{uuid4().hex[:8]}"

    def obeyed() -> bool:
        return any(lease in line and '"peer": "controlplane"' in line for line in log.read_text().splitlines())

    write(control, {"until": time.time() + for_s, "lease": lease, **fault})
    until(lambda: obeyed() or not control.exists(), what="the relay has read it")
    return control


def replaced(run_dir: Path, pid: int) -> bool:
    return bool(node(run_dir, "primary-0")["pid"] != pid)


def well(run_dir: Path, within_s: float = 0.5) -> bool:
    with suppress(OSError), dial(run_dir, within_s) as connection:
        return healthy(connection)
    return False


@pytest.fixture(autouse=True)
def _begins_well(run_dir: Path) -> None:
    """Whatever the test before broke is over, even where it failed before it could end it."""
    until(lambda: well(run_dir), LONG_S + 15.0)


def test_a_dropped_link_is_silent_to_open_and_new_connections_until_its_deadline(run_dir: Path) -> None:
    with dial(run_dir) as held:
        assert healthy(held)
        control = broken(run_dir, SHORT_S, mode="drop")
        held.settimeout(0.3)
        held.sendall(REQUEST)
        with pytest.raises(TimeoutError):
            held.recv(1)
        with pytest.raises(TimeoutError):
            dial(run_dir, 0.3)
        held.settimeout(SHORT_S + 15.0)
        assert b"200 OK" in held.recv(4096)
        assert not control.exists()
    until(lambda: well(run_dir), 15.0)


def test_a_reset_link_cuts_open_connections_and_refuses_new_ones_until_its_deadline(run_dir: Path) -> None:
    with dial(run_dir) as held:
        assert healthy(held)
        control = broken(run_dir, SHORT_S, mode="reset")
        with pytest.raises(ConnectionResetError):
            held.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(run_dir)
    until(lambda: well(run_dir), SHORT_S + 15.0)
    assert not control.exists()


def test_a_slow_link_holds_bytes_back_in_both_directions(run_dir: Path) -> None:
    with dial(run_dir) as held:
        assert healthy(held)
        control = broken(run_dir, LONG_S, mode="delay", delay_ms=60)
        began = time.monotonic()
        assert healthy(held)
        assert time.monotonic() - began >= 0.115
        control.unlink()

        def quick() -> bool:
            began = time.monotonic()
            return healthy(held) and time.monotonic() - began < 0.1

        until(quick, 15.0)


@pytest.mark.parametrize("direction", ["from", "to"])
def test_a_link_that_is_lost_one_way_carries_the_other(run_dir: Path, direction: str) -> None:
    served, behind = "vllm:request_success_total", node(run_dir, "primary-0")["backend_url"]
    before = metric(page(f"{behind}/metrics"), served)
    with dial(run_dir) as held:
        assert healthy(held)
        control = broken(run_dir, LONG_S, mode="drop", direction=direction)
        held.sendall(COMPLETION)
        held.settimeout(0.5)
        with pytest.raises(TimeoutError):
            held.recv(1)
        if direction == "from":
            until(lambda: metric(page(f"{behind}/metrics"), served) > before, 15.0)
        else:
            assert metric(page(f"{behind}/metrics"), served) == before
        control.unlink()
        held.settimeout(15.0)
        assert b"200 OK" in held.recv(4096)


@pytest.mark.parametrize(
    "fault",
    [
        {"mode": "nonsense"},
        {"mode": "drop", "until": None},
        {"mode": "drop", "until": 1.0},
        {"mode": 3},
        {"mode": "drop", "direction": "up"},
    ],
)
def test_a_fault_that_is_over_or_has_no_end_counts_for_nothing(run_dir: Path, fault: dict[str, Any]) -> None:
    control = broken(run_dir, LONG_S, **fault)
    until(lambda: not control.exists(), 10.0)
    assert well(run_dir, 5.0)


def test_a_connection_that_ends_with_its_endpoint_is_refused_when_it_dials_again(run_dir: Path) -> None:
    hold = run_dir / "nodes" / "node-primary-0.hold"
    for _ in range(3):
        until(lambda: well(run_dir), 15.0)
        before = node(run_dir, "primary-0")
        with dial(run_dir) as held:
            assert healthy(held)
            write(hold, {"until": time.time() + LONG_S, "lease": "test"})
            kill(before)
            with suppress(ConnectionResetError):
                assert held.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                dial(run_dir)
            hold.unlink()
        until(partial(replaced, run_dir, before["pid"]))


def test_a_client_that_ends_its_half_still_gets_its_answer(run_dir: Path) -> None:
    until(lambda: well(run_dir), 15.0)
    with dial(run_dir) as half:
        half.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        half.shutdown(socket.SHUT_WR)
        assert b"200 OK" in half.recv(4096)


def test_the_link_is_a_process_of_its_own_and_comes_back_when_it_dies(run_dir: Path) -> None:
    until(lambda: well(run_dir), 15.0)
    port = urlsplit(node(run_dir, "primary-0")["url"]).port
    listening = [c for c in psutil.net_connections("tcp4") if c.status == "LISTEN" and tuple(c.laddr)[1:] == (port,)]
    pid = listening[0].pid
    assert pid is not None
    assert pid != node(run_dir, "primary-0")["pid"]
    psutil.Process(pid).kill()
    until(lambda: well(run_dir), 15.0)
    assert node(run_dir, "primary-0")["restarts"] >= 0
