"""The engine: equal answers batched or alone, stops, seeds, the queue's bound, and what an abort frees."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controlplane.target.engine import Engine, QueueFullError
from controlplane.target.metrics import Metrics
from controlplane.target.model import Transformer
from controlplane.target.sampling import Sampling
from controlplane.target.sequence import Request
from controlplane.target.spec import ModelShape
from controlplane.target.tokenizer import encode

SHAPE = ModelShape(layers=2, width=64, heads=4, kv_heads=2, hidden=128)


@asynccontextmanager
async def running(max_queue: int = 100, max_num_seqs: int = 32, num_blocks: int = 512) -> AsyncIterator[Engine]:
    model = Transformer(SHAPE, num_blocks, seed=1)
    engine = Engine(model, Metrics("tiny", 1024), max_queue=max_queue, max_num_seqs=max_num_seqs, num_blocks=num_blocks)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()
        await asyncio.sleep(0)


def wish(
    prompt: str, max_tokens: int = 24, *, stream: bool = False, stop: tuple[bytes, ...] = (), seed: int | None = None
) -> Request:
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, top_p=0.95, seed=seed)
    return Request("r", encode(prompt), max_tokens, sampling, stop, ignore_eos=True, stream=stream)


async def answer(engine: Engine, request: Request) -> tuple[str, str | None, int]:
    pieces = [piece async for piece in engine.submit(request).pieces()]
    return "".join(piece.text for piece in pieces), pieces[-1].finish_reason, pieces[-1].tokens


PROMPTS = [("why " * length)[: 3 + 17 * length] for length in range(1, 15)]


async def test_a_batch_gives_every_request_the_text_it_gets_alone() -> None:
    async with running() as engine:
        alone = [await answer(engine, wish(prompt)) for prompt in PROMPTS]
        together = await asyncio.gather(*(answer(engine, wish(prompt)) for prompt in PROMPTS))
    assert list(together) == alone


async def test_sampled_text_depends_on_the_seed_and_on_nothing_else() -> None:
    async with running() as engine:
        alone = [await answer(engine, wish(prompt, seed=7)) for prompt in PROMPTS]
        together = await asyncio.gather(*(answer(engine, wish(prompt, seed=7)) for prompt in PROMPTS))
        other = await answer(engine, wish(PROMPTS[0], seed=8))
    assert list(together) == alone
    assert other[0] != alone[0][0]


async def test_requests_that_join_late_do_not_change_the_text_of_those_before() -> None:
    async with running() as engine:
        alone = await answer(engine, wish("first", 64))
        first = asyncio.ensure_future(answer(engine, wish("first", 64)))
        late = []
        for number in range(6):
            await asyncio.sleep(0.002)
            late.append(asyncio.ensure_future(answer(engine, wish(f"late {number}", 5 + number))))
        assert await first == alone
        assert [(await task)[2] for task in late] == [5, 6, 7, 8, 9, 10]


async def test_streamed_pieces_join_to_the_whole_answer() -> None:
    async with running() as engine:
        whole = await answer(engine, wish("hello"))
        pieces = [piece async for piece in engine.submit(wish("hello", stream=True)).pieces()]
    assert len(pieces) == 24
    assert "".join(piece.text for piece in pieces) == whole[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_text_ends_the_answer_and_is_never_sent(stream: bool) -> None:  # noqa: FBT001
    async with running() as engine:
        text, _, _ = await answer(engine, wish("stop here"))
        stop = text[10:13]
        cut, reason, tokens = await answer(engine, wish("stop here", stop=(stop.encode(),), stream=stream))
    assert cut == text[: text.index(stop)]
    assert reason == "stop"
    assert tokens == text.index(stop) + 3


async def test_a_full_queue_refuses_and_serves_again_once_it_drains() -> None:
    async with running(max_queue=2, max_num_seqs=1) as engine:
        first = engine.submit(wish("one", 200))
        while engine.running == 0:  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)
        waiting = [engine.submit(wish("two", 2)), engine.submit(wish("three", 2))]
        with pytest.raises(QueueFullError):
            engine.submit(wish("four"))
        for generation in (first, *waiting):
            assert [piece async for piece in generation.pieces()][-1].finish_reason == "length"
        assert await answer(engine, wish("five", 2))


async def test_an_abort_frees_the_blocks_of_running_and_of_waiting_requests() -> None:
    async with running(max_num_seqs=1) as engine:
        running_one, waiting_one = engine.submit(wish("long", 900)), engine.submit(wish("waits", 900))
        while engine.running == 0:  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)
        assert engine.pool.used > 0
        waiting_one.abort()
        running_one.abort()
        for generation in (running_one, waiting_one):
            assert [piece async for piece in generation.pieces()][-1].finish_reason == "abort"
        assert (engine.pool.used, engine.running, engine.waiting) == (0, 0, 0)


async def test_a_cache_too_small_for_all_makes_requests_wait_and_serves_them_all() -> None:
    async with running(num_blocks=8) as engine:
        answers = await asyncio.gather(*(answer(engine, wish("x" * 40, 40)) for _ in range(6)))
        assert {tokens for _, _, tokens in answers} == {40}
        assert engine.pool.used == 0


async def test_a_dead_worker_answers_everybody_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("device lost")

    async with running() as engine:
        monkeypatch.setattr(Transformer, "prefill", break_down)
        _, reason, _ = await answer(engine, wish("hello"))
    assert reason == "error"
    assert isinstance(engine.failure, RuntimeError)
