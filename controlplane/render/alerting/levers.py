"""Alerts about levers: which are pulled, could not be, or would not work, and whether promises are kept; pure."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from controlplane.degradation.matrix import LEVELS, Row
from controlplane.policy.quantity import spell_duration
from controlplane.render import promql
from controlplane.render.alerting.proof import SLOW_STEP, Proof, Wave, line
from controlplane.render.alerting.rules import OUTRANKING, Alert, Severity, anchored, literal
from controlplane.render.alerting.subject import Subject
from controlplane.render.promql import quoted
from controlplane.render.wording import page_name, spell_doing


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group; none where no row is armed."""
    rows = subject.policy.degradation.rows
    for level in (level for level in reversed(LEVELS) if level in rows):
        yield _engaged(subject, rows[level])
        yield _not_engaging(subject, rows[level])
    leaning: dict[str, list[Row]] = {}
    for level in (level for level in reversed(LEVELS) if level in rows and rows[level].target):
        leaning.setdefault(rows[level].target, []).append(rows[level])
    for pool, on in leaning.items():
        yield _not_ready(subject, pool, on)
    if rows:
        yield _objective_missed(subject)
        yield _refused(subject)
        yield _waits(subject)
        yield _braked(subject)


def _page(row: Row) -> str:
    return f"runbooks/{page_name(row)}.md"


def _engaged(subject: Subject, row: Row) -> Alert:
    doing, labels = literal(spell_doing(row)), {"service": subject.policy.service}
    worst = row.level is subject.worst
    return Alert(
        "DegradationEngaged",
        f"max by (service) (controlplane_level{{{subject.of}, level={quoted(row.level)}}}) == 1",
        Severity.CRITICAL if worst else Severity.WARNING,
        row.level,
        f"{subject.service} is degraded to {row.level}: {doing}",
        _page(row),
        f"Row {row.level} is in force: {doing}. Users are served, with less in reserve than usual.",
        "Follow the page of the row.",
        Proof((Wave(line("controlplane_level", **labels, level=row.level.value), 1, well=0),), 1, labels),
        labels=OUTRANKING,
    )


def _not_engaging(subject: Subject, row: Row) -> Alert:
    within, doing = spell_duration(row.within), literal(spell_doing(row))
    labels = {"service": subject.policy.service, "row": row.level.value}
    return Alert(
        "DegradationNotEngaging",
        f"max by (service, row) (controlplane_row_phase{{{subject.of}, row={quoted(row.level)}, "
        'phase=~"engaging|failed"}) == 1',
        Severity.CRITICAL,
        row.level,
        f"{row.level} is wanted and not in force: could not {doing}",
        _page(row),
        f"Row {row.level} has tripped and its lever does not move, or is not verified. Users feel the fault in full "
        f"while the promise of {within} runs.",
        "Pull the lever by hand, as the page of the row says.",
        Proof((Wave(line("controlplane_row_phase", **labels, phase="failed"), 1, well=0),), 1, labels),
        dwell=subject.patience(row.level, timedelta(seconds=30)),
        labels=OUTRANKING,
    )


def _not_ready(subject: Subject, pool: str, rows: Sequence[Row]) -> Alert:
    """One alert a pool, however many rows lean on it; the worst of them comes first."""
    labels, worst = {"service": subject.policy.service, "pool": pool}, rows[0]
    named = " and ".join(row.level.value for row in rows)
    leans = f"row {named} would give it" if len(rows) == 1 else f"rows {named} would give it"
    return Alert(
        "FallbackPoolNotReady",
        f"max by (service, pool) (controlplane_verdict{{{subject.of}, pool={quoted(pool)}, "
        f'verdict=~"breach|unknown"}}) == 1',
        Severity.WARNING,
        worst.level,
        "Pool {{ $labels.pool }} could not take the traffic that " + leans,
        _page(worst),
        f"The pool that {named} lean{'s' if len(rows) == 1 else ''} on is in breach or unknown. Until it is well, "
        "what was promised cannot be kept.",
        "Mend the pool as if it served users: in the next fault it will.",
        Proof((Wave(line("controlplane_verdict", **labels, verdict="breach"), 1, well=0),), 1, labels),
        dwell=subject.patience(worst.level, timedelta(minutes=1)),
        needs=subject.looks,
    )


def _objective_missed(subject: Subject) -> Alert:
    of = subject.of
    took = promql.mean_since("controlplane_switch_seconds", f'{of}, phase="verified"', "service, row", "1h")
    row = subject.policy.degradation.rows[subject.worst]
    labels = {"service": subject.policy.service, "row": row.level.value}
    late = row.within.total_seconds() * 1.5
    switches = {**labels, "phase": "verified"}
    return Alert(
        "ObjectiveMissed",
        f"{took}\n> on (service, row)\nmax by (service, row) (controlplane_row_objective_seconds{{{of}}})",
        Severity.CRITICAL,
        subject.worst,
        "Row {{ $labels.row }} took {{ $value | humanizeDuration }} from detection to verified, more than it promises",
        anchored("ObjectiveMissed"),
        "In the last hour a row restored service later than its objective. The plan is slower than what users "
        "were told.",
        "See in the receipt which phase took long: deciding, moving the lever, or the gateway showing it.",
        Proof(
            (  # The first switch ever: the series is born with its first observation.
                Wave(line("controlplane_switch_seconds_sum", **switches), late, after=late),
                Wave(line("controlplane_switch_seconds_count", **switches), 1, after=1),
                Wave(line("controlplane_row_objective_seconds", **labels), row.within.total_seconds(),
                     well=row.within.total_seconds()),
            ),
            late, labels,
            step=SLOW_STEP, settles=timedelta(minutes=2), lasts=timedelta(minutes=2), resolves=timedelta(hours=1),
        ),
    )  # fmt: skip


def _refused(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "row": subject.worst.value, "outcome": "refused"}
    series = f'controlplane_switches_total{{{subject.of}, outcome=~"failed|refused"}}'
    return Alert(
        "SwitchRefused",
        promql.grew(series, "10m"),
        Severity.CRITICAL,
        subject.worst,
        "Row {{ $labels.row }} was to engage and its switch is {{ $labels.outcome }}",
        anchored("SwitchRefused"),
        "The gate refused the pool that was to take over, or the lever failed. The next measure is tried, if the page "
        "names one.",
        "Read why on the newest receipt; mend the fallback pool or pull another lever by hand.",
        Proof(
            (Wave(line("controlplane_switches_total", **labels), 1, after=1),), 1, labels,
            step=SLOW_STEP, settles=timedelta(minutes=2), lasts=timedelta(minutes=2), resolves=timedelta(minutes=12),
        ),
    )  # fmt: skip


def _waits(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "row": subject.worst.value}
    return Alert(
        "RowWaitsForPerson",
        f"max by (service, row) (controlplane_row_waits{{{subject.of}}}) == 1",
        Severity.CRITICAL,
        subject.worst,
        "Row {{ $labels.row }} would engage and waits for a person",
        anchored("RowWaitsForPerson"),
        "Its trigger holds, and its mode or the brake keeps it from acting: users feel the fault until a person "
        "approves it or refuses.",
        "See `controlplane level`; then `controlplane approve` or `controlplane refuse` the row.",
        Proof((Wave(line("controlplane_row_waits", **labels), 1, well=0),), 1, labels),
    )


def _braked(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service}
    most = subject.policy.degradation.max_switches_per_hour
    return Alert(
        "MatrixBraked",
        f"max by (service) (controlplane_brake{{{subject.of}}}) == 1",
        Severity.CRITICAL,
        subject.worst,
        "The matrix of {{ $labels.service }} is braked: nothing engages or is given back by itself",
        anchored("MatrixBraked"),
        f"The rows switched more than {most} times within an hour, or a person "
        "pulled the brake. Traffic is still taken back from a primary that breaks on the way back.",
        "Find out what goes back and forth (`controlplane record`, `controlplane simulate`); then let go: "
        "`controlplane brake release`.",
        Proof((Wave(line("controlplane_brake", **labels), 1, well=0),), 1, labels),
    )
