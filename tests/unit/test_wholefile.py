"""A file is written whole, whoever is killed meanwhile, and what the killed left beside it does not stay."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.wholefile import write_whole

DIES = """
import os, signal, sys
from pathlib import Path
from controlplane.wholefile import write_whole
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), "half")
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_a_killed_writer_left_beside_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    write_whole(file, "old")
    done = subprocess.run([sys.executable, "-c", DIES, str(file)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert file.read_text() == "old"
    assert len(names(tmp_path)) == 2
    write_whole(file, "new")
    assert (names(tmp_path), file.read_text()) == (["routes.json"], "new")


def test_what_a_living_writer_and_strangers_have_beside_a_file_is_left_alone(tmp_path: Path) -> None:
    file, theirs = tmp_path / "routes.json", tmp_path / ".routes.json.7.0a1b2c3d.new"
    strangers = [".routes.json.new", ".routes.json.mine.new", ".other.json.7.0a1b2c3d.new"]
    for name in strangers:
        (tmp_path / name).write_text("mine")
    with theirs.open("w") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        write_whole(file, "new")
        assert names(tmp_path) == sorted([theirs.name, *strangers, "routes.json"])
    write_whole(file, "newer")
    assert names(tmp_path) == sorted([*strangers, "routes.json"])


def test_a_file_that_was_taken_for_a_dead_writers_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, seen = fcntl.flock, list[str]()

    def taken_first(file: object, how: int) -> None:
        if not seen:
            seen.extend(names(tmp_path))
            (tmp_path / seen[0]).unlink()
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr("controlplane.wholefile.fcntl.flock", taken_first)
    write_whole(tmp_path / "routes.json", "new")
    assert len(seen) == 1
    assert (names(tmp_path), (tmp_path / "routes.json").read_text()) == (["routes.json"], "new")


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_: object, __: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("controlplane.wholefile.fcntl.flock", no_locks)
    write_whole(tmp_path / "routes.json", "new")
    assert (names(tmp_path), (tmp_path / "routes.json").read_text()) == (["routes.json"], "new")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "routes.json"
    write_whole(file, "old", 0o600)
    assert file.stat().st_mode & 0o777 == 0o600

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert (names(tmp_path), file.read_text()) == (["routes.json"], "old")
