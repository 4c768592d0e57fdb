"""Endpoints in network namespaces of their own: reachable like others, and gone without a trace."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from controlplane.target import netns
from tests.support.fleets import SMALL, complete, end, fleet, node
from tests.support.processes import gone, until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="network namespaces need root on Linux"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2 (Debian: iproute2)"),
]


def mark_of(run_dir: Path) -> str:
    """Return what the names of a fleet's namespaces, cables and bridge begin with."""
    bridge: str = json.loads((run_dir / "netns.json").read_text())["bridge"]
    assert bridge.startswith(netns.PREFIX)
    return bridge.removesuffix("br")


def left(mark: str) -> set[str]:
    """Return what one fleet has made; others on this machine come and go."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.split()
    return {name for name in (*names, *links) if name.startswith(mark)}


def all_gone(processes: list[psutil.Process]) -> bool:
    return all(map(gone, processes))


def test_every_endpoint_has_its_own_address_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL, netns="True") as (process, ready):
        mark = mark_of(tmp_path)
        assert complete(ready["gateway"])[0] == 200
        hosts = {url.split("/")[2] for url in ready["endpoints"].values()}
        assert len(hosts) == 2
        assert all(host.startswith("10.") and host.endswith(":8000") for host in hosts)
        inside = Path(f"/proc/{node(tmp_path, 'primary-0')['pid']}/ns/net").readlink()
        assert inside != Path("/proc/self/ns/net").readlink()
        assert complete(ready["endpoints"]["cache-0"], prompt="filled through the bridge")[1]["x-cache"] == "miss"
        assert len(left(mark)) > 2
        assert end(process) == (0, "")
    assert left(mark) == set()
    assert not (tmp_path / "netns.json").exists()


def test_what_a_killed_fleet_left_is_swept_by_the_next(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL, netns="True") as (process, _):
        mark = mark_of(tmp_path)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        until(lambda: all_gone(family), 20.0)
    assert left(mark) != set()
    netns.sweep(tmp_path / "netns.json")
    assert left(mark) == set()


def test_endpoints_are_bound_to_one_cpu_each_when_asked(tmp_path: Path) -> None:
    with fleet(tmp_path, pools=SMALL, pin_cpus="True"):
        cpus = sorted(os.sched_getaffinity(0))
        bound = [os.sched_getaffinity(node(tmp_path, name)["pid"]) for name in ("primary-0", "cache-0")]
        assert bound == [{cpus[0]}, {cpus[1 % len(cpus)]}]
