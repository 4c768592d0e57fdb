"""GPU figures under DCGM's names, read through NVML at scrape time. Without a GPU the families are absent, not zero."""

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, UnknownMetricFamily
from prometheus_client.registry import Collector

MIB = 1024 * 1024
LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname")
"""dcgm-exporter's labels; ``hostname`` in lower case as since May 2026."""

Family = GaugeMetricFamily | UnknownMetricFamily


@dataclass(frozen=True, slots=True)
class Field:
    """One DCGM field and how NVML gives it."""

    name: str
    text: str
    read: Callable[[Any, Any], float]
    """Takes the NVML module and a device handle."""
    counts: bool = False
    """Whether it only ever grows. DCGM's counters have no ``_total``, which the Prometheus client would add."""


FIELDS = (
    Field("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).",
          lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
    Field("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).",
          lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).memory),
    Field("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).",
          lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / MIB),
    Field("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).",
          lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).free / MIB),
    Field("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).",
          lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
    Field("DCGM_FI_DEV_SLOWDOWN_TEMP", "Slowdown temperature (in C).",
          lambda nvml, gpu: nvml.nvmlDeviceGetTemperatureThreshold(gpu, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)),
    Field("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).",
          lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    Field("DCGM_FI_DEV_POWER_MGMT_LIMIT", "Power limit (in W).",
          lambda nvml, gpu: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000),
    Field("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).",
          lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu), counts=True),
    Field("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).",
          lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    Field("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).",
          lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
    Field("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.",
          lambda nvml, gpu: nvml.nvmlDeviceGetPcieReplayCounter(gpu), counts=True),
    Field("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.",
          lambda nvml, gpu: nvml.nvmlDeviceGetTotalEccErrors(
              gpu, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_VOLATILE_ECC), counts=True),
    Field("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.",
          lambda nvml, gpu: nvml.nvmlDeviceGetTotalEccErrors(
              gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC), counts=True),
)  # fmt: skip


class GpuCollector(Collector):
    """Yields the DCGM families of every GPU that NVML shows."""

    def __init__(self, nvml: Any) -> None:
        """Read through ``nvml``, the initialised NVML module."""
        self._nvml = nvml
        self._hostname = socket.gethostname()

    def collect(self) -> Iterable[Family]:
        """Read every field once; what a GPU does not have, or no longer tells, is left out."""
        gpus = list(self._gpus())
        for field in FIELDS:
            kind = UnknownMetricFamily if field.counts else GaugeMetricFamily
            family = kind(field.name, field.text, labels=LABELS)
            for labels, handle in gpus:
                try:
                    family.add_metric(labels, float(field.read(self._nvml, handle)))
                except self._nvml.NVMLError:
                    continue
            if family.samples:
                yield family

    def _gpus(self) -> Iterator[tuple[list[str], Any]]:
        """Yield the labels and handle of each GPU; one that has fallen off the bus is left out."""
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError:
            return
        for number in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                bus = nvml.nvmlDeviceGetPciInfo(handle).busId
                facts = [nvml.nvmlDeviceGetUUID(handle), bus, f"nvidia{number}", nvml.nvmlDeviceGetName(handle)]
            except nvml.NVMLError:
                continue
            yield [str(number), *map(_text, facts), self._hostname], handle


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def register(registry: CollectorRegistry) -> bool:
    """Add the GPU families where NVML finds a driver.

    Returns:
        Whether there is one.
    """
    import pynvml  # noqa: PLC0415 - a foreign library that only GPU machines need

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    registry.register(GpuCollector(pynvml))
    return True
