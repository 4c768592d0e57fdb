"""Levers that only the control plane in charge can move; wraps the ports of `actuator.py`.

Somebody who was put to sleep in the middle of an action may wake after another has taken over. Whoever moves a lever
is therefore asked for the newest token each time, right before it moves.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from controlplane.degradation.action import Errand
from controlplane.degradation.actuator import Actuator, Hand, Observed, Preflight, RoutePlan


@dataclass(frozen=True, slots=True)
class Term:
    """The time for which one control plane is in charge of a service."""

    service: str
    holder: str
    """Who it is, as people can find it: host and state directory."""
    token: int
    """The fencing token: larger than that of every term before."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why no term begins: somebody else is in charge."""

    holder: str
    """Who it is; empty where that is not known."""
    left_s: float
    """For how many seconds at least, unless it is given back; 0 when it may be over any moment."""


Fence = Callable[[], Awaitable[None]]
"""Returns while we are in charge, and raises `FencedError` when we are not."""


class FencedActuator:
    """An actuator that asks the fence before each move; reading is free."""

    def __init__(self, inner: Actuator, fence: Fence) -> None:
        self._inner = inner
        self._fence = fence

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask whether a plan could be applied now."""
        return await self._inner.preflight(plan)

    async def apply(self, plan: RoutePlan, key: str) -> None:
        """Move the lever, if we still may.

        Raises:
            ActuatorError: when the change could not be handed over.
            FencedError: when another control plane has taken over; nothing was touched.
        """
        await self._fence()
        await self._inner.apply(plan, key)

    async def configured(self) -> Observed:
        """Read back what the gateway is configured to do now."""
        return await self._inner.configured()

    async def sample(self, requests: int) -> Observed:
        """Send real requests through the gateway."""
        return await self._inner.sample(requests)


class FencedHand:
    """A hand that asks the fence before it does or undoes anything."""

    def __init__(self, inner: Hand, fence: Fence) -> None:
        self._inner = inner
        self._fence = fence

    async def preflight(self, errand: Errand) -> Preflight:
        """Ask whether it could be done now."""
        return await self._inner.preflight(errand)

    async def apply(self, errand: Errand, key: str) -> str:
        """Do it, if we still may.

        Raises:
            ActuatorError: when it could not be done.
            FencedError: when another control plane has taken over; nothing was touched.
        """
        await self._fence()
        return await self._inner.apply(errand, key)

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
        """Undo it, if we still may.

        Raises:
            ActuatorError: when it could not be undone.
            FencedError: when another control plane has taken over; nothing was touched.
        """
        await self._fence()
        return await self._inner.revert(errand, key, before)

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        """Return the proof that it is in force."""
        return await self._inner.observe(errand, key, done)
