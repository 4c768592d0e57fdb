"""Turns a whole answer into the server-sent events it would have been, and events back into an answer. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"


def again(answer: Mapping[str, Any], request_id: str, created: int) -> dict[str, Any]:
    """Return a stored answer under this request's id and time."""
    kind = "chatcmpl" if answer.get("object") == "chat.completion" else "cmpl"
    return {**answer, "id": f"{kind}-{request_id}", "created": created}


def events(answer: Mapping[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """Yield the server-sent events of a whole answer: one with each choice's text, and the end.

    Args:
        answer: a whole completion or chat completion.
        include_usage: whether the client asked for a last event with the usage.
    """
    chat = answer.get("object") == "chat.completion"
    head = {name: answer.get(name) for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk" if chat else "text_completion"
    for choice in answer.get("choices", ()):
        whole = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason"), "logprobs": None}
        if chat:
            message = choice.get("message", {})
            whole["delta"] = {"role": "assistant", "content": message.get("content", "")}
        else:
            whole["text"] = choice.get("text", "")
        yield _event({**head, "choices": [whole]})
    if include_usage:
        yield _event({**head, "choices": [], "usage": answer.get("usage")})
    yield DONE


class Collector:
    """Puts the events of a stream together, as they pass."""

    def __init__(self) -> None:
        self._rest = b""
        self._head: dict[str, Any] = {}
        self._texts: dict[int, str] = {}
        self._reasons: dict[int, str] = {}
        self._usage: Any = None
        self._done = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip())

    def whole(self) -> dict[str, Any] | None:
        """Return the whole answer; None when the stream was cut, or is no stream of completions."""
        if not self._done or not self._texts or set(self._texts) != set(self._reasons):
            return None
        chat = self._head.get("object") == "chat.completion.chunk"
        choices = []
        for index in sorted(self._texts):
            text = self._texts[index]
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": self._reasons[index]})
        kind = "chat.completion" if chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self._usage}

    def _take(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._done = True
            return
        try:
            event = json.loads(payload)
            choices = event["choices"]
            self._head = self._head or {name: event.get(name) for name in ("id", "object", "created", "model")}
            self._usage = event.get("usage") or self._usage
            for choice in choices:
                self._add(choice)
        except (ValueError, TypeError, KeyError, AttributeError):
            return

    def _add(self, choice: Mapping[str, Any]) -> None:
        index = int(choice.get("index", 0))
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        self._texts[index] = self._texts.get(index, "") + str(text)
        if choice.get("finish_reason"):
            self._reasons[index] = str(choice["finish_reason"])


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(content, separators=(",", ":")).encode()
