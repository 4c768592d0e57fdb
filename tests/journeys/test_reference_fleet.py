"""The reference fleet as users meet it: real processes behind a real Envoy, killed and brought back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from controlplane.target.report import read, summary

pytestmark = pytest.mark.journey

ROOT = Path(__file__).resolve().parents[2]
UP = """
import sys
from pathlib import Path
from controlplane.target.errors import TargetError
from controlplane.target.fleet import run_fleet
from controlplane.target.spec import FleetSpec
try:
    sys.exit(run_fleet(FleetSpec(Path(sys.argv[1]))))
except TargetError as error:
    sys.exit(str(error))
"""
LOAD = """
import sys
from pathlib import Path
from controlplane.target.load import run_load
from controlplane.target.spec import LoadSpec
sys.exit(run_load(LoadSpec(sys.argv[1], Path(sys.argv[2]), rate_per_s=60.0, max_tokens=4)))
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM, within_s: float = 15.0) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=within_s)
    return process.returncode, errors


def until(true: Callable[[], Any], within_s: float = 30.0) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s")


@contextmanager
def fleet(run_dir: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = start(UP, str(run_dir))
    try:
        until(lambda: (run_dir / "ready.json").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process, json.loads((run_dir / "ready.json").read_text())
    finally:
        if process.poll() is None:
            end(process)


def node(run_dir: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "nodes" / f"node-{name}.json").read_text())
    return found


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


def state_files(run_dir: Path) -> set[str]:
    kept = ("logs", "xds", "bootstrap.json", "answers")
    files = (path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file())
    return {str(path) for path in files if not set(path.parts) & set(kept)}


def test_killing_the_whole_primary_pool_costs_no_request_and_the_hold_decides_its_return(tmp_path: Path) -> None:
    run_dir, record = tmp_path / "run", tmp_path / "load.jsonl"
    with fleet(run_dir) as (_, ready):
        load = start(LOAD, ready["gateway"], str(record))
        until(lambda: record.exists() and len(read(record)) > 60)
        before = [node(run_dir, name) for name in ("primary-0", "primary-1")]
        until_unix = time.time() + 2.0
        for entry in before:
            hold = run_dir / "nodes" / f"{entry['node']}.hold"
            hold.with_suffix(".part").write_text(json.dumps({"until": until_unix, "lease": "test"}))
            hold.with_suffix(".part").replace(hold)
        killed = time.time()
        for entry in before:
            os.killpg(entry["pgid"], signal.SIGKILL)
        until(lambda: any(line.intended > killed and line.served_by == "standby-0" for line in read(record)))
        assert all(not psutil.pid_exists(entry["pid"]) for entry in before)
        until(lambda: all(node(run_dir, name)["restarts"] == 1 for name in ("primary-0", "primary-1")))
        assert 0.0 <= time.time() - until_unix < 1.0
        back = time.time()
        until(lambda: any(line.intended > back and line.served_by == "primary-0" for line in read(record)), 5.0)
        assert not list((run_dir / "nodes").glob("*.hold"))
        assert [node(run_dir, name)["url"] for name in ("primary-0", "primary-1")] == [entry["url"] for entry in before]
        assert end(load)[0] == 0
    found = summary(read(record))
    assert found.requests > 100
    assert found.failed == 0


def test_sigterm_stops_everything_and_leaves_only_logs_and_configuration(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        processes = family(process)
        began = time.monotonic()
        assert end(process) == (0, "")
        assert time.monotonic() - began < 3.0
    until(lambda: all_gone(processes), 3.0)
    assert state_files(tmp_path) == set()


def test_sigkill_of_the_fleet_leaves_no_process_and_the_directory_can_be_used_again(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        processes = family(process)
        process.kill()
        process.communicate()
        until(lambda: all_gone(processes), 3.0)
    (tmp_path / "ready.json").unlink()
    with fleet(tmp_path) as (_, ready):
        assert set(ready["endpoints"]) == {"primary-0", "primary-1", "standby-0", "base-0", "cache-0"}


def test_a_second_fleet_on_the_same_directory_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        second = start(UP, str(tmp_path))
        _, errors = second.communicate(timeout=15)
        assert second.returncode == 1
        assert f"kill -TERM {process.pid}" in errors
        assert "Traceback" not in errors
        assert process.poll() is None


def test_the_run_directory_tells_others_where_every_endpoint_is(tmp_path: Path) -> None:
    with fleet(tmp_path) as (_, ready):
        groups = [
            group
            for pool in ("primary", "standby", "base", "cache")
            for group in json.loads((tmp_path / "sd" / f"{pool}.json").read_text())
        ]
        assert {group["labels"]["endpoint"]: f"http://{group['targets'][0]}" for group in groups} == ready["endpoints"]
        assert [group["labels"]["model"] for group in groups] == ["full", "full", "full", "base", "full"]
        entry = node(tmp_path, "base-0")
        assert psutil.Process(entry["pid"]).create_time() == entry["started_at"]
        assert os.getpgid(entry["pid"]) == entry["pgid"]
        assert (tmp_path / "gateway" / "listener").read_text().strip() == ready["gateway"].removeprefix("http://")
        assert (tmp_path / "gateway" / "admin").read_text().strip() == ready["admin"].removeprefix("http://")
