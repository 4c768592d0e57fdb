"""OpenAI's answers as vLLM shapes them: whole ones, and the pieces of a stream. Pure: values in, JSON out.

Streams are made of many small events, so that their fixed part is turned into JSON once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.target.protocol import Ask, error_body
from controlplane.target.sampling import TokenLogprobs
from controlplane.target.sequence import Piece
from controlplane.target.tokenizer import token_bytes

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


@dataclass(slots=True)
class Choice:
    """One choice of an answer as it grows."""

    text: str = ""
    tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    offset: int = 0
    """Characters that the tokens reported so far stand for."""

    def add(self, piece: Piece) -> None:
        """Take in the next piece."""
        self.text += piece.text
        self.note(piece)
        self.logprobs += piece.logprobs

    def note(self, piece: Piece) -> None:
        """Take in the next piece's counts and reasons, not its text."""
        self.tokens = piece.tokens
        self.cached_tokens = piece.cached_tokens
        self.finish_reason = piece.finish_reason
        self.stop_reason = piece.stop_reason


@dataclass(slots=True)
class Answer:
    """The fixed part of one answer; makes its JSON shapes."""

    ask: Ask
    request_id: str
    model: str
    created: int
    """Unix seconds."""
    choices: list[Choice]
    _event_head: bytes = field(init=False)
    """An event up to its first choice."""

    def __post_init__(self) -> None:
        """Turn the part that all events share into JSON."""
        kind = "chat.completion.chunk" if self.ask.chat else "text_completion"
        self._event_head = b'data: %b,"choices":[' % _json(self._head(kind))[:-1]

    def whole(self) -> bytes:
        """Shape the complete answer."""
        kind = "chat.completion" if self.ask.chat else "text_completion"
        choices = [self._whole_choice(number, choice) for number, choice in enumerate(self.choices)]
        return _json({**self._head(kind), "choices": choices, "usage": self.usage()})

    def event(self, number: int, piece: Piece) -> bytes:
        """Shape the event of one streamed piece of choice ``number``."""
        choice = self.choices[number]
        first = choice.tokens == 0
        choice.note(piece)
        shaped: dict[str, Any] = {"index": number}
        if self.ask.chat:
            shaped["delta"] = {"role": "assistant", "content": piece.text} if first else {"content": piece.text}
        else:
            shaped["text"] = piece.text
        shaped["logprobs"] = self._logprobs(choice, piece.logprobs) if piece.logprobs else None
        shaped["finish_reason"] = piece.finish_reason
        if piece.finish_reason is not None or not self.ask.chat:
            shaped["stop_reason"] = piece.stop_reason
        usage = b',"usage":' + _json(self.usage()) if self.ask.continuous_usage else b""
        return b"%b%b]%b}\n\n" % (self._event_head, _json(shaped), usage)

    def usage_event(self) -> bytes:
        """Shape the event that carries only the usage."""
        return b'%b],"usage":%b}\n\n' % (self._event_head, _json(self.usage()))

    def usage(self) -> dict[str, Any]:
        """Shape the token counts so far; a prompt counts once, however many choices it has."""
        prompt = self.ask.prompt_tokens
        completion = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(choice.cached_tokens for choice in self.choices[:: self.ask.n])
            },
        }

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.ask.chat else "cmpl"
        return {"id": f"{prefix}-{self.request_id}", "object": kind, "created": self.created, "model": self.model}

    def _whole_choice(self, number: int, choice: Choice) -> dict[str, Any]:
        text = choice.text
        content: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}} if self.ask.chat else {"text": text}
        )
        logprobs = self._logprobs(choice, choice.logprobs) if self.ask.logprobs is not None else None
        return {
            "index": number,
            **content,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }

    def _logprobs(self, choice: Choice, noted: Sequence[TokenLogprobs]) -> dict[str, Any]:
        if self.ask.chat:
            return {"content": [_chat_logprobs(one) for one in noted]}
        texts = [_shown(one.token) for one in noted]
        offsets = []
        for text in texts:
            offsets.append(choice.offset)
            choice.offset += len(text)
        return {
            "text_offset": offsets,
            "token_logprobs": [one.logprob for one in noted],
            "tokens": texts,
            "top_logprobs": [{_shown(token): value for token, value in one.top} for one in noted],
        }


def error_event(message: str, kind: str, status: int) -> bytes:
    """Shape the event that says why a stream breaks off."""
    return b"data: %b\n\n" % _json(error_body(message, kind, status))


def _chat_logprobs(one: TokenLogprobs) -> dict[str, Any]:
    return {
        **_chat_token(one.token, one.logprob),
        "top_logprobs": [_chat_token(token, value) for token, value in one.top],
    }


def _chat_token(token: int, value: float) -> dict[str, Any]:
    raw = token_bytes(token)
    return {"token": _shown(token), "logprob": value, "bytes": list(raw)}


def _shown(token: int) -> str:
    return token_bytes(token).decode(errors="replace")


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
