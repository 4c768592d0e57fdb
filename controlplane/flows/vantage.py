"""The gateway's view of a pool against our own: who is cut off when the two do not agree.

Used by `observe`. Looks go from the control plane to an endpoint; users' requests go from the gateway to it. When all
looks fail and the gateway goes on getting answers, what is broken is our own way, and nobody needs rescuing; when all
looks succeed and the gateway cannot reach the pool, users do. So the way that users take outweighs ours, either way.
Pure: `now` is an argument.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from controlplane.probes.gateway_counts import Count, Counts
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

FRESH_S = 1.0
"""Counters that were not read for so long say nothing."""
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

    def take(self, at: float, counts: Counts) -> None:
        """Take in what was counted; an Envoy that started anew begins anew."""
        if self._seen and any(counts.get(pool, Count()).anybody < c.anybody for pool, c in self._seen[-1][1].items()):
            self._seen.clear()
        self._seen.append((at, counts))

    def weigh(
        self, pool: str, evidence: tuple[Evidence, ...], silent_from: Callable[[], float | None], now: float
    ) -> tuple[Evidence, ...]:
        """Correct what looks say of a pool by what its users get.

        Args:
            pool: its name.
            evidence: its signals as they were judged by our looks.
            silent_from: gives when (monotonic seconds) the look began with which the last endpoint to fall silent did;
                None where every endpoint's own kernel says that it is gone, or no look ever failed.
            now: monotonic seconds.
        """
        if not self._seen or now - self._seen[-1][0] > FRESH_S:
            return evidence
        newest = self._seen[-1][0]
        silent = silent_from() if any(_says_lost(seen) for seen in evidence) else None
        if silent is not None:
            since = max(silent + SURE_S, newest - VOUCHED_S)
            grown = self._grown(pool, since)
            if grown.own > 0 and grown.own >= HALF * grown.anybody:
                why = f"our looks fail, yet the gateway got {grown.own:g} answers from it in {newest - since:.1f} s"
                return tuple(_unknown(seen, why) if _says_lost(seen) else seen for seen in evidence)
        grown = self._grown(pool, newest - UNREACHED_S)
        # Where nobody stands in, what users get of a pool that is out of reach is the gateway's own 5xx. A pool that is
        # full answers 5xx as well, and some requests besides.
        asked = grown.anybody if grown.own else grown.anybody + grown.errors
        if asked >= MANY_ANSWERS and grown.failed >= MANY_FAILURES and grown.own < HALF * asked:
            return tuple(_cut_off(seen, grown, asked) for seen in evidence)
        return evidence

    def _grown(self, pool: str, since: float) -> Count:
        """Return how much a pool's counters grew from the first reading after a moment to the newest one."""
        first = next((counts for at, counts in self._seen if at >= since), self._seen[-1][1])
        return self._seen[-1][1].get(pool, Count()).since(first.get(pool, Count()))


def _says_lost(seen: Evidence) -> bool:
    """Tell whether looks say that more than half of a pool is lost."""
    if seen.value is None:
        return False
    return seen.value > HALF if seen.signal == "endpoints_down" else seen.signal == "availability" and seen.value < HALF


def _unknown(seen: Evidence, why: str) -> Evidence:
    return replace(seen, value=None, band=Band.UNKNOWN, low=None, high=None, reason=why)


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
