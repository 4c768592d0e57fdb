"""Prompts for load: how long they are, how often one is asked again, and words to fill them with.

It imports nothing but the standard library, because ``locustfile`` copies it whole into the files that it emits.
"""

import itertools
import math
import random

TEXT = (
    "why does the model answer slowly when many people ask at once and what would a careful engineer look at first "
    "please explain how a fleet of servers stays up while one of them fails and keep it short"
)
WORDS = TEXT.split()
LENGTHS = ("loguniform", "uniform", "lognormal", "fixed")
SPREAD = 1.0
"""Standard deviation of the logarithm of a length that is drawn log-normally: two of three lie within a factor of e."""


def draw_length(kind: str, low: int, high: int, rng: random.Random) -> int:
    """Draw a prompt's length in bytes, between ``low`` and ``high`` included."""
    if kind == "fixed":
        return high
    if kind == "uniform":
        return rng.randint(low, high)
    if kind == "lognormal":
        middle = math.sqrt(low * high)
        return min(max(round(rng.lognormvariate(math.log(middle), SPREAD)), low), high)
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def write_prompt(length: int, rng: random.Random) -> str:
    """Write a prompt of ``length`` bytes."""
    start = rng.randrange(len(WORDS))
    text = " ".join(WORDS[(start + number) % len(WORDS)] for number in range(length // 2 + 1))
    return text[:length]


class Prompts:
    """A source of prompts: every one anew, or from a fixed stock whose n-th is asked in proportion to 1/n (Zipf)."""

    def __init__(self, kind: str, low: int, high: int, stock: int | None, seed: int) -> None:
        """Draw lengths of ``kind`` between ``low`` and ``high`` bytes; keep ``stock`` prompts, or None for no stock."""
        self._rng = random.Random(seed)  # noqa: S311 - a repeatable load, not a secret
        self._kind, self._low, self._high = kind, low, high
        self.stock = [f"{number} {self._fresh()}"[:high] for number in range(stock or 0)]
        self._weights = list(itertools.accumulate(1.0 / (number + 1) for number in range(stock or 0)))

    def draw(self) -> str:
        """Return the next prompt."""
        if self.stock:
            return self._rng.choices(self.stock, cum_weights=self._weights)[0]
        return self._fresh()

    def _fresh(self) -> str:
        return write_prompt(draw_length(self._kind, self._low, self._high, self._rng), self._rng)
