"""Warm-up completions to every endpoint of a pool: weights paged in and kernels compiled before users come."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from controlplane.degradation.action import Errand, Prewarm
from controlplane.degradation.actuator import Preflight
from controlplane.errors import ActuatorError
from controlplane.fleet.model import Endpoint

ONE_S = 60.0
"""How long one warm-up completion may take: the first one of an engine may compile."""

Complete = Callable[[Endpoint, str, int], Awaitable[str]]
"""Asks an endpoint to complete a prompt with at most so many tokens; returns why it did not, or an empty text."""


def completions_over(session: aiohttp.ClientSession) -> Complete:
    """Return what sends completions over a session's connections."""

    async def complete(endpoint: Endpoint, prompt: str, max_tokens: int) -> str:
        body = {"prompt": prompt, "max_tokens": max_tokens} | ({"model": endpoint.model} if endpoint.model else {})
        timeout = aiohttp.ClientTimeout(total=ONE_S)
        try:
            async with session.post(f"{endpoint.url}/v1/completions", json=body, timeout=timeout) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return "" if response.status == 200 else f"it answered {response.status}"

    return complete


class PrewarmHand:
    """Warms pools up. There is nothing to undo: an endpoint cools by itself."""

    def __init__(self, endpoints: Callable[[str], tuple[Endpoint, ...]], complete: Complete) -> None:
        """Take the pools' endpoints, by the pool's name, and what asks one for a completion."""
        self._endpoints = endpoints
        self._complete = complete
        self._done: dict[str, str] = {}
        """What was done, by key: a warm-up is not sent twice by one process."""

    async def preflight(self, errand: Errand) -> Preflight:
        """Ask whether the pool has endpoints; they are asked nothing yet."""
        try:
            found = self._pool(errand)
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        return Preflight(preview=f"{_prewarm(errand).completions} completions to each of {_names(found)}")

    async def apply(self, errand: Errand, key: str) -> str:
        """Send the completions, to all endpoints at once and to each one after another.

        Raises:
            ActuatorError: when an endpoint did not give every one of them.
        """
        if key in self._done:
            return self._done[key]
        prewarm, found = _prewarm(errand), self._pool(errand)
        await self._ask(found, prewarm, prewarm.completions)
        self._done[key] = f"{prewarm.completions} completions each from {_names(found)}"
        return self._done[key]

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Undo nothing."""
        self._done.pop(key, None)
        return f"{_prewarm(errand).pool} cools by itself"

    async def observe(self, errand: Errand, key: str, done: str) -> str:  # noqa: ARG002 - it looks itself
        """Ask every endpoint for one completion more; empty when one does not give it."""
        prewarm, found = _prewarm(errand), self._pool(errand)
        try:
            await self._ask(found, prewarm, 1)
        except ActuatorError:
            return ""
        return f"{_names(found)} complete"

    async def _ask(self, found: tuple[Endpoint, ...], prewarm: Prewarm, times: int) -> None:
        async def warm(endpoint: Endpoint) -> str:
            for _ in range(times):
                if why := await self._complete(endpoint, prewarm.prompt, prewarm.max_tokens):
                    return f"{endpoint.name}: {why}"
            return ""

        cold = [why for why in await asyncio.gather(*map(warm, found)) if why]
        if cold:
            raise ActuatorError(f"{prewarm.pool} is not warm", "; ".join(cold), "see to those endpoints")

    def _pool(self, errand: Errand) -> tuple[Endpoint, ...]:
        pool = _prewarm(errand).pool
        found = self._endpoints(pool)
        if not found:
            raise ActuatorError(f"cannot warm pool {pool}", "it has no endpoints", "add some under `fleet.pools`")
        return found


def _prewarm(errand: Errand) -> Prewarm:
    if not isinstance(errand, Prewarm):
        raise TypeError(f"not a prewarm errand: {errand}")
    return errand


def _names(endpoints: tuple[Endpoint, ...]) -> str:
    return ", ".join(endpoint.name for endpoint in endpoints)
