"""One forked process as its supervisor sees it: started, awaited, ended. Nodes and links are built on it."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from controlplane.target.forkserver import ForkServer, Work


@dataclass(slots=True)
class Child:
    """At most one process at a time, in a process group of its own."""

    fork_server: ForkServer
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the process that was started last is dead."""
    _process: ForkServerProcess | None = None

    async def start(self, work: Work, log_path: Path) -> int:
        """Fork a process that does ``work``; return its id."""
        self.exited.clear()
        process = await self._fork(work, log_path)
        self._process = process
        asyncio.get_running_loop().add_reader(process.sentinel, self._note_exit, process.sentinel)
        return process.pid or 0

    async def _fork(self, work: Work, log_path: Path) -> ForkServerProcess:
        """Fork in a thread; a fleet that breaks off meanwhile leaves no process that nobody knows of."""
        forking = asyncio.ensure_future(asyncio.to_thread(self.fork_server.spawn, work, log_path))
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            process = await forking  # A thread cannot be stopped; what it has started can.
            process.kill()
            process.join()
            raise

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the process to exit; return whether it has."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), timeout_s)
        return self.exited.is_set()

    def bury(self) -> None:
        """Free what the kernel and Python keep of a process that has exited."""
        if self._process is not None:
            self._process.join()
            self._process.close()
            self._process = None

    async def stop(self, timeout_s: float) -> None:
        """End the process: SIGTERM, then SIGKILL of its group after ``timeout_s`` seconds."""
        process = self._process
        if process is None or process.pid is None:
            return
        for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 1.0)):
            if self.exited.is_set():
                return
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            await self.wait(patience_s)

    def _note_exit(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.exited.set()
