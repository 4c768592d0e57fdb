"""One link: the relay process in front of an endpoint, and the supervisor that keeps it running."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from controlplane.target.child import Child
from controlplane.target.rundir import RunDir
from controlplane.target.spec import RelaySpec

RESTART_S = 0.05
"""Wait before a relay that died is started again."""


@dataclass(slots=True)
class LinkKeeper:
    """Runs one link's relay."""

    spec: RelaySpec
    run_dir: RunDir
    child: Child
    _stop_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keep the relay running until ``stop``."""
        while not self._stop_asked.is_set():
            await self.child.start(self.spec, self.run_dir.logs / f"link-{self.spec.name}.log")
            if self._stop_asked.is_set():
                await self.child.stop(0.0)
            await self.child.wait()
            self.child.bury()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_asked.wait(), RESTART_S)

    async def stop(self, timeout_s: float) -> None:
        """End the relay."""
        self._stop_asked.set()
        await self.child.stop(timeout_s)
