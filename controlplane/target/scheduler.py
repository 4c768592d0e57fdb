"""Who computes what in the next step: admission by priority, chunked prefill, prefix reuse, preemption. Pure.

The engine's worker thread alone calls it; it knows neither the model nor the clock. Every step has a budget of tokens.
Running requests are served first, the most urgent first; waiting ones join while places, blocks and budget last. When a
running request needs a block and none is free, the least urgent one gives up its blocks and is computed again later
(preemption by recompute, as in vLLM).
"""

import heapq
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controlplane.target.kv import BLOCK_TOKENS, BlockPool, blocks_for
from controlplane.target.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Batching:
    """How much runs at once."""

    max_num_seqs: int
    """Requests that run in one batch."""
    max_num_batched_tokens: int
    """Tokens computed in one step, over all requests; at least ``max_num_seqs``."""


@dataclass(frozen=True, slots=True)
class Work:
    """The next ``count`` tokens of one request."""

    sequence: Sequence
    count: int


@dataclass(slots=True)
class Plan:
    """What one step computes, and what was decided on the way."""

    work: list[Work] = field(default_factory=list)
    preempted: int = 0
    """Requests that gave up their blocks."""
    queried_tokens: int = 0
    """Prompt tokens of requests that joined for the first time."""
    hit_tokens: int = 0
    """How many of those were in the cache already."""


class Scheduler:
    """Holds the waiting and the running requests, and the block pool."""

    def __init__(self, pool: BlockPool, batching: Batching) -> None:
        """Start empty."""
        self.pool = pool
        self.batching = batching
        self.waiting: list[Sequence] = []
        """A heap, the most urgent first."""
        self.running: list[Sequence] = []
        """In order of urgency, so that the last is the first to be preempted."""

    def add(self, sequence: Sequence) -> None:
        """Let a request wait for its turn."""
        heapq.heappush(self.waiting, sequence)

    def drop(self, gone: Callable[[Sequence], bool]) -> list[Sequence]:
        """Remove every request that ``gone`` is true of, free its blocks, and return those requests."""
        dropped = [sequence for sequence in (*self.running, *self.waiting) if gone(sequence)]
        if dropped:
            self.running = [sequence for sequence in self.running if not gone(sequence)]
            self.waiting = [sequence for sequence in self.waiting if not gone(sequence)]
            heapq.heapify(self.waiting)
        for sequence in dropped:
            self.pool.give_back(sequence.blocks)
        return dropped

    def plan(self) -> Plan:
        """Decide the next step."""
        plan = Plan()
        budget = self._serve_running(plan, self.batching.max_num_batched_tokens)
        if not plan.preempted:
            self._admit(plan, budget)
        return plan

    def advance(self, done: Iterable[Work]) -> None:
        """Take note of computed work; blocks that became full can be shared from now on."""
        for work in done:
            sequence = work.sequence
            first = sequence.computed // BLOCK_TOKENS
            sequence.computed += work.count
            for number, key in enumerate(sequence.keys(sequence.computed // BLOCK_TOKENS)[first:], first):
                self.pool.seal(sequence.blocks[number], key)

    def _serve_running(self, plan: Plan, budget: int) -> int:
        """Plan the running requests' tokens, preempting from the end where blocks run out; return the budget left."""
        position = 0
        while position < len(self.running) and budget:
            sequence = self.running[position]
            count = min(sequence.pending, budget)
            while not self._grow(sequence, count):
                victim = self.running.pop()
                self._preempt(victim)
                plan.preempted += 1
                if victim is sequence:
                    return budget
            plan.work.append(Work(sequence, count))
            budget -= count
            position += 1
        return budget

    def _grow(self, sequence: Sequence, count: int) -> bool:
        """Give a request the blocks for its next tokens, if there are enough."""
        missing = blocks_for(sequence.computed + count) - len(sequence.blocks)
        if missing > 0:
            blocks = self.pool.take(missing)
            if blocks is None:
                return False
            sequence.blocks += blocks
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.blocks)
        sequence.computed = 0
        sequence.preemptions += 1
        self.add(sequence)

    def _admit(self, plan: Plan, budget: int) -> None:
        while self.waiting and len(self.running) < self.batching.max_num_seqs and budget:
            sequence = self.waiting[0]
            if not self._seat(sequence):
                return
            heapq.heappop(self.waiting)
            insort(self.running, sequence)
            if not sequence.admitted:
                sequence.admitted = True
                sequence.cached = sequence.computed
                plan.queried_tokens += len(sequence.known)
                plan.hit_tokens += sequence.computed
            count = min(sequence.pending, budget)
            plan.work.append(Work(sequence, count))
            budget -= count

    def _seat(self, sequence: Sequence) -> bool:
        """Give a request blocks for all its tokens so far, shared ones where their content is in the cache.

        Requests that only half fit would preempt each other for ever, so that none is seated before it fits whole.
        """
        # The last token is always computed, since the next one is chosen from its logits.
        shared = self.pool.share(sequence.keys((len(sequence.known) - 1) // BLOCK_TOKENS))
        fresh = self.pool.take(blocks_for(len(sequence.known)) - len(shared))
        if fresh is None:
            self.pool.give_back(shared)
            return False
        sequence.blocks = [*shared, *fresh]
        sequence.computed = len(shared) * BLOCK_TOKENS
        return True
