"""The response cache's rules: what is the same question, what may be stored, how long, and where it is looked for."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.target.cache import ResponseCache, ttl_s
from controlplane.target.cache_key import Question, question
from controlplane.target.cache_replay import Collector, again, events
from controlplane.target.cache_tiers import FAILURES_TO_OPEN, OPEN_S, DiskTier, Guarded, ObjectTier, RedisTier
from controlplane.target.errors import TargetError
from controlplane.target.similarity import NearIndex

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
ANSWER = {
    "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "full",
    "choices": [{"index": 0, "text": "four", "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
}  # fmt: skip


def ask(prompt: str = "why", headers: Mapping[str, str] | None = None, **body: Any) -> Question:
    return question(COMPLETIONS, {"model": "m", "prompt": prompt, "temperature": 0, **body}, headers or {})


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryTier:
    """A tier that can be broken and slowed."""

    def __init__(self, name: str = "redis") -> None:
        self.name = name
        self.kept: dict[str, bytes] = {}
        self.ttls: dict[str, float] = {}
        self.broken = False
        self.slow_s = 0.0
        self.calls = 0

    async def get(self, key: str) -> bytes | None:
        await self._reached()
        return self.kept.get(key)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._reached()
        self.kept[key] = value
        self.ttls[key] = ttl

    async def close(self) -> None:
        pass

    async def _reached(self) -> None:
        self.calls += 1
        await asyncio.sleep(self.slow_s)
        if self.broken:
            raise OSError("connection refused")


def cache(*tiers: Guarded, entries: int = 10, near: NearIndex | None = None, now: Time | None = None) -> ResponseCache:
    return ResponseCache(
        tiers, entries=entries, first_ttl_s=100.0, longest_ttl_s=1000.0, near=near, now=now or Time(),
        dropped=lambda: None,
    )  # fmt: skip


def test_equal_questions_have_equal_keys_however_they_are_written() -> None:
    same = ask("caf\u00e9?\n", max_tokens=8)
    assert ask("  cafe\u0301?", max_tokens=8.0, stream=True, user="mei", priority=3).key == same.key
    assert ask("caf\u00e9?", max_completion_tokens=8, top_p=0.5, seed=4, stop=None).key == same.key


@pytest.mark.parametrize(
    "other", [{"prompt": "why not"}, {"model": "n"}, {"max_tokens": 9}, {"stop": ["x"]}, {"unknown_field": 1}]
)
def test_what_changes_the_answer_changes_the_key(other: dict[str, Any]) -> None:
    body = {"model": "m", "prompt": "why", "temperature": 0, "max_tokens": 8}
    assert question(COMPLETIONS, body, {}).key != question(COMPLETIONS, {**body, **other}, {}).key


def test_white_space_inside_a_prompt_means_something() -> None:
    assert ask("a b").key != ask("a  b").key


def test_a_seed_counts_where_the_answer_is_sampled() -> None:
    assert ask(temperature=1, seed=1).key != ask(temperature=1, seed=2).key
    assert ask(seed=1).key == ask(seed=2).key


def test_a_chat_and_a_completion_are_different_questions() -> None:
    messages = [{"role": "user", "content": " hi "}]
    chat = question(CHAT, {"model": "m", "messages": messages, "temperature": 0}, {})
    assert chat.key == question(CHAT, {"model": "m", "messages": [{"content": "hi", "role": "user"}], "temperature": 0}, {}).key  # noqa: E501  # fmt: skip
    assert chat.key != ask(json.dumps(messages)).key


def test_only_repeatable_or_allowed_answers_are_stored() -> None:
    assert ask().storable
    assert ask(temperature=0.7, seed=3).storable
    assert not ask(temperature=0.7).storable
    assert not ask(temperature=None).storable
    assert ask(temperature=0.7, headers={"x-cache-allow": "store"}).storable
    assert not ask(headers={"cache-control": "no-store"}).storable
    assert not question(COMPLETIONS, {"temperature": 0}, {}).storable


def test_a_client_may_refuse_stored_and_nearly_fitting_answers() -> None:
    assert ask(headers={"cache-control": "no-cache"}).fresh
    assert not ask(headers={"x-cache-allow": "exact"}).near


def test_answers_live_longer_with_every_doubling_of_their_hits() -> None:
    assert [ttl_s(hits, 100.0, 1000.0) for hits in (0, 1, 2, 3, 4, 7, 8, 10_000)] == [
        100.0, 200.0, 400.0, 400.0, 800.0, 800.0, 1000.0, 1000.0,
    ]  # fmt: skip


async def test_an_answer_expires_unless_it_is_asked_for() -> None:
    now = Time()
    store = cache(now=now)
    store.store(ask("idle"), ANSWER)
    store.store(ask("busy"), ANSWER)
    now.now += 90
    assert await store.find(ask("busy")) is not None
    now.now += 90
    assert await store.find(ask("idle")) is None
    found = await store.find(ask("busy"))
    assert found is not None
    assert found.tier == "memory"


async def test_memory_keeps_the_newest_and_the_tier_behind_it_the_rest() -> None:
    tier = MemoryTier("disk")
    store = cache(Guarded(tier, 1.0, print), entries=2)
    for prompt in ("one", "two", "three"):
        store.store(ask(prompt), ANSWER)
    await store.close()
    assert len(store) == 2
    found = await store.find(ask("one"))
    assert found is not None
    assert found.tier == "disk"
    again_found = await store.find(ask("one"))
    assert again_found is not None
    assert again_found.tier == "memory"


async def test_a_longer_life_reaches_the_tier_too() -> None:
    tier = MemoryTier()
    store = cache(Guarded(tier, 1.0, print))
    store.store(ask(), ANSWER)
    for _ in range(4):
        await store.find(ask())
    await store.close()
    assert tier.ttls[ask().key] == 800.0


async def test_an_answer_that_was_on_its_way_to_the_tier_when_the_cache_stopped_gets_there() -> None:
    tier = MemoryTier()
    tier.slow_s = 30.0
    store = cache(Guarded(tier, 60.0, print))
    store.store(ask(), ANSWER)
    writing = asyncio.create_task(store.write_behind())
    while not tier.calls:  # noqa: ASYNC110 - the task makes it true
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    tier.slow_s = 0.0
    await store.close()
    assert ask().key in tier.kept


async def test_a_broken_tier_is_skipped_counted_and_left_alone_for_a_while() -> None:
    tier, now, skips = MemoryTier(), Time(), list[tuple[str, str]]()
    guarded = Guarded(tier, 1.0, lambda name, reason: skips.append((name, reason)), now)
    tier.broken = True
    store = cache(guarded)
    for _ in range(FAILURES_TO_OPEN + 2):
        assert await store.find(ask()) is None
    assert skips == [("redis", "error")] * FAILURES_TO_OPEN + [("redis", "open")] * 2
    assert tier.calls == FAILURES_TO_OPEN
    tier.broken, now.now = False, now.now + OPEN_S
    await store.find(ask())
    assert tier.calls == FAILURES_TO_OPEN + 1


async def test_a_slow_tier_is_waited_for_no_longer_than_its_timeout() -> None:
    tier, skips = MemoryTier(), list[tuple[str, str]]()
    tier.slow_s = 30.0
    guarded = Guarded(tier, 0.01, lambda name, reason: skips.append((name, reason)))
    assert await guarded.get("key") is None
    assert skips == [("redis", "timeout")]


async def test_rubbish_in_a_tier_counts_as_nothing() -> None:
    tier = MemoryTier()
    store = cache(Guarded(tier, 1.0, print))
    for rubbish in (b"\xff", b"{}", b"[1]", b"null"):
        tier.kept[ask().key] = rubbish
        assert await store.find(ask()) is None


async def test_the_next_process_knows_the_most_asked_questions_and_starts_with_their_answers(tmp_path: Path) -> None:
    store = cache(Guarded(DiskTier(tmp_path, 10**7), 5.0, print))
    for times, prompt in ((1, "seldom"), (3, "often"), (2, "sometimes")):
        for _ in range(times):
            store.note(ask(prompt))
        store.store(ask(prompt), ANSWER)
    await store.close()
    following = cache(Guarded(DiskTier(tmp_path, 10**7), 5.0, print))
    assert await following.load() == 3
    assert [body["prompt"] for _, body in following.most_asked(2)] == ["often", "sometimes"]
    found = await following.find(ask("often"))
    assert found is not None
    assert found.tier == "memory"
    await following.close()


async def test_files_serve_as_object_storage(tmp_path: Path) -> None:
    tier = ObjectTier(f"file://{tmp_path}")
    assert await tier.get("key") is None
    await tier.put("key", b"value", 1.0)
    assert await tier.get("key") == b"value"
    await tier.close()


def test_an_unknown_storage_is_a_clear_error() -> None:
    with pytest.raises(TargetError, match="object storage"):
        ObjectTier("nonsense://bucket")
    with pytest.raises(TargetError, match="Redis"):
        RedisTier("http://127.0.0.1", 0.1)


LONG = "Explain to a new engineer why the fleet stays up while one server fails and what she should look at first"


async def test_a_nearly_equal_prompt_is_answered_only_when_both_sides_allow_it() -> None:
    store, strict = cache(near=NearIndex(0.6)), cache()
    for each in (store, strict):
        each.store(ask(LONG), ANSWER)
    found = await store.find(ask(LONG + " please"))
    assert found is not None
    assert 0.6 <= found.ratio < 1.0
    assert await store.find(ask(LONG + " please", {"x-cache-allow": "exact"})) is None
    assert await strict.find(ask(LONG + " please")) is None


async def test_nearly_equal_prompts_with_other_parameters_or_another_meaning_do_not_match() -> None:
    store = cache(near=NearIndex(0.6))
    store.store(ask(LONG, max_tokens=8), ANSWER)
    assert await store.find(ask(LONG + " please", max_tokens=9)) is None
    assert await store.find(ask("Write a poem about rain", max_tokens=8)) is None


async def test_a_prompt_that_left_memory_is_forgotten_by_the_index() -> None:
    index = NearIndex(0.6)
    store = cache(near=index, entries=2)
    for number in range(5):
        store.store(ask(f"{number} {LONG}"), ANSWER)
    assert len(index) == 2


@pytest.mark.parametrize("usage", [True, False])
def test_a_replayed_stream_gives_the_stored_answer_back(*, usage: bool) -> None:
    collector = Collector()
    content = b"".join(events(again(ANSWER, "r1", 7), include_usage=usage))
    for at in range(0, len(content), 5):
        collector.feed(content[at : at + 5])
    whole = collector.whole()
    assert whole is not None
    assert whole["choices"] == ANSWER["choices"]
    assert (whole["id"], whole["created"], whole["object"]) == ("cmpl-r1", 7, "text_completion")
    assert whole["usage"] == (ANSWER["usage"] if usage else None)


def test_a_chat_stream_is_put_together_from_its_deltas() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "full"}
    collector = Collector()
    for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": "fo"}, None), ({"content": "ur"}, "stop")):  # noqa: E501  # fmt: skip
        event = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        collector.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert collector.whole() is None
    collector.feed(b"data: [DONE]\n\n")
    whole = collector.whole()
    assert whole is not None
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "four"}


def test_a_cut_or_broken_stream_is_never_stored() -> None:
    for content in (b'data: {"error": 1}\n\ndata: [DONE]\n\n', b"data: x\n\n", b"".join(events(ANSWER, include_usage=False))[:-14]):  # noqa: E501  # fmt: skip
        collector = Collector()
        collector.feed(content)
        assert collector.whole() is None
