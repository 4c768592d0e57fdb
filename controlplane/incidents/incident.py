"""An incident and its timeline; pure. `book` is the port that they are kept behind."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

LEVELS = ("none", "P2", "P1", "P0")
"""From none to the worst, as the matrix names them."""
SERVING = "serving"
"""What an incident is about, unless something says otherwise: users are, or may be, served badly."""


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    """Users are, or may be, affected."""
    MITIGATED = "mitigated"
    """A lever keeps users served; the cause is still there."""
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How urgent an incident is: the worst that anything in it has been."""

    NONE = "none"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


SEVERITIES = tuple(Severity)
"""From none to the worst."""


def worse_level(one: str, other: str) -> str:
    """Return the worse of two levels; what is no level counts as none."""
    return max((one, other), key=lambda level: LEVELS.index(level) if level in LEVELS else 0)


def worse_severity(one: Severity, other: Severity) -> Severity:
    """Return the worse of two severities."""
    return max((one, other), key=SEVERITIES.index)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: datetime
    kind: str
    """What kind of thing: `detected`, `hint`, `decided`, `gate`, `receipt`, `lever`, `drill`, `alert`, `verdict`,
    `triage`, `page`, `person`, `note`."""
    text: str
    who: str = ""
    """The person who did or wrote it; empty for the control plane."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One harm to one service, from the first evidence to its end."""

    id: str
    service: str
    level: str
    """The worst level that it has been at; it never falls."""
    title: str
    state: IncidentState
    detected_at: datetime
    drill_id: str = ""
    """The drill that caused all of it; empty for a real one."""
    mitigated_at: datetime | None = None
    """When a lever was first proven to keep users served; what happens to that lever later does not change it."""
    resolved_at: datetime | None = None
    severity: Severity = Severity.NONE
    pool: str = ""
    """The pool that is harmed; empty for what users get: the primary pool, the gateway, the whole service."""
    about: str = SERVING
    """What kind of harm it is; harms of different kinds are different incidents."""
    began_at: datetime | None = None
    """When the harm began, as far as an alert or a drill's fault says; None where nothing does."""
    rows: tuple[str, ...] = ()
    """Rows of the matrix that moved, or would have moved, because of it."""
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    assignee: str = ""
    resolved_by: str = ""
    """The person who resolved it; empty where it resolved by itself."""
    reopened_by: str = ""
    """The person who opened it again: then it does not resolve by itself."""

    @property
    def open(self) -> bool:
        """Tell whether somebody still has to look at it."""
        return self.state is not IncidentState.RESOLVED

    @property
    def of_drill(self) -> bool:
        """Tell whether a drill caused it."""
        return self.drill_id != ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which incidents are asked for; None or empty: any."""

    state: str = ""
    level: str = ""
    pool: str = ""
    drill: bool | None = None
    since: datetime | None = None
    """Detected at or after it."""
