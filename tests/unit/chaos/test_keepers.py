"""A keeper ends at the first of many reasons, and undoes its work whatever happens."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.keepers import fill
from controlplane.chaos.keepers.burn import Burn, Gpu
from controlplane.chaos.keepers.fill import Fill, may_not_fill
from controlplane.chaos.keepers.hold import Hold
from controlplane.chaos.keepers.keeper import (
    KeeperError,
    Order,
    holder,
    keep,
    lives,
    read_order,
    spell_order,
    started_after_boot_s,
)
from controlplane.chaos.keepers.stall import Stall
from controlplane.chaos.keepers.table import WORKS
from controlplane.chaos.substrates import keeper_process
from controlplane.fleet.model import Endpoint
from controlplane.flows.faults import REVERT_WITHIN_S
from tests.support.processes import until


@dataclass
class Told:
    """A work that notes what it is told."""

    said: list[str] = field(default_factory=list)
    on_tick: Callable[[], str] = lambda: ""
    fails: bool = False

    def begin(self) -> None:
        self.said.append("begin")
        if self.fails:
            raise KeeperError("no")

    def tick(self) -> str:
        return self.on_tick()

    def end(self) -> None:
        self.said.append("end")


def order(file: Path | None, lasts_s: float = 30.0, **changes: Any) -> Order:
    return Order("stall", str(file or ""), "l1", time.time() + lasts_s, **changes)


def test_it_ends_at_its_time_and_undoes_its_work(tmp_path: Path) -> None:
    work, file, ready = Told(), tmp_path / "k", []
    assert keep(order(file, 0.05), work, lambda: ready.append(holder(file))) == "its time is over"
    assert work.said == ["begin", "end"]
    assert ready == ["l1"]
    assert not file.exists()


def test_setting_the_clock_back_does_not_make_it_last_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    clock = iter([now])
    asked = Order("stall", "", "l1", now + 0.1)
    monkeypatch.setattr(time, "time", lambda: next(clock, now - 3600))
    assert keep(asked, Told()) == "its time is over"


def test_removing_its_file_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "k"

    def remove() -> str:
        file.unlink(missing_ok=True)
        return ""

    assert keep(order(file), Told(on_tick=remove)) == "its file is gone"


def test_a_file_that_goes_between_two_looks_at_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "k"
    monkeypatch.setattr(os.path, "exists", lambda _: True)

    def remove() -> str:
        file.unlink(missing_ok=True)
        return ""

    assert keep(order(file), Told(on_tick=remove)) == "its file is gone"


def test_another_leases_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "k"

    def take() -> str:
        file.write_text(json.dumps({"lease": "l2"}))
        return ""

    assert keep(order(file), Told(on_tick=take)) == "its file is another's"
    assert holder(file) == "l2"


def test_it_does_not_outlive_who_asked_for_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        began_s = started_after_boot_s(owner.pid)

        def kill() -> str:
            owner.kill()
            return ""

        found = keep(order(None, owner=owner.pid, owner_started_after_boot_s=began_s), Told(on_tick=kill))
    assert found == "the control plane is dead"


def test_a_signal_ends_it_in_order_and_what_handled_signals_before_does_again() -> None:
    def tell() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return ""

    before, work = signal.getsignal(signal.SIGTERM), Told(on_tick=tell)
    assert keep(order(None), work) == "it was told to"
    assert work.said == ["begin", "end"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_work_that_must_end_early_says_why() -> None:
    assert keep(order(None), Told(on_tick=lambda: "too hot")) == "too hot"


def test_a_work_that_cannot_be_done_leaves_nothing(tmp_path: Path) -> None:
    work, file = Told(fails=True), tmp_path / "k"
    with pytest.raises(KeeperError):
        keep(order(file), work)
    assert work.said == ["begin", "end"]
    assert not file.exists()


def test_a_directory_that_cannot_be_written_is_told_and_nothing_is_done(tmp_path: Path) -> None:
    work = Told()
    with pytest.raises(KeeperError, match="gone"):
        keep(order(tmp_path / "gone" / "k"), work)
    assert "begin" not in work.said


@pytest.fixture
def deaf() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ignores SIGTERM."""
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo deaf; exec sleep 60"], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"deaf\n"
        yield started
        started.kill()


def written_down(directory: Path, pid: int) -> Lease:
    """Write down that a process is the keeper of a lease; return the lease."""
    endpoint = Endpoint("primary-0", "primary", "http://127.0.0.1:1", node="node-a")
    until = datetime.now(UTC) + timedelta(minutes=1)
    lease = Lease("l1", "d1", FaultKind.STALLED_ENGINE, endpoint, until, LeaseState.INJECTED, until)
    page = {"lease": "l1", "pid": pid, "started_after_boot_s": started_after_boot_s(pid)}
    keeper_process.KeeperProcess(directory, "stall").file(lease).write_text(json.dumps(page), encoding="utf-8")
    return lease


async def test_one_that_does_not_end_when_it_is_told_is_killed_before_its_driver_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: "subprocess.Popen[bytes]"
) -> None:
    assert 2 * keeper_process.END_S < REVERT_WITHIN_S
    monkeypatch.setattr(keeper_process, "END_S", 0.1)
    keepers, lease = keeper_process.KeeperProcess(tmp_path, "stall"), written_down(tmp_path, deaf.pid)
    assert await keepers.stop(lease)
    assert deaf.wait(60) == -signal.SIGKILL
    assert keepers.find(lease) is None
    assert keepers.residue(lease) == ""


async def test_one_that_ends_in_the_moment_that_it_is_told_to_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: "subprocess.Popen[bytes]"
) -> None:
    keepers, lease = keeper_process.KeeperProcess(tmp_path, "stall"), written_down(tmp_path, deaf.pid)
    kill = os.kill

    def too_late(pid: int, number: int) -> None:
        kill(deaf.pid, signal.SIGKILL)
        deaf.wait(60)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", too_late)
    assert await keepers.stop(lease)
    assert keepers.find(lease) is None


def test_an_order_is_read_as_it_was_written() -> None:
    asked = order(Path("k"), settings={"duty": 0.5, "name": "x"})
    assert read_order(spell_order(asked)) == asked
    assert asked.work in WORKS


# -- the works ---------------------------------------------------------------------------------------------------------


def test_a_directory_that_shares_its_file_system_is_never_filled(tmp_path: Path) -> None:
    work = Fill(tmp_path, "filler", 0)
    with pytest.raises(KeeperError, match="must be a mount of its own"):
        work.begin()
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_system_is_never_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    monkeypatch.setattr(fill, "free_bytes", lambda _: fill.CEILING_BYTES + 1)
    assert "never filled" in may_not_fill(tmp_path)
    monkeypatch.setattr(fill, "free_bytes", lambda _: fill.CEILING_BYTES)
    assert may_not_fill(tmp_path) == ""


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "there is no directory" in may_not_fill(tmp_path / "gone")


def test_memory_that_would_leave_too_little_is_not_taken() -> None:
    work = Hold(memory_mib=1e6, leave_mib=1024)
    with pytest.raises(KeeperError, match="must be left"):
        work.begin()


def test_memory_is_given_back_when_others_take_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Hold(memory_mib=4, leave_mib=256)
    left = SimpleNamespace(available=300 * 1024**2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: left)
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)  # not the tests' own standing with the kernel
    assert keep(order(None, 0.05), work) == "its time is over"
    left.available = 255 * 1024**2
    with pytest.raises(KeeperError, match="must be left"):
        work.begin()
    assert "255 MiB are left" in work.tick()


@pytest.fixture
def engine() -> Iterator[psutil.Process]:
    """A process that leads a group of its own."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as started:
        yield psutil.Process(started.pid)
        started.kill()


def stands_still(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def set_clock(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    """Set the machine's clock, as far as it is seen in when a process began: the kernel moves its start along."""
    booted_at = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted_at + by_s)


def test_a_stopped_group_always_ends_running(tmp_path: Path, engine: psutil.Process) -> None:
    file = tmp_path / "k"
    work = Stall(engine.pid, engine.pid, started_after_boot_s(engine.pid), pause_s=0.1, run_s=0.1)

    def end_it_at_its_second_stop() -> None:
        for still in (True, False, True):
            until(lambda still=still: stands_still(engine) is still, what="it stands still and runs")  # type: ignore[misc]
        file.unlink()

    watching = threading.Thread(target=end_it_at_its_second_stop)
    watching.start()
    found = keep(order(file, 100.0), work)
    watching.join()
    assert found == "its file is gone"
    assert not stands_still(engine)


def test_a_group_that_stood_still_while_the_clock_was_set_runs_again(
    monkeypatch: pytest.MonkeyPatch, engine: psutil.Process
) -> None:
    work = Stall(engine.pid, engine.pid, started_after_boot_s(engine.pid))
    work.begin()
    until(lambda: stands_still(engine), what="it stands still")
    set_clock(monkeypatch, 1.0)
    work.end()
    assert not stands_still(engine)


@pytest.mark.parametrize("by_s", [-3600.0, 1.0])
def test_a_process_is_the_same_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    began_s = started_after_boot_s(os.getpid())
    assert not lives(os.getpid(), began_s + by_s)
    set_clock(monkeypatch, by_s)
    assert lives(os.getpid(), began_s)


def test_a_process_that_began_at_another_time_is_never_stopped() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        with pytest.raises(KeeperError, match="is gone"):
            Stall(stranger.pid, stranger.pid, 1.0).begin()
        assert psutil.Process(stranger.pid).status() != psutil.STATUS_STOPPED
        stranger.kill()


class FakeNvml(SimpleNamespace):
    """NVML as far as a burner asks it."""

    class NVMLError(Exception):
        """What NVML raises."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, hot_c: int | None, drawn: float | None) -> None:
        super().__init__()
        self.hot_c, self.drawn = hot_c, drawn

    def nvmlDeviceGetTemperature(self, *_: object) -> int:  # noqa: N802 - NVML's name
        if self.hot_c is None:
            raise self.NVMLError
        return self.hot_c

    def nvmlDeviceGetPowerUsage(self, _: object) -> float:  # noqa: N802 - NVML's name
        if self.drawn is None:
            raise self.NVMLError
        return self.drawn

    def nvmlDeviceGetPowerManagementLimit(self, _: object) -> float:  # noqa: N802 - NVML's name
        return 700.0


@pytest.mark.parametrize(
    ("hot_c", "drawn", "said"),
    [
        (60, 600, ""),
        (85, 600, "85 C hot"),
        (60, 800, "114% of its power limit"),
        (None, None, ""),
        (None, 800, "power"),
    ],
)
def test_a_burner_ends_at_its_ceilings(hot_c: int | None, drawn: float | None, said: str) -> None:
    work = Burn(0.5)
    work._gpu = Gpu(FakeNvml(hot_c, drawn), None, "GPU-1")
    found = work.tick()
    assert (said in found) if said else found == ""


def test_a_burner_looks_at_its_ceilings_now_and_then_and_at_nothing_without_a_gpu() -> None:
    work = Burn(0.5)
    assert work.tick() == ""
    work._gpu = Gpu(FakeNvml(90, 0), None, "GPU-1")
    work._look_at = time.monotonic() + 60
    assert work.tick() == ""


CPU_BURN = """
import os, psutil, sys
from controlplane.chaos.keepers.burn import Burn
work = Burn(0.5, threads=1, device="cpu")
try:
    work.begin()
    loops = psutil.Process().children()
    assert len(loops) == len(os.sched_getaffinity(0)), loops
    assert {os.getsid(loop.pid) for loop in loops} == {loop.pid for loop in loops}
    assert work.tick() == ""
    loops[0].kill()
    while loops[0].status() != psutil.STATUS_ZOMBIE:
        pass
    assert "died" in work.tick()
    print(*(loop.pid for loop in loops), flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
finally:
    work.end()
assert psutil.Process().children() == []
"""


@pytest.mark.skipif(find_spec("torch") is None, reason="burners compute with PyTorch")
@pytest.mark.parametrize("end", ["told", "killed"])
def test_loops_on_cpus_are_sessions_of_their_own_and_none_outlives_its_burner(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CPU_BURN, end], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout, done.stderr
    assert done.returncode == (0 if end == "told" else -9), done.stderr
    loops = [int(pid) for pid in done.stdout.split()]
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in loops):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_burner_by_hand_shows_a_probe_that_it_burns_while_it_does(tmp_path: Path) -> None:
    file = tmp_path / "burning"
    line = [sys.executable, "-m", "controlplane", "chaos", "burn", "--for", "60s", "--device", "cpu", "--duty", "0.05"]
    burner = subprocess.Popen([*line, "--ready-file", str(file)], stdout=subprocess.PIPE, text=True)
    assert burner.stdout is not None
    assert "burning" in burner.stdout.readline()
    until(file.exists, what="the file is there")
    burner.terminate()
    said, _ = burner.communicate(timeout=60)
    assert "ended" in said
    assert not file.exists()
