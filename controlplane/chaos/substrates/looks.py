"""Looking again and again for what proves a fault, until it is seen or the time is over. Used by the drivers here."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


async def seen_in_time(look: Callable[[], Awaitable[str | None]], within_s: float, again_s: float) -> str:
    """Look until there is something to say; the last look begins only once the time is over.

    A machine that stands still for as long between two looks, or inside one, still looks once more.

    Args:
        look: what there is to say; empty when nothing is seen yet, None when there is nothing to wait for.
        within_s: how long to look.
        again_s: the pause between two looks.

    Returns:
        What was seen; empty when nothing was.
    """
    deadline = monotonic() + within_s
    while True:
        last = monotonic() >= deadline
        seen = await look()
        if seen or seen is None or last:
            return seen or ""
        await asyncio.sleep(again_s)
