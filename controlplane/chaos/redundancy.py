"""What an experiment would break, what survives it, and at what load; pure. The gate, the preview and `inject` ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from controlplane.chaos.experiment import PlannedFault
from controlplane.chaos.fault import MAX_LEASE


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """How much of a fleet one drill may take away."""

    endpoints: float = 0.5
    """Share (0..1) of all endpoints that may be broken or down at once; never all of them."""
    survivors: int = 1
    """How many endpoints must be left to serve the traffic."""


@dataclass(frozen=True, slots=True)
class Target:
    """One fault with the endpoints it would hit."""

    kind: str
    pool: str
    endpoints: tuple[str, ...]
    """Their names; none when the target is not there."""
    lasts: timedelta


@dataclass(frozen=True, slots=True)
class PoolNow:
    """One pool as it stands."""

    name: str
    up: tuple[str, ...]
    """Names of endpoints that answer."""
    not_up: tuple[str, ...] = ()
    """Names of those that are down, or of which nothing is known."""

    @property
    def total(self) -> int:
        """How many endpoints it has."""
        return len(self.up) + len(self.not_up)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a drill would do to a fleet as it stands."""

    targets: tuple[Target, ...]
    total: int
    """Endpoints of the fleet."""
    gone: tuple[str, ...]
    """Endpoints that would not serve: broken by the drill, or down already."""
    serving: str
    """The pool that would serve."""
    survivors: tuple[str, ...]
    """Its endpoints that are left."""
    rate_per_s: float | None
    """Requests per second to be served; None when that is not known."""
    load_before_per_s: float | None
    """Per endpoint that serves now."""
    load_after_per_s: float | None
    """Per endpoint that is left."""
    refusals: tuple[str, ...]
    """Why it may not be done; empty when it may."""

    @property
    def load_factor(self) -> float | None:
        """How many times its usual load a survivor would carry."""
        if not self.load_before_per_s or self.load_after_per_s is None:
            return None
        return self.load_after_per_s / self.load_before_per_s


def chosen(names: Sequence[str], share: float) -> int:
    """Return how many of a pool's endpoints a share is: at least one, never more than there are."""
    return min(len(names), max(1, round(len(names) * share)))


def waves(page: Mapping[str, Any], faults: Sequence[PlannedFault]) -> tuple[tuple[PlannedFault, ...], ...]:
    """Return which faults of an experiment may be in force together, in its order.

    A fault counts as in force until a step has waited for its pool, or for every fault, to be back: a lease that runs
    out promises that it ends, not that what was broken serves again.

    Args:
        page: the experiment's file, checked before.
        faults: what it breaks, in the order of its steps.
    """
    found: list[tuple[PlannedFault, ...]] = []
    standing: tuple[PlannedFault, ...] = ()
    left = list(faults)
    for step in page.get("method") or ():
        provider = step.get("provider") if isinstance(step, Mapping) else None
        if not isinstance(provider, Mapping):
            continue
        func, arguments = provider.get("func"), provider.get("arguments") or {}
        if func in ("inject", "inject_rolling") and left:
            standing = (*standing, left.pop(0))
            found.append(standing)
        elif func == "await_healed":
            standing = ()
        elif func == "await_pool":
            standing = tuple(fault for fault in standing if fault.pool != arguments.get("pool"))
    return (*found, tuple(faults)) if left else tuple(found)


def worst(previews: Sequence[Preview], targets: Sequence[Target]) -> Preview:
    """Return the preview of a whole experiment from those of its waves: the worst moment, and every refusal.

    Args:
        previews: one a wave; at least one.
        targets: everything that is broken in the course of it.
    """
    at_worst = max(previews, key=lambda found: (bool(found.refusals), len(found.gone), -len(found.survivors)))
    refusals = tuple(dict.fromkeys(text for found in previews for text in found.refusals))
    return replace(at_worst, targets=tuple(targets), refusals=refusals)


def preview(
    targets: Sequence[Target],
    pools: Sequence[PoolNow],
    primary: str,
    takes_over: str,
    radius: BlastRadius,
    rate_per_s: float | None,
) -> Preview:
    """Do the arithmetic of a drill before it starts.

    Args:
        targets: what would be broken at once; endpoints that are not of the fleet take nothing of it away.
        pools: the fleet as it stands.
        primary: the pool that serves normally.
        takes_over: the pool that the drilled row would send the traffic to.
        radius: how much may be taken away.
        rate_per_s: requests per second to be served.
    """
    by_name = {pool.name: pool for pool in pools}
    known = {name for pool in pools for name in (*pool.up, *pool.not_up)}
    broken = known & {name for target in targets for name in target.endpoints}
    down = {name for pool in pools for name in pool.not_up}
    total = sum(pool.total for pool in pools)
    gone = tuple(sorted(broken | down))

    def left(pool: str) -> tuple[str, ...]:
        found = by_name.get(pool)
        return tuple(name for name in found.up if name not in broken) if found else ()

    serving = primary if left(primary) else takes_over
    survivors = left(serving)
    serves_now = len(by_name[primary].up) if primary in by_name else 0
    before = rate_per_s / serves_now if rate_per_s is not None and serves_now else None
    after = rate_per_s / len(survivors) if rate_per_s is not None and survivors else None
    refusals = [*_wrong_targets(targets)]
    if total and len(gone) / total > radius.endpoints:
        refusals.append(
            f"{len(gone)} of {total} endpoints ({len(gone) / total:.0%}) would be gone: {', '.join(gone)}; "
            f"the blast radius is {radius.endpoints:.0%}"
        )
    if len(survivors) < radius.survivors:
        refusals.append(
            f"{len(survivors)} of pool {serving} would be left to serve; the policy wants {radius.survivors}"
        )
    return Preview(tuple(targets), total, gone, serving, survivors, rate_per_s, before, after, tuple(refusals))


def _wrong_targets(targets: Sequence[Target]) -> list[str]:
    reasons = []
    for target in targets:
        if not target.endpoints:
            reasons.append(f"{target.kind}: pool {target.pool} has no endpoint to break")
        if target.lasts > MAX_LEASE:
            reasons.append(f"{target.kind}: a lease of {target.lasts} is longer than {MAX_LEASE}")
        if target.lasts <= timedelta(0):
            reasons.append(f"{target.kind}: a lease of {target.lasts} is none")
    return reasons


def spell_preview(preview: Preview) -> tuple[str, ...]:
    """Write a preview for people, one line a fact."""
    lines = [
        f"breaks {', '.join(target.endpoints) or 'nothing'} of pool {target.pool} ({target.kind}, {target.lasts})"
        for target in preview.targets
    ] or ["breaks no endpoint"]
    lines.append(f"gone at the worst: {len(preview.gone)} of {preview.total} endpoints")
    lines.append(f"serves then: pool {preview.serving}, {len(preview.survivors)} left ({', '.join(preview.survivors)})")
    if preview.load_after_per_s is None or preview.load_factor is None:
        lines.append("load: not known, no traffic was seen")
    else:
        lines.append(
            f"load: {preview.load_before_per_s:.1f} -> {preview.load_after_per_s:.1f} requests/s an endpoint "
            f"({preview.load_factor:.1f}x)"
        )
    return tuple(lines)
