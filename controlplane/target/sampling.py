"""Choosing the next token from logits. Pure: randomness comes from the request's own seeded generator."""

from collections.abc import Sequence
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
    min_p: float = 0.0
    """Keep tokens at least this likely, relative to the likeliest (arXiv:2407.01082)."""
    seed: int | None = None
    """Equal seeds give equal text."""
    repetition_penalty: float = 1.0
    """Divides the scores of tokens that stand in prompt or answer (CTRL, arXiv:1909.05858); 1 changes nothing."""
    presence_penalty: float = 0.0
    """Taken off the score of a token that stands in the answer."""
    frequency_penalty: float = 0.0
    """Taken off the score of a token once for each time that it stands in the answer."""
    bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its score)."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature <= 0.0

    @property
    def adjusted(self) -> bool:
        """Whether scores are changed before the choice."""
        return bool(self.bias or self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)

    def repeated(self, number: int) -> Self:
        """Return the settings of the ``number``-th choice of one prompt: the same, with a seed of its own."""
        return self if self.seed is None or number == 0 else replace(self, seed=self.seed + number)


GREEDY = Sampling()
"""Always the likeliest token."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the model's own probabilities at one position, before any adjustment."""

    token: int
    """The chosen token."""
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens with theirs, the likeliest first."""


def adjust(logits: Logits, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]) -> Logits:
    """Return scores with bias and penalties applied, in vLLM's order.

    Args:
        logits: [vocabulary] scores of one sequence; left as they are.
        sampling: the request's wishes.
        prompt: its prompt's tokens.
        answer: the tokens chosen so far.
    """
    scores = logits.copy()
    for token, amount in sampling.bias:
        scores[token] += amount
    counts = np.bincount(np.asarray(answer, dtype=np.int64), minlength=len(scores))
    if sampling.repetition_penalty != 1.0:
        seen = counts > 0
        seen[np.asarray(prompt, dtype=np.int64)] = True
        penalty = np.float32(sampling.repetition_penalty)
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    scores -= np.float32(sampling.frequency_penalty) * counts.astype(np.float32)
    scores -= np.float32(sampling.presence_penalty) * (counts > 0)
    return scores


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
    if sampling.min_p > 0:
        weights = weights[weights >= sampling.min_p]
    weights /= weights.sum()
    sums = np.cumsum(weights)
    kept = int(np.searchsorted(sums, sampling.top_p)) + 1
    draw = generator.random() * sums[min(kept, len(sums)) - 1]
    return int(order[min(int(np.searchsorted(sums, draw, side="right")), len(weights) - 1)])


def logprobs(logits: Logits, token: int, top: int) -> TokenLogprobs:
    """Return the chosen token's logarithmic probability and those of the ``top`` likeliest."""
    scores = logits.astype(np.float64)
    shifted = scores - scores.max()
    logs = shifted - np.log(np.exp(shifted).sum())
    best = np.argsort(-logs, kind="stable")[:top]
    return TokenLogprobs(token, float(logs[token]), tuple((int(number), float(logs[number])) for number in best))
