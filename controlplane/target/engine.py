"""The serving engine: a bounded queue, continuous batching, and one worker thread that runs the model.

The server calls ``submit`` on the event loop and reads the answer from the returned ``Generation``. Requests join and
leave the batch at token boundaries. The worker thread alone touches the model, the block pool and running sequences;
the queue and the abort list are shared under one lock.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from controlplane.target.kv import BlockPool
from controlplane.target.model import Transformer
from controlplane.target.sequence import Piece, Request, Sequence, Timeline

PREFILL_CHUNK = 256
"""Longest part of a prompt in one forward pass; a long prompt does not hold up the others' tokens for longer."""
PREFILL_BUDGET = 512
"""Prompt tokens computed in one step, over all requests."""


class Observer(Protocol):
    """Who is told what the engine does; called on the worker thread."""

    def stepped(self, tokens: int, prompt_tokens: int, generated: int) -> None:
        """Take note of one forward step: its tokens, and how they split."""

    def first_token(self, seconds: float) -> None:
        """Take note of the time from arrival to the first token."""

    def next_token(self, seconds: float) -> None:
        """Take note of the time between two tokens of one request."""

    def finished(self, request: Request, timeline: Timeline, generated: int, reason: str) -> None:
        """Take note of a request that ended, and why."""


class QueueFullError(Exception):
    """The queue is at its bound; the caller should come back later."""


class Generation:
    """The answer to one request as it comes; used on the event loop only."""

    def __init__(self, sequence: Sequence, abort: Callable[[Sequence], None]) -> None:
        """Wrap a queued sequence; ``abort`` tells the engine to drop it."""
        self._sequence = sequence
        self._abort = abort
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self.done = False

    @property
    def timeline(self) -> Timeline:
        """When things happened to the request."""
        return self._sequence.timeline

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield pieces until the last, which has a finish reason."""
        while not self.done:
            piece = await self._pieces.get()
            self.done = piece.finish_reason is not None
            yield piece

    def deliver(self, piece: Piece) -> None:
        """Hand a piece over; the engine schedules this on the loop."""
        self._pieces.put_nowait(piece)

    def abort(self) -> None:
        """Drop the request if it still runs, and free what it holds."""
        if not self.done:
            self._abort(self._sequence)


@dataclass(frozen=True, slots=True)
class _Entry:
    sequence: Sequence
    generation: Generation


class Engine:
    """Runs one model for many requests at once."""

    def __init__(
        self, model: Transformer, observer: Observer, *, max_queue: int, max_num_seqs: int, num_blocks: int
    ) -> None:
        """Prepare the engine; ``start`` begins its thread."""
        self.pool = BlockPool(num_blocks)
        self.max_num_seqs = max_num_seqs
        self._model = model
        self._observer = observer
        self._max_queue = max_queue
        self._wake = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._running: list[_Entry] = []
        self._aborted: list[Sequence] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: BaseException | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

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
            QueueFullError: ``max_queue`` requests wait already.
        """
        sequence = Sequence(request, Timeline(arrived=time.perf_counter()))
        generation = Generation(sequence, self._abort)
        with self._wake:
            if len(self._waiting) >= self._max_queue:
                raise QueueFullError
            self._waiting.append(_Entry(sequence, generation))
            self._wake.notify()
        return generation

    def _abort(self, sequence: Sequence) -> None:
        with self._wake:
            self._aborted.append(sequence)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._step()
        except Exception as error:  # noqa: BLE001 - the thread's supervisor: every waiting client must get an answer
            self.failure = error
        with self._wake:
            left, self._running = [*self._running, *self._waiting], []
            self._waiting.clear()
        self._end_all(left, "error" if self.failure else "abort")

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do, apply aborts, admit what fits. False ends the thread."""
        with self._wake:
            while not (self._closing or self._waiting or self._running or self._aborted):
                self._wake.wait()
            dropped, self._aborted = self._aborted, []
            gone = [entry for entry in (*self._running, *self._waiting) if _among(entry.sequence, dropped)]
            self._running = [entry for entry in self._running if not _among(entry.sequence, dropped)]
            for entry in gone:
                if entry in self._waiting:
                    self._waiting.remove(entry)
            self._admit()
            closing = self._closing
        self._end_all(gone, "abort")
        return not closing

    def _admit(self) -> None:
        now = time.perf_counter()
        while self._waiting and len(self._running) < self.max_num_seqs:
            sequence = self._waiting[0].sequence
            blocks = self.pool.take(sequence.room)
            if blocks is None:
                return
            sequence.blocks = blocks
            sequence.timeline.scheduled = now
            self._running.append(self._waiting.popleft())

    def _step(self) -> None:
        """Compute one token for every running request whose prompt is in, and part of the other prompts."""
        decoding = [entry for entry in self._running if entry.sequence.prefilled]
        prompts = [entry for entry in self._running if not entry.sequence.prefilled]
        advanced, prompt_tokens = self._prefill(prompts)
        if decoding:
            self._decode([entry.sequence for entry in decoding])
            advanced += decoding
        now = time.perf_counter()
        out = [
            (entry.generation, piece) for entry in advanced if (piece := self._note(entry.sequence, now)) is not None
        ]
        self._observer.stepped(prompt_tokens + len(decoding), prompt_tokens, len(advanced))
        ended = [entry for entry in advanced if entry.sequence.finish_reason]
        if ended:
            self._leave(ended)
        if out:
            self._hand_over(out)

    def _prefill(self, entries: list[_Entry]) -> tuple[list[_Entry], int]:
        """Compute prompts up to the budget; return who has its first token now, and the tokens computed."""
        done: list[_Entry] = []
        spent = 0
        for entry in entries:
            if spent >= PREFILL_BUDGET:
                break
            sequence = entry.sequence
            chunk = sequence.chunk(PREFILL_CHUNK)
            logits = self._model.prefill(chunk, sequence.computed, sequence.blocks)
            sequence.computed += len(chunk)
            spent += len(chunk)
            if sequence.prefilled:
                sequence.accept(logits.cpu().numpy())
                done.append(entry)
        return done, spent

    def _decode(self, sequences: list[Sequence]) -> None:
        logits = self._model.decode(
            [sequence.tokens[-1] for sequence in sequences],
            [sequence.computed for sequence in sequences],
            [sequence.blocks for sequence in sequences],
        )
        for sequence, row in zip(sequences, logits.cpu().numpy(), strict=True):
            sequence.computed += 1
            sequence.accept(row)

    def _note(self, sequence: Sequence, now: float) -> Piece | None:
        timeline = sequence.timeline
        if timeline.first_token:
            self._observer.next_token(now - timeline.last_token)
        else:
            timeline.first_token = now
            self._observer.first_token(now - timeline.arrived)
        timeline.last_token = now
        return sequence.piece() if sequence.request.stream or sequence.finish_reason else None

    def _leave(self, ended: list[_Entry]) -> None:
        self._running = [entry for entry in self._running if entry.sequence.finish_reason is None]
        for entry in ended:
            self._close_books(entry.sequence)

    def _end_all(self, entries: list[_Entry], reason: str) -> None:
        for entry in entries:
            entry.sequence.finish_reason = reason
            self._close_books(entry.sequence)
        if entries:
            self._hand_over([(entry.generation, entry.sequence.piece()) for entry in entries])

    def _close_books(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.blocks)
        self._observer.finished(
            sequence.request, sequence.timeline, len(sequence.tokens), sequence.finish_reason or "error"
        )

    def _hand_over(self, out: list[tuple[Generation, Piece]]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, out)


def _among(sequence: Sequence, dropped: list[Sequence]) -> bool:
    return any(sequence is other for other in dropped)


def _deliver(out: list[tuple[Generation, Piece]]) -> None:
    for generation, piece in out:
        generation.deliver(piece)
