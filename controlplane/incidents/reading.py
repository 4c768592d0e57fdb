"""What an alert means for people: a notice, or nothing that they have to hear; pure.

`flows/triage` calls it for each alert that was written down; `correlate` decides about the notices.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.incidents.alert import Alert, Status
from controlplane.incidents.cause import Cause
from controlplane.incidents.correlate import Ignore, Notice
from controlplane.incidents.firing import WATCHDOG
from controlplane.incidents.incident import LEVELS, SERVING, Severity

OURSELVES = "control plane"
"""The kind of harm that alerts about the control plane itself tell of: users may be well."""
AFTERMATH = timedelta(minutes=10)
"""An alert that begins so soon after a drill is the drill's: windows are long, and pending times come on top."""
TEXT_AT_MOST = 500
LABEL_AT_MOST = 128
_CRITICAL = ("critical", "page", "error", "emergency", "disaster")
_CAUSES = frozenset(cause.value for cause in Cause)


@dataclass(frozen=True, slots=True)
class Habits:
    """What is ours."""

    service: str
    ourselves: frozenset[str] = frozenset()
    """Names of alerts about the control plane."""
    rehearsals: frozenset[str] = frozenset()
    """Names of alerts about drills: none harms a user, and an open incident would keep an overdue drill waiting."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The time in which a drill's faults may show: one that broke nothing has none."""

    drill_id: str
    fault_at: datetime
    """When its first fault was injected."""
    ended_at: datetime | None = None
    """When the drill was over; None while it runs."""

    def covers(self, at: datetime) -> bool:
        """Tell whether what began at a moment began in its time."""
        return self.fault_at <= at and (self.ended_at is None or at <= self.ended_at + AFTERMATH)


def read(alert: Alert, habits: Habits, drills: Iterable[Rehearsal] = ()) -> Notice | Ignore:
    """Make a notice of an alert.

    Args:
        alert: the newest telling of it.
        habits: what is ours.
        drills: the drills of the last hours; what began in the time of one is its doing.

    Returns:
        The notice, or why nobody has to hear of it.
    """
    severity = _severity(alert)
    why = _why_not(alert, habits, severity)
    if why:
        return Ignore(alert.fingerprint, why)
    labels = alert.labels
    pool = labels.get("pool", "")[:LABEL_AT_MOST]
    drill = next((drill for drill in drills if drill.covers(alert.starts_at)), None)
    return Notice(
        key=alert.fingerprint,
        name=alert.name or "an alert without a name",
        service=habits.service,
        status=alert.status,
        starts_at=alert.starts_at,
        ends_at=alert.ends_at,
        severity=severity,
        level=_level(alert, severity),
        pool=pool,
        place="" if pool in ("", GATEWAY_POOL, PRIMARY) else pool,
        about=_about(alert, habits),
        text=_text(alert),
        drill_id=drill.drill_id if drill else "",
        began_at=drill.fault_at if drill else alert.starts_at,
    )


def _why_not(alert: Alert, habits: Habits, severity: Severity) -> str:
    if alert.name == WATCHDOG or severity is Severity.NONE:
        return "it says that alerting works, and nothing of the service"
    if alert.service not in ("", habits.service):
        return f"service {alert.service} is not ours"
    if severity is Severity.INFO:
        return "it informs and asks nobody to act"
    if alert.name in habits.rehearsals:
        return "it is about drills: no user is harmed"
    if alert.status is Status.RESOLVED and alert.ends_at is None:
        return "it does not say when it ended"
    return ""


def _severity(alert: Alert) -> Severity:
    """Read the severity; what is written in words that we do not know is a warning."""
    said = alert.labels.get("severity", "").lower()
    if said in _CRITICAL:
        return Severity.CRITICAL
    return Severity(said) if said in (Severity.NONE, Severity.INFO) else Severity.WARNING


def _level(alert: Alert, severity: Severity) -> str:
    """Return the level that an alert puts the service at.

    The label says which row it leads to. A warning only leads there: it counts once it is critical, or outranks others,
    since then users are hurt already.
    """
    level = alert.labels.get("level", "none")
    counts = severity is Severity.CRITICAL or "outranks" in alert.labels
    return level if counts and level in LEVELS else "none"


def _about(alert: Alert, habits: Habits) -> str:
    """Return the kind of harm: every cause that we know ends in users being served badly; another one stays apart."""
    cause = alert.labels.get("cause", "")[:LABEL_AT_MOST]
    if cause and cause not in _CAUSES:
        return cause
    return OURSELVES if alert.name in habits.ourselves else SERVING


def _text(alert: Alert) -> str:
    said = alert.annotations.get("summary") or alert.annotations.get("description") or ""
    where = [f"{name} {alert.labels[name]}" for name in ("pool", "endpoint", "instance") if alert.labels.get(name)]
    return " ".join(
        part for part in (said[:TEXT_AT_MOST], f"({', '.join(where)[:TEXT_AT_MOST]})" if where else "") if part
    )
