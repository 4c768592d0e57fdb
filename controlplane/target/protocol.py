"""OpenAI's requests as vLLM understands them, and the shapes of errors and model lists. Pure: dictionaries and values.

Unknown request fields are ignored, as vLLM does. What is wrong raises ``BadRequestError``; so does a wish that is known
but that this target cannot fulfil. ``answers`` shapes what goes back.
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
MAX_LOGPROBS = 20
"""Likeliest tokens that may be asked for at each position, as vLLM's default."""
MAX_BIASES = 300
PENALTY = 2.0
"""Presence and frequency penalties lie between minus this and this, as OpenAI has it."""


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
    priority: int = 0
    """Lower runs sooner."""
    stop_tokens: frozenset[int] = frozenset()
    keep_stop: bool = False
    logprobs: int | None = None
    """Likeliest tokens to report at each position; None reports nothing."""
    timeout_s: float | None = None
    """Seconds after which the client no longer wants the answer."""

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
    _refuse_unable(body)
    prompts = _chat_prompt(body) if chat else _prompts(body)
    n = _integer(body, "n", 1, low=1, high=MAX_CHOICES)
    if len(prompts) * n > MAX_CHOICES:
        raise BadRequestError(f"At most {MAX_CHOICES} choices in one request.", param="n")
    stream = _flag(body, "stream")
    options = _options(body, stream=stream)
    return Ask(
        chat=chat,
        prompts=prompts,
        n=n,
        max_tokens=_max_tokens(body, chat=chat, longest=max(map(len, prompts)), limits=limits),
        sampling=_sampling(body),
        stop=_stops(body),
        ignore_eos=_flag(body, "ignore_eos"),
        min_tokens=_integer(body, "min_tokens", 0, low=0, high=limits.max_len),
        stream=stream,
        include_usage=_flag(options, "include_usage"),
        continuous_usage=_flag(options, "continuous_usage_stats"),
        priority=_integer(body, "priority", 0, low=-(2**31), high=2**31),
        stop_tokens=_stop_tokens(body),
        keep_stop=_flag(body, "include_stop_str_in_output"),
        logprobs=_logprobs(body, chat=chat),
        timeout_s=None if body.get("timeout") is None else _number(body, "timeout", 0.0, low=0.0, high=86_400.0),
    )


def _refuse_unable(body: Mapping[str, Any]) -> None:
    """Refuse what would change the answer and is not built, rather than answer something else."""
    if _flag(body, "echo"):
        raise BadRequestError("`echo` is not supported by this server.", param="echo")
    shape = body.get("response_format")
    if isinstance(shape, dict) and shape.get("type", "text") != "text":
        raise BadRequestError("Only `response_format` text is supported by this server.", param="response_format")


def _options(body: Mapping[str, Any], *, stream: bool) -> Mapping[str, Any]:
    options = body.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadRequestError("`stream_options` must be an object.", param="stream_options")
    if not stream:
        raise BadRequestError("Stream options can only be defined when `stream=True`.", param="stream_options")
    return options


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
        min_p=_number(body, "min_p", 0.0, low=0.0, high=1.0),
        seed=None
        if body.get("seed") is None
        else zlib.crc32(str(_integer(body, "seed", 0, low=None, high=None)).encode()),
        repetition_penalty=_number(body, "repetition_penalty", 1.0, low=1e-6, high=1e6),
        presence_penalty=_number(body, "presence_penalty", 0.0, low=-PENALTY, high=PENALTY),
        frequency_penalty=_number(body, "frequency_penalty", 0.0, low=-PENALTY, high=PENALTY),
        bias=_bias(body),
    )


def _bias(body: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    bias = body.get("logit_bias")
    if bias is None:
        return ()
    if not isinstance(bias, dict) or len(bias) > MAX_BIASES:
        raise BadRequestError(f"`logit_bias` must be an object of at most {MAX_BIASES} tokens.", param="logit_bias")
    tokens: dict[int, float] = {}
    for name in bias:
        if not (name.isascii() and name.isdigit() and len(name) < 6 and int(name) < VOCABULARY):
            raise BadRequestError(f"Token numbers must lie in 0..{VOCABULARY - 1}.", param="logit_bias")
        tokens[int(name)] = _number(bias, name, 0.0, low=-100.0, high=100.0)
    return tuple(tokens.items())


def _logprobs(body: Mapping[str, Any], *, chat: bool) -> int | None:
    if not chat:
        return None if body.get("logprobs") is None else _integer(body, "logprobs", 0, low=0, high=MAX_LOGPROBS)
    wanted = _flag(body, "logprobs")
    top = _integer(body, "top_logprobs", 0, low=0, high=MAX_LOGPROBS)
    if top and not wanted:
        raise BadRequestError("When using `top_logprobs`, `logprobs` must be set to true.", param="top_logprobs")
    return top if wanted else None


def _stop_tokens(body: Mapping[str, Any]) -> frozenset[int]:
    tokens = body.get("stop_token_ids")
    if tokens is None:
        return frozenset()
    if not isinstance(tokens, list):
        raise BadRequestError("`stop_token_ids` must be a list of token numbers.", param="stop_token_ids")
    return frozenset(_checked_tokens(tokens, "stop_token_ids"))


def _stops(body: Mapping[str, Any]) -> tuple[bytes, ...]:
    stop = body.get("stop")
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(texts, list)
        or len(texts) > MAX_STOPS
        or not all(isinstance(text, str) and text for text in texts)
    ):
        raise BadRequestError(f"`stop` must be a text or a list of at most {MAX_STOPS} texts.", param="stop")
    return tuple(_utf8(text, "stop") for text in texts)


def _utf8(text: str, param: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadRequestError("Half a surrogate pair is no valid Unicode text.", param=param) from None


def _prompts(body: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return (_tokens(prompt, "prompt"),)
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            return tuple(_tokens(part, "prompt") for part in prompt)
        if all(isinstance(part, int) for part in prompt):
            return (_checked_tokens(prompt, "prompt"),)
        if all(isinstance(part, list) and part for part in prompt):
            return tuple(_checked_tokens(part, "prompt") for part in prompt)
    raise BadRequestError("`prompt` must be a text, a list of texts, or a list of token numbers.", param="prompt")


def _tokens(text: str, param: str) -> tuple[int, ...]:
    _utf8(text, param)
    return encode(text)


def _checked_tokens(tokens: list[Any], param: str) -> tuple[int, ...]:
    if not all(type(token) is int and 0 <= token < VOCABULARY for token in tokens):
        raise BadRequestError(f"Token numbers must lie in 0..{VOCABULARY - 1}.", param=param)
    return tuple(tokens)


def _chat_prompt(body: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("`messages` must be a list with at least one message.", param="messages")
    lines = [_message_text(message) for message in messages]
    return (_tokens("".join([*lines, "assistant: "]), "messages"),)


def _message_text(message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequestError("Each message must be an object with a `role`.", param="messages")
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise BadRequestError("A message's `content` must be a text or a list of parts.", param="messages")
    return f"{message['role']}: {content}\n"


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequestError(f"`{name}` must be true or false.", param=name)


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
                            "allow_sampling": True, "allow_logprobs": True, "allow_view": True}],
        }
        for name in limits.models
    ]  # fmt: skip
    return {"object": "list", "data": cards}
