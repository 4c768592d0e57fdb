"""One suite over every fault that is registered: in force once, proven from outside, over at once, over by itself.

Against a real fleet: processes behind link relays, and processes in network namespaces behind nftables (root).
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest

from controlplane.chaos.fault import FaultDriver, FaultKind, Lease, LeaseState, Setting
from controlplane.chaos.parameters import PARAMETERS, settled
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import DRIVERS, KUBERNETES, faults
from controlplane.errors import FaultError
from controlplane.fleet.model import Endpoint
from tests.support.fleets import ROOT, fleet, node
from tests.support.processes import until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(sys.platform != "linux", reason="faults of this suite need Linux"),
]

ENTRIES = [(substrate, kind) for substrate, kinds in DRIVERS.items() for kind in kinds]
DISTINCT = [(s, k) for s, k in ENTRIES if s == "process" or DRIVERS[s][k] is not DRIVERS["process"].get(k)]
"""Without what other substrates do by the very same driver: that takes the longest to wait for."""
NEEDS_ROOT = {"netns": "network namespaces"}
POOLS = '{"primary": PoolSpec(1, "base")}'
LONG, SHORT = timedelta(seconds=90), timedelta(seconds=6)
SLOW_START = timedelta(seconds=12)
"""Where a whole Python must start before the fault does, and the kernel takes whole seconds."""
STATE_MIB = 8
GENTLE: dict[FaultKind, dict[str, object]] = {
    FaultKind.NODE_KILL: {},
    FaultKind.NETWORK_PARTITION: {},
    FaultKind.GPU_SATURATION: {"duty": 0.5, "memory_mib": 8},
    FaultKind.SLOW_TOKENS: {"pause_ms": 300, "run_ms": 100},
    FaultKind.STALLED_ENGINE: {},
    FaultKind.QUEUE_FLOOD: {"requests": 250, "max_tokens": 128},
    FaultKind.MEMORY_PRESSURE: {"memory_mib": 64, "leave_mib": 256},
    FaultKind.DISK_FULL: {"reserve_kib": 256},
}
"""How each kind is tried; a kind that does not stand here fails the suite."""
VARIANTS = [
    ("process", {"mode": "drop", "direction": "to"}),
    ("process", {"mode": "drop", "direction": "from"}),
    ("process", {"mode": "reset"}),
    ("process", {"mode": "delay", "delay_ms": 150}),
    ("process", {"mode": "drop", "peer": "gateway"}),
    ("process", {"mode": "drop", "peer": "controlplane"}),
    ("process", {"mode": "reset", "peer": "gateway"}),
    ("process", {"mode": "delay", "delay_ms": 150, "peer": "gateway"}),
    ("netns", {"mode": "drop", "direction": "to"}),
    ("netns", {"mode": "drop", "direction": "from"}),
    ("netns", {"mode": "reset"}),
    ("netns", {"mode": "drop", "peer": "gateway"}),
    ("netns", {"mode": "drop", "direction": "from", "peer": "controlplane"}),
    ("netns", {"mode": "reset", "peer": "gateway"}),
]
"""The ways to cut an endpoint off, by substrate."""


@dataclass(frozen=True, slots=True)
class Rig:
    """A fleet of one endpoint, and the driver of everything that can be done to it."""

    run_dir: Path
    substrate: str
    driver: FaultDriver
    place: Place

    def lease(self, kind: FaultKind, lasts: timedelta, **given: object) -> Lease:
        """Promise a fault that ends."""
        now = datetime.now(UTC)
        parameters: dict[str, Setting] = settled(kind, given or GENTLE[kind])
        return Lease(
            f"lease-{uuid4().hex[:8]}", "drill", kind, self.endpoint(kind), now + lasts, LeaseState.INTENDED, now,
            parameters=parameters,
        )  # fmt: skip

    def endpoint(self, kind: FaultKind) -> Endpoint:
        """Return what a kind is done to."""
        if kind is FaultKind.DISK_FULL:
            return Endpoint("controlplane", "controlplane", "http://127.0.0.1:1")
        return Endpoint("primary-0", "primary", self.url, "node-primary-0", "base")

    @property
    def url(self) -> str:
        return str(node(self.run_dir, "primary-0")["url"])

    async def until_over(self, lease: Lease, within_s: float = 40.0) -> None:
        """Wait until nothing is left of a fault."""
        deadline = time.monotonic() + within_s
        while left := await self.driver.residue(lease):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.05)

    def files(self) -> list[str]:
        """Return the files that faults have left beside those of the supervisors."""
        found = [
            *(self.run_dir / "nodes").iterdir(),
            *(self.run_dir / "links").iterdir(),
            *self.place.state_dir.iterdir(),
        ]
        return sorted(path.name for path in found if path.suffix != ".json")


def rig(substrate: str, folder: Path) -> Rig:
    place = Place(folder / "nodes", folder / "links", folder / "state")
    return Rig(folder, substrate, faults(substrate, place), place)


@pytest.fixture(scope="module")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rig]]:
    """A fleet for each substrate that can be had here, each with a state directory that is a mount of its own."""
    made: dict[str, Rig] = {}
    with ExitStack() as stack:
        for substrate in DRIVERS:
            if substrate in NEEDS_ROOT and why_not(substrate):
                continue
            folder = tmp_path_factory.mktemp(substrate)
            (folder / "state").mkdir()
            if os.geteuid() == 0:
                mount = ["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m", "none", str(folder / "state")]
                subprocess.run(mount, check=True)
                stack.callback(subprocess.run, ["umount", str(folder / "state")], check=True)
            stack.enter_context(fleet(folder, pools=POOLS, netns=str(substrate == "netns")))
            made[substrate] = rig(substrate, folder)
        yield made


def why_not(substrate: str) -> str:
    """Return why a substrate cannot be had here, or an empty string."""
    if os.geteuid() != 0:
        return f"{NEEDS_ROOT.get(substrate, 'this')} needs root"
    missing = [program for program in ("ip", "nft") if shutil.which(program) is None]
    return f"{', '.join(missing)} is missing (Debian: iproute2, nftables)" if missing else ""


def chosen(rigs: dict[str, Rig], substrate: str, kind: FaultKind) -> Rig:
    if substrate not in rigs:
        pytest.skip(why_not(substrate))
    if kind is FaultKind.DISK_FULL and os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    return rigs[substrate]


@pytest.fixture(autouse=True)
def _begins_and_ends_well(rigs: dict[str, Rig]) -> Iterator[None]:
    """Nothing of one test reaches another."""
    for each in rigs.values():
        until(partial(answers, each))
    yield
    for each in rigs.values():
        until(partial(answers, each))
        assert each.files() == []


def answers(each: Rig) -> bool:
    with suppress(OSError), urlopen(f"{each.url}/health", timeout=2) as answer:  # noqa: S310 - this machine's
        return bool(answer.status == 200)
    return False


def test_every_kind_can_be_had_somewhere_and_every_parameter_is_known() -> None:
    assert {kind for _, kind in ENTRIES} | set(KUBERNETES) == set(FaultKind) == set(PARAMETERS)
    assert set(GENTLE) == {kind for _, kind in ENTRIES}


@pytest.mark.parametrize(("substrate", "kind"), ENTRIES)
async def test_a_fault_is_in_force_once_proven_from_outside_and_over_once(
    rigs: dict[str, Rig], substrate: str, kind: FaultKind
) -> None:
    each = chosen(rigs, substrate, kind)
    lease = each.lease(kind, LONG)
    assert await each.driver.prove(lease) == ""
    told = await each.driver.apply(lease)
    try:
        assert await each.driver.prove(lease) != ""
        before = each.files()
        assert await each.driver.apply(lease) != ""
        assert told
        assert each.files() == before
        assert await each.driver.prove(lease) != ""
        assert await each.driver.residue(lease) != ""
    finally:
        first = await each.driver.revert(lease)
    assert await each.driver.revert(lease) == first
    await each.until_over(lease)
    assert await each.driver.prove(lease) == ""
    assert each.files() == []


@pytest.mark.parametrize(("substrate", "kind"), ENTRIES)
async def test_whoever_halts_and_whoever_heals_may_end_it_at_once(
    rigs: dict[str, Rig], substrate: str, kind: FaultKind
) -> None:
    each = chosen(rigs, substrate, kind)
    lease = each.lease(kind, LONG)
    await each.driver.apply(lease)

    async def end() -> None:
        await each.driver.revert(lease)
        await each.driver.residue(lease)

    ended = await asyncio.gather(*(end() for _ in range(8)), return_exceptions=True)
    await each.until_over(lease)
    assert [error for error in ended if error] == []


@pytest.mark.parametrize(("substrate", "kind"), DISTINCT)
async def test_its_deadline_alone_ends_it(rigs: dict[str, Rig], substrate: str, kind: FaultKind) -> None:
    each = chosen(rigs, substrate, kind)
    lease = each.lease(kind, SHORT)
    await each.driver.apply(lease)
    await each.until_over(lease)
    assert datetime.now(UTC) > lease.deadline - timedelta(seconds=1.5)
    assert await each.driver.prove(lease) == ""


APPLY = """
import asyncio, json, sys, time
from datetime import datetime
from pathlib import Path
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.substrates.nodes import Place
from controlplane.chaos.substrates.registry import faults
from controlplane.fleet.model import Endpoint
raw = json.loads(sys.argv[1])
at = datetime.fromisoformat(raw["at"])
lease = Lease(raw["id"], "drill", FaultKind(raw["kind"]), Endpoint(**raw["endpoint"]), at, LeaseState.INTENDED, at,
              parameters=raw["parameters"])
asyncio.run(faults(raw["substrate"], Place(*map(Path, raw["place"]))).apply(lease))
print("in force", flush=True)
time.sleep(600)
"""


def asked_and_died(order: str) -> None:
    """Have a process of its own put a fault in force, and kill it."""
    asking = subprocess.Popen([sys.executable, "-c", APPLY, order], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    said = asking.stdout.readline()
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    assert said == "in force\n"


@pytest.mark.parametrize(("substrate", "kind"), DISTINCT)
async def test_it_ends_though_whoever_asked_for_it_is_dead(
    rigs: dict[str, Rig], substrate: str, kind: FaultKind
) -> None:
    each = chosen(rigs, substrate, kind)
    by_kernel = (substrate, kind) == ("netns", FaultKind.NETWORK_PARTITION)
    lease = each.lease(kind, SLOW_START if by_kernel else SHORT)
    order = {
        "id": lease.id, "kind": kind, "endpoint": asdict(lease.endpoint), "at": lease.deadline.isoformat(),
        "parameters": dict(lease.parameters), "substrate": substrate,
        "place": [str(each.place.nodes_dir), str(each.place.links_dir), str(each.place.state_dir)],
    }  # fmt: skip
    asked_and_died(json.dumps(order))
    await each.until_over(lease)
    assert await each.driver.prove(lease) == ""


@pytest.mark.parametrize(("substrate", "kind"), DISTINCT)
async def test_a_target_that_is_not_there_is_told_with_the_way_out(
    rigs: dict[str, Rig], substrate: str, kind: FaultKind
) -> None:
    each = chosen(rigs, substrate, kind)
    lease = each.lease(kind, LONG)
    nowhere = Place(each.place.nodes_dir, each.place.links_dir, each.run_dir / "gone")
    driver = faults(substrate, nowhere)
    gone = replace(lease, endpoint=replace(lease.endpoint, name="primary-9", node="node-primary-9"))
    with pytest.raises(FaultError) as told:
        await driver.apply(gone)
    assert told.value.what
    assert told.value.why
    assert told.value.fix
    assert each.files() == []


@pytest.mark.parametrize(("substrate", "kind"), DISTINCT)
async def test_two_leases_do_not_do_the_same_harm_to_one_endpoint(
    rigs: dict[str, Rig], substrate: str, kind: FaultKind
) -> None:
    each = chosen(rigs, substrate, kind)
    first, second = each.lease(kind, LONG), each.lease(kind, LONG)
    await each.driver.apply(first)
    try:
        with pytest.raises(FaultError):
            await each.driver.apply(second)
        await each.driver.revert(second)
        assert await each.driver.prove(first) != ""
    finally:
        await each.driver.revert(first)
    await each.until_over(first)


@pytest.mark.parametrize(
    ("substrate", "parameters"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
async def test_an_endpoint_is_cut_off_in_every_way_there_is(
    rigs: dict[str, Rig], substrate: str, parameters: dict[str, object]
) -> None:
    each = chosen(rigs, substrate, FaultKind.NETWORK_PARTITION)
    lease = each.lease(FaultKind.NETWORK_PARTITION, LONG, **parameters)
    await each.driver.apply(lease)
    try:
        assert await each.driver.prove(lease) != ""
    finally:
        await each.driver.revert(lease)
    await each.until_over(lease)


async def test_a_flood_that_is_to_make_requests_wait_is_proven_without_a_refusal(rigs: dict[str, Rig]) -> None:
    each = chosen(rigs, "process", FaultKind.QUEUE_FLOOD)
    lease = each.lease(FaultKind.QUEUE_FLOOD, LONG, requests=95, max_tokens=64, shows="waiting")
    assert await each.driver.prove(lease) == ""
    await each.driver.apply(lease)
    try:
        assert "requests waiting" in await each.driver.prove(lease)
    finally:
        await each.driver.revert(lease)
    await each.until_over(lease)


async def test_one_peer_is_cut_off_only_where_it_can_be_told_from_the_others(rigs: dict[str, Rig]) -> None:
    each = chosen(rigs, "process", FaultKind.NETWORK_PARTITION)
    lease = each.lease(FaultKind.NETWORK_PARTITION, LONG, peer="gateway")
    known = node(each.run_dir, "primary-0")
    alike = each.run_dir / "alike"
    alike.mkdir()
    (alike / "node-primary-0.json").write_text(json.dumps({**known, "gateway_url": known["url"]}))
    driver = faults("process", Place(alike, each.place.links_dir, each.place.state_dir))
    with pytest.raises(FaultError, match="cannot be told from others"):
        await driver.apply(lease)


async def test_a_delay_is_refused_where_the_kernel_would_not_end_it(rigs: dict[str, Rig]) -> None:
    each = chosen(rigs, "netns", FaultKind.NETWORK_PARTITION)
    with pytest.raises(FaultError, match="delay"):
        await each.driver.apply(each.lease(FaultKind.NETWORK_PARTITION, LONG, mode="delay"))


@pytest.mark.parametrize("kind", [FaultKind.STALLED_ENGINE, FaultKind.DISK_FULL])
async def test_what_a_killed_keeper_left_is_found_and_undone(rigs: dict[str, Rig], kind: FaultKind) -> None:
    each = chosen(rigs, "process", kind)
    lease = each.lease(kind, LONG)
    await each.driver.apply(lease)
    (file,) = each.place.nodes_dir.glob("*.keeper")
    os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
    await asyncio.sleep(0.1)
    file.unlink()
    assert await each.driver.residue(lease) != ""
    await each.driver.revert(lease)
    await each.until_over(lease)
