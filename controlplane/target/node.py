"""One node: an endpoint's process and the supervisor that restarts it, as a kubelet would restart a container.

The fleet runs one ``Node.run`` task per node. Others may keep a dead endpoint down for a time by writing the node's
hold file: {"until": unix seconds, "lease": text}. An expired hold counts for nothing and is removed here.
"""

import asyncio
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from controlplane.target.child import Child
from controlplane.target.rundir import RunDir, write_json
from controlplane.target.spec import CacheSpec, EndpointSpec

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
    endpoint: EndpointSpec | CacheSpec
    run_dir: RunDir
    child: Child
    host: str
    """Where clients reach the endpoint: its link's address, or its own where it has no link."""
    port: int
    gateway_port: int = 0
    """Where the gateway reaches it; 0 is where everybody does."""
    gateway_from: str = ""
    """The address that the gateway comes from, where it has one of its own."""
    restarts: int = 0
    failed_young: int = 0
    """Starts in a row that did not last ``STEADY_S``."""
    _stop_asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where the endpoint answers."""
        return f"http://{self.host}:{self.port}"

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
        await self.child.stop(timeout_s)

    async def _start(self) -> None:
        pid = await self.child.start(self.endpoint, self.run_dir.logs / f"{self.endpoint.name}.log")
        await self._publish(pid)
        if self._stop_asked.is_set():
            await self.stop(0.0)

    async def _publish(self, pid: int) -> None:
        """Write who serves this node, once the process leads its own group."""
        try:
            while os.getpgid(pid) != pid and not self.child.exited.is_set():  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(GROUP_POLL_S)
            booted_at = psutil.boot_time()
            started_at = psutil.Process(pid).create_time()
        except (ProcessLookupError, psutil.NoSuchProcess):
            return
        write_json(
            self.run_dir.node(self.name),
            {
                "node": self.name,
                "endpoint": self.endpoint.name,
                "url": self.url,
                "backend_url": f"http://{self.endpoint.host}:{self.endpoint.port}",
                "gateway_url": f"http://{self.host}:{self.gateway_port or self.port}",
                "gateway_from": self.gateway_from,
                "netns": self.endpoint.netns,
                "pid": pid,
                "pgid": pid,
                "started_at": started_at,
                "started_after_boot_s": started_at - booted_at,
                "restarts": self.restarts,
            },
        )

    async def _until_exit(self) -> None:
        while not await self.child.wait(SWEEP_S):
            self.held()
        self.child.bury()

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
