"""One request inside the engine: what was asked, what stands so far, and the text that may go out."""

import codecs
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np

from controlplane.target.kv import BLOCK_TOKENS
from controlplane.target.sampling import GREEDY, Logits, Sampling, choose
from controlplane.target.tokenizer import EOS


@dataclass(frozen=True, slots=True)
class Request:
    """What one completion asks of the engine."""

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = GREEDY
    stop: tuple[bytes, ...] = ()
    """Texts that end the answer; they are not part of it."""
    ignore_eos: bool = False
    """Go on past the end marker, to exactly ``max_tokens``."""
    min_tokens: int = 0
    stream: bool = False
    """Whether every token is handed out at once; otherwise only the whole answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that the engine hands out: one token's when streaming, else the whole answer."""

    text: str
    tokens: int
    """Tokens of the answer so far."""
    finish_reason: str | None = None
    """``stop``, ``length``, ``abort`` or ``error`` on the last piece."""


@dataclass(slots=True)
class Timeline:
    """When things happened to a request, in ``time.perf_counter`` seconds; 0 is not yet."""

    arrived: float
    scheduled: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0


@dataclass(slots=True)
class Sequence:
    """A request on its way. Owned by the engine's worker thread once it was taken from the queue."""

    request: Request
    timeline: Timeline
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    answer: bytearray = field(default_factory=bytearray)
    tokens: list[int] = field(default_factory=list)
    """Chosen tokens."""
    finish_reason: str | None = None
    _sent: int = 0
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _generator: np.random.Generator | None = None

    @property
    def room(self) -> int:
        """Tokens that the cache must hold for it at most."""
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt is in the cache."""
        return self.computed >= len(self.request.prompt)

    def chunk(self, limit: int) -> Items[int]:
        """Return the next part of the prompt, at most ``limit`` tokens."""
        return self.request.prompt[self.computed : self.computed + limit]

    def accept(self, logits: Logits) -> None:
        """Choose the next token from logits, and end the answer where it ends."""
        request = self.request
        if request.ignore_eos or len(self.tokens) < request.min_tokens:
            logits = logits.copy()
            logits[EOS] = -np.inf
        if self._generator is None and not request.sampling.greedy:
            self._generator = np.random.default_rng(request.sampling.seed)
        token = choose(logits, request.sampling, self._generator or _NO_DRAWS)
        self.tokens.append(token)
        if token == EOS:
            self.finish_reason = "stop"
            return
        self.answer.append(token & 0xFF)
        self._stop_at_text()
        if self.finish_reason is None and len(self.tokens) >= request.max_tokens:
            self.finish_reason = "length"

    def _stop_at_text(self) -> None:
        if len(self.tokens) < self.request.min_tokens:
            return
        for text in self.request.stop:
            at = self.answer.find(text, max(self._sent, len(self.answer) - len(text)))
            if at >= 0:
                del self.answer[at:]
                self.finish_reason = "stop"
                return

    def piece(self) -> Piece:
        """Take the text that may go out now; what could be the start of a stop text is held back."""
        held = 0 if self.finish_reason else max((len(text) for text in self.request.stop), default=1) - 1
        end = max(self._sent, len(self.answer) - held)
        text = self._decoder.decode(bytes(self.answer[self._sent : end]), final=self.finish_reason is not None)
        self._sent = end
        return Piece(text, len(self.tokens), self.finish_reason)

    def blocks_used(self) -> int:
        """Blocks that hold tokens now (of those reserved)."""
        return -(-self.computed // BLOCK_TOKENS)


_NO_DRAWS = np.random.default_rng(0)
"""Stands in for a greedy request's generator; it is never advanced."""
