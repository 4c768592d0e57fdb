"""How often somebody may do something: token buckets without a clock of their own.

Used by `web.guard` for failed logins (by address) and for writes (by credential).
"""

from collections import OrderedDict

MOST_KEYS = 10_000
"""So many addresses are remembered; the one that was quiet for longest is forgotten first."""


class Limiter:
    """One bucket a key: it holds `burst` and fills by `per_s`."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """Return how long a key must wait until it has one left; 0 when it has, in seconds."""
        left = self._level(key, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) / self._per_s

    def take(self, key: str, now_s: float) -> float:
        """Take one where there is one.

        Args:
            key: whose bucket.
            now_s: by a clock that never goes back, in seconds.

        Returns:
            0 when it was taken; else how long to wait, in seconds.
        """
        wait = self.wait_s(key, now_s)
        if not wait:
            self._left[key] = (self._level(key, now_s) - 1.0, now_s)
            self._left.move_to_end(key)
            while len(self._left) > MOST_KEYS:
                self._left.popitem(last=False)
        return wait

    def _level(self, key: str, now_s: float) -> float:
        left, at_s = self._left.get(key, (self._burst, now_s))
        return min(self._burst, left + (now_s - at_s) * self._per_s)


class Repeats:
    """Lets the first of many alike through, then one now and then with the number of those held back."""

    def __init__(self, every_s: float) -> None:
        self._gate = Limiter(1.0 / every_s, 1.0)
        self._held: OrderedDict[str, int] = OrderedDict()

    def tell(self, key: str, now_s: float) -> int | None:
        """Return how many alike were held back since the last; None when this one is held back, too."""
        if self._gate.take(key, now_s):
            self._held[key] = self._held.get(key, 0) + 1
            while len(self._held) > MOST_KEYS:
                self._held.popitem(last=False)
            return None
        return self._held.pop(key, 0)
