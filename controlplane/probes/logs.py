"""Following log files: what was written since the last look, over rotation and truncation."""

import asyncio
import os
from bisect import bisect_left
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import BinaryIO

from controlplane.fleet.model import Endpoint
from controlplane.probes.lines import Line, read_line
from controlplane.probes.probe import Failure, Histogram, LogsSpec, Look, Page

MAX_READ_BYTES = 4 * 1024 * 1024
"""What one look reads at most; a file that grows faster is read on at the next look."""
MAX_LINE_BYTES = 256 * 1024
"""A longer line without an end is dropped: it is no log line."""

EDGES_S = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, inf,
)  # fmt: skip
"""vLLM's edges of request latency, with finer ones below: a slow service's threshold stands on an edge."""


class Tail:
    """One file, from where it ended when it was first seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._inode = -1
        self._rest = b""
        self._first = True
        self._reading = Lock()
        """Looks read in threads; one that was cancelled may still be reading when the next one begins."""

    def read(self) -> list[str]:
        """Return the whole lines that were written since the last call.

        Raises:
            OSError: when the file cannot be read; a file that is not there yet has no lines.
        """
        with self._reading:
            return self._read()

    def _read(self) -> list[str]:
        lines: list[str] = []
        if self._file is not None:
            lines += self._more()
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._first = False  # What comes later is new from its first line.
            return lines
        if stat.st_ino != self._inode:
            lines += self._last_of_the_old_one()
            self._open()
            lines += self._more()
        elif self._file is not None and stat.st_size < self._file.tell():
            self._file.seek(0)  # It was truncated in place (`copytruncate`).
            self._rest = b""
            lines += self._more()
        return lines

    def _last_of_the_old_one(self) -> list[str]:
        """Read a file that was rotated away to its end: nothing leads back to it."""
        lines: list[str] = []
        while more := self._more():
            lines += more
        return lines

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._path.open("rb")
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._rest = b""
        if self._first:
            self._file.seek(0, os.SEEK_END)
        self._first = False

    def _more(self) -> list[str]:
        if self._file is None:
            return []
        content = self._rest + self._file.read(MAX_READ_BYTES)
        whole, _, self._rest = content.rpartition(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""
        return whole.decode("utf-8", "replace").split("\n") if whole else []

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(slots=True)
class _Read:
    """What was counted of one endpoint's lines since it was first looked at."""

    tail: Tail
    errors: float = 0.0
    fatals: float = 0.0
    requests: float = 0.0
    server_errors: float = 0.0
    queue_depth: float | None = None
    running: float | None = None
    buckets: list[float] = field(default_factory=lambda: [0.0] * len(EDGES_S))

    def take(self, line: Line) -> None:
        """Count one line."""
        self.errors += line.is_error
        self.fatals += line.fatal
        self.queue_depth = line.queue_depth if line.queue_depth is not None else self.queue_depth
        self.running = line.running if line.running is not None else self.running
        if line.status is not None:
            self.requests += 1
            self.server_errors += line.status >= 500
        if line.processing_time_s is not None:
            self.buckets[bisect_left(EDGES_S, line.processing_time_s)] += 1


class LogsProbe:
    """Follow each endpoint's log."""

    name = "logs"

    def __init__(self, spec: LogsSpec, base: Path) -> None:
        """Take what is followed.

        Args:
            spec: the file's name and what its lines may be taken for.
            base: the directory that relative names start at.
        """
        self.every = spec.every
        self._spec = spec
        self._base = base
        self._reads: dict[str, _Read] = {}

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once: read what is new."""
        started = monotonic()
        path = self._path(endpoint)
        read = self._reads.get(endpoint.name)
        if read is None:
            read = self._reads[endpoint.name] = _Read(Tail(path))
        try:
            texts = await asyncio.to_thread(read.tail.read)
        except OSError as error:
            now = monotonic()
            return Look(endpoint, self.name, now, now - started, Failure.ANSWER, f"cannot read {path}: {error}")
        notes = []
        for text in texts:
            line = read_line(text)
            read.take(line)
            if line.fatal:
                notes.append(text[:400])
        now = monotonic()
        return Look(endpoint, self.name, now, now - started, page=self._page(read, tuple(notes[-5:])))

    def close(self) -> None:
        """Let every file go."""
        for read in self._reads.values():
            read.tail.close()

    def _path(self, endpoint: Endpoint) -> Path:
        name = self._spec.file
        for key, value in (("{endpoint}", endpoint.name), ("{node}", endpoint.node), ("{pool}", endpoint.pool)):
            name = name.replace(key, value.replace("/", "_").replace("..", "_"))
        return self._base / name

    def _page(self, read: _Read, notes: tuple[str, ...]) -> Page:
        counters = {"log_errors": read.errors, "log_fatals": read.fatals}
        if not self._spec.engine:
            return Page(counters, notes=notes)
        if read.requests:
            counters |= {"requests": read.requests, "server_errors": read.server_errors}
        gauges = {"queue_depth": read.queue_depth, "requests_running": read.running}
        total, cumulative = 0.0, []
        for count in read.buckets:
            total += count
            cumulative.append(total)
        histograms = {"latency_p99": Histogram(EDGES_S, tuple(cumulative))}
        known = {name: value for name, value in gauges.items() if value is not None}
        return Page(counters, known, histograms, notes=notes)
