"""The directory of one control plane: one process at a time, a token only its owner can read."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controlplane.errors import RunDirError
from controlplane.settings import ServeSettings
from controlplane.tls import first_certificate
from controlplane.wholefile import write_whole


@contextmanager
def held(settings: ServeSettings) -> Iterator[None]:
    """Hold the state directory for this process; the kernel lets go of it however the process ends.

    Raises:
        RunDirError: when another control plane holds it, or it cannot be written.
    """
    lock = settings.state_dir / "lock"
    try:
        settings.journals.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab+", buffering=0)  # Unbuffered: a full disk is found out at the write.
    except OSError as error:
        raise _unwritable(settings, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "unknown"
            raise RunDirError(
                f"another control plane (pid {holder}) runs on {settings.state_dir}",
                "two of them would pull the same levers",
                "stop that one, or name another directory with --state-dir",
            ) from error
        try:
            settings.address_file.unlink(missing_ok=True)  # A killed one could not take its own away.
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except OSError as error:
            raise _unwritable(settings, error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                settings.address_file.unlink(missing_ok=True)
                file.truncate(0)


def _unwritable(settings: ServeSettings, error: OSError) -> RunDirError:
    return RunDirError(
        f"cannot write to {settings.state_dir}",
        str(error),
        "make it writable, free space on its disk, or name another with --state-dir",
    )


def publish_address(settings: ServeSettings, url: str) -> None:
    """Write down where this server answers, for the command line.

    Raises:
        RunDirError: when it cannot be written.
    """
    try:
        if settings.tls_cert:
            write_whole(settings.pinned_file, first_certificate(settings.tls_cert.read_text(encoding="utf-8")))
        else:
            settings.pinned_file.unlink(missing_ok=True)
        write_whole(settings.address_file, url + "\n")
    except OSError as error:
        raise _unwritable(settings, error) from error


def operator_token(settings: ServeSettings) -> str:
    """Return the operator's token; made at the first start, mode 0600.

    Raises:
        RunDirError: when it cannot be read or written.
    """
    return _token(settings.token_file)


def webhook_token(settings: ServeSettings) -> str:
    """Return the token of those who post alerts, and of nobody else; made at the first start, mode 0600.

    Raises:
        RunDirError: when it cannot be read or written.
    """
    return _token(settings.webhook_token_file)


def _token(path: Path) -> str:
    try:
        return _read(path) or _made(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirError(f"cannot use {path}", str(error), "make it readable and writable for this user") from error


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _made(path: Path) -> str:
    """Make a token, unless another replica that starts at once and is given the same file has made one meanwhile."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # A file system without locks.
            fcntl.flock(directory, fcntl.LOCK_EX)
        token = _read(path)
        if not token:
            token = secrets.token_urlsafe(32)
            write_whole(path, token + "\n", 0o600)
    finally:
        os.close(directory)
    return token
