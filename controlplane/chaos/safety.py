"""Gates: what must hold before a drill may start; pure. A gate that cannot be evaluated is closed."""

from dataclasses import dataclass, field
from datetime import datetime

from controlplane.slo.burn import Budget, Urgency

CLOCK_TOLERANCE_S = 1.0
"""A clock that jumped by more than this cannot time a drill, and a lease's deadline would not be what it says."""


@dataclass(frozen=True, slots=True)
class GateSpec:
    """Which gates a drill has to pass; the others cannot be left out."""

    error_budget_left: float = 0.25
    """Share (0..1) of the period's error budget that must be left of every objective; 0 leaves the gate out."""
    no_open_incident: bool = True
    """Refuse while people are handling something real."""
    standby_ready: bool = True
    """Refuse when the pool that the drilled row leans on does not answer a completion."""


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What the gates look at; None where it could not be found out."""

    open_incidents: int | None
    standby_answers: bool | None
    running_drill: str | None
    """The id of a drill that is still running, or an empty string."""
    level: str
    """The level in force; a drill starts from `none` only."""
    leases_open: int | None
    now: datetime
    budget_left: float | None = None
    """The least that is left of any objective's budget, a share of the period's (`left_of_period`)."""
    budget_burns: bool | None = None
    """Whether a budget burns so fast that somebody is paged."""
    frozen: str | None = None
    """The freeze window that today is in, or an empty string."""
    halted: str | None = None
    """Why drills are halted, or an empty string."""
    leads: bool | None = None
    """Whether this control plane is the one that may act."""
    clock_off_s: float | None = None
    """How far the wall clock jumped lately, or is from the database's."""
    too_much: tuple[str, ...] | None = None
    """Why the experiment would take too much away, one text a reason; empty when it would not."""
    guards: tuple[str, ...] | None = None
    """Guards that do not hold now, in words; None when one of them is not known, and none is known not to hold."""
    unknown_guards: tuple[str, ...] = ()
    """Guards that are not known, in words."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a drill may not start; an expected outcome, not an error."""

    reasons: tuple[str, ...]
    only_unknown: bool = field(default=False, compare=False)
    """Nothing speaks against it but that something is not known; that may be over in a moment."""


@dataclass(frozen=True, slots=True)
class Go:
    """The drill may start; what each gate saw, for the record."""

    seen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Check:
    """One gate: whether it holds, and what to say in each case."""

    holds: bool | None
    seen: str
    closed: str
    unknown: str


def gate(spec: GateSpec, facts: GateFacts) -> Go | Refusal:
    """Ask every gate.

    Returns:
        Go with what each gate saw, or a Refusal with every reason.
    """
    checks = [*_always(facts), *_at_choice(spec, facts)]
    reasons = tuple(c.unknown if c.holds is None else c.closed for c in checks if not c.holds)
    if reasons:
        return Refusal(reasons, all(c.holds is not False for c in checks))
    return Go(tuple(c.seen for c in checks))


def _always(facts: GateFacts) -> list[_Check]:
    """Return the gates that no policy leaves out."""
    off = facts.clock_off_s
    return [
        _Check(
            _empty(facts.halted), "drills are not halted", f"drills are halted: {facts.halted}",
            "whether drills are halted is unknown",
        ),
        _Check(facts.leads, "this control plane leads", "another control plane leads", "who leads is unknown"),
        _Check(
            _empty(facts.running_drill), "no other drill runs", f"drill {facts.running_drill} is still running",
            "whether a drill runs is unknown",
        ),
        _Check(
            facts.level == "none", "the service is not degraded", f"the service is degraded to {facts.level}",
            "the level is unknown",
        ),
        _Check(
            None if facts.leases_open is None else facts.leases_open == 0, "no fault is leased",
            _count(facts.leases_open, "fault", "still leased"), "faults could not be counted",
        ),
        _Check(
            _empty(facts.frozen), "no freeze", f"drills are frozen: {facts.frozen}", "freeze windows are unknown"
        ),
        _Check(
            None if off is None else abs(off) <= CLOCK_TOLERANCE_S, "the clock is sane",
            f"the clock is off by {off or 0.0:.1f} s", "the clock has not been checked yet",
        ),
        _Check(
            None if facts.too_much is None else not facts.too_much, "what is left can serve",
            "; ".join(facts.too_much or ()), "what would be left is unknown",
        ),
        _Check(
            None if facts.guards is None else not facts.guards, "the guards hold",
            "; ".join(facts.guards or ()), "; ".join(facts.unknown_guards) or "the guards cannot be evaluated",
        ),
    ]  # fmt: skip


def _at_choice(spec: GateSpec, facts: GateFacts) -> list[_Check]:
    """Return the gates that the policy asks for."""
    checks = []
    if spec.error_budget_left > 0:
        left, wanted = facts.budget_left, f"the drill wants {spec.error_budget_left:.0%}"
        holds = None if left is None or facts.budget_burns is None else left >= spec.error_budget_left
        checks.append(
            _Check(
                holds,
                f"{left or 0:.0%} of the error budget is left",
                f"{left or 0:.0%} of the error budget is left, {wanted}",
                "the error budget is unknown: nothing has been counted",
            )
        )
        checks.append(_Check(facts.budget_burns is not True, "no budget burns", "the error budget burns fast", ""))
    if spec.no_open_incident:
        checks.append(
            _Check(
                None if facts.open_incidents is None else facts.open_incidents == 0,
                "no incident is open",
                _count(facts.open_incidents, "incident", "open"),
                "incidents could not be counted",
            )
        )
    if spec.standby_ready:
        checks.append(
            _Check(
                facts.standby_answers,
                "the standby answers a completion",
                "the standby does not answer a completion",
                "the standby is unknown",
            )
        )
    return checks


def left_of_period(budget: Budget, period_s: float) -> float | None:
    """Return what is left of the whole period's budget, from what was watched of it; None when nothing came.

    `Budget.left` judges the watched time alone; after a minute of it one failure would be all there was. A period's
    budget is spent in proportion to the time it was spent in: 1 - burn rate x watched / period.

    Args:
        budget: as it stands.
        period_s: its objective's window, in seconds.
    """
    if budget.left is None:
        return None
    return 1.0 - (1.0 - budget.left) * min(1.0, budget.watched_s / period_s)


def pages(budget: Budget) -> bool:
    """Tell whether a budget burns so fast that somebody is paged."""
    return budget.urgency is Urgency.PAGE


def _empty(text: str | None) -> bool | None:
    return None if text is None else text == ""


def _count(number: int | None, noun: str, state: str) -> str:
    if number is None:
        return f"{noun}s could not be counted"
    return f"{number} {noun}{'s are' if number != 1 else ' is'} {state}"
