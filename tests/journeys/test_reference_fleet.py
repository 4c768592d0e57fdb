"""The reference fleet as users meet it: real processes behind a real Envoy, killed and brought back."""

import json
import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from controlplane.target.report import read, summary
from tests.support.fleets import UP, end, fleet, kill, node, start, write
from tests.support.processes import gone, until

pytestmark = pytest.mark.journey

# Slow enough that what piles up while the machine stands still for seconds fits into the gateway's retry budget (64).
LOAD = """
import sys
from pathlib import Path
from controlplane.target.load import run_load
from controlplane.target.spec import LoadSpec
sys.exit(run_load(LoadSpec(sys.argv[1], Path(sys.argv[2]), rate_per_s=20.0, max_tokens=4, timeout_s=15.0)))
"""


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return all(map(gone, processes))


def state_files(run_dir: Path) -> set[str]:
    kept = ("logs", "xds", "bootstrap.json", "answers")
    files = (path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file())
    return {str(path) for path in files if not set(path.parts) & set(kept)}


def test_killing_the_whole_primary_pool_costs_no_request_and_the_hold_decides_its_return(tmp_path: Path) -> None:
    run_dir, record = tmp_path / "run", tmp_path / "load.jsonl"
    with fleet(run_dir) as (_, ready):
        load = start(LOAD, ready["gateway"], str(record))
        until(lambda: record.exists() and len(read(record)) > 40)
        before = [node(run_dir, name) for name in ("primary-0", "primary-1")]
        until_unix = time.time() + 2.0
        for entry in before:
            write(run_dir / "nodes" / f"{entry['node']}.hold", {"until": until_unix, "lease": "test"})
        killed = time.time()
        for entry in before:
            kill(entry)
        until(lambda: any(line.intended > killed and line.served_by == "standby-0" for line in read(record)))
        until(lambda: all(not psutil.pid_exists(entry["pid"]) for entry in before))
        until(lambda: all(node(run_dir, name)["restarts"] == 1 for name in ("primary-0", "primary-1")))
        assert 0.0 <= time.time() - until_unix < 10.0
        back = time.time()
        until(lambda: any(line.intended > back and line.served_by == "primary-0" for line in read(record)))
        assert not list((run_dir / "nodes").glob("*.hold"))
        assert [node(run_dir, name)["url"] for name in ("primary-0", "primary-1")] == [entry["url"] for entry in before]
        assert end(load, within_s=45.0)[0] == 0
    found = summary(read(record))
    assert found.requests > 80
    assert found.failed == 0


def test_sigterm_stops_everything_and_leaves_only_logs_and_configuration(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        processes = family(process)
        began = time.monotonic()
        assert end(process) == (0, "")
        assert time.monotonic() - began < 10.0
    until(lambda: all_gone(processes))
    assert state_files(tmp_path) == set()


def test_sigkill_of_the_fleet_leaves_no_process_and_the_directory_can_be_used_again(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        processes = family(process)
        process.kill()
        process.communicate()
        until(lambda: all_gone(processes))
    (tmp_path / "ready.json").unlink()
    with fleet(tmp_path) as (_, ready):
        assert set(ready["endpoints"]) == {"primary-0", "primary-1", "standby-0", "base-0", "cache-0"}


def test_a_second_fleet_on_the_same_directory_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    with fleet(tmp_path) as (process, _):
        second = start(UP, str(tmp_path), "{}")
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
        # Each process works it out from the clock of its own: a clock that was set in between shows.
        assert psutil.Process(entry["pid"]).create_time() == pytest.approx(entry["started_at"], abs=2)
        since_boot_s = psutil.Process(entry["pid"]).create_time() - psutil.boot_time()
        assert since_boot_s == pytest.approx(entry["started_after_boot_s"], abs=0.01)
        assert os.getpgid(entry["pid"]) == entry["pgid"]
        assert (tmp_path / "gateway" / "listener").read_text().strip() == ready["gateway"].removeprefix("http://")
        assert (tmp_path / "gateway" / "admin").read_text().strip() == ready["admin"].removeprefix("http://")
