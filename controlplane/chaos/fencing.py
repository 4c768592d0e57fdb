"""Faults that only the control plane in charge can inject; wraps the port of `fault.py`. Joined by `runtime/wiring`.

Somebody who was put to sleep in the middle of a drill may wake after another has called the drill off and healed what
it had broken. Whoever injects is therefore asked for the newest token right before it does. Ending a fault is free:
there is never a reason not to.
"""

from collections.abc import Awaitable, Callable

from controlplane.chaos.fault import FaultDriver, Lease
from controlplane.errors import FaultError, StoreError


class FencedFaults:
    """A driver that asks the fence before it breaks anything."""

    def __init__(self, inner: FaultDriver, fence: Callable[[], Awaitable[None]]) -> None:
        """Take the driver, and what returns while we are in charge and raises a `StoreError` when we are not."""
        self._inner = inner
        self._fence = fence

    async def apply(self, lease: Lease) -> str:
        """Inject the fault, if we still may.

        Raises:
            FaultError: when it could not be injected, or another control plane has taken over; nothing is left behind.
        """
        try:
            await self._fence()
        except StoreError as error:
            raise FaultError(f"{lease.kind} was not injected: {error.what}", error.why, error.fix) from error
        return await self._inner.apply(lease)

    async def prove(self, lease: Lease) -> str:
        """Show from outside that the fault is in force."""
        return await self._inner.prove(lease)

    async def revert(self, lease: Lease) -> str:
        """End the fault now, whoever is in charge."""
        return await self._inner.revert(lease)

    async def residue(self, lease: Lease) -> str:
        """Return what is left of a fault that should be over."""
        return await self._inner.residue(lease)
