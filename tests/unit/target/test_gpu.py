"""DCGM's families from NVML: what a GPU tells, what one does not have, and one that has fallen off the bus."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controlplane.target import gpu
from controlplane.target.gpu import FIELDS, GpuCollector


class Nvml:
    """NVML of a machine with two GPUs; the second one answers nothing any more."""

    NVMLError = pynvml.NVMLError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML_"):
            return getattr(pynvml, name)
        return lambda *arguments: self.answer(name, *arguments)

    def answer(self, name: str, *arguments: Any) -> Any:
        if name == "nvmlDeviceGetCount":
            return 2
        if name == "nvmlDeviceGetHandleByIndex":
            return arguments[0]
        if arguments[0] == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if name == "nvmlDeviceGetPcieReplayCounter":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        known: dict[str, Any] = {
            "nvmlDeviceGetUUID": "GPU-1", "nvmlDeviceGetName": b"NVIDIA H200",
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:65:00.0"),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 * 1024**2, free=5 * 1024**2),
        }  # fmt: skip
        return known.get(name, 700_000)


def test_a_gpu_gives_dcgms_names_and_labels_and_a_lost_one_leaves_the_page_alone() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(Nvml()))
    families = {family.name: family.samples for family in registry.collect()}
    assert set(families) == {field.name for field in FIELDS} - {"DCGM_FI_DEV_PCIE_REPLAY_COUNTER"}
    (sample,) = families["DCGM_FI_DEV_GPU_UTIL"]
    assert sample.value == 97
    assert {**sample.labels, "hostname": ""} == {
        "gpu": "0", "UUID": "GPU-1", "pci_bus_id": "00000000:65:00.0", "device": "nvidia0", "modelName": "NVIDIA H200",
        "hostname": "",
    }  # fmt: skip
    assert families["DCGM_FI_DEV_POWER_USAGE"][0].value == 700
    assert families["DCGM_FI_DEV_FB_USED"][0].value == 3
    assert b"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{" in generate_latest(registry)


def test_without_a_driver_there_are_no_gpu_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    registry = CollectorRegistry()
    assert gpu.register(registry) is False
    assert list(registry.collect()) == []
