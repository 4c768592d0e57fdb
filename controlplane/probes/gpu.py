"""GPUs: those of this machine through NVML, those of other nodes from their dcgm-exporter.

Without a GPU and without a page everything stays unknown. A GPU that answered before and does not any more is counted
as missing; an Xid counts when it is fatal and newly seen. DCGM's count of Xids by code is read where it is exposed;
else the gauge of the last Xid, which stays for ever and therefore only counts when it changes.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, Protocol

from controlplane.fleet.model import Endpoint
from controlplane.probes.aside import Aside
from controlplane.probes.exposition import Layout, Layouts, Scrape
from controlplane.probes.metrics import read_scrape
from controlplane.probes.probe import Failure, Fetch, GpuSpec, Look, Page
from controlplane.probes.shared import Shared, address, is_local
from controlplane.signals.engines import DCGM, FATAL_XIDS

XID_KEPT_S = 300.0
"""For how long a fatal Xid counts after it was seen: as long as dcgm-exporter's own counting window."""
ABSENT_S = 60.0
"""For how long a machine without a driver is not asked again: at boot the driver may come after this process."""

_HOST_LABELS = ("Hostname", "hostname")
"""dcgm-exporter renamed the one to the other in 2026; both are in the field."""
_LAST_XID = "DCGM_FI_DEV_XID_ERRORS"
_XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One reading of one GPU; None is what it does not tell."""

    id: str
    utilization: float | None = None
    memory: float | None = None
    """Used share."""
    temperature_c: float | None = None
    power_w: float | None = None
    ecc_errors: float | None = None
    """Double-bit errors since the driver was loaded."""


class Board(Protocol):
    """The GPUs of this machine."""

    def read(self) -> tuple[Gpu, ...]:
        """Read every GPU that answers; raises OSError when the driver is not there."""

    def xids(self) -> tuple[int, ...]:
        """Return the Xids that came since the last call."""


class Nvml:
    """NVIDIA's management library; its calls block, so they are made off the loop."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._events: Any = None

    def read(self) -> tuple[Gpu, ...]:
        """Read every GPU that answers.

        Raises:
            OSError: when there is no driver or no GPU.
        """
        nvml = self._opened()
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._close()
            raise OSError(str(error)) from error
        gpus = []
        for i in range(count):
            try:
                gpus.append(_nvml_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(i)))
            except nvml.NVMLError:
                continue  # It fell off the bus or is being reset: the count tells.
        return tuple(gpus)

    def xids(self) -> tuple[int, ...]:
        """Return the Xids that came since the last call; none where they cannot be watched."""
        if self._events is None:
            return ()
        found: list[int] = []
        while True:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:  # A time-out: nothing more has come.
                return tuple(found)
            found.append(int(event.eventData))

    def _opened(self) -> Any:
        if self._nvml is not None:
            return self._nvml
        import pynvml  # noqa: PLC0415 - loads a driver's library; most machines have none

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error
        self._nvml = pynvml
        self._watch_xids()
        return pynvml

    def _close(self) -> None:
        """Let a driver go that was lost: the library counts who opened it, and opens it anew only after the last."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
        self._nvml = self._events = None

    def _watch_xids(self) -> None:
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
            for i in range(nvml.nvmlDeviceGetCount()):
                nvml.nvmlDeviceRegisterEvents(
                    nvml.nvmlDeviceGetHandleByIndex(i), nvml.nvmlEventTypeXidCriticalError, events
                )
        except nvml.NVMLError:
            return  # Not every GPU tells (vGPU, WSL): Xids stay unknown.
        self._events = events


def _nvml_gpu(nvml: Any, gpu: Any) -> Gpu:
    def ask(read: str, *args: Any) -> Any:
        try:
            return getattr(nvml, read)(gpu, *args)
        except nvml.NVMLError:
            return None  # Not every GPU has every sensor.

    rates, memory = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMemoryInfo")
    power = ask("nvmlDeviceGetPowerUsage")
    temperature = ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
    ecc = ask("nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    return Gpu(
        str(nvml.nvmlDeviceGetUUID(gpu)),
        None if rates is None else rates.gpu / 100,
        None if memory is None else memory.used / memory.total,
        None if temperature is None else float(temperature),
        None if power is None else power / 1000,
        None if ecc is None else float(ecc),
    )


@dataclass(slots=True)
class _Known:
    """What is remembered of one node's GPUs."""

    ids: set[str] = field(default_factory=set)
    last_xid: dict[str, int] = field(default_factory=dict)
    fatal: deque[tuple[float, int]] = field(default_factory=deque)
    """(when it was seen, Xid)."""

    def gauges(self, ids: Iterable[str], now: float) -> dict[str, float]:
        """Return how many GPUs there are, how many are missing, and how many fatal Xids are new."""
        present = set(ids)
        self.ids |= present
        while self.fatal and self.fatal[0][0] < now - XID_KEPT_S:
            self.fatal.popleft()
        return {
            "gpu_count": float(len(present)),
            "gpus_missing": float(len(self.ids - present)),
            "gpu_xid": float(len(self.fatal)),
        }

    def saw(self, xids: Iterable[int], now: float) -> tuple[str, ...]:
        """Note new Xids and say which of them are fatal."""
        fatal = [xid for xid in xids if xid in FATAL_XIDS]
        self.fatal.extend((now, xid) for xid in fatal)
        return tuple(f"NVRM: Xid {xid}" for xid in fatal)


class GpuProbe:
    """Read the GPUs; each node is read once an interval, however many endpoints it has."""

    name = "gpu"

    def __init__(self, spec: GpuSpec, fetch: Fetch | None = None, board: Board | None = None) -> None:
        """Take how GPUs are read.

        Args:
            spec: interval, and where a node's page is.
            fetch: gets pages; None leaves GPUs elsewhere unknown.
            board: the GPUs of this machine; NVML by default.
        """
        self.every = spec.every
        self._spec = spec
        self._fetch = fetch
        self._board = board or Nvml()
        self._reading = Aside("gpu", self._read)
        self._xids = deque[int]()
        """What came with readings, also with those that came too late: a hang and an Xid have one cause."""
        self._scrapes = Shared[tuple[Scrape | None, Failure | None, str]](self.every.total_seconds() / 2)
        self._pages = Shared[tuple[Page | None, Failure | None, str]](self.every.total_seconds() / 2)
        self._known: dict[str, _Known] = {}
        self._layouts = Layouts(lambda name: name.startswith("DCGM_"))
        self._absent_until = -inf
        """In monotonic seconds."""

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once."""
        started = monotonic()
        page, failure, detail = await self._page(endpoint)
        return Look(endpoint, self.name, monotonic(), monotonic() - started, failure, detail, page=page)

    async def _page(self, endpoint: Endpoint) -> tuple[Page | None, Failure | None, str]:
        if self._spec.page and self._fetch and (url := address(self._spec.page, endpoint)):
            scrape, failure, detail = await self._scrapes.get(url, lambda: self._scrape(url))
            if scrape is None:
                return None, failure, detail
            node = endpoint.node if len(_hosts(scrape)) > 1 else ""
            return await self._pages.get(f"{url} {node}", lambda: self._exported(url, node, scrape))
        if is_local(endpoint.url) and monotonic() >= self._absent_until:
            return await self._pages.get("", self._local)
        return None, None, ""

    async def _local(self) -> tuple[Page | None, Failure | None, str]:
        try:
            async with asyncio.timeout(self._spec.timeout.total_seconds()):
                gpus = await self._reading.ask()
        except TimeoutError:
            return None, Failure.TIMEOUT, "the GPU driver does not answer"
        except OSError as error:
            if "" in self._known:  # A lost driver is a failure; on a machine that never had one, nothing is missing.
                return None, Failure.NETWORK, f"NVML: {error}"
            self._absent_until = monotonic() + ABSENT_S
            return None, None, f"NVML: {error}"
        known, now = self._known.setdefault("", _Known()), monotonic()
        notes = known.saw((self._xids.popleft() for _ in range(len(self._xids))), now)
        return board_page(gpus, known.gauges((gpu.id for gpu in gpus), now), notes), None, ""

    def _read(self) -> tuple[Gpu, ...]:
        gpus = self._board.read()
        self._xids.extend(self._board.xids())
        return gpus

    async def _scrape(self, url: str) -> tuple[Scrape | None, Failure | None, str]:
        if self._fetch is None:
            return None, None, ""
        got = await self._fetch(url, self._spec.timeout)
        if got.content is None:
            return None, got.failure, f"{url}: {got.detail}"
        try:
            return self._layouts.read(got.content), None, ""
        except ValueError as error:
            return None, Failure.ANSWER, f"{url}: not a metrics page: {error}"

    async def _exported(self, url: str, node: str, scrape: Scrape) -> tuple[Page | None, Failure | None, str]:
        mine = _of_node(scrape, node)
        if not any(line.name.startswith("DCGM_FI_") for line in mine.layout.series):
            return None, Failure.ANSWER, f"{url}: no GPU of {node or 'this node'} on the page"
        known, now = self._known.setdefault(f"{url} {node}", _Known()), monotonic()
        read = read_scrape(mine, DCGM)
        notes = known.saw(_changed_xids(mine, known), now)
        gauges = {**read.gauges, **known.gauges(_ids(mine), now)}
        if any(line.name == _XID_COUNT for line in mine.layout.series):
            gauges["gpu_xid"] = read.gauges.get("gpu_xid", 0.0)
        elif not any(line.name == _LAST_XID for line in mine.layout.series):
            del gauges["gpu_xid"]  # Neither is exposed: unknown, not none.
        return Page(read.counters, gauges, notes=notes, engine=DCGM.name), None, ""


def board_page(gpus: Sequence[Gpu], gauges: dict[str, float], notes: tuple[str, ...]) -> Page:
    """Make a page of the GPUs of this machine: the busiest, fullest, hottest of them."""
    worst = {
        "gpu_utilization": [gpu.utilization for gpu in gpus],
        "gpu_memory_utilization": [gpu.memory for gpu in gpus],
        "gpu_temperature": [gpu.temperature_c for gpu in gpus],
        "gpu_power": [gpu.power_w for gpu in gpus],
    }
    for name, values in worst.items():
        known = [value for value in values if value is not None]
        if known:
            gauges[name] = max(known)
    errors = [gpu.ecc_errors for gpu in gpus if gpu.ecc_errors is not None]
    return Page({"gpu_ecc_errors": sum(errors)} if errors else {}, gauges, notes=notes)


def _hosts(scrape: Scrape) -> set[str]:
    return {host for line in scrape.layout.series if (host := _host(line.labels))}


def _host(labels: dict[str, str]) -> str:
    return next((labels[name] for name in _HOST_LABELS if labels.get(name)), "")


def _of_node(scrape: Scrape, node: str) -> Scrape:
    """Keep one node's lines of a page that tells of several."""
    if not node:
        return scrape
    kept = [i for i, line in enumerate(scrape.layout.series) if _host(line.labels) == node]
    return Scrape(Layout(tuple(scrape.layout.series[i] for i in kept)), [scrape.values[i] for i in kept])


def _ids(scrape: Scrape) -> set[str]:
    return {
        line.labels.get("UUID") or line.labels.get("gpu", "")
        for line in scrape.layout.series
        if line.name == "DCGM_FI_DEV_GPU_UTIL"
    }


def _changed_xids(scrape: Scrape, known: _Known) -> list[int]:
    """Return the last Xids that changed since the page before; on the first page none are new."""
    changed = []
    for line, value in zip(scrape.layout.series, scrape.values, strict=True):
        if line.name != _LAST_XID or not 0 <= value < 1e6:
            continue
        gpu, xid = line.labels.get("UUID") or line.labels.get("gpu", ""), int(value)
        if gpu in known.last_xid and known.last_xid[gpu] != xid and xid:
            changed.append(xid)
        known.last_xid[gpu] = xid
    return changed
