"""What drills have proved of a row: the newest in one line, all of them in a table; pure."""

from collections.abc import Sequence

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.degradation.matrix import Row
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
