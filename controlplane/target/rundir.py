"""The run directory: where a fleet keeps its state for others to read. Every file is written whole, by rename.

One fleet holds the directory at a time, by a lock on ``up.lock`` that the kernel drops when the holder dies.
"""

import errno
import fcntl
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from controlplane.target.errors import TargetError

PORTS_FROM = 18_000
"""Lowest port chosen for a fleet."""
PORTS_TO = 32_000
"""Stays below Linux's default range for outgoing connections: a dead endpoint's port must not become a client's own
port, or a retry would connect to itself and the restarted endpoint would find its port taken."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """The paths of one fleet's state."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked while a fleet runs; holds its process id."""
        return self.root / "up.lock"

    @property
    def ready(self) -> Path:
        """Exists while the whole fleet answers."""
        return self.root / "ready.json"

    @property
    def logs(self) -> Path:
        """Folder of every process's log."""
        return self.root / "logs"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway's configuration and addresses."""
        return self.root / "gateway"

    def discovery(self, pool: str) -> Path:
        """Return the Prometheus file_sd list of a pool's endpoints."""
        return self.root / "sd" / f"{pool}.json"

    def node(self, node: str) -> Path:
        """Return the file that says which process serves a node's endpoint."""
        return self.root / "nodes" / f"{node}.json"

    def hold(self, node: str) -> Path:
        """Return the file with which others keep a node down for a time."""
        return self.root / "nodes" / f"{node}.hold"

    def link(self, node: str) -> Path:
        """Return the file with which others break a node's link for a time."""
        return self.root / "links" / f"{node}.link"

    @property
    def cache_token(self) -> Path:
        """The secret that publishers of answers show to the response cache; readable for the owner alone."""
        return self.root / "cache" / "token"

    @property
    def answers(self) -> Path:
        """Folder of the response cache's SQLite tier; it outlives the fleet, so that the next one starts warm."""
        return self.root / "cache" / "answers"

    @property
    def netns(self) -> Path:
        """Names the network namespaces and the bridge that must be removed."""
        return self.root / "netns.json"

    def state_files(self) -> Iterator[Path]:
        """Yield what must be gone when no fleet runs: everything but logs and the gateway's configuration."""
        yield self.ready
        for folder in ("sd", "nodes", "links"):
            yield from (self.root / folder).glob("*")
        yield self.gateway / "admin"
        yield self.gateway / "listener"
        yield self.cache_token

    def clear(self) -> None:
        """Remove the state files."""
        for path in self.state_files():
            path.unlink(missing_ok=True)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the directory for this fleet: make its folders, lock it, and leave it without state behind.

        Raises:
            TargetError: when another fleet holds it, or it cannot be written.
        """
        with writing(self.root):
            for folder in ("sd", "nodes", "links", "logs", "gateway/xds", "cache/answers"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        with self._locked() as lock:
            with writing(self.root):
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n".encode())
                self.clear()
            try:
                yield
            finally:
                with suppress(OSError):
                    self.clear()
                    self.lock.unlink(missing_ok=True)

    def _locked(self) -> FileIO:
        """Open the lock's file, locked; one that an ending fleet removed before it was locked keeps nobody out."""
        while True:
            with writing(self.root):
                lock = self.lock.open("ab+", buffering=0)  # Unbuffered: a full disk is found out at the write.
            try:
                self._lock(lock)
            except TargetError:
                lock.close()
                raise
            if os.fstat(lock.fileno()).st_nlink:
                return lock
            lock.close()

    def _lock(self, lock: FileIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode(errors="replace").strip() or "unknown"
            raise TargetError(
                f"a fleet already runs on {self.root}",
                f"process {holder} holds {self.lock}",
                f"Stop it (kill -TERM {holder}), or choose another --run-dir.",
            ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write below ``path`` into an error with the way out."""
    try:
        yield
    except OSError as error:
        fix = (
            "Free some space, or choose another --run-dir."
            if error.errno == errno.ENOSPC
            else "Choose another --run-dir."
        )
        raise TargetError(f"cannot write {error.filename or path}", str(error.strerror or error), fix) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole: readers see the old or the new text, never a part.

    Raises:
        TargetError: when it cannot be written; nothing is left half-written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            part.write_text(text)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read.

    Raises:
        TargetError: when it cannot be written.
    """
    with writing(path):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON whole, as ``write_text`` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def free_ports(count: int) -> list[int]:
    """Choose TCP ports on 127.0.0.1 that nobody listens on.

    Raises:
        TargetError: when too few are free.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(PORTS_FROM, PORTS_TO), 20 * count + 200):
        if len(found) == count:
            break
        if port_is_free(port):
            found.append(port)
    if len(found) < count:
        raise TargetError(
            f"cannot find {count} free ports", f"most of {PORTS_FROM}-{PORTS_TO} are taken", "Stop what listens there."
        )
    return found


def port_is_free(port: int) -> bool:
    """Tell whether a listener could take this port on 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
