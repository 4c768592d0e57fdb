"""Python's garbage collector, kept from walking over a large fleet again and again.

What is kept about ten thousand endpoints is some million objects that live as long as the process; a full collection
stands still for half a second to find nothing. Once a fleet is known it is set aside (`gc.freeze`), and collections
see only what came since.
"""

import gc
from collections.abc import Callable
from time import monotonic

SETTLED_AFTER_S = 10.0
"""So long after the inventory last changed, what is kept about it is there."""
THRESHOLDS = (50_000, 20, 50)
"""Objects, young and middle collections until the next one; looks make and drop thousands of objects a second."""


class Collector:
    """Sets aside what stays."""

    def __init__(self, members: Callable[[], object]) -> None:
        """Take what gives the inventory: another object whenever it changed."""
        self._members = members
        self._seen: object = None
        self._since: float | None = None
        gc.set_threshold(*THRESHOLDS)

    def tick(self) -> None:
        """Set aside what is there, once, some time after the inventory changed; called every few seconds."""
        now, members = monotonic(), self._members()
        if members is not self._seen:
            self._seen, self._since = members, now
        elif self._since is not None and now - self._since >= SETTLED_AFTER_S:
            self._since = None
            gc.freeze()
