"""The report of one incident, as Markdown and as an HTML page with charts; pure.

Called when somebody asks for it, while the incident goes on or long after. Every text that people or servers wrote is
escaped: by `markdown.text` in the one, by Jinja2's autoescape in the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from controlplane.degradation.actuator import Receipt, ReceiptState
from controlplane.incidents.history import History, Trace, pools_of
from controlplane.incidents.incident import Entry, Incident
from controlplane.policy.model import Objective
from controlplane.render import markdown
from controlplane.render.markdown import Table
from controlplane.render.reports.charts import HEIGHT, WIDTH, Chart, Mark, charts, summary, unknown_s
from controlplane.render.reports.paper import environment
from controlplane.slo.threshold import Threshold

SLOW_SHARE = 0.5
"""A phase that took more than this share of the whole time is named as what cost it."""
MUCH_SPENT = 0.1
"""An incident that took more than this share (0..1) of an error budget calls for slower releases."""
LONG_UNKNOWN_S = 15.0
HINT = "likely cause: "
_STEPS = (
    ("decided", None), ("applied", ReceiptState.APPLIED), ("verified", ReceiptState.VERIFIED),
    ("given back", ReceiptState.REVERTED), ("failed", ReceiptState.FAILED),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spent:
    """What an incident took of an error budget, by the signals that were kept."""

    objective: str
    target: float
    ratio: float
    """Share (0..1, or more) of the whole period's budget."""
    bad_s: float
    """Seconds, each weighed by the share of users' requests that failed in it."""


@dataclass(frozen=True, slots=True)
class IncidentReport:
    """Everything a report is made of."""

    incident: Incident
    timeline: tuple[Entry, ...]
    """Oldest first."""
    receipts: tuple[Receipt, ...]
    """What was done about it, oldest first."""
    history: History
    promise: timedelta | None
    """What its row promises from detection to restored service; None when the row is no longer armed."""
    thresholds: Mapping[str, Threshold]
    objectives: tuple[Objective, ...]
    signals: tuple[str, ...]
    """Which signals to show, the most telling first."""
    now: datetime
    runbook: str = ""
    """Path of its row's page on the console; empty when there is none."""

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Its signals over time."""
        return charts(self.history, self.thresholds, tuple(self.marks), self.signals)

    @property
    def marks(self) -> Iterator[Mark]:
        """The moments that are drawn on each chart."""
        incident = self.incident
        yield Mark("detected", incident.detected_at)
        if incident.mitigated_at:
            yield Mark("mitigated", incident.mitigated_at)
        if incident.resolved_at:
            yield Mark("resolved", incident.resolved_at)

    @property
    def restored_s(self) -> float | None:
        """Seconds from detection until users were served again; None while they are not."""
        return _since(self.incident, self.incident.mitigated_at)

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; None when that is not known."""
        if self.promise is None or self.restored_s is None:
            return None
        return self.restored_s <= self.promise.total_seconds()


def phase_rows(receipt: Receipt) -> tuple[tuple[str, float], ...]:
    """Return how many seconds after the first evidence each phase of an action was reached."""
    found = [("decided", receipt.decided_at), *((n, receipt.times.get(state)) for n, state in _STEPS if state)]
    return tuple((name, (at - receipt.detected_at).total_seconds()) for name, at in found if at)


def causes_of(timeline: tuple[Entry, ...]) -> tuple[str, ...]:
    """Return the likely causes that were seen, with their evidence, the most telling first."""
    return tuple(dict.fromkeys(entry.text.removeprefix(HINT) for entry in timeline if entry.kind == "hint"))


def budget_spent(report: IncidentReport) -> tuple[Spent, ...]:
    """Return what the incident took of each availability objective.

    A second counts by the share of requests that failed in it: the gateway's error rate, or else the share of looks
    that failed. The budget of a period is (1 - target) x period seconds.
    """
    incident = report.incident
    begin, end = incident.detected_at.timestamp(), (incident.resolved_at or report.now).timestamp()
    found = []
    for objective in report.objectives:
        trace = _failing(report.history) if objective.name == "availability" else None
        if trace is not None:
            bad_s = _integral(trace, begin, end)
            allowed_s = (1.0 - objective.target) * objective.window.total_seconds()
            found.append(Spent(objective.name, objective.target, bad_s / allowed_s if allowed_s else 0.0, bad_s))
    return tuple(found)


def _failing(history: History) -> Trace | None:
    """Return the share of requests that failed over time, as users saw it."""
    errors, looks = pools_of(history, "error_rate"), pools_of(history, "availability")
    seen = [trace for trace in (errors.get("gateway"), looks.get("gateway"), looks.get("primary")) if trace]
    known = [trace for trace in seen if trace.known]
    if not known:
        return None
    if known[0].signal == "error_rate":
        return known[0]
    return Trace(known[0].pool, "error_rate", tuple((at, None if v is None else 1.0 - v) for at, v in known[0].points))


def _integral(trace: Trace, begin: float, end: float) -> float:
    """Add up a trace over time; each value holds until the next point, and unknown counts for nothing."""
    total = 0.0
    ends = [*(at for at, _ in trace.points[1:]), max(end, trace.points[-1][0])]
    for (at, value), until in zip(trace.points, ends, strict=True):
        if value is not None:
            total += value * max(0.0, min(until, end) - max(at, begin))
    return total


def follow_ups(report: IncidentReport) -> tuple[str, ...]:
    """Return what is left to do after it, from what is on record; each wants an owner and a date."""
    rules = (_unfinished, _too_slow, _in_the_way, _suspected, _overspent, _blind, _unrehearsed)
    return tuple(line for rule in rules for line in rule(report))


def _unfinished(report: IncidentReport) -> Iterator[str]:
    if report.incident.open:
        yield f"It is still {report.incident.state}: finish it, then read this report again."


def _too_slow(report: IncidentReport) -> Iterator[str]:
    if report.kept is False and report.promise is not None:
        took, promised = report.restored_s or 0.0, report.promise.total_seconds()
        yield f"Row {report.incident.level} took {took:.1f} s and promises {promised:g} s: {_slowest(report)}"


def _in_the_way(report: IncidentReport) -> Iterator[str]:
    for receipt in report.receipts:
        if receipt.state is ReceiptState.FAILED:
            yield f"Mend why action {receipt.id} failed: {receipt.detail}"
    for entry in report.timeline:
        if entry.kind == "gate" and "refused" in entry.text:
            yield f"Mend why it was refused: {entry.text}"


def _suspected(report: IncidentReport) -> Iterator[str]:
    for cause in causes_of(report.timeline)[:2]:
        yield f"Confirm or rule out: {cause}"


def _overspent(report: IncidentReport) -> Iterator[str]:
    for spent in budget_spent(report):
        if spent.ratio >= MUCH_SPENT:
            yield f"It took {spent.ratio:.0%} of the error budget of {spent.objective}: slow down what risks more."


def _blind(report: IncidentReport) -> Iterator[str]:
    for trace in report.history:
        if trace.pool in ("gateway", "primary") and unknown_s(trace) > LONG_UNKNOWN_S and trace.known:
            yield (
                f"{trace.signal} of pool {trace.pool} was unknown for {unknown_s(trace):.0f} s: "
                "nothing could trip or be given back by it."
            )


def _unrehearsed(report: IncidentReport) -> Iterator[str]:
    if not report.incident.drill_id:
        level = report.incident.level
        yield f"Rehearse row {level} with a fault like this one, and let a drill prove what was mended."


def _slowest(report: IncidentReport) -> str:
    for receipt in report.receipts:
        steps, before = [], 0.0
        for name, at_s in phase_rows(receipt):
            if name in ("decided", "applied", "verified"):
                steps.append((name, at_s - before))
                before = at_s
        name, took = max(steps, key=lambda step: step[1], default=("", 0.0))
        if before and took > SLOW_SHARE * before:
            return f"{took:.1f} s of it until it was {name}."
    return "see which phase took long."


def markdown_report(report: IncidentReport) -> str:
    """Write the report as Markdown."""
    incident = report.incident
    lines = [
        f"# Incident {markdown.code(incident.id)}",
        "",
        f"**{markdown.text(incident.title)}**",
        "",
        f"{_said(report)}",
        "",
        "## Times",
        "",
        markdown.table(Table(("What", "Time"), _times(report), frozenset({1}))),
        "",
        "## What was done",
        "",
        *(markdown.table(_actions(report)).splitlines() if report.receipts else ["Nothing was moved."]),
        "",
        "## What the signals showed",
        "",
        *(markdown.table(_signals(report)).splitlines() if report.history else [_NO_HISTORY]),
        "",
        "## Likely causes",
        "",
        *([f"- {markdown.text(cause)}" for cause in causes_of(report.timeline)] or ["No rule found evidence of one."]),
        "",
        "## Timeline",
        "",
        *(f"- {entry.at:%H:%M:%S.%f} {markdown.text(entry.kind)}: {markdown.text(entry.text)}"
          for entry in report.timeline),
        "",
        "## Follow-ups",
        "",
        *([f"- [ ] {markdown.text(one)}" for one in follow_ups(report)] or ["None."]),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


_NO_HISTORY = "No signals are kept of it: they are of the newest incidents only, and were not recorded before."


def _said(report: IncidentReport) -> str:
    incident = report.incident
    cause = f"caused by drill {markdown.code(incident.drill_id)}" if incident.drill_id else "not caused by a drill"
    return (
        f"Service {markdown.code(incident.service)}, row {markdown.code(incident.level)}, {incident.state}, {cause}; "
        f"detected {incident.detected_at:%Y-%m-%d %H:%M:%S} UTC."
    )


def _times(report: IncidentReport) -> list[tuple[str, ...]]:
    incident = report.incident
    kept = {None: "not known", True: "kept", False: "missed"}[report.kept]
    promised = f"{report.promise.total_seconds():g} s: {kept}" if report.promise else "the row is no longer armed"
    rows: list[tuple[str, ...]] = [
        ("detected to mitigated", _seconds(report.restored_s)),
        ("detected to resolved", _seconds(_since(incident, incident.resolved_at))),
        ("promised until users are served", promised),
    ]
    for spent in budget_spent(report):
        rows.append((f"error budget of {spent.objective} {spent.target:.4%} spent", _budget(spent)))
    return rows


def _budget(spent: Spent) -> str:
    return f"{spent.ratio:.2%} ({spent.bad_s:.1f} s of failure)"


def _actions(report: IncidentReport) -> Table:
    rows: list[tuple[str, ...]] = []
    for receipt in report.receipts:
        times = "; ".join(f"{name} {_seconds(at_s)}" for name, at_s in phase_rows(receipt))
        rows.append((markdown.text(receipt.action), receipt.state.value, times, markdown.text(receipt.detail) or "-"))
    return Table(("Action", "State", "Since the first evidence", "Proof, or why not"), rows)


def _signals(report: IncidentReport) -> Table:
    rank = {name: place for place, name in enumerate(report.signals)}
    traces = sorted(report.history, key=lambda t: (rank.get(t.signal, len(rank)), t.pool))
    return Table(
        ("Signal", "Pool", "Before, at worst, last"),
        [(markdown.code(t.signal), markdown.code(t.pool), summary(t)) for t in traces if t.known],
    )


def html_report(report: IncidentReport, style: str = "") -> str:
    """Draw the report as a page of its own.

    Args:
        report: what it is made of.
        style: a style sheet to put into the page, for a file that is read without the console; empty links to the
            console's.
    """
    return environment().get_template("incident.html.j2").render(
        incident=report.incident,
        times=_times(report),
        receipts=[(receipt, phase_rows(receipt)) for receipt in report.receipts],
        charts=report.charts,
        causes=causes_of(report.timeline),
        timeline=report.timeline,
        follow_ups=follow_ups(report),
        no_history=_NO_HISTORY,
        width=WIDTH,
        height=HEIGHT,
        style=Markup(style.replace("</", "<\\/")),  # noqa: S704 - our own style sheet
        runbook=report.runbook,
    )  # fmt: skip


def _since(incident: Incident, at: datetime | None) -> float | None:
    return (at - incident.detected_at).total_seconds() if at else None


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
