"""Whatever a client sends is either a request or an error that names what is wrong; nothing else is ever raised."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from controlplane.target.protocol import Ask, BadRequestError, Limits, parse

LIMITS = Limits(("base", "reference"), 256)
FIELDS = (
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "n",
    "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs", "ignore_eos", "min_tokens", "priority",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "stop_token_ids", "timeout", "echo",
    "response_format", "include_stop_str_in_output", "user", "made_up",
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": VALUES, "content": VALUES}), max_size=3)
BODIES = st.fixed_dictionaries(
    {"prompt": st.just("hi") | VALUES, "messages": MESSAGES | VALUES},
    optional={name: VALUES for name in FIELDS if name not in {"prompt", "messages"}},
)


def parsed(body: Any, *, chat: bool) -> Ask | BadRequestError:
    try:
        return parse(body, chat=chat, limits=LIMITS)
    except BadRequestError as error:
        return error


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES | VALUES, st.booleans())
def test_any_json_is_a_request_or_an_error_in_openai_shape(body: Any, chat: bool) -> None:  # noqa: FBT001
    outcome = parsed(body, chat=chat)
    if isinstance(outcome, Ask):
        assert max(map(len, outcome.prompts)) + outcome.max_tokens <= LIMITS.max_len
    else:
        assert 400 <= outcome.status < 500
        assert json.dumps(outcome.message)


def test_what_is_not_said_takes_vllms_defaults() -> None:
    ask = parse({"prompt": "hi"}, chat=False, limits=LIMITS)
    assert (ask.max_tokens, ask.n, ask.stream, ask.priority, ask.timeout_s) == (16, 1, False, 0, None)
    assert (ask.sampling.temperature, ask.sampling.top_p, ask.sampling.seed) == (1.0, 1.0, None)


def test_nulls_are_what_is_not_said() -> None:
    asked = dict.fromkeys(("max_tokens", "stop", "seed", "n", "stream", "stream_options", "logprobs", "logit_bias"))
    assert parse({"prompt": "hi", **asked}, chat=False, limits=LIMITS) == parse(
        {"prompt": "hi"}, chat=False, limits=LIMITS
    )


def test_a_message_in_parts_is_the_message_in_one_piece() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    asks = [
        parse({"messages": [{"role": "user", "content": content}]}, chat=True, limits=LIMITS)
        for content in ("hello", parts)
    ]
    assert asks[0] == asks[1]


def test_a_prompt_that_leaves_no_room_names_the_limit() -> None:
    with pytest.raises(BadRequestError, match="maximum context length is 256 tokens"):
        parse({"prompt": "x" * 256}, chat=False, limits=LIMITS)
