"""Gates: what must hold before a drill may start; pure. A gate that cannot be evaluated is closed."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class GateSpec:
    """Which gates a drill has to pass."""

    no_open_incident: bool = True
    """Refuse while people are handling something real."""
    standby_ready: bool = True
    """Refuse when the standby pool does not answer a completion."""


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What the gates look at; None where it could not be found out."""

    open_incidents: int | None
    standby_answers: bool | None
    running_drill: str
    """The id of a drill that is still running, or an empty string."""
    level: str
    """The level in force; a drill starts from `none` only."""
    leases_open: int | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a drill may not start; an expected outcome, not an error."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Go:
    """The drill may start; what each gate saw, for the record."""

    seen: tuple[str, ...]


def gate(spec: GateSpec, facts: GateFacts) -> Go | Refusal:
    """Ask every gate.

    Returns:
        Go with what each gate saw, or a Refusal with every reason.
    """
    checks = [
        (facts.running_drill == "", f"drill {facts.running_drill} is still running", "no other drill runs"),
        (facts.level == "none", f"the service is degraded to {facts.level}", "the service is not degraded"),
        (facts.leases_open == 0, _count(facts.leases_open, "fault", "still leased"), "no fault is leased"),
    ]
    if spec.no_open_incident:
        checks.append(
            (facts.open_incidents == 0, _count(facts.open_incidents, "incident", "open"), "no incident is open")
        )
    if spec.standby_ready:
        why = "the standby does not answer a completion" if facts.standby_answers is False else "the standby is unknown"
        checks.append((facts.standby_answers is True, why, "the standby answers a completion"))
    reasons = tuple(why for holds, why, _ in checks if not holds)
    return Refusal(reasons) if reasons else Go(tuple(seen for _, _, seen in checks))


def _count(number: int | None, noun: str, state: str) -> str:
    if number is None:
        return f"{noun}s could not be counted"
    return f"{number} {noun}{'s are' if number != 1 else ' is'} {state}"
