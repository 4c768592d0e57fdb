"""Whether a pool that has been given a share of the traffic does its work as well as the other one; pure.

The judge is slow to praise and quick to blame: `better` (at least as good) wants enough answers, `worse` only a
difference that chance does not explain, and everything else is `unknown`, on which nothing goes further.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import sqrt

from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

ENOUGH_ANSWERS = 100
"""A P99 of fewer answers is the worst of them."""
Z = 1.96
"""Both bounds of an error rate hold with 97.5 % each, so that two rates whose bounds do not meet differ."""
MORE_ERRORS = 0.005
"""A difference below half a percent of all answers is left to the objectives and their budgets."""
SLOWER = 1.25
"""A P99 within a quarter of the other is the same: that is about what one bucket of the usual histograms is wide."""
ALONE_MOST_ERRORS = 0.05
"""With nothing to compare with, a share of errors that speaks for itself."""


class Canary(StrEnum):
    """What the judge says of the pool on trial."""

    BETTER = "better"
    """At least as good as the other, and there were enough answers to say so."""
    WORSE = "worse"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Health:
    """What one pool answered over a window."""

    answers: int = 0
    errors: float = 0.0
    """How many of them were errors."""
    p99_low_s: float | None = None
    """Lower bound of the P99 latency; None when it is not known."""
    p99_high_s: float | None = None
    p99_answers: int = 0
    """Of how many answers the P99 is."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judge's word and why."""

    canary: Canary
    why: str


def health(evidence: Mapping[str, Evidence]) -> Health:
    """Read a pool's health from its evidence; what is not known stays so."""
    errors, slow = evidence.get("error_rate"), evidence.get("latency_p99")
    answers = errors.samples if errors and errors.value is not None else 0
    failed = answers * errors.value if errors and errors.value is not None else 0.0
    if slow is None or slow.value is None:
        return Health(answers, failed)
    low = slow.value if slow.low is None else slow.low
    high = slow.value if slow.high is None else slow.high
    return Health(answers, failed, low, high, slow.samples)


def judge_canary(canary: Health, other: Health) -> Judgement:
    """Judge the pool on trial against the other one.

    Args:
        canary: the pool that was given a share.
        other: the pool that serves the rest; without answers, the canary is judged by its errors alone.
    """
    worse = _more_errors(canary, other) or _slower(canary, other)
    if worse:
        return Judgement(Canary.WORSE, worse)
    if canary.answers < ENOUGH_ANSWERS:
        return Judgement(Canary.UNKNOWN, f"{canary.answers} answers, {ENOUGH_ANSWERS} wanted")
    if canary.p99_answers < ENOUGH_ANSWERS and other.p99_answers >= ENOUGH_ANSWERS:
        return Judgement(Canary.UNKNOWN, f"a P99 of {canary.p99_answers} answers, {ENOUGH_ANSWERS} wanted")
    rate = canary.errors / canary.answers
    return Judgement(Canary.BETTER, f"{rate:.2%} errors of {canary.answers} answers, no slower than the other")


def judge_return(primary: Mapping[str, Evidence], other: Mapping[str, Evidence], *, same_model: bool) -> Judgement:
    """Judge the primary pool on the share that it has been given back.

    Its errors are compared always. Its P99 is, where both pools serve the same model and its own is not healthy: a
    cache or a smaller model is faster by nature, and a standby that happens to be must not keep the traffic for ever.

    Args:
        primary: what is known of it, by signal.
        other: likewise of the pool that serves the rest.
        same_model: whether both serve the same model.

    Returns:
        The judgement; its reason shows the numbers of both.
    """
    home, away = health(primary), health(other)
    slow = primary.get("latency_p99")
    fast_enough = slow is not None and slow.band is Band.OK
    comparable = away if same_model and not fast_enough else Health(away.answers, away.errors)
    said = judge_canary(home, comparable)
    return replace(said, why=f"{said.why}; the primary: {_spell(home)}; the other: {_spell(away)}")


def _spell(of: Health) -> str:
    if not of.answers:
        return "no answers"
    rate = f"{of.errors / of.answers:.2%} errors of {of.answers} answers"
    if of.p99_low_s is None or of.p99_high_s is None:
        return rate
    bounds = dict.fromkeys(f"{bound:.3g} s" for bound in (of.p99_low_s, of.p99_high_s))
    return f"{rate}, P99 {' to '.join(bounds)}"


def _more_errors(canary: Health, other: Health) -> str:
    low, _ = error_bounds(canary)
    most = error_bounds(other)[1] + MORE_ERRORS if other.answers >= ENOUGH_ANSWERS else ALONE_MOST_ERRORS
    if not canary.answers or low <= most:
        return ""
    return f"{canary.errors / canary.answers:.1%} of {canary.answers} answers are errors, at most {most:.1%} are usual"


def _slower(canary: Health, other: Health) -> str:
    if canary.p99_low_s is None or other.p99_high_s is None:
        return ""
    if min(canary.p99_answers, other.p99_answers) < ENOUGH_ANSWERS or canary.p99_low_s <= SLOWER * other.p99_high_s:
        return ""
    return f"its P99 is at least {canary.p99_low_s:.3g} s, the other's at most {other.p99_high_s:.3g} s"


def error_bounds(of: Health) -> tuple[float, float]:
    """Return the Wilson score interval of an error rate (E. B. Wilson, 1927); 0 and 1 when there were no answers."""
    n = of.answers
    if not n:
        return 0.0, 1.0
    share, z2 = of.errors / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * sqrt(max(0.0, share * (1 - share)) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
