"""What happens by the clock (APScheduler), and the supervision of everything that runs in the background.

Here, at the web boundary and in the recovery loop a failure is caught whatever it is: it is logged with its cause,
and the next tick comes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import random
from time import monotonic
from zlib import crc32

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from controlplane.fleet.model import Endpoint
from controlplane.policy.model import Slot

MISFIRE_GRACE = timedelta(hours=1)
"""A drill whose time came while the control plane was down for less than this is run late; after that it is left out,
and shows as overdue."""

PACE_TICK_S = 0.01
"""The shortest tick."""
PACE_PLACES, PACE_TICK_AT_MOST_S = 100, 0.05
"""An interval has about so many places, in ticks no longer than this: waking up costs more than a look or two, so what
is not urgent is asked for a few endpoints at a time."""
PACE_CATCH_UP = 4
"""Places that one tick works through at most when it is late."""
PACE_PASS_OVER = 10
"""Empty places that are passed over at most, before the members are asked for again."""

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
        grace = max(1, round(interval.total_seconds()))
        self._scheduler.add_job(
            partial(_tick, name, work), IntervalTrigger(seconds=interval.total_seconds()), id=name,
            misfire_grace_time=grace, next_run_time=datetime.now(tz=self._scheduler.timezone),
        )  # fmt: skip

    def at(self, slot: Slot, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Call something when a slot comes round."""
        grace = round(MISFIRE_GRACE.total_seconds())
        self._scheduler.add_job(partial(_tick, name, work), cron(slot), id=name, misfire_grace_time=grace)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing more, and call off what is under way."""
        self._scheduler.shutdown(wait=False)


async def _tick(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do a job once. One that fails, or is called off by a stop, ends here: the scheduler would log it as an error."""
    try:
        await work()
    except asyncio.CancelledError:
        log.debug("called off", job=name)
    except Exception:
        log.exception("tick failed", job=name)


class Pace:
    """Calls something for every member of a changing set once an interval, spread evenly over it in small ticks.

    Each member has its own place in the interval, which stays the same while others come and go; a fleet is never
    asked in one breath, and what takes long for one is not added up for all. A tick that comes late makes up for what
    it missed a few places at a time and lets the loop run in between; what is a whole interval late is left out.
    """

    def __init__(
        self,
        name: str,
        every: timedelta,
        members: Callable[[], Sequence[Endpoint]],
        call: Callable[[Endpoint], None],
        jitter: float = 0.0,
    ) -> None:
        """Take what to call.

        Args:
            name: of the job; members have other places in other jobs.
            every: the interval.
            members: gives the members now; another object whenever they changed.
            call: called with each member, once an interval; must not take long.
            jitter: share of the interval by which each call is put off, at random, so that looks keep no step with
                anything that happens at an interval of its own.
        """
        self.left_out = 0
        """Places that were a whole interval late; their members were not called that time."""
        self._name = name
        tick_s = min(max(PACE_TICK_S, every.total_seconds() / PACE_PLACES), PACE_TICK_AT_MOST_S)
        self._places_n = max(1, round(every.total_seconds() / tick_s))
        self._tick_s = every.total_seconds() / self._places_n
        self._members = members
        self._call = call
        self._put_off = round(jitter * self._places_n)
        self._later: dict[int, list[Endpoint]] = {}
        self._spread_from: Sequence[Endpoint] = ()
        self._places: list[list[Endpoint]] = [[] for _ in range(self._places_n)]
        self._began = monotonic()
        self._done = -1
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the first interval starts now."""
        self._began = monotonic()
        self._spread(self._members())
        self._again()

    def stop(self) -> None:
        """Call nobody any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        # Waking up for nobody costs as much as a few looks: places where nobody is to be called are passed over.
        for place in range(self._done + 1, self._done + PACE_PASS_OVER):
            if self._places[place % self._places_n] or place in self._later:
                break
            self._done = place
        coming = self._began + (self._done + 1) * self._tick_s - monotonic()
        # Also when it is late it comes back through the loop, so that answers are read before more is asked.
        self._timer = asyncio.get_running_loop().call_later(max(0.001, coming), self._tick)

    def _tick(self) -> None:
        reached = int((monotonic() - self._began) / self._tick_s)
        if reached - self._done > self._places_n:
            self.left_out += reached - self._done - self._places_n
            self._done = reached - self._places_n
            self._later.clear()
        members = self._members()
        if members is not self._spread_from:
            self._spread(members)
        upto = min(reached, self._done + PACE_CATCH_UP)
        for place in range(self._done + 1, upto + 1):
            for member in self._places[place % self._places_n]:
                self._later.setdefault(place + int(random() * (self._put_off + 1)), []).append(member)  # noqa: S311
            for member in self._later.pop(place, ()):
                try:
                    self._call(member)
                except Exception:
                    log.exception("call failed", job=self._name)
        self._done = max(self._done, upto)
        self._again()

    def _spread(self, members: Sequence[Endpoint]) -> None:
        self._later.clear()
        self._spread_from = members
        self._places = [[] for _ in range(self._places_n)]
        for member in members:
            place = crc32(f"{self._name} {member.pool} {member.name}".encode()) * self._places_n >> 32
            self._places[place].append(member)


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
