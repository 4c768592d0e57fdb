"""Machines: this one, and others through their node_exporter."""

from datetime import timedelta
from time import monotonic

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes.exposition import Layouts
from controlplane.probes.host import HostProbe, Machine, node_machine, this_machine, used
from controlplane.probes.probe import Failure, HostSpec
from controlplane.probes.shared import address
from tests.support.engine_pages import node
from tests.unit.probes.test_gpu import Node

LOCAL = Endpoint("e", "primary", "http://127.0.0.1:8000")
REMOTE = Endpoint("r", "primary", "http://10.0.0.7:8000", "node-a")


async def test_this_machine_tells_memory_at_once_and_cpu_from_the_second_look_on() -> None:
    probe = HostProbe(HostSpec(every=timedelta(0)))
    first, second = await probe.look(LOCAL), None
    deadline = monotonic() + 60
    while monotonic() < deadline and (second is None or "cpu_utilization" not in second):
        look = await probe.look(LOCAL)
        second = look.page.gauges if look.page else None
    assert first.page is not None
    assert 0 < first.page.gauges["memory_utilization"] < 1
    assert "cpu_utilization" not in first.page.gauges
    assert second is not None
    assert 0 <= second["cpu_utilization"] <= 1


async def test_other_machines_are_unknown_without_a_page() -> None:
    look = await HostProbe(HostSpec()).look(REMOTE)
    assert look.ok
    assert look.page is None


def test_what_psutil_and_node_exporter_tell_is_used_alike() -> None:
    layouts = Layouts()
    before = node_machine(layouts.read(node(100, 50, 0)), 10.0)
    after = node_machine(layouts.read(node(101, 53, 1.4e6)), 12.0)
    assert used(before, after) == pytest.approx(
        {
            "cpu_utilization": 0.75,
            "memory_utilization": 0.75,
            "disk_utilization": 0.75,
            "network_utilization": 0.7,
        }
    )


def test_a_node_that_restarted_tells_no_rate() -> None:
    layouts = Layouts()
    before = node_machine(layouts.read(node(100, 50, 5e6)), 10.0)
    after = node_machine(layouts.read(node(1, 1, 10)), 12.0)
    assert set(used(before, after)) == {"memory_utilization", "disk_utilization"}


def test_nothing_is_made_up_of_an_empty_reading() -> None:
    assert used(None, Machine(1.0)) == {}
    assert this_machine(1.0).cpu_s is not None


async def test_a_page_that_is_no_nodes_is_said_so() -> None:
    probe = HostProbe(HostSpec("http://{host}:9100/metrics", every=timedelta(0)), Node(b"up 1\n"))
    assert (await probe.look(REMOTE)).failure is Failure.ANSWER


def test_an_address_is_filled_in() -> None:
    assert address("http://{host}:9100/metrics", REMOTE) == "http://10.0.0.7:9100/metrics"
    assert address("http://{node}:9100/metrics", REMOTE) == "http://node-a:9100/metrics"
    assert address("http://{node}:9100/metrics", LOCAL) == ""
    assert address("http://{host}:1/m", Endpoint("6", "p", "http://[::1]:80")) == "http://[::1]:1/m"
