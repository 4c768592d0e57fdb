"""What happens by the clock (APScheduler), and the supervision of everything that runs in the background.

Here, at the web boundary and in the recovery loop a failure is caught whatever it is: it is logged with its cause,
and the next tick comes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from controlplane.policy.model import Slot

MISFIRE_GRACE = timedelta(hours=1)
"""A drill whose time came while the control plane was down for less than this is run late; after that it is left out,
and shows as overdue."""

log = structlog.get_logger("scheduler")


class Background:
    """Tasks that belong to the process: they are supervised while it runs and ended when it stops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start a task; a failure is logged and ends that task alone."""
        task = asyncio.create_task(self._supervised(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervised(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("task failed")

    async def stop(self) -> None:
        """End every task and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Timetable:
    """Jobs by interval and by calendar."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})

    def every(self, interval: timedelta, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Call something again and again; a call that has not ended is not begun a second time."""

        async def tick() -> None:
            try:
                await work()
            except Exception:
                log.exception("tick failed", job=name)

        grace = max(1, round(interval.total_seconds()))
        self._scheduler.add_job(
            tick, IntervalTrigger(seconds=interval.total_seconds()), id=name, misfire_grace_time=grace,
            next_run_time=datetime.now(tz=self._scheduler.timezone),
        )  # fmt: skip

    def at(self, slot: Slot, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Call something when a slot comes round."""
        grace = round(MISFIRE_GRACE.total_seconds())
        self._scheduler.add_job(work, cron(slot), id=name, misfire_grace_time=grace)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._scheduler.shutdown(wait=False)


def cron(slot: Slot) -> CronTrigger:
    """Return APScheduler's trigger for a slot."""
    return CronTrigger(day=slot.day, hour=slot.hour, minute=slot.minute, timezone=slot.timezone)


def upcoming(slot: Slot, after: datetime, count: int) -> tuple[datetime, ...]:
    """Return the next times a slot comes round."""
    trigger, times = cron(slot), []
    at: datetime | None = None
    moment = after
    for _ in range(count):
        at = trigger.get_next_fire_time(at, moment)
        if at is None:
            break
        times.append(at)
        moment = at + timedelta(seconds=1)
    return tuple(times)
