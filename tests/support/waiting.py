"""Waiting in a test's own event loop, for what happens in a task of somebody else's who tells nobody."""

import asyncio
from collections.abc import Callable


async def eventually(holds: Callable[[], object], what: str = "it holds", *, within_s: float) -> None:
    """Return as soon as something holds; fail when it does not in time."""
    try:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - it is read, as whoever is looked after reads it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None
