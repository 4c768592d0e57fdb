"""GPUs through NVML (a board made up here) and through dcgm-exporter's pages."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from threading import Event

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes.gpu import ABSENT_S, Gpu, GpuProbe, Nvml
from controlplane.probes.probe import Failure, Fetched, GpuSpec, Page
from tests.support.engine_pages import dcgm

LOCAL = Endpoint("e", "primary", "http://127.0.0.1:8000", "node-a")
REMOTE = Endpoint("r", "primary", "http://10.0.0.7:8000", "node-a")
SPEC = GpuSpec("http://{host}:9400/metrics", every=timedelta(0))


class Board:
    """GPUs that are as the test says."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.new: tuple[int, ...] = ()
        self.gone = False
        self.reads = 0

    def read(self) -> tuple[Gpu, ...]:
        self.reads += 1
        if self.gone:
            raise OSError("Driver Not Loaded")
        return self.gpus

    def xids(self) -> tuple[int, ...]:
        new, self.new = self.new, ()
        return new


class Node:
    """An exporter whose page is as the test says."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.asked: list[str] = []

    async def __call__(self, url: str, within: timedelta) -> Fetched:
        self.asked.append(url)
        failed = Fetched(None, Failure.REFUSED, "nobody there")
        return failed if self.content is None else Fetched(self.content)


async def page(probe: GpuProbe, endpoint: Endpoint = LOCAL) -> Page:
    look = await probe.look(endpoint)
    assert look.ok, look.detail
    assert look.page is not None
    return look.page


async def test_the_worst_of_the_local_gpus_is_told() -> None:
    board = Board(Gpu("a", 0.2, 0.9, 50.0, 100.0, 0.0), Gpu("b", 0.8, 0.1, 70.0, None, 2.0))
    seen = await page(GpuProbe(GpuSpec(every=timedelta(0)), board=board))
    assert seen.gauges == {
        "gpu_utilization": 0.8,
        "gpu_memory_utilization": 0.9,
        "gpu_temperature": 70.0,
        "gpu_power": 100.0,
        "gpu_count": 2,
        "gpus_missing": 0,
        "gpu_xid": 0,
    }
    assert seen.counters == {"gpu_ecc_errors": 2}


async def test_a_gpu_that_is_gone_is_missing_until_it_is_back() -> None:
    board = Board(Gpu("a"), Gpu("b"))
    probe = GpuProbe(GpuSpec(every=timedelta(0)), board=board)
    await page(probe)
    board.gpus = (Gpu("a"),)
    assert (await page(probe)).gauges["gpus_missing"] == 1
    board.gpus = (Gpu("a"), Gpu("b"))
    assert (await page(probe)).gauges["gpus_missing"] == 0


async def test_only_fatal_xids_count() -> None:
    board = Board(Gpu("a"))
    probe = GpuProbe(GpuSpec(every=timedelta(0)), board=board)
    board.new = (31, 43)
    assert (await page(probe)).gauges["gpu_xid"] == 0
    board.new = (79,)
    seen = await page(probe)
    assert (seen.gauges["gpu_xid"], seen.notes) == (1, ("NVRM: Xid 79",))
    assert (await page(probe)).gauges["gpu_xid"] == 1  # It stays for minutes: verdicts come in ticks.


class Clock:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("controlplane.probes.gpu.monotonic", clock)
    return clock


async def test_a_machine_without_gpus_is_unknown_and_asked_again_a_minute_later(clock: Clock) -> None:
    board = Board(Gpu("a"))
    board.gone = True
    probe = GpuProbe(GpuSpec(every=timedelta(0)), board=board)
    for _ in range(3):
        look = await probe.look(LOCAL)
        assert look.ok
        assert look.page is None
    assert board.reads == 1
    board.gone = False  # A driver that comes after this process, as at boot.
    clock.now += ABSENT_S - 1
    assert (await probe.look(LOCAL)).page is None
    clock.now += 1
    assert (await page(probe)).gauges["gpu_count"] == 1


async def test_a_driver_that_goes_away_is_a_failure() -> None:
    board = Board(Gpu("a"))
    probe = GpuProbe(GpuSpec(every=timedelta(0)), board=board)
    await page(probe)
    board.gone = True
    assert (await probe.look(LOCAL)).failure is Failure.NETWORK
    board.gone = False
    assert (await page(probe)).gauges["gpu_count"] == 1


class Hung(Board):
    """GPUs whose driver does not return until it is let go."""

    def __init__(self, *gpus: Gpu) -> None:
        super().__init__(*gpus)
        self.asked, self.let_go = Event(), Event()

    def read(self) -> tuple[Gpu, ...]:
        self.reads += 1
        self.asked.set()
        self.let_go.wait()
        return self.gpus


async def test_a_driver_that_hangs_is_asked_by_one_thread_only() -> None:
    board = Hung(Gpu("a"))
    board.new = (79,)
    probe = GpuProbe(GpuSpec(every=timedelta(0), timeout=timedelta(seconds=0.02)), board=board)
    try:
        looks = [await probe.look(LOCAL) for _ in range(5)]
        assert await asyncio.to_thread(board.asked.wait, 10)
    finally:
        board.let_go.set()  # A loop that closes waits for the threads of its pool.
    assert [(look.failure, look.page) for look in looks] == [(Failure.TIMEOUT, None)] * 5
    assert board.reads == 1
    async with asyncio.timeout(10):
        while (found := (await probe.look(LOCAL)).page) is None:  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0.01)
    assert found.notes == ("NVRM: Xid 79",)  # It came with the reading that came too late.


class NvmlError(Exception):
    """What NVML raises: no OSError."""


class Library:
    """NVML with one GPU, whose driver can be unloaded; as the real one, it opens anew only when nobody has it open."""

    NVMLError = NvmlError

    def __init__(self) -> None:
        self.loaded = 1
        """Which loading of the driver this is; 0 is none."""
        self._opened = 0
        self._users = 0

    def __getattr__(self, name: str) -> object:
        if name.isupper() or name.startswith("nvmlEventType"):
            return 0
        known: Mapping[str, Callable[..., object]] = {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": self._count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
        }
        return known.get(name, self._refuse)

    def _init(self) -> None:
        if not self.loaded:
            raise NvmlError("Driver Not Loaded")
        if not self._users:
            self._opened = self.loaded
        self._users += 1

    def _shutdown(self) -> None:
        self._users -= 1

    def _count(self) -> int:
        if self._opened != self.loaded:
            raise NvmlError("Unknown Error")
        return 1

    def _refuse(self, *_: object) -> None:
        raise NvmlError("Not Supported")


def test_nvml_is_opened_anew_when_its_driver_was_loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    board = Nvml()
    assert board.read() == (Gpu("GPU-0"),)
    library.loaded = 0
    for _ in range(2):
        with pytest.raises(OSError, match=r"Unknown Error|Driver Not Loaded"):
            board.read()
        assert board.xids() == ()
    library.loaded = 2
    assert board.read() == (Gpu("GPU-0"),)


@pytest.mark.parametrize("label", ["Hostname", "hostname"])
async def test_a_page_of_several_hosts_is_read_for_the_endpoints_own(label: str) -> None:
    both = dcgm(label, gpus=2, host="node-a") + dcgm(label, gpus=3, host="node-b")
    probe = GpuProbe(SPEC, Node(both))
    assert (await page(probe, REMOTE)).gauges["gpu_count"] == 2
    assert (await page(probe, Endpoint("r2", "primary", "http://10.0.0.7:8001", "node-b"))).gauges["gpu_count"] == 3


async def test_the_last_xid_counts_only_when_it_changes() -> None:
    node = Node(dcgm(xid=79))
    probe = GpuProbe(SPEC, node)
    assert (await page(probe, REMOTE)).gauges["gpu_xid"] == 0  # Whoever knows since when it stands there.
    node.content = dcgm(xid=31)
    assert (await page(probe, REMOTE)).gauges["gpu_xid"] == 0
    node.content = dcgm(xid=119)
    seen = await page(probe, REMOTE)
    assert (seen.gauges["gpu_xid"], seen.notes) == (1, ("NVRM: Xid 119",))


async def test_the_count_by_xid_goes_before_the_last_xid() -> None:
    fatal, harmless = GpuProbe(SPEC, Node(dcgm(counts="79"))), GpuProbe(SPEC, Node(dcgm(counts="31")))
    assert (await page(fatal, REMOTE)).gauges["gpu_xid"] == 1
    assert (await page(harmless, REMOTE)).gauges["gpu_xid"] == 0


async def test_a_gpu_that_leaves_the_page_is_missing() -> None:
    node = Node(dcgm(gpus=8))
    probe = GpuProbe(SPEC, node)
    await page(probe, REMOTE)
    node.content = dcgm(gpus=7)
    seen = await page(probe, REMOTE)
    assert (seen.gauges["gpu_count"], seen.gauges["gpus_missing"]) == (7, 1)


async def test_an_exporter_that_is_not_there_costs_one_unknown() -> None:
    look = await GpuProbe(SPEC, Node(None)).look(REMOTE)
    assert (look.failure, look.page) == (Failure.REFUSED, None)


async def test_a_page_of_something_else_is_no_gpu() -> None:
    assert (await GpuProbe(SPEC, Node(b"up 1\n")).look(REMOTE)).failure is Failure.ANSWER


async def test_a_node_is_asked_once_for_all_its_endpoints() -> None:
    node = Node(dcgm())
    probe = GpuProbe(GpuSpec(SPEC.page, every=timedelta(seconds=60)), node)
    pages: list[Mapping[str, float]] = []
    for port in range(5):
        pages.append((await page(probe, Endpoint(f"e{port}", "primary", f"http://10.0.0.7:{port}"))).gauges)
    assert len(node.asked) == 1
    assert all(seen == pages[0] for seen in pages)
