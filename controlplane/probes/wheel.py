"""One timing wheel for every time-out of the wire, and the prober's own lateness, measured by the same tick.

A look that ran out of time while the prober itself did not get to run says nothing about the endpoint: the answer may
lie unread in our own socket. So every tick notes how late it came, whatever the reason (a starved machine, a busy
loop, a stopped process), and a time-out asks how much of its time was stolen.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol

TICK_S = 0.01
SLOTS = 512
ON_TIME_S = 0.005
"""A tick that comes this late is on time: timers have a resolution of a millisecond, and other callbacks run first."""
REMEMBERED_S = 60.0


class Lateness:
    """When the prober did not get to run, and for how long."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque()

    def note(self, now: float, late_s: float) -> None:
        """Take one tick: it came at `now`, and should have come `late_s` earlier."""
        if late_s > ON_TIME_S:
            self._late.append((now, late_s))
        while self._late and self._late[0][0] < now - REMEMBERED_S:
            self._late.popleft()

    def stolen_since(self, at: float) -> float:
        """Return how many seconds since a moment the prober did not get to run when it should have."""
        stolen = 0.0
        for now, late_s in reversed(self._late):
            if now <= at:
                break
            stolen += min(late_s, now - at)
        return stolen


class Entry(Protocol):
    """Something with a deadline."""

    over: bool
    """It has ended; the wheel forgets it when it comes by."""

    def due(self, now: float) -> None:
        """The deadline has passed; called once for each time it was put on the wheel."""


class Wheel:
    """Deadlines in slots of a tick: putting one on costs an append, and taking one off costs nothing."""

    def __init__(self, lateness: Lateness) -> None:
        self.lateness = lateness
        self._slots: list[list[tuple[int, Entry]]] = [[] for _ in range(SLOTS)]
        self._began = self._expected = monotonic()
        self._done = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to turn; needs a running loop."""
        self._began = self._expected = monotonic()
        self._done = 0
        self._again()

    def stop(self) -> None:
        """Turn no more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def put(self, at: float, entry: Entry) -> None:
        """Have an entry called at a time (monotonic seconds) or up to a tick later."""
        slot = int((at - self._began) / TICK_S) + 1
        if slot <= self._done:
            slot = self._done + 1
        self._slots[slot % SLOTS].append((slot, entry))

    def _again(self) -> None:
        self._expected = monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._turn)

    def _turn(self) -> None:
        now = monotonic()
        self.lateness.note(now, now - self._expected)
        reached = int((now - self._began) / TICK_S)
        begin = max(self._done + 1, reached - SLOTS + 1)
        self._done = reached
        for place in range(begin, reached + 1):
            waiting = self._slots[place % SLOTS]
            if not waiting:
                continue
            self._slots[place % SLOTS] = []
            for slot, entry in waiting:
                if entry.over:
                    continue
                if slot > reached:  # It is on another round.
                    self._slots[slot % SLOTS].append((slot, entry))
                else:
                    entry.due(now)
        self._again()
