"""The engine: equal answers batched, alone or preempted; stops, seeds, the queue's bound, what an abort frees."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from controlplane.target.engine import Engine, EngineStoppedError, Generation, QueueFullError
from controlplane.target.metrics import Metrics
from controlplane.target.model import Transformer
from controlplane.target.sampling import Sampling
from controlplane.target.scheduler import Batching
from controlplane.target.sequence import Request
from controlplane.target.spec import ModelShape
from controlplane.target.tokenizer import encode
from tests.support.endpoints import DEVICES, standing_still, until_running

SHAPE = ModelShape(layers=2, width=64, heads=4, kv_heads=2, hidden=128)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    torch.set_num_threads(1)
    return torch.device(request.param)


@asynccontextmanager
async def running(
    device: torch.device,
    max_queue: int = 100,
    max_num_seqs: int = 32,
    num_blocks: int = 512,
    max_num_batched_tokens: int = 512,
    precision: str = "fp32",
) -> AsyncIterator[Engine]:
    model = Transformer(SHAPE, num_blocks, 1, device, precision)
    batching = Batching(max_num_seqs, max_num_batched_tokens)
    metrics = Metrics("tiny", 1024)
    engine = Engine(model, metrics, max_queue=max_queue, num_blocks=num_blocks, batching=batching)
    metrics.watch(engine)
    METRICS[engine] = metrics
    engine.start()
    try:
        yield engine
        assert (engine.pool.used, engine.running, engine.waiting, engine.idle) == (0, 0, 0, True)
    finally:
        engine.close()
        await asyncio.sleep(0)


METRICS: dict[Engine, Metrics] = {}


def counted(engine: Engine, name: str, **labels: str) -> float:
    found = METRICS[engine].registry.get_sample_value(name, {"model_name": "tiny", "engine": "0", **labels})
    assert found is not None, name
    return found


def wish(prompt: str, max_tokens: int = 24, *, seed: int | None = None, **settings: Any) -> Request:
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, top_p=0.95, seed=seed)
    return Request("r", encode(prompt), max_tokens, **{"sampling": sampling, "ignore_eos": True, **settings})


Whole = tuple[str, str | None, int]
"""Text, finish reason and tokens of an answer."""


async def whole(generation: Generation) -> Whole:
    pieces = [piece async for piece in generation.pieces()]
    return "".join(piece.text for piece in pieces), pieces[-1].finish_reason, pieces[-1].tokens


async def answer(engine: Engine, request: Request) -> Whole:
    return await whole(engine.submit(request))


async def together(engine: Engine, requests: Iterable[Request]) -> list[Whole]:
    """Answer requests of which none ends before the last has come."""
    with standing_still(engine):
        asked = [engine.submit(request) for request in requests]
    return await asyncio.gather(*map(whole, asked))


PROMPTS = [("why " * length)[: 3 + 17 * length] for length in range(1, 15)]


async def test_a_batch_gives_every_request_the_text_it_gets_alone(device: torch.device) -> None:
    async with running(device) as engine:
        alone = [await answer(engine, wish(prompt)) for prompt in PROMPTS]
        batched = await together(engine, [wish(prompt) for prompt in PROMPTS])
    assert batched == alone


async def test_sampled_text_depends_on_the_seed_and_on_nothing_else(device: torch.device) -> None:
    async with running(device) as engine:
        alone = [await answer(engine, wish(prompt, seed=7)) for prompt in PROMPTS]
        batched = await together(engine, [wish(prompt, seed=7) for prompt in PROMPTS])
        other = await answer(engine, wish(PROMPTS[0], seed=8))
    assert batched == alone
    assert other[0] != alone[0][0]


async def test_requests_that_join_late_do_not_change_the_text_of_those_before(device: torch.device) -> None:
    async with running(device) as engine:
        alone = await answer(engine, wish("first", 64))
        first = asyncio.ensure_future(answer(engine, wish("first", 64)))
        late = []
        for number in range(6):
            await asyncio.sleep(0.002)
            late.append(asyncio.ensure_future(answer(engine, wish(f"late {number}", 5 + number))))
        assert await first == alone
        assert [(await task)[2] for task in late] == [5, 6, 7, 8, 9, 10]


async def test_streamed_pieces_join_to_the_whole_answer(device: torch.device) -> None:
    async with running(device) as engine:
        whole = await answer(engine, wish("hello"))
        pieces = [piece async for piece in engine.submit(wish("hello", stream=True)).pieces()]
    assert len(pieces) == 24
    assert "".join(piece.text for piece in pieces) == whole[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_text_ends_the_answer_and_is_never_sent(device: torch.device, stream: bool) -> None:  # noqa: FBT001
    async with running(device) as engine:
        text, _, _ = await answer(engine, wish("stop here"))
        stop = text[10:13]
        cut, reason, tokens = await answer(engine, wish("stop here", stop=(stop.encode(),), stream=stream))
    assert cut == text[: text.index(stop)]
    assert reason == "stop"
    assert tokens == text.index(stop) + 3


async def test_a_full_queue_refuses_and_serves_again_once_it_drains(device: torch.device) -> None:
    async with running(device, max_queue=2, max_num_seqs=1) as engine:
        with standing_still(engine):
            first = engine.submit(wish("one", 200))
            await until_running(engine)
            waiting = [engine.submit(wish("two", 2)), engine.submit(wish("three", 2))]
            with pytest.raises(QueueFullError):
                engine.submit(wish("four"))
        for generation in (first, *waiting):
            assert [piece async for piece in generation.pieces()][-1].finish_reason == "length"
        assert await answer(engine, wish("five", 2))


async def test_an_abort_frees_the_blocks_of_running_and_of_waiting_requests(device: torch.device) -> None:
    async with running(device, max_num_seqs=1) as engine:
        with standing_still(engine):
            running_one, waiting_one = engine.submit(wish("long", 900)), engine.submit(wish("waits", 900))
            await until_running(engine)
            assert engine.pool.used > 0
            waiting_one.abort()
            running_one.abort()
        for generation in (running_one, waiting_one):
            assert [piece async for piece in generation.pieces()][-1].finish_reason == "abort"
        assert (engine.pool.used, engine.running, engine.waiting) == (0, 0, 0)


async def test_a_cache_too_small_for_all_makes_requests_wait_and_serves_them_all(device: torch.device) -> None:
    async with running(device, num_blocks=8) as engine:
        answers = await together(engine, [wish("x" * 40, 40)] * 6)
        assert {tokens for _, _, tokens in answers} == {40}
        assert engine.pool.used == 0


@pytest.mark.parametrize("method", ["stepped", "finished", "first_token"])
async def test_a_worker_that_dies_at_any_point_of_a_step_leaves_nobody_without_an_answer(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    calls: list[str] = []

    def break_down(*_: object) -> None:
        calls.append(method)
        if len(calls) == 1:
            raise RuntimeError("broken")

    async with running(device) as engine:
        monkeypatch.setattr(METRICS[engine], method, break_down)
        answers = await together(engine, [wish(f"{number}", 2) for number in range(4)])
        assert {reason for _, reason, _ in answers} == {"error"}


async def test_a_dead_worker_answers_everybody_with_an_error(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("device lost")

    async with running(device) as engine:
        monkeypatch.setattr(Transformer, "compute", break_down)
        _, reason, _ = await answer(engine, wish("hello"))
        assert reason == "error"
        assert isinstance(engine.failure, RuntimeError)
        with pytest.raises(EngineStoppedError):
            engine.submit(wish("hello"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
async def test_a_preempted_request_gets_the_text_it_gets_when_there_is_room(
    device: torch.device, precision: str
) -> None:
    if precision.startswith("int"):
        pytest.importorskip("torchao")
    wishes = [wish(f"{number} " * (number + 3), 70, seed=number) for number in range(7)]
    async with running(device, precision=precision) as engine:
        alone = [await answer(engine, one) for one in wishes]
    async with running(device, num_blocks=24, precision=precision) as engine:
        batched = await together(engine, wishes)
        preemptions = counted(engine, "vllm:num_preemptions_total")
        assert preemptions > 0
        assert counted(engine, "vllm:request_num_preemptions_sum") == preemptions
        assert counted(engine, "vllm:prompt_tokens_total") == sum(len(one.prompt) for one in wishes)
    if device.type == "cpu" or precision == "fp32":  # A GPU's kernels differ with the batch; few bits let that show.
        assert batched == alone


async def test_a_shared_beginning_is_computed_once_and_changes_no_text(device: torch.device) -> None:
    system = "You are a careful engineer. " * 8
    wishes = [wish(f"{system}{number}", 40, seed=number) for number in range(5)]
    alone = []
    for one in wishes:
        async with running(device) as engine:
            alone.append(await answer(engine, one))
            assert counted(engine, "vllm:prefix_cache_hits_total") == 0
    async with running(device) as engine:
        shared = [await answer(engine, one) for one in wishes]
        asked = sum(len(one.prompt) for one in wishes)
        hits = 4 * (len(system) + 1) // 16 * 16
        assert counted(engine, "vllm:prefix_cache_queries_total") == asked
        assert counted(engine, "vllm:prefix_cache_hits_total") == hits
        assert counted(engine, "vllm:prompt_tokens_by_source_total", source="local_cache_hit") == hits
        assert counted(engine, "vllm:prompt_tokens_by_source_total", source="local_compute") == asked - hits
        assert counted(engine, "vllm:prompt_tokens_cached_by_source_total", source="device") == hits
    assert shared == alone


async def test_the_same_prompt_again_tells_how_much_of_it_was_cached(device: torch.device) -> None:
    async with running(device) as engine:
        await answer(engine, wish("x" * 100))
        pieces = [piece async for piece in engine.submit(wish("x" * 100)).pieces()]
        assert pieces[-1].cached_tokens == 96


async def test_a_long_prompt_in_chunks_gets_the_same_text_and_holds_up_nobody(device: torch.device) -> None:
    long = wish("long " * 150, 8)
    async with running(device) as engine:
        alone = await answer(engine, long)
    async with running(device, max_num_batched_tokens=40) as engine:
        other = engine.submit(wish("short", 60, stream=True))
        pieces = other.pieces()
        await anext(pieces)
        late = asyncio.ensure_future(answer(engine, long))
        assert [piece async for piece in pieces][-1].tokens == 60
        assert await late == alone


async def test_the_more_urgent_of_two_waiting_requests_runs_first(device: torch.device) -> None:
    async with running(device, max_num_seqs=1) as engine:
        order: list[str] = []

        async def follow(name: str, priority: int) -> None:
            assert [piece async for piece in engine.submit(wish(name, 3, priority=priority)).pieces()]
            order.append(name)

        async with asyncio.TaskGroup() as group:
            with standing_still(engine):
                first = engine.submit(wish("first", 100))
                await until_running(engine)
                for name, priority in (("late", 5), ("normal", 0), ("urgent", -5), ("normal too", 0)):
                    group.create_task(follow(name, priority))
                await asyncio.sleep(0)  # Each is submitted when its task begins.
            assert (await whole(first))[2] == 100
    assert order == ["urgent", "normal", "normal too", "late"]


async def test_a_request_that_the_cache_could_never_hold_is_refused_at_once(device: torch.device) -> None:
    async with running(device, num_blocks=4) as engine:
        with pytest.raises(ValueError, match="holds 64 tokens"):
            engine.submit(wish("x" * 40, 40))


async def test_stop_tokens_and_logit_bias_steer_the_answer(device: torch.device) -> None:
    async with running(device) as engine:
        always_q = Sampling(bias=((ord("q"), 100.0),))
        assert (await answer(engine, wish("hi", 5, sampling=always_q)))[0] == "qqqqq"
        stopped = await answer(engine, wish("hi", 5, sampling=always_q, stop_tokens=frozenset({ord("q")})))
        assert stopped == ("", "stop", 1)
        later = await answer(engine, wish("hi", 5, sampling=always_q, stop_tokens=frozenset({ord("q")}), min_tokens=3))
        assert (later[1], later[2]) == ("stop", 4)


async def test_logprobs_are_of_the_models_own_distribution(device: torch.device) -> None:
    async with running(device) as engine:
        pieces = [piece async for piece in engine.submit(wish("hi", 6, logprobs=4)).pieces()]
    noted = pieces[-1].logprobs
    assert "".join(chr(one.token) for one in noted) == pieces[-1].text
    for one in noted:
        assert dict(one.top)[one.token] == one.logprob
        assert [value for _, value in one.top] == sorted((value for _, value in one.top), reverse=True)
        assert one.logprob < 0
