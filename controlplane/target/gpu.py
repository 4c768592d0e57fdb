"""GPU figures under DCGM's names, read through NVML at scrape time. Without a GPU the families are absent, not zero."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Field:
    """One DCGM field and how NVML gives it."""

    name: str
    text: str
    read: Callable[[Any, Any], float]
    """Takes the NVML module and a device handle."""


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
    Field("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).",
          lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    Field("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).",
          lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
)  # fmt: skip


class GpuCollector(Collector):
    """Yields the DCGM families of every GPU that NVML shows."""

    def __init__(self, nvml: Any) -> None:
        """Read through ``nvml``, the initialised NVML module."""
        self._nvml = nvml

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read every field once; a field that this GPU does not have is left out."""
        nvml = self._nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        for field in FIELDS:
            family = GaugeMetricFamily(field.name, field.text, labels=["gpu", "UUID", "device", "modelName"])
            for number, handle in enumerate(handles):
                labels = [
                    str(number),
                    nvml.nvmlDeviceGetUUID(handle),
                    f"nvidia{number}",
                    nvml.nvmlDeviceGetName(handle),
                ]
                try:
                    family.add_metric(labels, float(field.read(nvml, handle)))
                except nvml.NVMLError:
                    continue
            if family.samples:
                yield family


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
