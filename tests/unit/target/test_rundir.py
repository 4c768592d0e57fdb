"""The run directory: one fleet at a time, whole files, clear errors."""

import fcntl
import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from controlplane.target.errors import TargetError
from controlplane.target.rundir import PORTS_FROM, PORTS_TO, RunDir, free_ports, write_json


def test_a_second_claim_names_the_holder(tmp_path: Path) -> None:
    with RunDir(tmp_path).claim(), pytest.raises(TargetError, match=str(os.getpid())), RunDir(tmp_path).claim():
        pass


def test_a_claim_clears_what_a_killed_fleet_left_and_removes_its_own_state(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    with run_dir.claim():
        pass
    write_json(run_dir.ready, {"pid": 1})
    write_json(run_dir.node("node-a"), {"pid": 1})
    with run_dir.claim():
        assert not run_dir.ready.exists()
        assert not run_dir.node("node-a").exists()
        write_json(run_dir.discovery("primary"), [])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_that_starts_while_another_one_ends_holds_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, ending = fcntl.flock, ExitStack()
    ending.enter_context(RunDir(tmp_path).claim())

    def end_first(file: int, how: int) -> None:
        ending.close()  # Between the opening of the lock's file and its locking.
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", end_first)
    with RunDir(tmp_path).claim(), pytest.raises(TargetError, match="already runs"), RunDir(tmp_path).claim():
        pass


def test_an_unwritable_directory_is_a_clear_error() -> None:
    with pytest.raises(TargetError, match="--run-dir"), RunDir(Path("/proc/fleet")).claim():
        pass


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"n": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TargetError, match="No space left"):
        write_json(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def test_free_ports_differ_and_lie_below_the_range_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(PORTS_FROM <= port < PORTS_TO for port in ports)
