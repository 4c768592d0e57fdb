"""One node: an endpoint's process and the supervisor that restarts it, as a kubelet would restart a container.

The fleet runs one ``Node.run`` task per node. Others may keep a dead endpoint down for a time by writing the node's
hold file: {"until": unix seconds, "lease": text}. An expired hold counts for nothing and is removed here.
"""

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

from controlplane.target.forkserver import ForkServer
from controlplane.target.rundir import RunDir, write_json
from controlplane.target.spec import EndpointSpec

HOLD_POLL_S = 0.05
"""How often a held node looks whether it may start."""
SWEEP_S = 1.0
"""How often a living node looks for an expired hold to remove."""
STEADY_S = 2.0
"""An endpoint that lived this long did not crash at start; its next restart is immediate."""
BACKOFF_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before restart number 1, 2, 3 ... of an endpoint that keeps dying young."""
GROUP_POLL_S = 0.002
"""How often a new process is asked whether it has its own process group yet."""


@dataclass(slots=True)
class Node:
    """A node and its one endpoint."""

    name: str
    pool: str
    endpoint: EndpointSpec
    run_dir: RunDir
    fork_server: ForkServer
    restarts: int = 0
    failed_young: int = 0
    """Starts in a row that did not last ``STEADY_S``."""
    _process: ForkServerProcess | None = None
    _stop_asked: asyncio.Event = field(default_factory=asyncio.Event)
    _exited: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where the endpoint answers."""
        return f"http://{self.endpoint.host}:{self.endpoint.port}"

    async def run(self) -> None:
        """Keep the endpoint running until ``stop``."""
        while not self._stop_asked.is_set():
            began = time.monotonic()
            await self._start()
            await self._until_exit()
            if self._stop_asked.is_set():
                return
            self.restarts += 1
            self.failed_young = 0 if time.monotonic() - began > STEADY_S else self.failed_young + 1
            await self._until_free()
            await self._pause(BACKOFF_S[min(self.failed_young, len(BACKOFF_S) - 1)])

    async def stop(self, timeout_s: float) -> None:
        """End the endpoint: SIGTERM, then SIGKILL of its group after ``timeout_s`` seconds."""
        self._stop_asked.set()
        process = self._process
        if process is None or process.pid is None:
            return
        for number, patience in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 1.0)):
            if self._exited.is_set():
                return
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), patience)

    async def _start(self) -> None:
        log_path = self.run_dir.logs / f"{self.endpoint.name}.log"
        self._exited.clear()
        process = await self._spawn(log_path)
        self._process = process
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._note_exit, process.sentinel)
        await self._publish(process)
        if self._stop_asked.is_set():
            await self.stop(0.0)

    async def _spawn(self, log_path: Path) -> ForkServerProcess:
        """Fork the endpoint; a fleet that breaks off meanwhile leaves no process that nobody knows of."""
        forking = asyncio.ensure_future(asyncio.to_thread(self.fork_server.spawn, self.endpoint, log_path))
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            process = await forking  # A thread cannot be stopped; what it has started can.
            process.kill()
            process.join()
            raise

    def _note_exit(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self._exited.set()

    async def _publish(self, process: ForkServerProcess) -> None:
        """Write who serves this node, once the process leads its own group."""
        pid = process.pid or 0
        try:
            while os.getpgid(pid) != pid and not self._exited.is_set():  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(GROUP_POLL_S)
            started_at = psutil.Process(pid).create_time()
        except (ProcessLookupError, psutil.NoSuchProcess):
            return
        write_json(
            self.run_dir.node(self.name),
            {
                "node": self.name,
                "endpoint": self.endpoint.name,
                "url": self.url,
                "pid": pid,
                "pgid": pid,
                "started_at": started_at,
                "restarts": self.restarts,
            },
        )

    async def _until_exit(self) -> None:
        while not self._exited.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), SWEEP_S)
            self.held()
        if self._process is not None:
            self._process.join()
            self._process.close()
            self._process = None

    async def _until_free(self) -> None:
        while not self._stop_asked.is_set() and self.held():
            await self._pause(HOLD_POLL_S)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the node is asked to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), seconds)

    def held(self) -> bool:
        """Tell whether somebody keeps this node down now; an expired or unreadable hold is removed."""
        path = self.run_dir.hold(self.name)
        try:
            until = float(json.loads(path.read_text())["until"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError, KeyError):
            until = 0.0
        if until > time.time():
            return True
        path.unlink(missing_ok=True)
        return False
