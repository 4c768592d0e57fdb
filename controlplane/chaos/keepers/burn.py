"""Keeping a device busy: matrix products at a duty cycle, and memory held; on the GPU, or on CPUs where there is none.

On CPUs every loop is a process and a session of its own. Linux may share CPUs out by session (autogroup): the threads
of one process would then weigh as much as one, and how many there are would change nothing. The ceilings are read
through NVML several times a second: a burner ends by itself before it does a GPU harm. What cannot be read (a GPU
without a power sensor) is no ceiling.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

from controlplane.chaos.keepers.keeper import KeeperError

PERIOD_S = 0.1
"""One turn of the duty cycle: busy for a share of it, then idle."""
CEILING_POLL_S = 0.25
"""How often temperature and power are read."""
CPU_SIZE, GPU_SIZE = 256, 4096
"""Rows of the square matrices: a product takes a millisecond or so, so that a duty cycle can be kept."""
BEGIN_S = 10.0
"""Longest wait for the first turn of the duty cycle."""
MIB = 1024 * 1024


@dataclass(slots=True)
class Burn:
    """One burner."""

    duty: float
    """Share (0..1) of the time."""
    memory_mib: float = 0.0
    threads: int = 1
    """Loops for each CPU, where there is no GPU."""
    max_temperature_c: float = 85.0
    max_power_ratio: float = 1.1
    pid: int = 0
    """The process whose device is kept busy; 0 is any."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a device."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Event = field(default_factory=threading.Event)
    _failed: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _loops: list[int] = field(default_factory=list)
    """Process ids."""
    _held: Any = None
    _gpu: "Gpu | None" = None
    _look_at: float = 0.0

    @classmethod
    def read(cls, settings: Mapping[str, float | str]) -> Self:
        """Read the settings of an order."""
        return cls(
            float(settings["duty"]), float(settings["memory_mib"]), int(settings["threads"]),
            float(settings["max_temperature_c"]), float(settings["max_power_ratio"]), int(settings.get("pid", 0)),
            str(settings.get("device", "auto")),
        )  # fmt: skip

    def begin(self) -> None:
        """Take the memory and begin to compute.

        Raises:
            KeeperError: when PyTorch is missing, the device is, or it has not so much memory.
        """
        self._gpu = None if self.device == "cpu" else find_gpu(self.pid)
        if self._gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = self._gpu.uuid
            if why := self._gpu.too_much(self.max_temperature_c, self.max_power_ratio):
                raise KeeperError(why)
        elif self.pid:
            with suppress(OSError):
                os.sched_setaffinity(0, os.sched_getaffinity(self.pid))
        try:
            import torch  # noqa: PLC0415 - a second's work, and only burners need it
        except ImportError as error:
            raise KeeperError(f"PyTorch is missing ({error}); install controlplane[target]") from error
        on_gpu = self.device != "cpu" and torch.cuda.is_available()
        if self.device == "cuda" and not on_gpu:
            raise KeeperError("there is no CUDA device")
        torch.set_num_threads(1)
        device = torch.device("cuda" if on_gpu else "cpu")
        try:
            self._held = torch.ones(int(self.memory_mib * MIB), dtype=torch.uint8, device=device)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            raise KeeperError(f"cannot hold {self.memory_mib:.0f} MiB on {device}") from error
        if not on_gpu:
            self._begin_on_cpus(torch, device, self.threads * len(os.sched_getaffinity(0)))
            return
        self._threads = [threading.Thread(target=self._burn, args=(torch, device), daemon=True)]
        self._threads[0].start()
        if not self._busy.wait(BEGIN_S):
            raise KeeperError(self._failed[0] if self._failed else f"{device} computes nothing")

    def _begin_on_cpus(self, torch: Any, device: Any, count: int) -> None:
        """Fork so many loops and wait until each has had a turn."""
        reading, writing = os.pipe()
        ours = os.getpid()
        for _ in range(count):
            loop = os.fork()
            if loop == 0:
                self._be_loop(torch, device, ours, writing)
            self._loops.append(loop)
        os.close(writing)
        deadline, left = time.monotonic() + BEGIN_S, count
        try:
            while left:
                ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
                said = os.read(reading, count) if ready else b""
                if not said:
                    raise KeeperError(f"{device} computes nothing")
                left -= len(said)
        finally:
            os.close(reading)

    def _be_loop(self, torch: Any, device: Any, keeper: int, writing: int) -> NoReturn:
        """Compute in a forked process until the keeper kills it, or is gone."""
        try:
            os.closerange(3, writing)  # Whoever waits for the keeper's pipe would wait for this process, too.
            os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            told = threading.Event()

            def turn() -> bool:
                if not told.is_set():
                    told.set()
                    os.write(writing, b".")
                return os.getppid() == keeper

            self._compute(torch, device, turn)
        finally:
            os._exit(1)

    def tick(self) -> str:
        """End when computing failed, or a ceiling is reached."""
        if self._failed:
            return self._failed[0]
        if any(os.waitpid(loop, os.WNOHANG) != (0, 0) for loop in self._loops):
            return "a loop on a CPU has died"
        now = time.monotonic()
        if self._gpu is None or now < self._look_at:
            return ""
        self._look_at = now + CEILING_POLL_S
        return self._gpu.too_much(self.max_temperature_c, self.max_power_ratio)

    def end(self) -> None:
        """Stop computing and give the memory back."""
        self._stop.set()
        for loop in self._loops:
            with suppress(OSError):
                os.kill(loop, signal.SIGKILL)
        for loop in self._loops:
            with suppress(OSError):
                os.waitpid(loop, 0)
        for thread in self._threads:
            thread.join(2.0)
        self._held = None

    def _burn(self, torch: Any, device: Any) -> None:
        """Compute until told to stop; what goes wrong is kept."""

        def turn() -> bool:
            self._busy.set()
            return not self._stop.is_set()

        try:
            self._compute(torch, device, turn)
        except RuntimeError as error:
            self._failed.append(f"computing failed: {error}")

    def _compute(self, torch: Any, device: Any, turn: Callable[[], bool]) -> None:
        """Compute for a share of every period, and ask after each busy part whether to go on."""
        size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
        left = torch.randn(size, size, device=device)
        right = torch.randn(size, size, device=device)
        out = torch.empty(size, size, device=device)
        going = True
        while going:
            began = time.monotonic()
            while time.monotonic() - began < self.duty * PERIOD_S:
                torch.mm(left, right, out=out)
                if device.type == "cuda":
                    torch.cuda.synchronize()
            going = turn()
            self._stop.wait(max(0.0, began + PERIOD_S - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML shows it."""

    nvml: Any
    handle: Any
    uuid: str

    def too_much(self, max_temperature_c: float, max_power_ratio: float) -> str:
        """Return which ceiling is reached, or an empty string."""
        nvml = self.nvml
        with suppress(nvml.NVMLError):
            now_c = nvml.nvmlDeviceGetTemperature(self.handle, nvml.NVML_TEMPERATURE_GPU)
            if now_c >= max_temperature_c:
                return f"the GPU is {now_c} C hot, its ceiling is {max_temperature_c:g} C"
        with suppress(nvml.NVMLError):
            drawn = nvml.nvmlDeviceGetPowerUsage(self.handle) / nvml.nvmlDeviceGetPowerManagementLimit(self.handle)
            if drawn > max_power_ratio:
                return f"the GPU draws {drawn:.0%} of its power limit, its ceiling is {max_power_ratio:.0%}"
        return ""

    def busy_ratio(self) -> float:
        """Return the share (0..1) of the last moment in which it computed."""
        return float(self.nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu) / 100


def find_gpu(pid: int) -> Gpu | None:
    """Return the GPU that a process computes on; the first one when none says so, None without any."""
    try:
        import pynvml as nvml  # noqa: PLC0415 - a foreign library that only GPU machines need

        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        using = [h for h in handles if pid in (p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(h))]
        for handle in (*using, *handles):
            uuid = nvml.nvmlDeviceGetUUID(handle)
            return Gpu(nvml, handle, uuid.decode() if isinstance(uuid, bytes) else uuid)
    except ImportError:
        return None
    except nvml.NVMLError:
        return None
    return None
