"""The report of one drill, as Markdown and as an HTML page with a picture of its timeline; pure.

Called when a drill has ended and when somebody asks for its report. Every text that people, experiments or servers
wrote is escaped: by `markdown.text` in the one, by Jinja2's autoescape in the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.chaos.drill import Drill, DrillPhase, Event, Measured
from controlplane.chaos.fault import Lease
from controlplane.chaos.score import TIMES, Month, last_before, months, regressions, times_s, within_objective
from controlplane.incidents.history import History
from controlplane.render import markdown
from controlplane.render.markdown import Table
from controlplane.render.reports.charts import Mark, charts, summary
from controlplane.render.reports.paper import environment
from controlplane.slo.threshold import Threshold

WIDTH, LEFT, LANE = 720, 150, 22
"""Of the picture, in its own units: whole width, where time begins, height of one lane."""

PARTS = ("before", "during", "after")


_MARKED = (DrillPhase.FAULT, DrillPhase.VERIFIED, DrillPhase.HEALED, DrillPhase.RECOVERED)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report is made of."""

    drill: Drill
    leases: tuple[Lease, ...]
    events: tuple[Event, ...]
    drills: tuple[Drill, ...]
    """Drills on record, this one and the one it is compared with among them."""
    history: History = ()
    """What the signals showed around it."""
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    """Which signals to show, the most telling first."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The moments that are drawn on each chart."""
        return tuple(Mark(phase.value, at) for phase in _MARKED if (at := self.drill.phases.get(phase)))


@dataclass(frozen=True, slots=True)
class Bar:
    """One lane of the picture: a stretch of time, or a moment where it has no length."""

    label: str
    x: float
    width: float
    y: int
    kind: str
    """`fault` or `phase`: its colour."""
    seconds: str


def markdown_report(report: Report) -> str:
    """Write the report as Markdown."""
    drill = report.drill
    before = last_before(drill, report.drills)
    lines = [
        f"# Drill {markdown.code(drill.experiment)} {drill.outcome}",
        "",
        _headline(drill),
        "",
        *(f"- {markdown.text(reason)}" for reason in drill.reasons),
        *([""] if drill.reasons else []),
        "## Times",
        "",
        markdown.table(Table(("phase", "since the fault"), _phase_rows(drill), frozenset({1}))),
        "",
        *(f"- {name}: {value}" for name, value in _times(drill)),
        f"- Objective: {_objective(drill)}",
        *(f"- Slower than the last run: {worse}" for worse in regressions(drill, before)),
        "",
        "## What users got",
        "",
        markdown.table(
            Table(
                ("part", "requests", "failed", "availability", "worst P99"), _user_rows(drill), frozenset({1, 2, 3, 4})
            )
        ),
        "",
        *_signal_lines(report),
        "## Faults",
        "",
        markdown.table(
            Table(
                ("endpoint", "kind", "injected", "proven", "healed"),
                [_lease_row(lease) for lease in report.leases] or [("none", "-", "-", "-", "-")],
            )
        ),
        "",
        "## Score",
        "",
        markdown.table(
            Table(
                ("month", "passed", "score", "change", *TIMES),
                [_month_row(month) for month in months(report.drills)] or [("-",) * 7],
                frozenset(range(1, 7)),
            )
        ),
        "",
        "## What happened",
        "",
        *(f"- {event.at:%H:%M:%S.%f} {event.kind}: {markdown.text(event.text)}" for event in report.events),
        "",
        f"Journal of Chaos Toolkit: {markdown.code(drill.journal)}",
        "",
    ]
    return "\n".join(lines)


def _signal_lines(report: Report) -> list[str]:
    """Return what the signals showed, as Markdown; nothing where none are kept."""
    rank = {name: place for place, name in enumerate(report.signals)}
    traces = sorted(report.history, key=lambda t: (rank.get(t.signal, len(rank)), t.pool))
    rows = [(markdown.code(t.signal), markdown.code(t.pool), summary(t)) for t in traces if t.known]
    if not rows:
        return []
    drawn = markdown.table(Table(("signal", "pool", "before, at worst, last"), rows))
    return ["## What the signals showed", "", drawn, ""]


def _headline(drill: Drill) -> str:
    slot = f", slot {markdown.code(drill.slot)}" if drill.slot else ""
    return (
        f"Drill {markdown.code(drill.id)} of row {markdown.code(drill.row)}, asked for by "
        f"{markdown.text(drill.requested_by)}{slot}, started {drill.started_at:%Y-%m-%d %H:%M:%S} UTC."
    )


def html_report(report: Report) -> str:
    """Draw the report as a page of its own, with a picture of the timeline."""
    drill = report.drill
    bars = timeline(report)
    return (
        environment()
        .get_template("drill.html.j2")
        .render(
            drill=drill,
            phases=_phase_rows(drill),
            times=_times(drill),
            objective=_objective(drill),
            worse=[str(found) for found in regressions(drill, last_before(drill, report.drills))],
            users=_user_rows(drill),
            leases=[_lease_row(lease) for lease in report.leases],
            months=[_month_row(month) for month in months(report.drills)],
            month_head=("Month", "Passed", "Score", "Change", *TIMES),
            events=[(f"{event.at:%H:%M:%S.%f}"[:-3], event.kind, event.text) for event in report.events],
            bars=bars,
            charts=charts(report.history, report.thresholds, report.marks, report.signals),
            width=WIDTH,
            height=LANE * (len(bars) + 1),
            left=LEFT,
            lane=LANE,
        )
    )


def timeline(report: Report) -> tuple[Bar, ...]:
    """Lay out the faults and the phases of a drill on one line of time, from the fault to the last moment."""
    drill = report.drill
    start = drill.phases.get(DrillPhase.FAULT)
    if start is None:
        return ()
    moments = [*drill.phases.values(), *(lease.healed_at for lease in report.leases if lease.healed_at)]
    whole_s = max((max(moments) - start).total_seconds(), 0.001)
    room = WIDTH - LEFT - 70

    def x(at: datetime) -> float:
        return round(LEFT + room * max(0.0, (at - start).total_seconds()) / whole_s, 1)

    bars: list[Bar] = []
    for lease in report.leases:
        if lease.injected_at:
            end = lease.healed_at or max(moments)
            took = f"{(end - lease.injected_at).total_seconds():.2f} s"
            width = max(1.5, x(end) - x(lease.injected_at))
            label = f"{lease.kind} {lease.endpoint.name}"
            bars.append(Bar(label, x(lease.injected_at), width, LANE * len(bars), "fault", took))
    for phase in DrillPhase:
        seconds, at = drill.seconds(phase), drill.phases.get(phase)
        if phase is not DrillPhase.FAULT and seconds is not None and at:
            bars.append(Bar(phase.value, LEFT, max(1.5, x(at) - LEFT), LANE * len(bars), "phase", f"{seconds:.2f} s"))
    return tuple(bars)


def _phase_rows(drill: Drill) -> list[tuple[str, str]]:
    return [(phase.value, _seconds(drill.seconds(phase))) for phase in DrillPhase]


def _times(drill: Drill) -> list[tuple[str, str]]:
    known = times_s(drill)
    return [(name, _seconds(known.get(name))) for name in TIMES]


def _objective(drill: Drill) -> str:
    kept = within_objective(drill)
    promised = f"{drill.objective.total_seconds():g} s from detection to restored service"
    return f"{promised}: {'not known' if kept is None else 'kept' if kept else 'missed'}"


def _user_rows(drill: Drill) -> list[tuple[str, ...]]:
    return [_user_row(part, drill.users.get(part)) for part in PARTS]


def _user_row(part: str, seen: Measured | None) -> tuple[str, ...]:
    if seen is None:
        return part, "not known", "-", "-", "-"
    share = "no traffic" if seen.availability is None else f"{seen.availability:.4%}"
    high = f" (at most {seen.p99_high_s:.3g} s)" if seen.p99_high_s is not None else ""
    p99 = "not known" if seen.p99_s is None else f"{seen.p99_s:.3g} s{high}"
    return part, f"{seen.requests:.0f}", f"{seen.failed:.0f}", share, p99


def _lease_row(lease: Lease) -> tuple[str, ...]:
    moments = (lease.injected_at, lease.proven_at, lease.healed_at)
    return (lease.endpoint.name, lease.kind.value, *(f"{at:%H:%M:%S.%f}"[:-3] if at else "never" for at in moments))


def _month_row(month: Month) -> tuple[str, ...]:
    change = "-" if month.change is None else f"{month.change * 100:+.0f}"
    times: Sequence[str] = [_seconds(month.times_s.get(name)) for name in TIMES]
    return month.month, f"{month.passed} of {month.judged}", f"{month.score:.0%}", change, *times


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
