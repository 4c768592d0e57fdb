"""What drills have proved of a row: the newest in one line, all of them in a table; pure."""

from collections.abc import Sequence
from statistics import median

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.degradation.matrix import Row
from controlplane.incidents.incident import Incident
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown
from controlplane.render.markdown import Table

EVIDENCE_ROWS = 12
"""A year of monthly drills."""

_TIMED = (
    DrillPhase.DETECTED, DrillPhase.DECIDED, DrillPhase.ACTED, DrillPhase.VERIFIED, DrillPhase.HEALED,
    DrillPhase.RECOVERED,
)  # fmt: skip

_SAYS_NOTHING = (Outcome.RUNNING, Outcome.REFUSED)
"""Outcomes of runs that touched nothing, or have not ended: no evidence."""


def evidence(row: Row, drills: Sequence[Drill]) -> tuple[Drill, ...]:
    """Return the drills that say something about a row, newest first."""
    return tuple(d for d in drills if d.row == row.level and d.outcome not in _SAYS_NOTHING)[:EVIDENCE_ROWS]


def took_s(drill: Drill) -> float | None:
    """Return the seconds from detected to verified, which is what a row promises; None when it never got there."""
    detected, verified = drill.seconds(DrillPhase.DETECTED), drill.seconds(DrillPhase.VERIFIED)
    return None if detected is None or verified is None else verified - detected


def headline(row: Row, drills: Sequence[Drill]) -> str:
    """Say in one line how well the newest drill proved a row."""
    proofs = evidence(row, drills)
    if not proofs:
        return "**Not proven:** no drill has proved this row yet."
    last = proofs[0]
    day, took, within = f"{last.started_at:%Y-%m-%d}", took_s(last), spell_duration(row.within)
    if last.outcome is Outcome.PASSED and took is not None:
        return f"**Proven on {day}:** detected to verified in {spell_seconds(took)} s, of {within} promised."
    passed = next((d for d in proofs if d.outcome is Outcome.PASSED), None)
    before = f" It last passed on {passed.started_at:%Y-%m-%d}." if passed else " It has never passed."
    return f"**Not proven:** the newest drill ({day}) ended as {last.outcome}.{before}"


def spell_seconds(value: float | None) -> str:
    """Write seconds as they stand in a table; `-` for a moment that never came."""
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def evidence_table(proofs: Sequence[Drill]) -> Table:
    """Return the drills of a row, one a line, each phase in seconds since its fault."""
    rows = []
    for drill in proofs:
        took = took_s(drill)
        rows.append(
            (
                f"{drill.started_at:%Y-%m-%d %H:%M}", markdown.code(drill.experiment), drill.outcome.value,
                *(spell_seconds(drill.seconds(phase)) for phase in _TIMED),
                spell_seconds(took), spell_duration(drill.objective),
                "-" if took is None else "yes" if took <= drill.objective.total_seconds() else "**no**",
            )
        )  # fmt: skip
    head = (
        "Date (UTC)",
        "Drill",
        "Outcome",
        *(phase.value for phase in _TIMED),
        "detected to verified",
        "Promise",
        "Kept",
    )
    return Table(head, rows, right=frozenset(range(3, 10)))


def reasons_of(proofs: Sequence[Drill]) -> tuple[str, ...]:
    """Return why each drill that has something to say ended as it did, as lines of Markdown."""
    return tuple(
        f"{drill.started_at:%Y-%m-%d %H:%M}, {drill.outcome}: {'; '.join(markdown.text(r) for r in drill.reasons)}"
        for drill in proofs
        if drill.reasons
    )


def spell_proof(drill: Drill) -> str:
    """Say in a few words what a drill proved."""
    took = took_s(drill)
    return f"drill {drill.id} {drill.outcome}{f' in {spell_seconds(took)} s' if took is not None else ''}"


def trend(proofs: Sequence[Drill]) -> str:
    """Say whether a row gets faster or slower; nothing with fewer than two drills that measured it.

    The newest drill is held against the median of those before it, so that one odd run is no trend.
    """
    times = [took for drill in proofs if (took := took_s(drill)) is not None]
    if len(times) < 2:
        return ""
    newest, before = times[0], median(times[1:])
    change = newest / before - 1 if before else 0.0
    verdict = "steady" if abs(change) < 0.1 else f"{abs(change):.0%} {'slower' if change > 0 else 'faster'}"
    of = f"the {len(times) - 1} before" if len(times) > 2 else "the one before"
    return f"Trend: {spell_seconds(newest)} s, against {spell_seconds(before)} s ({of}): {verdict}."


def incidents_of(row: Row, incidents: Sequence[Incident]) -> tuple[Incident, ...]:
    """Return the real incidents of a row, newest first; those that drills caused stand in the other table."""
    return tuple(i for i in incidents if i.level == row.level and not i.drill_id)[:EVIDENCE_ROWS]


def incident_table(row: Row, incidents: Sequence[Incident]) -> Table:
    """Return the real incidents of a row, one a line, with what users waited for."""
    lines = []
    for incident in incidents:
        mitigated = (incident.mitigated_at - incident.detected_at).total_seconds() if incident.mitigated_at else None
        resolved = (incident.resolved_at - incident.detected_at).total_seconds() if incident.resolved_at else None
        kept = "-" if mitigated is None else "yes" if mitigated <= row.within.total_seconds() else "**no**"
        lines.append(
            (
                f"{incident.detected_at:%Y-%m-%d %H:%M}", markdown.code(incident.id), markdown.text(incident.title),
                spell_seconds(mitigated), spell_seconds(resolved), spell_duration(row.within), kept,
            )
        )  # fmt: skip
    head = ("Date (UTC)", "Incident", "What", "detected to mitigated", "detected to resolved", "Promise", "Kept")
    return Table(head, lines, right=frozenset({3, 4, 5}))
