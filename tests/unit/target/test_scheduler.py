"""Who computes what: budget, urgency, shared blocks, preemption; and the pool that hands blocks out."""

import hypothesis.strategies as st
from hypothesis import given, settings

from controlplane.target.kv import BLOCK_TOKENS, BlockPool, block_key
from controlplane.target.scheduler import Batching, Scheduler
from controlplane.target.sequence import Request, Sequence, Timeline


def scheduler(num_blocks: int = 64, max_num_seqs: int = 8, budget: int = 64) -> Scheduler:
    return Scheduler(BlockPool(num_blocks), Batching(max_num_seqs, budget))


def sequence(number: int, prompt: int = 20, *, priority: int = 0, first: int = 0) -> Sequence:
    tokens = tuple((first + at) % 256 for at in range(prompt))
    return Sequence(Request(str(number), tokens, 500, priority=priority, ignore_eos=True), Timeline(0.0), number)


def step(planner: Scheduler) -> list[tuple[int, int]]:
    """Plan and compute one step; every request whose tokens are computed gets another one."""
    plan = planner.plan()
    planner.advance(plan.work)
    for work in plan.work:
        if not work.sequence.pending:
            work.sequence.accept(65)
    return [(work.sequence.number, work.count) for work in plan.work]


def test_a_step_serves_running_requests_first_and_fills_the_budget_with_prompts() -> None:
    planner = scheduler(budget=30)
    for number, prompt in ((1, 20), (2, 40), (3, 5)):
        planner.add(sequence(number, prompt, first=number * 60))
    assert step(planner) == [(1, 20), (2, 10)]
    assert step(planner) == [(1, 1), (2, 29)]
    assert step(planner) == [(1, 1), (2, 1), (3, 5)]


def test_waiting_requests_join_by_priority_and_then_by_arrival() -> None:
    planner = scheduler(max_num_seqs=2)
    for number, priority in ((1, 0), (2, 7), (3, -1), (4, 0)):
        planner.add(sequence(number, priority=priority, first=number * 60))
    step(planner)
    assert [one.number for one in planner.running] == [3, 1]


def test_the_least_urgent_request_gives_up_its_blocks_and_comes_back() -> None:
    planner = scheduler(num_blocks=4, budget=200)
    for number in (1, 2):
        planner.add(sequence(number, prompt=30, first=number * 60))
    assert step(planner) == [(1, 30), (2, 30)]
    step(planner)
    step(planner)
    assert step(planner) == [(1, 1)]
    (waiting,) = planner.waiting
    assert (waiting.number, waiting.computed, waiting.blocks, waiting.preemptions) == (2, 0, [], 1)
    planner.drop(lambda one: one.number == 1)
    assert step(planner) == [(2, 17)]  # Its last block went to the other request; its first is still in the cache.


def test_a_request_that_only_half_fits_is_not_seated() -> None:
    planner = scheduler(num_blocks=4)
    planner.add(sequence(1, prompt=33))
    planner.add(sequence(2, prompt=33, first=99))
    step(planner)
    assert ([one.number for one in planner.running], planner.pool.used) == ([1], 3)


def test_a_shared_prompt_takes_its_full_blocks_once() -> None:
    planner = scheduler(budget=200)
    planner.add(sequence(1, prompt=40))
    step(planner)
    planner.add(sequence(2, prompt=40))
    plan = planner.plan()
    assert (plan.queried_tokens, plan.hit_tokens) == (40, 32)
    assert planner.pool.used == 3 + 1
    assert planner.running[0].blocks[:2] == planner.running[1].blocks[:2]


def test_a_prompt_of_whole_blocks_still_computes_its_last_token() -> None:
    planner = scheduler()
    planner.add(sequence(1, prompt=32))
    step(planner)
    planner.drop(lambda _: True)
    planner.add(sequence(2, prompt=32))
    assert step(planner) == [(2, 16)]


def test_blocks_given_back_longest_ago_lose_their_content_first() -> None:
    pool = BlockPool(3)
    keys = [block_key(b"", [number] * BLOCK_TOKENS) for number in range(3)]
    blocks = pool.take(3) or []
    for block, key in zip(blocks, keys, strict=True):
        pool.seal(block, key)
    for number in (1, 0, 2):
        pool.give_back([blocks[number]])
    assert pool.take(1) == [blocks[1]]
    assert pool.share(keys[1:2]) == []
    assert pool.share(keys[:1]) == [blocks[0]]
    assert pool.take(2) is None


def test_keys_name_the_whole_beginning_and_not_one_block_alone() -> None:
    one = block_key(b"", [1] * BLOCK_TOKENS)
    assert block_key(one, [2] * BLOCK_TOKENS) != block_key(b"", [2] * BLOCK_TOKENS)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(-1, 1), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(8, 24),
)
def test_every_request_ends_and_no_block_is_held_twice_or_for_ever(
    wishes: list[tuple[int, int, int]], num_blocks: int
) -> None:
    planner = scheduler(num_blocks=num_blocks, max_num_seqs=4, budget=40)
    for number, (prompt, priority, first) in enumerate(wishes):
        planner.add(sequence(number, prompt, priority=priority, first=first))
    ended = 0
    for _ in range(2000):
        work = step(planner)
        assert sum(count for _, count in work) <= 40
        assert [one.number for one in planner.running] == [one.number for one in sorted(planner.running)]
        ended += len(planner.drop(lambda one: len(one.tokens) >= 40))
        if not (planner.running or planner.waiting):
            break
    assert (ended, planner.pool.used) == (len(wishes), 0)
