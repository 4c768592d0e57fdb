"""Whether a pool may take traffic that another one carries; pure. `flows/switch` asks before it moves a lever.

What is not known is said, and decided by what the pools' own state makes certain:

- A pool that gives no completion, or has no room at all, is refused whatever became of the first one: traffic that goes
  there is lost, and a measure that asks for less of the fleet helps more.
- A pool that is slow or makes errors, or whose room is estimated to be too small, is refused while the first one
  still serves: most users are served there, and all would share the shortage. When the first one is dead nobody is, and
  slow answers, or answers for some, are better than none. It is also what a good pool looks like when the gateway has
  sent it everything since the first one died.
- A number that nobody knows refuses nothing: an emergency is when numbers are missing, and a completion just given
  vouches for the pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

MOST_ERRORS = 0.05
"""A share of 5xx answers from here on refuses a pool even where the page sets no threshold of its own."""
ENOUGH_ANSWERS = 20
"""Fewer answers than this make no error rate."""
FULL = 0.95
"""Used share of the key-value cache from which engines begin to preempt requests."""

SATURATED = ("queue_depth", "kv_cache_utilization")
"""Signals of which a breach says that a pool has no room at all."""
FELT = ("error_rate", "latency_p99", "ttft_p99", "queue_depth", "kv_cache_utilization")
"""Signals of which a breach says that a pool has too much to do, or does it badly."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One endpoint's answer to a real completion."""

    endpoint: str
    ok: bool | None
    """None when it could not be asked: the prober itself was late."""
    detail: str = ""
    """How it failed."""


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What is already known of a pool when a lever is about to move; nothing is asked for it."""

    up: int | None = None
    """Endpoints that answer their probes; None when that is not known."""
    evidence: Mapping[str, Evidence] | None = None
    """By signal; None when the pool is not watched."""
    models: frozenset[str] = frozenset()
    """What its endpoints say they serve; empty when they do not say."""

    def value(self, signal: str) -> float | None:
        """Return a signal's value, if it is known."""
        seen = (self.evidence or {}).get(signal)
        return seen.value if seen else None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the gate says."""

    refusal: str = ""
    """Why the pool may not take the traffic; an empty string when it may."""
    notes: tuple[str, ...] = ()
    """What could not be known, or may turn out to be short."""


def judge_standby(
    pool: str, asked: tuple[Asked, ...], target: PoolFacts, source: PoolFacts, share: float, *, same_model: bool
) -> Opinion:
    """Judge whether a pool may take a share of another one's traffic.

    Args:
        pool: the pool's name, for people.
        asked: how its endpoints answered a completion just now.
        target: what is known of it.
        source: what is known of the pool whose traffic it takes.
        share: 0..1.
        same_model: whether both have to serve the same model.
    """
    if not asked:
        return Opinion(f"pool {pool} has no endpoints")
    answered = sum(answer.ok is True for answer in asked)
    unasked = [answer for answer in asked if answer.ok is None]
    dead = source.up == 0
    if not answered and not (unasked and dead):
        how = "; ".join(f"{answer.endpoint}: {answer.detail}" for answer in asked)
        return Opinion(f"no endpoint of {pool} gives a completion: {how}")
    refusal = _ill(pool, target, dead=dead) or (_other_model(pool, target, source) if same_model else "")
    if refusal:
        return Opinion(refusal)
    short, note = _room(pool, answered or len(unasked), target, source, share)
    if short and not dead:
        return Opinion(f"{short}, and the pool it would take it from still serves")
    notes = [short or note, _ill(pool, target, dead=False)]
    if not answered:
        notes.append(f"whether {pool} answers is not known: {unasked[0].detail}")
    if same_model and not (target.models and source.models):
        notes.append(f"whether {pool} serves the same model is not known")
    return Opinion(notes=tuple(n for n in notes if n))


def _ill(pool: str, target: PoolFacts, *, dead: bool) -> str:
    """Say what is wrong with a pool that may not be wrong with it, given whether the first one is dead."""
    evidence = target.evidence or {}
    wrong = SATURATED if dead else FELT
    breached = [signal for signal in wrong if signal in evidence and evidence[signal].band is Band.BREACH]
    if breached:
        return f"{pool} is itself in breach of {', '.join(breached)}"
    errors = None if dead else evidence.get("error_rate")
    if errors and errors.value is not None and errors.samples >= ENOUGH_ANSWERS and errors.value >= MOST_ERRORS:
        return f"{errors.value:.1%} of {errors.samples} answers of {pool} are errors"
    return ""


def _other_model(pool: str, target: PoolFacts, source: PoolFacts) -> str:
    if not target.models or not source.models or target.models & source.models:
        return ""
    ours, theirs = ", ".join(sorted(source.models)), ", ".join(sorted(target.models))
    return f"{pool} serves another model: {theirs} instead of {ours}"


def _room(pool: str, ready: int, target: PoolFacts, source: PoolFacts, share: float) -> tuple[str, str]:
    """Estimate whether the moved requests fit in.

    The key-value cache is what bounds how many requests an engine runs at once. Requests need the same share of it
    wherever they run (same model, same size of endpoint: an estimate), so what moves is the first pool's use, spread
    over the endpoints that are ready here.

    Returns:
        Why there is too little room, and what is not known; one of them, or neither.
    """
    used, moved = target.value("kv_cache_utilization"), source.value("kv_cache_utilization")
    waiting = target.value("queue_depth")
    if waiting and used is not None and used >= FULL:
        return f"{pool} is full: {waiting:g} requests wait there already", ""
    if used is None or moved is None:
        return "", f"the room left in {pool} is not known"
    running = source.value("request_rate")
    if not moved and not running:
        return "", ""
    expected = used + moved * share * max(source.up or 1, 1) / max(ready, 1)
    if expected > 1.0:
        return f"{pool} would need {expected:.0%} of its key-value cache", ""
    return "", ""
