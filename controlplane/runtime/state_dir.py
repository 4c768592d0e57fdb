"""The directory of one control plane: one process at a time, a token only its owner can read."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.errors import RunDirError
from controlplane.settings import ServeSettings


@contextmanager
def held(settings: ServeSettings) -> Iterator[None]:
    """Hold the state directory for this process; the kernel lets go of it however the process ends.

    Raises:
        RunDirError: when another control plane holds it, or it cannot be written.
    """
    lock = settings.state_dir / "lock"
    try:
        settings.journals.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunDirError(
            f"cannot write to {settings.state_dir}", str(error), "make it writable, or name another with --state-dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise RunDirError(
                f"another control plane (pid {file.read().strip() or 'unknown'}) runs on {settings.state_dir}",
                "two of them would pull the same levers",
                "stop that one, or name another directory with --state-dir",
            ) from error
        settings.address_file.unlink(missing_ok=True)  # A killed one could not take its own away.
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            settings.address_file.unlink(missing_ok=True)
            file.truncate(0)


def operator_token(settings: ServeSettings) -> str:
    """Return the operator's token; made at the first start, mode 0600.

    Raises:
        RunDirError: when it cannot be read or written.
    """
    path = settings.token_file
    try:
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        token = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(token + "\n")
    except OSError as error:
        raise RunDirError(f"cannot use {path}", str(error), "make it readable and writable for this user") from error
    return token
