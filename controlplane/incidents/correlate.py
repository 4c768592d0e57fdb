"""Which incident a notice belongs to: open one, join one, resolve one, or ignore it, each with the reason; pure.

A notice is something that began or ended: an alert, or a row of the matrix. Notices of one service, one place and one
kind of harm belong together; that is a property of the notice alone, so it does not matter in which order they come,
how often, or in how many pieces. `flows/triage` and `flows/switch` make notices; the store calls `correlate` inside the
transaction that writes what it decides. What happens in a drill is read from the drill's own record, without a notice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from controlplane.fleet.model import PRIMARY
from controlplane.incidents.alert import Status
from controlplane.incidents.incident import (
    LEVELS,
    SERVING,
    Entry,
    Incident,
    IncidentState,
    Severity,
    worse_level,
    worse_severity,
)

HOLD = timedelta(minutes=2)
"""How long every alert of an incident must have ended before it resolves by itself: a flapping alert is one harm."""
REOPEN_WITHIN = timedelta(minutes=5)
"""What fires again so soon after an incident resolved is the same harm: it is opened again."""
LATE = timedelta(minutes=15)
"""So long after its end an alert of which nothing was known is still news; Alertmanager tries again for minutes."""
NAME_IN_ID = 48
NAMED = 3
"""Of how many alerts an entry of the timeline gives the details; of the rest it gives the number."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that began or ended."""

    key: str
    """What is the same each time it is told: an alert's fingerprint, or `row/P0`."""
    name: str
    """The alert's name, or the row's."""
    service: str
    status: Status
    """Firing: it holds; resolved: it is over."""
    starts_at: datetime
    ends_at: datetime | None = None
    severity: Severity = Severity.WARNING
    level: str = "none"
    """The level that it puts the service at."""
    pool: str = ""
    """As the alert says it; for people and filters."""
    place: str = ""
    """The pool that is harmed; empty for what users get. Notices of one place belong together."""
    about: str = SERVING
    """The kind of harm. Notices of one kind belong together."""
    text: str = ""
    """What it says, for the timeline."""
    row: bool = False
    drill_id: str = ""
    """The drill in whose time it began."""
    began_at: datetime | None = None
    """When the harm began, where it says so."""
    detected_at: datetime | None = None
    """When it was first seen; None: now."""
    entries: tuple[Entry, ...] = ()
    """What the timeline says of it instead of the usual entry."""


@dataclass(frozen=True, slots=True)
class Member:
    """What an incident knows of one thing that belongs to it."""

    key: str
    name: str
    status: Status
    starts_at: datetime
    ends_at: datetime | None = None
    row: bool = False
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """An incident with its rows, and with its other members as far as the notices at hand are concerned."""

    incident: Incident
    members: Mapping[str, Member] = field(default_factory=dict)
    others_fire: bool = False
    """Whether members beside these fire."""
    others_ended_at: datetime | None = None
    """When the last of the others ended; said only where none of them fires."""

    @property
    def firing(self) -> bool:
        """Whether a member holds."""
        return self.others_fire or any(member.status is Status.FIRING for member in self.members.values())

    @property
    def quiet_since(self) -> datetime:
        """When the last of its members ended."""
        ends = (m.ends_at for m in self.members.values())
        known = [at for at in (*ends, self.others_ended_at) if at]
        return max(known, default=self.incident.detected_at)


@dataclass(frozen=True, slots=True)
class Open:
    """A new incident."""

    key: str
    incident_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Join:
    """It belongs to an incident that there is."""

    key: str
    incident_id: str
    why: str
    reopened: bool = False


@dataclass(frozen=True, slots=True)
class Resolve:
    """An incident is over."""

    incident_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing is done about it."""

    key: str
    why: str


Decision = Open | Join | Resolve | Ignore


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided, and what is to be stored of it, all or nothing."""

    decisions: tuple[Decision, ...] = ()
    cases: tuple[Case, ...] = ()
    """Every incident that is new or changed, as it is now, with the members that are new or changed."""
    entries: tuple[tuple[str, Entry], ...] = ()
    """What timelines get: (incident, entry)."""

    def incident_of(self, key: str) -> str:
        """Return the incident that a notice opened or joined; an empty string when it was ignored."""
        return next((d.incident_id for d in self.decisions if isinstance(d, Open | Join) and d.key == key), "")


LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def row_key(level: str) -> str:
    """Return the key of a row of the matrix."""
    return f"row/{level}"


def row_moves(
    service: str, level: str, because: str, decided_at: datetime, detected_at: datetime, entries: tuple[Entry, ...],
    drill_id: str = "", began_at: datetime | None = None,
) -> Notice:  # fmt: skip
    """Return the notice of a row that moves a lever, or would.

    Args:
        service: whose matrix.
        level: the row.
        because: what tripped it.
        decided_at: when it was decided; a later decision is a later telling.
        detected_at: when its trigger began to hold.
        entries: what the timeline says of it.
        drill_id: the drill that runs.
        began_at: when that drill's fault was injected.
    """
    severity = Severity.CRITICAL if level == LEVELS[-1] else Severity.WARNING
    return Notice(
        row_key(level), str(level), service, Status.FIRING, decided_at, None, severity, str(level), PRIMARY,
        text=because, row=True, drill_id=drill_id, began_at=began_at, detected_at=detected_at, entries=entries,
    )  # fmt: skip


def row_is_back(service: str, level: str, now: datetime, entry: Entry) -> Notice:
    """Return the notice of a row whose lever is back where it was, whenever it had been moved."""
    return Notice(
        row_key(level), str(level), service, Status.RESOLVED, LONG_AGO, now, level=str(level), pool=PRIMARY, row=True,
        entries=(entry,),
    )  # fmt: skip


def supersedes(notice: Notice, known: Member) -> bool:
    """Tell whether a notice says something newer than what is known; as `alert.supersedes`, and for rows too."""
    ends = notice.status is Status.RESOLVED and known.status is Status.FIRING
    if notice.starts_at != known.starts_at:
        return notice.starts_at > known.starts_at or (
            ends and notice.ends_at is not None and notice.ends_at >= known.starts_at
        )
    return ends


def correlate(notices: Iterable[Notice], cases: Iterable[Case], now: datetime) -> Ruling:
    """Decide what notices mean.

    Args:
        notices: in any order, and told any number of times; all of one service.
        cases: the incidents of that service which are open, or resolved no longer than `LATE` ago, or have one of the
            notices among their members.
        now: aware UTC.

    Returns:
        The decisions, in an order that depends on the notices alone, and what they leave behind.
    """
    desk = _Desk({case.incident.id: case for case in cases}, now)
    for notice in sorted(_latest(notices), key=lambda n: (n.starts_at, n.key)):
        desk.take(notice)
    desk.resolve()
    desk.unmitigate()
    return desk.ruling()


def _latest(notices: Iterable[Notice]) -> Iterable[Notice]:
    kept: dict[str, Notice] = {}
    for notice in notices:
        old = kept.get(notice.key)
        if old is None or supersedes(notice, _member(old, old.starts_at)):
            kept[notice.key] = (
                notice if old is None else replace(notice, starts_at=max(notice.starts_at, old.starts_at))
            )
    return kept.values()


def _member(notice: Notice, starts_at: datetime) -> Member:
    ends_at = notice.ends_at if notice.status is Status.RESOLVED else None
    return Member(notice.key, notice.name, notice.status, starts_at, ends_at, notice.row, notice.pool)


class _Desk:
    """The cases while notices are taken in, and what has been decided of them."""

    def __init__(self, cases: dict[str, Case], now: datetime) -> None:
        self._members = {key: dict(case.members) for key, case in cases.items()}
        """Of each case, as they are by now: an alert storm's are thousands, and not to be copied for each of them."""
        self._cases = {key: replace(case, members=self._members[key]) for key, case in cases.items()}
        self._now = now
        self._changed: dict[str, set[str]] = {}
        """By incident: the members that are new or changed."""
        self._decisions: list[Decision] = []
        self._entries: list[tuple[str, Entry]] = []
        self._told: dict[tuple[str, str, Status], list[Notice]] = {}
        """Alerts that changed something, by incident, name and status: one entry for all of them."""

    # -- one notice ------------------------------------------------------------------------------------------------

    def take(self, notice: Notice) -> None:
        """Decide about one notice."""
        holding = self._holding(notice)
        known = holding.members[notice.key] if holding else None
        if known and not _is_news(notice, known, holding):
            self._again(notice, holding)
        elif holding and (notice.status is Status.RESOLVED or holding.incident.open):
            self._join(holding, notice, "it belongs to it already")
        elif notice.status is Status.RESOLVED and (notice.row or self._over_long_ago(notice)):
            self._decisions.append(Ignore(notice.key, "it was over before anything was known of it"))
        else:
            self._place(notice)

    def _again(self, notice: Notice, holding: Case | None) -> None:
        """A row that asks again is still in its incident; an alert that is told again says nothing."""
        if notice.row and holding and holding.incident.open:
            self._decisions.append(Join(notice.key, holding.incident.id, "its row is in it already"))
        else:
            self._decisions.append(Ignore(notice.key, "it was told already"))

    def _over_long_ago(self, notice: Notice) -> bool:
        return notice.ends_at is not None and self._now - notice.ends_at > LATE

    def _holding(self, notice: Notice) -> Case | None:
        """Return the incident that a notice is a member of: the open one, or else the newest."""
        mine = [case for case in self._cases.values() if notice.key in case.members]
        return max(mine, key=lambda c: (c.incident.open, c.incident.detected_at, c.incident.id), default=None)

    def _place(self, notice: Notice) -> None:
        """Find the incident for something that is new, or has begun anew."""
        related = [case for case in self._cases.values() if _related(case.incident, notice)]
        order = sorted(related, key=lambda c: (c.incident.detected_at, c.incident.id), reverse=True)
        still = next((case for case in order if case.incident.open), None)
        if still:
            self._join(still, notice, _why(still.incident))
            return
        for case in order:
            since = self._now - (case.incident.resolved_at or self._now)
            if case.incident.drill_id != notice.drill_id or since > REOPEN_WITHIN:
                continue
            if notice.status is Status.FIRING:
                self._join(case, notice, f"it began again within {_words(REOPEN_WITHIN)} of its end", reopened=True)
            else:
                self._join(case, notice, "it was told late")
            return
        self._open(notice)

    # -- decisions -------------------------------------------------------------------------------------------------

    def _open(self, notice: Notice) -> None:
        key = f"{notice.service}/{_short(notice)}/{self._now.isoformat(timespec='microseconds')}"
        detected_at = notice.detected_at or self._now
        incident = Incident(
            key, notice.service, notice.level, f"{notice.service}: {_said(notice)}", IncidentState.OPEN,
            detected_at, notice.drill_id, severity=notice.severity, pool=notice.place, about=notice.about,
            began_at=notice.began_at,
        )  # fmt: skip
        self._members[key] = {notice.key: _member(notice, notice.starts_at)}
        self._cases[key] = Case(_rows(incident, notice), self._members[key])
        self._changed[key] = {notice.key}
        self._decisions.append(Open(notice.key, key, "nothing is open that it could belong to"))
        if not notice.entries:
            self._entries.append((key, Entry(detected_at, "detected", _said(notice))))
        self._tell(key, notice)

    def _join(self, case: Case, notice: Notice, why: str, *, reopened: bool = False) -> None:
        known = case.members.get(notice.key)
        starts_at = max(notice.starts_at, known.starts_at) if known else notice.starts_at
        self._decisions.append(Join(notice.key, case.incident.id, why, reopened))
        key = case.incident.id
        incident = self._raised(_rows(case.incident, notice), notice)
        if reopened:
            incident = replace(incident, state=IncidentState.OPEN, resolved_at=None, resolved_by="")
            self._say(key, "triage", f"opened again: {_said(notice)}; {why}")
        self._members[key][notice.key] = _member(notice, starts_at)
        self._cases[key] = replace(case, incident=incident)
        self._changed.setdefault(key, set()).add(notice.key)
        self._tell(key, notice)

    def _raised(self, incident: Incident, notice: Notice) -> Incident:
        """Take what a notice says of its incident: the worst, the earliest, and whether all of it is a drill's."""
        level = worse_level(incident.level, notice.level)
        severity = worse_severity(incident.severity, notice.severity)
        if level != incident.level:
            self._say(incident.id, "triage", f"the level rises from {incident.level} to {level}: {notice.name}")
        if severity != incident.severity:
            self._say(
                incident.id, "triage", f"the severity rises from {incident.severity} to {severity}: {notice.name}"
            )
        real = not notice.drill_id and not (notice.row and notice.status is Status.RESOLVED)
        drill_id = "" if real else incident.drill_id
        if drill_id != incident.drill_id:
            text = f"counted as real: {notice.name} did not begin in the time of drill {incident.drill_id}"
            self._say(incident.id, "triage", text)
        began = [at for at in (incident.began_at, notice.began_at) if at]
        return replace(
            incident, level=level, severity=severity, drill_id=drill_id, began_at=min(began, default=None),
            detected_at=min(incident.detected_at, notice.detected_at or self._now),
        )  # fmt: skip

    def resolve(self) -> None:
        """End what has been quiet for long enough; a row that is released ends what only it kept open at once."""
        for key, case in tuple(self._cases.items()):
            incident = case.incident
            if not incident.open or incident.reopened_by or case.firing:
                continue
            quiet = case.quiet_since
            released = any(case.members[member].row for member in self._changed.get(key, ()))
            if self._now - quiet < HOLD and not released:
                continue
            at = max(min(quiet, self._now), incident.mitigated_at or quiet, incident.detected_at)
            why = "its row is released and nothing fires" if released else f"nothing of it fires since {quiet:%H:%M:%S}"
            self._cases[key] = replace(
                case, incident=replace(incident, state=IncidentState.RESOLVED, resolved_at=at, resolved_by="")
            )
            self._changed.setdefault(key, set())
            self._decisions.append(Resolve(key, why))
            self._say(key, "triage", f"resolved: {why}")

    def unmitigate(self) -> None:
        """Say that users are on their own again where the last row is back, or one more row has to move."""
        for key, changed in self._changed.items():
            case = self._cases[key]
            rows = [case.members[member] for member in changed if case.members[member].row]
            if case.incident.state is not IncidentState.MITIGATED or not rows:
                continue
            trips = any(row.status is Status.FIRING for row in rows)
            if not trips and any(m.row and m.status is Status.FIRING for m in case.members.values()):
                continue
            self._cases[key] = replace(case, incident=replace(case.incident, state=IncidentState.OPEN))
            why = "what is in force is not enough" if trips else "no row is in force, and something still fires"
            self._say(key, "triage", f"not mitigated any more: {why}")

    # -- the timeline ----------------------------------------------------------------------------------------------

    def _say(self, incident_id: str, kind: str, text: str) -> None:
        self._entries.append((incident_id, Entry(self._now, kind, text)))

    def _tell(self, incident_id: str, notice: Notice) -> None:
        if notice.entries or notice.row:
            self._entries.extend((incident_id, entry) for entry in notice.entries)
        else:
            self._told.setdefault((incident_id, notice.name, notice.status), []).append(notice)

    def ruling(self) -> Ruling:
        """Return everything that was decided."""
        alerts = []
        for (incident_id, name, status), told in self._told.items():
            at = max((n.starts_at if status is Status.FIRING else n.ends_at or self._now) for n in told)
            alerts.append((incident_id, Entry(min(at, self._now), "alert", _spell(name, status, told))))
        changed = []
        for key, members in self._changed.items():
            case = self._cases[key]
            changed.append(replace(case, members={m: case.members[m] for m in sorted(members)}))
        return Ruling(tuple(self._decisions), tuple(changed), (*self._entries, *alerts))


def _is_news(notice: Notice, known: Member, holding: Case | None) -> bool:
    """A row that is refused tries again and again, each time decided anew: in an open incident that is no news."""
    if notice.row and notice.status is Status.RESOLVED:
        return known.status is Status.FIRING  # Whoever moved the lever back knows.
    still = notice.row and notice.status is known.status and holding is not None and holding.incident.open
    return supersedes(notice, known) and not still


def _related(incident: Incident, notice: Notice) -> bool:
    return (incident.service, incident.pool, incident.about) == (notice.service, notice.place, notice.about)


def _rows(incident: Incident, notice: Notice) -> Incident:
    if not notice.row or notice.name in incident.rows:
        return incident
    return replace(incident, rows=tuple(sorted((*incident.rows, notice.name))))


def _said(notice: Notice) -> str:
    if notice.row:
        return notice.text or notice.name
    return f"{notice.name}: {notice.text}" if notice.text else notice.name


def _short(notice: Notice) -> str:
    """Name the place and the kind of harm in an id; labels may be of any length, an id may not."""
    kind = "" if notice.about == SERVING else notice.about
    named = " ".join(part for part in (notice.place, kind) if part) or notice.level
    named = named.replace(" ", "-")
    return named if len(named) <= NAME_IN_ID else f"{named[:NAME_IN_ID]}-{sha256(named.encode()).hexdigest()[:8]}"


def _why(incident: Incident) -> str:
    where = f"pool {incident.pool}" if incident.pool else "what users get"
    return f"an incident of {where} ({incident.about}) is open"


def _words(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:g} min"


def _spell(name: str, status: Status, told: list[Notice]) -> str:
    """Say what alerts of one name did; of many the first few."""
    does = "fires" if status is Status.FIRING else "has ended"
    said = list(dict.fromkeys(n.text for n in told if n.text))
    more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
    count = f" ({len(told)} alerts)" if len(told) > 1 else ""
    return f"{name} {does}{count}{': ' + '; '.join(said[:NAMED]) + more if said else ''}"
