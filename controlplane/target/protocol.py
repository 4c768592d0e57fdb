"""OpenAI's request and answer shapes as vLLM speaks them. Pure: dictionaries in, values out, and back.

Unknown request fields are ignored, as vLLM does. What is wrong raises ``BadRequestError``.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.target.sampling import Sampling
from controlplane.target.tokenizer import VOCABULARY, encode

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for completions."""
MAX_CHOICES = 128
"""Prompts times ``n`` in one request."""
MAX_STOPS = 16


class BadRequestError(Exception):
    """A request that cannot be served as asked."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, kind: str = "BadRequestError"
    ) -> None:
        """Keep what the OpenAI-shaped error needs."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Limits:
    """What this endpoint can serve."""

    models: tuple[str, ...]
    """Names that may be asked for; the first is the model's own."""
    max_len: int
    """Longest prompt plus answer, in tokens."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked completion or chat request."""

    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    """Tokens of each prompt."""
    n: int
    max_tokens: int
    sampling: Sampling
    stop: tuple[bytes, ...]
    ignore_eos: bool
    min_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt) for prompt in self.prompts)


def parse(body: Any, *, chat: bool, limits: Limits) -> Ask:
    """Check a request body.

    Args:
        body: the decoded JSON.
        chat: whether it came to the chat route.
        limits: what this endpoint serves.

    Raises:
        BadRequestError: with the status and parameter to answer.
    """
    if not isinstance(body, dict):
        raise BadRequestError("The request body must be a JSON object.")
    model = body.get("model")
    if model is not None and model not in limits.models:
        raise BadRequestError(f"The model `{model}` does not exist.", param="model", status=404, kind="NotFoundError")
    prompts = _chat_prompt(body) if chat else _prompts(body)
    n = _integer(body, "n", 1, low=1, high=MAX_CHOICES)
    if len(prompts) * n > MAX_CHOICES:
        raise BadRequestError(f"At most {MAX_CHOICES} choices in one request.", param="n")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequestError("`stream_options` must be an object.", param="stream_options")
    return Ask(
        chat=chat,
        prompts=prompts,
        n=n,
        max_tokens=_max_tokens(body, chat=chat, longest=max(map(len, prompts)), limits=limits),
        sampling=_sampling(body),
        stop=_stops(body),
        ignore_eos=body.get("ignore_eos") is True,
        min_tokens=_integer(body, "min_tokens", 0, low=0, high=limits.max_len),
        stream=body.get("stream") is True,
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
    )


def _max_tokens(body: Mapping[str, Any], *, chat: bool, longest: int, limits: Limits) -> int:
    room = limits.max_len - longest
    if room < 1:
        raise BadRequestError(
            f"This model's maximum context length is {limits.max_len} tokens, but the prompt has {longest}.",
            param="messages" if chat else "prompt",
        )
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    asked = _integer(body, name, min(DEFAULT_MAX_TOKENS, room), low=1, high=None)
    if asked > room:
        raise BadRequestError(
            f"This model's maximum context length is {limits.max_len} tokens, but {longest} prompt tokens and "
            f"{asked} answer tokens were asked for.",
            param=name,
        )
    return asked


def _sampling(body: Mapping[str, Any]) -> Sampling:
    return Sampling(
        temperature=_number(body, "temperature", 1.0, low=0.0, high=100.0),
        top_p=_number(body, "top_p", 1.0, low=1e-9, high=1.0),
        top_k=_integer(body, "top_k", 0, low=-1, high=None),
        seed=None
        if body.get("seed") is None
        else zlib.crc32(str(_integer(body, "seed", 0, low=None, high=None)).encode()),
    )


def _stops(body: Mapping[str, Any]) -> tuple[bytes, ...]:
    stop = body.get("stop")
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(texts, list)
        or len(texts) > MAX_STOPS
        or not all(isinstance(text, str) and text for text in texts)
    ):
        raise BadRequestError(f"`stop` must be a text or a list of at most {MAX_STOPS} texts.", param="stop")
    return tuple(text.encode() for text in texts)


def _prompts(body: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return (encode(prompt),)
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            return tuple(encode(part) for part in prompt)
        if all(isinstance(part, int) for part in prompt):
            return (_checked_tokens(prompt),)
        if all(isinstance(part, list) and part for part in prompt):
            return tuple(_checked_tokens(part) for part in prompt)
    raise BadRequestError("`prompt` must be a text, a list of texts, or a list of token numbers.", param="prompt")


def _checked_tokens(tokens: list[Any]) -> tuple[int, ...]:
    if not all(isinstance(token, int) and 0 <= token < VOCABULARY for token in tokens):
        raise BadRequestError(f"Token numbers must lie in 0..{VOCABULARY - 1}.", param="prompt")
    return tuple(tokens)


def _chat_prompt(body: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("`messages` must be a list with at least one message.", param="messages")
    lines = [_message_text(message) for message in messages]
    return (encode("".join([*lines, "assistant: "])),)


def _message_text(message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequestError("Each message must be an object with a `role`.", param="messages")
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise BadRequestError("A message's `content` must be a text or a list of parts.", param="messages")
    return f"{message['role']}: {content}\n"


def _integer(body: Mapping[str, Any], name: str, default: int, *, low: int | None, high: int | None) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequestError(f"`{name}` must be a whole number.", param=name)
    return int(_ranged(name, value, low, high))


def _number(body: Mapping[str, Any], name: str, default: float, *, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"`{name}` must be a number.", param=name)
    return float(_ranged(name, value, low, high))


def _ranged(name: str, value: float, low: float | None, high: float | None) -> float:
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"in {low}..{high}"
        raise BadRequestError(f"`{name}` must be {bounds}; it is {value}.", param=name)
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """The fixed part of one answer; makes its JSON shapes."""

    ask: Ask
    request_id: str
    model: str
    created: int
    """Unix seconds."""

    def whole(self, texts: list[str], reasons: list[str], completion_tokens: int) -> dict[str, Any]:
        """Shape a complete answer, one choice a text."""
        choices = [
            self._choice(
                number, reason, {"message": {"role": "assistant", "content": text}} if self.ask.chat else {"text": text}
            )
            for number, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]
        kind = "chat.completion" if self.ask.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": self.usage(completion_tokens)}

    def chunk(
        self, number: int, text: str, reason: str | None, *, first: bool, completion_tokens: int
    ) -> dict[str, Any]:
        """Shape one streamed piece of choice ``number``."""
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        choice = self._choice(number, reason, {"delta": delta} if self.ask.chat else {"text": text})
        shaped = {**self._head(self._chunk_kind), "choices": [choice]}
        if self.ask.continuous_usage:
            shaped["usage"] = self.usage(completion_tokens)
        return shaped

    def last_chunk(self, completion_tokens: int) -> dict[str, Any]:
        """Shape the chunk that carries only the usage."""
        return {**self._head(self._chunk_kind), "choices": [], "usage": self.usage(completion_tokens)}

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        """Shape the token counts."""
        prompt = self.ask.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.ask.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.ask.chat else "cmpl"
        return {"id": f"{prefix}-{self.request_id}", "object": kind, "created": self.created, "model": self.model}

    @staticmethod
    def _choice(number: int, reason: str | None, content: dict[str, Any]) -> dict[str, Any]:
        return {"index": number, **content, "logprobs": None, "finish_reason": reason}


def error_body(message: str, kind: str, status: int, param: str | None = None) -> dict[str, Any]:
    """Shape an error as OpenAI and vLLM do."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def model_list(limits: Limits, created: int) -> dict[str, Any]:
    """Shape ``/v1/models``: every name, with the model's own as ``root``."""
    own = limits.models[0]
    cards = [
        {
            "id": name, "object": "model", "created": created, "owned_by": "controlplane", "root": own,
            "parent": None if name == own else own, "max_model_len": limits.max_len,
            "permission": [{"id": f"modelperm-{name}", "object": "model_permission", "created": created,
                            "allow_sampling": True, "allow_logprobs": False, "allow_view": True}],
        }
        for name in limits.models
    ]  # fmt: skip
    return {"object": "list", "data": cards}
