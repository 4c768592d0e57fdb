"""Files that others read while we write them: whole, or as they were before."""

import fcntl
import os
import re
from contextlib import suppress
from io import FileIO
from pathlib import Path
from secrets import token_hex


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file beside the real one, onto the disk, and rename it into place.

    What a writer of the same file left beside it when it was killed is removed.

    Args:
        path: the file; its directory must exist.
        text: what it is to hold.
        mode: permissions of a new file, before the process's umask.

    Raises:
        OSError: when it cannot be written; the old file is then untouched and nothing lies beside it.
    """
    beside, file = _beside(path, mode)
    with file:
        try:
            data = memoryview(text.encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
    _sweep(path)


def _beside(path: Path, mode: int) -> tuple[Path, FileIO]:
    """Open a file of our own beside another one; it is locked for as long as it is open."""
    while True:
        # Two replicas may write the same file at once, with the same pid where each has a container of its own: each
        # has one of its own beside it, and the last one stays.
        beside = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}.new")
        file = FileIO(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w")
        with suppress(OSError):  # A file system without locks: nobody can take one to remove it, either.
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return beside, file
        file.close()  # Somebody removed it before it was locked, as a dead writer's.


def _sweep(path: Path) -> None:
    """Remove what writers left beside a file when they were killed; whoever lives holds the lock of his own.

    A lock tells, and not the pid in the name: that may be of another container, and alive there.
    """
    ours = re.compile(rf"\.{re.escape(path.name)}\.\d+\.[0-9a-f]+\.new")
    with suppress(OSError):
        for left in [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]:
            with suppress(OSError), left.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
