"""The gateway's view of a pool against our own: who is cut off when the two do not agree.

Used by `observe`. Looks go from the control plane to an endpoint; users' requests go from the gateway to it. When all
looks fail and the gateway goes on getting answers, what is broken is our own way, and nobody needs rescuing; when all
looks succeed and the gateway cannot reach the pool, users do. So the way that users take outweighs ours, either way.
It reads no clock. How long the gateway said nothing is counted in questions: while we stand still, we ask none,
and a stall of ours is no silence of the gateway's.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from controlplane.probes.gateway_counts import Count, Counts
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

ASKED_ENOUGH = 6
"""So many questions in a row without an answer, at five a second: the gateway says nothing, and looks decide alone."""
SURE_S = 0.1
"""Answers count for an endpoint that fell silent only from so long after: what was under way is over by then."""
VOUCHED_S = 2.0
"""An answer vouches for a pool for so long: the price, in time, when the pool is lost later on."""
UNREACHED_S = 3.0
"""How far back is looked for what the gateway could not reach."""
MANY_ANSWERS, MANY_FAILURES = 20, 3
"""What makes a share of answers, and connections that failed, more than chance."""
HALF = 0.5
_SOURCE = "answers counted by the gateway"


class Vantage:
    """What the gateway counted over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Counts]] = deque(maxlen=64)
        self._asked = 0
        self._answered = 0
        """How many questions had been put when the last answer came."""
        self._lost: dict[str, int] = {}
        """By pool: how many questions had been put when looks began to say that it is lost."""

    def asked(self) -> None:
        """Note that the gateway is asked."""
        self._asked += 1

    def take(self, at: float, counts: Counts) -> None:
        """Take in what was counted; an Envoy that started anew begins anew.

        Args:
            at: when it was asked, in monotonic seconds.
            counts: what it had counted by then, or a little more.
        """
        self._answered = self._asked
        if self._seen and at <= self._seen[-1][0]:
            return  # Overtaken by the answer to a later question: fewer answers in it are no new start.
        if self._seen and any(counts.get(pool, Count()).anybody < c.anybody for pool, c in self._seen[-1][1].items()):
            self._seen.clear()
        self._seen.append((at, counts))

    def weigh(
        self, pool: str, evidence: tuple[Evidence, ...], silent_from: Callable[[], float | None]
    ) -> tuple[Evidence, ...]:
        """Correct what looks say of a pool by what its users get.

        Args:
            pool: its name.
            evidence: its signals as they were judged by our looks.
            silent_from: gives when (monotonic seconds) the look began with which the last endpoint to fall silent did;
                None where every endpoint's own kernel says that it is gone, or no look ever failed.
        """
        lost = any(_says_lost(seen) for seen in evidence)
        if not lost:
            self._lost.pop(pool, None)
        asked_since = self._asked - self._lost.setdefault(pool, self._asked) if lost else 0
        if not self._seen or self._asked - self._answered >= ASKED_ENOUGH:
            return evidence
        silent = silent_from() if lost else None
        if silent is not None:
            readings = self._readings(VOUCHED_S, silent + SURE_S)
            grown = _grown(pool, readings)
            if grown.own > 0 and grown.own >= HALF * grown.anybody:
                in_s = readings[-1][0] - readings[0][0]
                return _blind(
                    evidence, f"our looks fail, yet the gateway got {grown.own:g} answers from it in {in_s:.1f} s"
                )
            # An end to it: where endpoints fail by turns, the last one fell silent a moment ago at every evaluation.
            if len(readings) < 2 and asked_since < ASKED_ENOUGH:
                return _blind(evidence, "our looks fail, and the gateway has not been read twice since")
        grown = _grown(pool, self._readings(UNREACHED_S))
        # Where nobody stands in, what users get of a pool that is out of reach is the gateway's own 5xx. A pool that is
        # full answers 5xx as well, and some requests besides.
        asked = grown.anybody if grown.own else grown.anybody + grown.errors
        if asked >= MANY_ANSWERS and grown.failed >= MANY_FAILURES and grown.own < HALF * asked:
            return tuple(_cut_off(seen, grown, asked) for seen in evidence)
        return evidence

    def _readings(self, span_s: float, since: float = -inf) -> list[tuple[float, Counts]]:
        """Return the readings of the last seconds, and the one before them: after a stall of ours, that one is old.

        Args:
            span_s: how far back from the newest reading.
            since: monotonic seconds; none from before then.
        """
        readings = [reading for reading in self._seen if reading[0] >= since]
        before = [at for at, _ in readings if at <= readings[-1][0] - span_s]
        return readings[max(0, len(before) - 1) :]


def _grown(pool: str, readings: Sequence[tuple[float, Counts]]) -> Count:
    """Return how much a pool's counters grew from the first reading to the last one."""
    if not readings:
        return Count()
    (_, first), (_, last) = readings[0], readings[-1]
    return last.get(pool, Count()).since(first.get(pool, Count()))


def _says_lost(seen: Evidence) -> bool:
    """Tell whether looks say that more than half of a pool is lost."""
    if seen.value is None:
        return False
    return seen.value > HALF if seen.signal == "endpoints_down" else seen.signal == "availability" and seen.value < HALF


def _blind(evidence: tuple[Evidence, ...], why: str) -> tuple[Evidence, ...]:
    """Make unknown what looks say of a pool that they say is lost."""
    return tuple(
        replace(seen, value=None, band=Band.UNKNOWN, low=None, high=None, reason=why) if _says_lost(seen) else seen
        for seen in evidence
    )


def _cut_off(seen: Evidence, grown: Count, asked: float) -> Evidence:
    """Correct one signal of a pool that the gateway does not reach; none of it is up when not one answer came."""
    if seen.signal == "endpoints_down" and not grown.own:
        return replace(seen, value=1.0, band=Band.BREACH, source=_SOURCE, reason=_why(grown))
    share = grown.own / asked
    if seen.signal != "availability" or (seen.value is not None and seen.value <= share):
        return seen
    return replace(
        seen, value=share, band=Band.BREACH, samples=round(asked), low=None, high=None, source=_SOURCE,
        reason=_why(grown),
    )  # fmt: skip


def _why(grown: Count) -> str:
    instead = "others answered in its place" if grown.anybody > grown.own else "nobody answered in its place"
    return f"the gateway cannot reach it: {grown.failed:g} connections failed, {instead}"
