"""Error budgets: recording rules for the share of failed requests over each window, and the burn rates made of them.

The rules are those of `slo.burn` (the SRE workbook's, in two windows at once), counted by Prometheus from what the
control plane says it counted: they outlive its restarts, and the budget is the policy's. Pure.
"""

from collections.abc import Iterator
from datetime import timedelta
from math import ceil

from controlplane.degradation.matrix import Level
from controlplane.policy.model import Objective
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.proof import DAYS_STEP, SLOW_STEP, Proof, Wave, line
from controlplane.render.alerting.rules import Alert, Record, Severity, anchored
from controlplane.render.alerting.subject import Subject
from controlplane.render.promql import number, quoted
from controlplane.render.wording import spell_ratio
from controlplane.slo.burn import LOW_TRAFFIC_FAILURES, RULES, BurnRule, Urgency

REQUESTS = "controlplane_objective_requests_total"
NAMES = dict(
    zip(
        RULES,
        ("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSteadily", "ErrorBudgetBurnsSlowly", "ErrorBudgetBurnsVerySlowly"),
        strict=True,
    )
)
A_STEP = 60
"""Requests of either kind in each step of a proof; there must only be enough of them."""


def promised(subject: Subject) -> tuple[Objective, ...]:
    """Return the objectives that have a budget."""
    return tuple(o for o in subject.policy.objectives if o.name == "availability")


def records(subject: Subject) -> Iterator[Record]:
    """Give the share of failed requests over every window that a burn rate looks at, shortest first."""
    if not promised(subject):
        return
    for window in sorted({window for rule in RULES for window in (rule.long, rule.short)}):
        span = spell_duration(window)
        failed = f'{REQUESTS}{{{subject.of}, outcome="failed"}}[{span}]'
        every = f"{REQUESTS}{{{subject.of}}}[{span}]"
        yield Record(
            recorded(window),
            f"sum by (service, objective) (rate({failed}))\n/ sum by (service, objective) (rate({every}))",
        )


def recorded(window: timedelta) -> str:
    """Return the series of the share of failed requests over a window."""
    return f"service_objective:failed_requests:ratio_rate{spell_duration(window)}"


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert about budgets."""
    for objective in promised(subject):
        for rule in RULES:
            yield _burns(subject, objective, rule)
        yield _spent(subject, objective)


def _burns(subject: Subject, objective: Objective, rule: BurnRule) -> Alert:
    page, name = rule.urgency is Urgency.PAGE, NAMES[rule]
    factor, budget = rule.factor(objective.window), 1 - objective.target
    of = f"{subject.of}, objective={quoted(objective.name)}"
    allowed, long, short = number(factor * budget), spell_duration(rule.long), spell_duration(rule.short)
    failed = f'increase({REQUESTS}{{{of}, outcome="failed"}}[{long}])'
    period = spell_duration(objective.window)
    meaning = (
        f"At this rate {spell_ratio(rule.spent)} of the budget of {period} is gone in {long}. It still goes on: the "
        f"last {short} say so, too. "
    )
    labels = {"service": subject.policy.service, "objective": objective.name}
    return Alert(
        name,
        f"(\n  {recorded(rule.long)}{{{of}}} > {allowed}\n"
        f"  and {recorded(rule.short)}{{{of}}} > {allowed}\n"
        f")\nand on (service, objective)\nsum by (service, objective) ({failed}) >= {LOW_TRAFFIC_FAILURES}",
        Severity.CRITICAL if page else Severity.WARNING,
        subject.level_of("error_rate") if rule is RULES[0] else Level.NONE,  # No row heals what takes six hours.
        f"{{{{ $value | humanizePercentage }}}} of the requests of {{{{ $labels.service }}}} failed in {long}: the "
        f"budget of {{{{ $labels.objective }}}} burns {factor:.3g} times too fast or faster",
        anchored(name),
        meaning
        + (
            "Users get errors so fast that the promise of the whole period is in danger within days."
            if page
            else "Too few errors to trip a row, and too many to keep the promise."
        ),
        "Look at the open incident and its likely causes; if no row is engaged, pull the lever by hand."
        if page
        else "Find the endpoint, model or client whose requests fail; take the time it needs.",
        _proof(rule, labels),
        # When every request fails; a share that may be lost in the long window is lost in so much of it.
        needs=max(_whole(rule.long * min(1.0, factor * budget)), 2 * subject.policy.publish.scrape),
        labels={"window": long},
    )


def _whole(span: timedelta) -> timedelta:
    return timedelta(seconds=ceil(span.total_seconds()))


def _proof(rule: BurnRule, labels: dict[str, str]) -> Proof:
    """Well for a short window, then every second request fails until the long window has seen enough of it."""
    good = line(REQUESTS, **labels, outcome="good")
    failed = line(REQUESTS, **labels, outcome="failed")
    step = DAYS_STEP if rule.long >= timedelta(days=1) else SLOW_STEP
    return Proof(
        (Wave(good, A_STEP, well=A_STEP, grows=True), Wave(failed, A_STEP, well=0, grows=True)),
        0.5,
        labels,
        span=rule.long,
        step=step,
        settles=timedelta(0),
        lasts=rule.long + step,
        resolves=rule.short + step,
    )


def _spent(subject: Subject, objective: Objective) -> Alert:
    labels = {"service": subject.policy.service, "objective": objective.name}
    of = f"{subject.of}, objective={quoted(objective.name)}"
    return Alert(
        "ErrorBudgetSpent",
        f"min by (service, objective) (controlplane_error_budget_left_ratio{{{of}}}) <= 0",
        Severity.WARNING,
        Level.NONE,
        "The error budget of {{ $labels.objective }} of {{ $labels.service }} is spent: "
        "{{ $value | humanizePercentage }} of it is left",
        anchored("ErrorBudgetSpent"),
        f"More requests failed in {spell_duration(objective.window)} than were promised to. Drills are refused until "
        "there is budget again.",
        "Hold back releases and drills; mend what spent it.",
        Proof((Wave(line("controlplane_error_budget_left_ratio", **labels), -0.2, well=0.4),), -0.2, labels),
        dwell=timedelta(minutes=5),
    )
