"""The verdict on a pool, with the evidence that decided it; pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.slo.threshold import SEVERITY, Band


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal of one pool as it was when it was judged."""

    signal: str
    value: float | None
    """In the signal's base unit; None when it is not known."""
    band: Band
    samples: int = 0
    low: float | None = None
    """Lower bound of a quantile's error; None where the value is exact."""
    high: float | None = None
    """Upper bound of a quantile's error."""
    source: str = ""
    """Where the number came from, such as `engine histograms of 2 endpoints`."""
    reason: str = ""
    """Why it is unknown, or what is behind it."""
    window_s: float | None = None
    """Over how many seconds it was computed; None for what has no window."""
    age_s: float | None = None
    """How old the newest sample in it was when it was judged."""
    usual: float | None = None
    """What it usually is at this hour of the week; None while that is not learnt."""
    deviation: float | None = None
    """How many spreads it is above (positive) or below what is usual."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a pool stands."""

    pool: str
    band: Band
    evidence: tuple[Evidence, ...]

    def signal(self, name: str) -> Evidence | None:
        """Return the evidence for one signal, if it was looked at."""
        return next((e for e in self.evidence if e.signal == name), None)


def judge(pool: str, evidence: Iterable[Evidence]) -> Verdict:
    """Combine signals into the verdict on a pool: the worst band that is known.

    A signal the fleet does not expose (no GPU, say) stays in the evidence as unknown and does not hide the others;
    a pool of which availability is unknown is unknown as a whole, since then nothing vouches for the rest.
    """
    gathered = tuple(evidence)
    known = [e.band for e in gathered if e.band is not Band.UNKNOWN]
    availability = next((e for e in gathered if e.signal == "availability"), None)
    worst = max(known, key=SEVERITY.__getitem__, default=Band.UNKNOWN)
    if worst in (Band.OK, Band.UNKNOWN) and (availability is None or availability.band is Band.UNKNOWN):
        return Verdict(pool, Band.UNKNOWN, gathered)
    return Verdict(pool, worst, gathered)
