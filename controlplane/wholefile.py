"""Files that others read while we write them: whole, or as they were before."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file beside the real one, onto the disk, and rename it into place.

    Args:
        path: the file; its directory must exist.
        text: what it is to hold.
        mode: permissions of a new file, before the process's umask.

    Raises:
        OSError: when it cannot be written; the old file is then untouched and nothing lies beside it.
    """
    # Two replicas may write the same file at once: each has one of its own beside it, and the last one stays.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb", buffering=0) as file:
            data = memoryview(text.encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
