"""Warm-ups by the clock, as this process runs them: whatever is due is sent once for each peak. Called every minute."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from controlplane.degradation.actuator import Hand
from controlplane.degradation.warmup import Due, WarmUp, next_due
from controlplane.errors import ControlplaneError
from controlplane.telemetry import Metrics

PREWARM_EVERY = timedelta(minutes=1)
"""How often somebody looks whether a warm-up is due."""
AGAIN_AFTER = timedelta(minutes=10)
"""How long after a failed warm-up the next one is sent, as long as the peak has not begun."""

log = structlog.get_logger("prewarm")


class Prewarmer:
    """Sends the warm-ups of one service.

    What was sent is remembered by the process alone. One that takes over between a warm-up and its peak sends it
    again: that costs a few completions, and the other way round a pool would stay cold.
    """

    def __init__(
        self,
        service: str,
        warm_ups: Sequence[WarmUp],
        hand: Hand,
        forecast: Callable[[datetime], datetime | None],
        leads: Callable[[], bool],
        metrics: Metrics,
        now: Callable[[], datetime],
        *,
        watches: bool = False,
    ) -> None:
        """Take what it works with.

        Args:
            service: whose pools they are.
            warm_ups: the lines of the page.
            hand: what sends completions.
            forecast: says when the next peak after a moment begins by what was learnt; None while it is not.
            leads: whether this control plane is in charge.
            metrics: where warm-ups are counted.
            now: aware UTC.
            watches: it only says what it would send.
        """
        self._service = service
        self._warm_ups = tuple(dict.fromkeys(warm_ups))
        self._hand = hand
        self._forecast = forecast
        self._leads = leads
        self._counted = metrics.prewarms
        self._now = now
        self._watches = watches
        self._done: dict[WarmUp, datetime] = {}
        """The last peak that each was seen to for."""
        self._not_before: dict[WarmUp, datetime] = {}
        """When one that failed is tried again."""

    async def tick(self) -> None:
        """Send what is due; all pools at once."""
        if not self._leads():
            return
        now = self._now()
        coming = ((warm_up, next_due(warm_up, now, self._forecast(now))) for warm_up in self._warm_ups)
        await asyncio.gather(*(self._send(w, due) for w, due in coming if due and self._is_due(w, due, now)))

    def _is_due(self, warm_up: WarmUp, due: Due, now: datetime) -> bool:
        waits = self._not_before.get(warm_up, now) > now
        return due.at <= now and self._done.get(warm_up) != due.peak and not waits

    async def _send(self, warm_up: WarmUp, due: Due) -> None:
        told = log.bind(pool=warm_up.pool, peak=due.peak.isoformat())
        if self._watches:
            self._done[warm_up] = due.peak
            told.info("would be warmed up", completions=warm_up.completions, because="mode observe")
            return
        key = f"{self._service}/prewarm/{warm_up.pool}/{due.peak.isoformat()}"
        outcome = "failed"
        try:
            done = await self._hand.apply(warm_up.errand, key)
        except ControlplaneError as error:
            self._not_before[warm_up] = self._now() + AGAIN_AFTER
            told.error("not warmed up", what=error.what, why=error.why, fix=error.fix)
        else:
            outcome, self._done[warm_up] = "warm", due.peak
            told.info("warmed up", done=done)
        self._counted.labels(self._service, warm_up.pool, outcome).inc()
