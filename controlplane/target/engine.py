"""The serving engine: a bounded queue, continuous batching, and one worker thread that runs the model.

The server calls ``submit`` on the event loop and reads the answer from the returned ``Generation``. Requests join and
leave the batch at token boundaries; which ones, ``scheduler`` decides. The worker thread alone touches the model, the
scheduler and running sequences; new requests and aborts reach it under one lock.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from controlplane.target.kv import BLOCK_TOKENS, BlockPool
from controlplane.target.model import Chunk
from controlplane.target.scheduler import Batching, Plan, Scheduler, Work
from controlplane.target.sequence import Piece, Request, Sequence, Timeline
from controlplane.target.tokenizer import EOS


class Model(Protocol):
    """What the engine runs."""

    def compute(self, chunks: Items[Chunk]) -> Tensor:
        """Return [chunks, vocabulary] logits after the last token of each chunk."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward step did."""

    prompt_tokens: int
    """Prompt tokens of the requests that got their first token in it, whether computed or found in the cache."""
    cached_tokens: int
    """How many of those were in the cache."""
    generated: int
    """Tokens chosen."""
    queried_tokens: int
    """Prompt tokens looked up in the cache."""
    hit_tokens: int
    """How many of those were there."""
    preempted: int
    """Requests that gave up their blocks."""


class Observer(Protocol):
    """Who is told what the engine does; called on the worker thread."""

    def stepped(self, step: Step) -> None:
        """Take note of one forward step."""

    def first_token(self, seconds: float) -> None:
        """Take note of the time from arrival to the first token."""

    def next_token(self, seconds: float) -> None:
        """Take note of the time between two tokens of one request."""

    def finished(self, sequence: Sequence) -> None:
        """Take note of a request that ended."""


class QueueFullError(Exception):
    """The queue is at its bound; the caller should come back later."""


class EngineStoppedError(Exception):
    """The engine takes no requests any more."""


class Generation:
    """The answer to one request as it comes; used on the event loop only."""

    def __init__(self, sequence: Sequence, abort: Callable[[Sequence], None]) -> None:
        """Wrap a queued sequence; ``abort`` tells the engine to drop it."""
        self.sequence = sequence
        self._abort = abort
        self._mailbox: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._number = 0
        self.done = False
        """Whether the engine has handed over the last piece."""

    @property
    def timeline(self) -> Timeline:
        """When things happened to the request."""
        return self.sequence.timeline

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield pieces until the last, which has a finish reason."""
        async for _, piece in merged([self]):
            yield piece

    def join(self, mailbox: "asyncio.Queue[tuple[int, Piece]]", number: int) -> None:
        """Have pieces put into a common mailbox under this number; those that wait already move there."""
        waiting, self._mailbox, self._number = self._mailbox, mailbox, number
        while not waiting.empty():
            mailbox.put_nowait((number, waiting.get_nowait()[1]))

    def deliver(self, piece: Piece) -> None:
        """Hand a piece over; the engine schedules this on the loop."""
        self.done = piece.finish_reason is not None
        self._mailbox.put_nowait((self._number, piece))

    def abort(self) -> None:
        """Drop the request if it still runs, and free what it holds."""
        if not self.done:
            self._abort(self.sequence)


async def merged(generations: Items[Generation]) -> AsyncIterator[tuple[int, Piece]]:
    """Yield (place in the list, piece) of several generations as they come."""
    mailbox: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
    for number, generation in enumerate(generations):
        generation.join(mailbox, number)
    left = len(generations)
    while left:
        number, piece = await mailbox.get()
        left -= piece.finish_reason is not None
        yield number, piece


class Engine:
    """Runs one model for many requests at once."""

    def __init__(
        self, model: Model, observer: Observer, *, max_queue: int, num_blocks: int, batching: Batching
    ) -> None:
        """Prepare the engine; ``start`` begins its thread."""
        self.pool = BlockPool(num_blocks)
        self._scheduler = Scheduler(self.pool, batching)
        self._model = model
        self._observer = observer
        self._max_queue = max_queue
        self._wake = threading.Condition()
        self._inbox: list[Sequence] = []
        self._aborted: set[int] = set()
        self._generations: dict[int, Generation] = {}
        self._arrivals = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: BaseException | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn, preempted ones among them."""
        return len(self._inbox) + len(self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._scheduler.running)

    @property
    def idle(self) -> bool:
        """Whether every request has its answer."""
        return not self._generations

    def start(self) -> None:
        """Begin the worker thread; answers are handed over on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """End the worker thread after its current step, aborting what runs."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def submit(self, request: Request) -> Generation:
        """Queue a request.

        Raises:
            EngineStoppedError: it was closed, or has died.
            QueueFullError: ``max_queue`` requests wait already.
            ValueError: the KV cache could never hold it.
        """
        sequence = Sequence(request, Timeline(arrived=time.perf_counter()))
        if sequence.room > self.pool.num_blocks * BLOCK_TOKENS:
            raise ValueError(f"the KV cache holds {self.pool.num_blocks * BLOCK_TOKENS} tokens, not {sequence.room}")
        generation = Generation(sequence, self._abort)
        with self._wake:
            if self._closing:
                raise EngineStoppedError
            if self._full():
                raise QueueFullError
            self._arrivals += 1
            sequence.number = self._arrivals
            self._generations[sequence.number] = generation
            self._inbox.append(sequence)
            self._wake.notify()
        return generation

    def _full(self) -> bool:
        """Tell whether one more request is one too many; who finds a free place in the next step does not wait."""
        scheduler = self._scheduler
        places = scheduler.batching.max_num_seqs - len(scheduler.running)
        joining = max(len(self._inbox) + 1 - places, 0)
        return len(scheduler.waiting) >= self._max_queue or len(scheduler.waiting) + joining > self._max_queue

    def _abort(self, sequence: Sequence) -> None:
        with self._wake:
            if sequence.number in self._generations:
                self._aborted.add(sequence.number)
                self._wake.notify()

    def _run(self) -> None:
        try:
            while (plan := self._next_plan()) is not None:
                if plan.work:
                    self._step(plan)
        except Exception as error:  # noqa: BLE001 - the thread's supervisor: every waiting client must get an answer
            self.failure = error
        with self._wake:
            self._closing = True
            self._take_in()
            # Not what the scheduler holds: a step that broke off may have let go of requests that have no answer yet.
            left = [generation.sequence for generation in self._generations.values()]
        self._scheduler.drop(lambda _: True)
        self._end_all(left, "error" if self.failure else "abort")

    def _next_plan(self) -> Plan | None:
        """Sleep until there is something to do, apply aborts, and decide the next step; None ends the thread."""
        scheduler = self._scheduler
        with self._wake:
            while not (self._closing or self._inbox or self._aborted or scheduler.waiting or scheduler.running):
                self._wake.wait()
            if self._closing:
                return None
            self._take_in()
            aborted, self._aborted = self._aborted, set()
        if aborted:
            self._end_all(scheduler.drop(lambda sequence: sequence.number in aborted), "abort")
        return scheduler.plan()

    def _take_in(self) -> None:
        for sequence in self._inbox:
            self._scheduler.add(sequence)
        self._inbox.clear()

    def _step(self, plan: Plan) -> None:
        """Compute the planned tokens, and choose the next one for every request whose tokens are all computed."""
        began = time.perf_counter()
        for work in plan.work:
            if not work.sequence.timeline.scheduled:
                work.sequence.timeline.scheduled = began
        ready = self._compute(plan.work)
        now = time.perf_counter()
        first = [sequence for sequence in ready if not sequence.timeline.first_token]
        out = [(sequence, piece) for sequence in ready if (piece := self._note(sequence, now)) is not None]
        self._observer.stepped(
            Step(
                prompt_tokens=sum(len(sequence.request.prompt) for sequence in first),
                cached_tokens=sum(sequence.cached for sequence in first),
                generated=len(ready),
                queried_tokens=plan.queried_tokens,
                hit_tokens=plan.hit_tokens,
                preempted=plan.preempted,
            )
        )
        ended = [sequence for sequence in ready if sequence.finish_reason]
        if ended:
            self._scheduler.drop(lambda sequence: sequence.finish_reason is not None)
        # Counted before it is handed over: who has an answer finds it on the metrics page.
        for sequence in ended:
            self._observer.finished(sequence)
        self._hand_over(out)

    def _compute(self, work: Items[Work]) -> list[Sequence]:
        chunks = [
            Chunk(
                sequence.known[sequence.computed : sequence.computed + item.count], sequence.computed, sequence.blocks
            )
            for item in work
            for sequence in (item.sequence,)
        ]
        logits = self._model.compute(chunks)
        self._scheduler.advance(work)
        ready = [(row, item.sequence) for row, item in enumerate(work) if not item.sequence.pending]
        if ready:
            _choose_all(logits[[row for row, _ in ready]], [sequence for _, sequence in ready])
        return [sequence for _, sequence in ready]

    def _note(self, sequence: Sequence, now: float) -> Piece | None:
        timeline = sequence.timeline
        if timeline.first_token:
            self._observer.next_token(now - timeline.last_token)
        else:
            timeline.first_token = now
            self._observer.first_token(now - timeline.arrived)
        timeline.last_token = now
        return sequence.piece() if sequence.request.stream or sequence.finish_reason else None

    def _end_all(self, sequences: Items[Sequence], reason: str) -> None:
        for sequence in sequences:
            sequence.finish_reason = reason
            self._observer.finished(sequence)
        self._hand_over([(sequence, sequence.piece()) for sequence in sequences])

    def _hand_over(self, out: Items[tuple[Sequence, Piece]]) -> None:
        with self._wake:
            pieces = [(self._generations[sequence.number], piece) for sequence, piece in out]
            for sequence, piece in out:
                if piece.finish_reason:
                    del self._generations[sequence.number]
        if pieces and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, pieces)


def _choose_all(logits: Tensor, sequences: Items[Sequence]) -> None:
    """Choose the next token of each sequence; those that simply want the likeliest get it in one sweep."""
    scores = logits.cpu().numpy()
    wishing = {row: sequence.choose(scores[row]) for row, sequence in enumerate(sequences) if not sequence.plain}
    scores[[row for row, sequence in enumerate(sequences) if sequence.endless], EOS] = float("-inf")
    likeliest = scores.argmax(axis=1).tolist()
    for row, sequence in enumerate(sequences):
        sequence.accept(wishing.get(row, likeliest[row]))


def _deliver(pieces: list[tuple[Generation, Piece]]) -> None:
    for generation, piece in pieces:
        generation.deliver(piece)
