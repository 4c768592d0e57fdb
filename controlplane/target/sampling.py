"""Choosing the next token from logits. Pure: randomness comes from the request's own seeded generator."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request wants its tokens chosen."""

    temperature: float = 0.0
    """0 is greedy; 1 samples the model's own distribution."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities sum to this (nucleus sampling, arXiv:1904.09751)."""
    top_k: int = 0
    """Keep this many likeliest tokens; 0 or less keeps all."""
    seed: int | None = None
    """Equal seeds give equal text."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature <= 0.0

    def repeated(self, number: int) -> Self:
        """Return the settings of the ``number``-th choice of one prompt: the same, with a seed of its own."""
        return self if self.seed is None or number == 0 else replace(self, seed=self.seed + number)


GREEDY = Sampling()
"""Always the likeliest token."""


def choose(logits: Logits, sampling: Sampling, generator: np.random.Generator) -> int:
    """Choose one token.

    Args:
        logits: [vocabulary] scores of one sequence.
        sampling: the request's wishes.
        generator: the request's own generator; it is advanced by one draw unless the choice is greedy.

    Returns:
        The token.
    """
    if sampling.greedy:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    weights = np.exp(scaled[order] - scaled[order[0]])
    weights /= weights.sum()
    sums = np.cumsum(weights)
    kept = int(np.searchsorted(sums, sampling.top_p)) + 1
    draw = generator.random() * sums[min(kept, len(sums)) - 1]
    return int(order[min(int(np.searchsorted(sums, draw, side="right")), len(order) - 1)])
