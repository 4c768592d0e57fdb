"""The journey of a posted alert: queued, written down with everything that waits beside it, acknowledged, told.

One writer: while a commit is under way the next group gathers, so that a storm costs one commit a group and not one an
alert. Nobody is told that an alert arrived before it is on disk, and nothing is turned away with an answer that whoever
sent it would take for final. `web/intake` asks, `runtime/intake` runs the writer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from time import monotonic

import structlog

from controlplane.errors import StoreError
from controlplane.incidents.alert import Alert, Webhook, latest
from controlplane.incidents.firing import WATCHDOG, AlertInbox, Change, way_s
from controlplane.telemetry import Metrics

WAITING_AT_MOST = 20_000
"""Alerts that may wait for the writer: about a second's work. What comes on top is asked to come again."""
GROUP_AT_MOST = 4_096
"""Alerts of one commit, so that whatever else is to be stored never waits long; one webhook is never cut in two."""
WRITERS = 2
"""The store has one thread. The second writer's turn is queued there while the first one's commit is under way, and
gathers its group when it begins: so the thread goes from one commit to the next without waiting for the event loop."""
ACK_WITHIN_S = 10.0
"""How long a commit may take; what was not written by then is asked for again, and counts once."""

log = structlog.get_logger("intake")


@dataclass(frozen=True, slots=True)
class Busy:
    """Why a webhook could not be taken now; it can be later."""

    reason: str
    """`overload`, `store`, `slow` or `stopping`."""
    why: str


STOPPING = Busy("stopping", "this control plane is stopping")


@dataclass(frozen=True, slots=True)
class IntakePorts:
    """What this journey touches."""

    inbox: AlertInbox
    heard: Callable[[Sequence[Change]], None]
    """Told what changed, at once; it must be quick."""
    metrics: Metrics
    now: Callable[[], datetime]
    truncated: Callable[[], None]
    """Told that whoever sent a webhook left alerts out of it: somebody has to ask for the rest."""


@dataclass(slots=True)
class _Waiting:
    """A webhook that waits for its commit."""

    alerts: tuple[Alert, ...]
    told: Callable[[Busy | None], None]


class _Turn:
    """One group from when the store is ready for it: gathered by whoever writes, answered by whoever asked."""

    def __init__(self, gather: Callable[[], list[_Waiting]], now: Callable[[], datetime], lock: Lock) -> None:
        self._gather, self._now, self._lock = gather, now, lock
        self._over = False
        self._group: Sequence[_Waiting] = ()
        self.told: Sequence[Alert] = ()
        """What is being written, or was: empty before the turn has come, and where it came too late."""
        self.at, self.began = now(), 0.0

    def take(self) -> tuple[tuple[Alert, ...], datetime]:
        """Gather the group, unless nobody waits for it any more; return what counts of it, and now.

        Called again where the store has to do its work anew: then it is the same group.
        """
        with self._lock:
            if not self._over and not self._group:
                self._group = self._gather()
                self.told = [alert for waiting in self._group for alert in waiting.alerts]
        self.at, self.began = self._now(), monotonic()
        return latest(self.told), self.at

    def answer(self, answer: Busy | None) -> None:
        """Answer the group, once, and gather nothing from now on; where the turn never came, that is all who wait."""
        with self._lock:
            if answer and not self._over and not self._group:
                self._group = self._gather()
            group = () if self._over else self._group
            self._over = True
        for waiting in group:
            waiting.told(answer)


class Intake:
    """Takes alerts in."""

    def __init__(self, ports: IntakePorts) -> None:
        self._ports = ports
        self._queue: deque[_Waiting] = deque()
        self._put = 0
        """Alerts ever queued; counted by the event loop alone."""
        self._taken = 0
        """Alerts ever taken out of it; counted under the lock."""
        self._lock = Lock()
        """Held while a group is taken out of the queue."""
        self._wake = asyncio.Event()
        self._running = False
        self._trouble = ""
        ports.metrics.intake_waiting.set_function(lambda: self._put - self._taken)

    async def take(self, webhook: Webhook) -> Busy | None:
        """Write a webhook down.

        Returns:
            None when every alert of it is on disk; else why none is known to be.
        """
        answer: asyncio.Future[Busy | None] = asyncio.get_running_loop().create_future()

        def told(found: Busy | None) -> None:
            if not answer.done():
                answer.set_result(found)

        self.put(webhook, told)
        return await answer

    def put(self, webhook: Webhook, told: Callable[[Busy | None], None]) -> None:
        """Write a webhook down, and tell what `take` returns; at once where there is nothing to wait for.

        A call costs a tenth of a task, which is what it would take to wait for each of many small webhooks.
        """
        count, before = len(webhook.alerts), self._put - self._taken
        if not self._running:
            told(Busy("stopping", "this control plane is starting or stopping"))
            return
        if before + count > WAITING_AT_MOST and before:
            told(Busy("overload", f"{before} alerts wait to be written"))
            return
        if webhook.truncated:
            self._ports.truncated()
        if not count:
            told(None)
            return
        self._queue.append(_Waiting(webhook.alerts, told))
        self._put += count
        self._wake.set()

    async def run(self) -> None:
        """Write what waits, group by group, until it is called off; what waits then is asked to come again."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as writers:
                for _ in range(WRITERS):
                    writers.create_task(self._write_on(writers))
        finally:
            self._running = False
            while self._queue:
                self._turn().answer(STOPPING)

    async def _write_on(self, writers: asyncio.TaskGroup) -> None:
        while True:
            await self._wake.wait()
            if self._queue:
                await self._write(writers)
            else:
                self._wake.clear()

    def _turn(self) -> _Turn:
        return _Turn(self._next_group, self._ports.now, self._lock)

    def _next_group(self) -> list[_Waiting]:
        """Take what fits into one commit; called under the lock, by the store's thread or the event loop's."""
        group: list[_Waiting] = []
        alerts = 0
        while self._queue and (not group or alerts + len(self._queue[0].alerts) <= GROUP_AT_MOST):
            group.append(self._queue.popleft())
            alerts += len(group[-1].alerts)
        self._taken += alerts
        return group

    async def _write(self, writers: asyncio.TaskGroup) -> None:
        """Have one group written, and wait for that no longer than whoever sent it."""
        turn = self._turn()
        commit = writers.create_task(self._commit(turn))
        await asyncio.wait((commit,), timeout=ACK_WITHIN_S)
        if not commit.done():
            turn.answer(Busy("slow", f"it was not written within {ACK_WITHIN_S:g} s"))
            if not turn.told:
                commit.cancel()

    async def _commit(self, turn: _Turn) -> None:
        """Have one group stored and tell of it, however late that is: told again it would be no news.

        It is answered whatever comes.
        """
        began = monotonic()
        answer: Busy | None = STOPPING
        try:
            changes = await self._ports.inbox.keep_next(turn.take)
        except StoreError as error:
            if error.why != self._trouble:
                log.error("alerts not stored", what=error.what, why=error.why, fix=error.fix)
            self._trouble = error.why
            answer = Busy("store", error.what)
        else:
            self._trouble = ""
            answer = None
        finally:
            turn.answer(answer)
        if answer is None and turn.told:
            self._ports.metrics.intake_commit_seconds.observe(monotonic() - max(began, turn.began))
            self._heard(turn.told, changes, turn.at)

    def _heard(self, told: Sequence[Alert], changes: Sequence[Change], now: datetime) -> None:
        """Count what was written, and tell whoever acts on it."""
        metrics = self._ports.metrics
        metrics.alerts_received.inc(len(told))
        metrics.alerts_duplicate.inc(len(told) - len(changes))
        if changes:
            self._ports.heard(changes)
        watchdogs = [alert for alert in told if alert.name == WATCHDOG]
        if watchdogs:
            self._watched(watchdogs, {change.fingerprint for change in changes}, now)

    def _watched(self, watchdogs: Sequence[Alert], changed: set[str], now: datetime) -> None:
        metrics = self._ports.metrics
        for watchdog in watchdogs:
            metrics.watchdog_heard_at.labels(watchdog.source).set(now.timestamp())
            way = way_s(watchdog, now, new=watchdog.fingerprint in changed)
            if way is not None:
                metrics.watchdog_seconds.labels(watchdog.source).observe(max(0.0, way))
