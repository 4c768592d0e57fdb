"""One request inside the engine: what was asked, what stands so far, and the text that may go out."""

import codecs
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from controlplane.target.kv import BLOCK_TOKENS, block_key
from controlplane.target.sampling import GREEDY, Logits, Sampling, TokenLogprobs, adjust, choose, logprobs
from controlplane.target.tokenizer import BOS, EOS


@dataclass(slots=True)
class Siblings:
    """The choices that one prompt was asked for; vLLM measures ``n`` once for all of them, when the last ends."""

    n: int
    ended: int = 0
    longest: int = 0
    """Tokens of the longest answer so far."""

    def end(self, tokens: int) -> bool:
        """Take note of an ended choice; return whether it was the last."""
        self.ended += 1
        self.longest = max(self.longest, tokens)
        return self.ended >= self.n


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
    priority: int = 0
    """Lower runs sooner, as in vLLM."""
    stop_tokens: frozenset[int] = frozenset()
    """Tokens that end the answer."""
    keep_stop: bool = False
    """Whether a stop text stays in the answer."""
    logprobs: int | None = None
    """Likeliest tokens to report at each position; None reports nothing."""
    siblings: Siblings | None = None
    """The other choices of the same prompt, when there are any."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that the engine hands out: one token's when streaming, else the whole answer."""

    text: str
    tokens: int
    """Tokens of the answer so far."""
    finish_reason: str | None = None
    """``stop``, ``length``, ``abort`` or ``error`` on the last piece."""
    stop_reason: str | int | None = None
    """The stop text or stop token that ended the answer."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the tokens since the last piece, when asked for."""
    cached_tokens: int = 0
    """Prompt tokens that were in the cache already."""


@dataclass(slots=True)
class Timeline:
    """When things happened to a request, in ``time.perf_counter`` seconds; 0 is not yet."""

    arrived: float
    scheduled: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on its way. Owned by the engine's worker thread once it was taken from the queue."""

    request: Request
    timeline: Timeline
    number: int = 0
    """Counts requests in order of arrival."""
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    admitted: bool = False
    """Whether it ever ran."""
    cached: int = 0
    """Prompt tokens that were in the cache when it first ran."""
    preemptions: int = 0
    """Times it gave up its blocks for a more urgent request."""
    answer: bytearray = field(default_factory=bytearray)
    tokens: list[int] = field(default_factory=list)
    """Chosen tokens."""
    known: list[int] = field(default_factory=list)
    """The prompt's tokens and the chosen ones."""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    _sent: int = 0
    _noted: list[TokenLogprobs] = field(default_factory=list)
    _keys: list[bytes] = field(default_factory=list)
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _generator: np.random.Generator | None = None

    def __post_init__(self) -> None:
        """Start with the prompt."""
        self.known.extend(self.request.prompt)

    def __lt__(self, other: Self) -> bool:
        """Tell whether this request is more urgent: by priority, then by arrival."""
        return (self.request.priority, self.number) < (other.request.priority, other.number)

    @property
    def room(self) -> int:
        """Tokens that the cache must hold for it at most; the last one chosen is never computed."""
        return len(self.request.prompt) + self.request.max_tokens - 1

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.known) - self.computed

    def keys(self, count: int) -> Items[bytes]:
        """Return the keys of the first ``count`` blocks, all of them full."""
        while len(self._keys) < count:
            begin = len(self._keys) * BLOCK_TOKENS
            before = self._keys[-1] if self._keys else b""
            self._keys.append(block_key(before, self.known[begin : begin + BLOCK_TOKENS]))
        return self._keys[:count]

    @property
    def endless(self) -> bool:
        """Whether the end marker may not be chosen now."""
        return self.request.ignore_eos or len(self.tokens) < self.request.min_tokens

    @property
    def plain(self) -> bool:
        """Whether the next token is simply the likeliest one."""
        request = self.request
        return request.sampling.greedy and not (
            request.sampling.adjusted
            or request.logprobs is not None
            or (request.stop_tokens and len(self.tokens) < request.min_tokens)
        )

    def choose(self, logits: Logits) -> int:
        """Choose the next token, as the request wishes, from the model's scores."""
        request = self.request
        if request.sampling.adjusted or self.endless:
            scores = adjust(logits, request.sampling, request.prompt, self.tokens)
            self._forbid(scores)
        else:
            scores = logits
        if self._generator is None and not request.sampling.greedy:
            self._generator = np.random.default_rng(request.sampling.seed)
        token = choose(scores, request.sampling, self._generator or _NO_DRAWS)
        if request.logprobs is not None:
            self._noted.append(logprobs(logits, token, request.logprobs))
        return token

    def _forbid(self, scores: Logits) -> None:
        if self.endless:
            scores[EOS] = -np.inf
        if len(self.tokens) < self.request.min_tokens:
            scores[list(self.request.stop_tokens)] = -np.inf

    def accept(self, token: int) -> None:
        """Add a token, and end the answer where it ends."""
        request = self.request
        self.tokens.append(token)
        self.known.append(token)
        if token == EOS:
            self.finish_reason = "stop"
            return
        if token in request.stop_tokens:
            self.finish_reason, self.stop_reason = "stop", token
            return
        if token < BOS:
            self.answer.append(token)
        self._stop_at_text()
        if self.finish_reason is None and len(self.tokens) >= request.max_tokens:
            self.finish_reason = "length"

    def _stop_at_text(self) -> None:
        if len(self.tokens) < self.request.min_tokens:
            return
        for text in self.request.stop:
            at = self.answer.find(text, max(self._sent, len(self.answer) - len(text)))
            if at >= 0:
                if not self.request.keep_stop:
                    del self.answer[at:]
                self.finish_reason, self.stop_reason = "stop", text.decode()
                return

    def piece(self) -> Piece:
        """Take the text that may go out now; what could be the start of a stop text is held back."""
        held = 0 if self.finish_reason else max((len(text) for text in self.request.stop), default=1) - 1
        end = max(self._sent, len(self.answer) - held)
        text = self._decoder.decode(bytes(self.answer[self._sent : end]), final=self.finish_reason is not None)
        self._sent = end
        noted, self._noted = tuple(self._noted), []
        return Piece(text, len(self.tokens), self.finish_reason, self.stop_reason, noted, self.cached)


_NO_DRAWS = np.random.default_rng(0)
"""Stands in for a greedy request's generator; it is never advanced."""
