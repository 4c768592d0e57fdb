"""Which requests are the same question: cache keys, and what may be stored. Pure."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_ASKED = frozenset(
    {"prompt", "messages", "stream", "stream_options", "user", "metadata", "store", "priority", "timeout"}
)
"""Fields that do not change what the answer says; the prompt has its own part in the key."""
UNUSED_WHEN_GREEDY = frozenset({"seed", "top_p", "top_k", "min_p"})
"""Sampling parameters without effect at temperature 0."""
ALLOW_HEADER = "x-cache-allow"
"""A client's permission, such as ``store, near``: store a sampled answer; take the answer of a nearly equal prompt."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request as the cache sees it."""

    path: str
    """/v1/completions or /v1/chat/completions."""
    body: Mapping[str, Any]
    """The request as it came."""
    key: str
    """Equal for requests that have equal answers."""
    family: str
    """Equal for requests that differ in nothing but the prompt."""
    text: str
    """The normalised prompt."""
    storable: bool
    """Whether its answer may be stored and served again."""
    fresh: bool
    """Whether the client refuses a stored answer."""
    near: bool
    """Whether the client takes the answer of a nearly equal prompt; the cache's own setting must allow it too."""

    @property
    def stream(self) -> bool:
        """Whether the client wants server-sent events."""
        return self.body.get("stream") is True


def question(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Question:
    """Read a request.

    Args:
        path: the endpoint's path.
        body: the decoded JSON body.
        headers: by lower-case name: ``cache-control`` and ``x-cache-allow`` count.
    """
    prompt = body.get("messages") if path.endswith("/chat/completions") else body.get("prompt")
    text = prompt_text(prompt)
    family = _digest([path, body.get("model"), _parameters(body)])
    control, allowed = _words(headers.get("cache-control", "")), _words(headers.get(ALLOW_HEADER, ""))
    storable = prompt is not None and (deterministic(body) or "store" in allowed) and "no-store" not in control
    return Question(
        path=path,
        body=body,
        key=_digest([family, text]),
        family=family,
        text=text,
        storable=storable,
        fresh="no-cache" in control,
        near="exact" not in allowed,
    )


def deterministic(body: Mapping[str, Any]) -> bool:
    """Tell whether asking again gives the same answer: greedy decoding, or a seed."""
    return _is_zero(body.get("temperature")) or body.get("seed") is not None


def normalised(text: str) -> str:
    """Return one spelling of a prompt: Unicode NFC, line ends as LF, without white space around it.

    White space inside stays: in code and tables it means something.
    """
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def prompt_text(prompt: Any) -> str:
    """Return the normalised text of a prompt, token list, list of prompts, or chat messages."""
    if isinstance(prompt, str):
        return normalised(prompt)
    return json.dumps(_normalised_within(prompt), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _normalised_within(value: Any) -> Any:
    if isinstance(value, str):
        return normalised(value)
    if isinstance(value, list):
        return [_normalised_within(item) for item in value]
    if isinstance(value, dict):
        return {name: _normalised_within(item) for name, item in value.items()}
    return value


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes the answer, with one spelling: no nulls, 0.0 as 0; unknown fields count."""
    ignored = NOT_ASKED | {"model"}
    if _is_zero(body.get("temperature")):
        ignored |= UNUSED_WHEN_GREEDY
    found = {name: _number(value) for name, value in body.items() if name not in ignored and value is not None}
    if "max_completion_tokens" in found:
        found["max_tokens"] = found.pop("max_completion_tokens")
    return found


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _words(header: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in header.split(","))


def _digest(parts: list[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
