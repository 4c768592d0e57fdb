"""The alerts of one service, made from its policy; pure.

Two witnesses: the control plane's own series carry the policy's windows, sample minimums and unknowns already; the
engine's own series see the same harm when the control plane is blind. Called by `artefacts`.
"""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.chaos.fault import MAX_LEASE
from controlplane.degradation.matrix import LEVELS, Level, Row, signals_of
from controlplane.fleet.model import GATEWAY_POOL
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import promql
from controlplane.render.alerting.levers import braked, overloaded, waits
from controlplane.render.alerting.rules import Alert, Group, Severity, anchored, literal
from controlplane.render.promql import number, one_of, quoted
from controlplane.render.wording import inert, page_name, spell_doing, spell_value
from controlplane.signals.engines import DCGM, names_for_rules
from controlplane.signals.sample import CATALOGUE, Direction, Signal, Unit
from controlplane.slo.burn import RULES, Urgency
from controlplane.slo.threshold import Band, Threshold

EVERY = timedelta(seconds=5)
"""How often the rules that users depend on are evaluated; Prometheus's own default of 1m would eat a P0's minutes."""


DRILL_PERIOD = timedelta(days=35)
"""The longest time between two monthly slots: `1st tue` to `1st tue` is four or five weeks."""

DRILL_GRACE = timedelta(days=5)

_FELT = ("availability", "endpoints_down", "latency_p99", "inter_token_latency_p99", "error_rate")
"""Signals that users feel. A busy machine alone is not ill: utilization in breach waits for the morning."""

_VALUE = {
    Unit.RATIO: "{{ $value | humanizePercentage }}",
    Unit.SECONDS: "{{ $value | humanizeDuration }}",
    Unit.COUNT: "{{ $value | humanize }}",
    Unit.PER_SECOND: "{{ $value | humanize }}/s",
    Unit.CELSIUS: "{{ $value | humanize }} °C",
    Unit.WATTS: "{{ $value | humanize }} W",
}


def groups(policy: Policy) -> tuple[Group, ...]:
    """Return every rule of one policy, grouped as Prometheus evaluates them."""
    made = (
        Group(
            "controlplane-service",
            "What users feel and what the pools have left, as the control plane judges it: the policy's window and "
            "minimum of samples lie behind each value; an unknown signal has no series.",
            EVERY,
            (*_thresholds(policy), *_budgets(policy)),
        ),
        Group(
            "controlplane-degradation",
            "Levers: which are pulled, which could not be, which would not work, and whether promises are kept.",
            EVERY,
            tuple(_degradation(policy)),
        ),
        Group(
            "controlplane-engine",
            "The second witness: the engine's own series, read by Prometheus alone. It still sees when the control "
            "plane does not.",
            EVERY,
            tuple(_engine(policy)),
        ),
        Group(
            "controlplane-drills",
            "Proof that the levers work, and its age.",
            timedelta(minutes=1),
            tuple(_drills(policy)),
        ),
        Group("controlplane-self", "The control plane itself.", EVERY, tuple(_self(policy))),
    )
    return tuple(group for group in made if group.alerts)


def camel(name: str) -> str:
    """Write a signal's name as part of an alert's name."""
    return "".join(part.capitalize() for part in name.split("_"))


def level_of(policy: Policy, signal: str) -> Level:
    """Return the most severe armed row that looks at a signal."""
    looking = (level for level, row in policy.degradation.rows.items() if signal in signals_of(row.when))
    return max(looking, key=LEVELS.index, default=Level.NONE)


def _served(policy: Policy) -> tuple[str, ...]:
    """Return the pools whose state is the users': the primary, and the gateway where there is one."""
    return (*((GATEWAY_POOL,) if policy.fleet.gateway else ()), "primary")


def _of(policy: Policy) -> str:
    return f"service={quoted(policy.service)}"


def _thresholds(policy: Policy) -> Iterator[Alert]:
    for name, threshold in policy.thresholds.items():
        for band in (Band.BREACH, Band.WARN):
            yield _threshold(policy, CATALOGUE[name], threshold, band)
    yield Alert(
        "PoolUnknown",
        f"max by (service, pool) (controlplane_verdict{{{_of(policy)}, pool=~{one_of(_served(policy))}, "
        'verdict="unknown"}) == 1',
        Severity.CRITICAL,
        _worst(policy),
        "Nothing is known about pool {{ $labels.pool }}",
        anchored("PoolUnknown"),
        "No probe of this pool gives an answer that can be judged. No data is never read as healthy: no row trips and "
        "none is released until it is known again.",
        "See whether the endpoints can be reached from the control plane's host at all; if they can, see whether "
        "completions end in time.",
        dwell=timedelta(seconds=30),
    )
    yield Alert(
        "EndpointDown",
        f"min by (service, pool, endpoint) (controlplane_endpoint_up{{{_of(policy)}}}) == 0",
        Severity.WARNING,
        "none",
        "Endpoint {{ $labels.endpoint }} of pool {{ $labels.pool }} is down",
        anchored("EndpointDown"),
        "One replica does not answer. The gateway sends its share to the others; the pool has less to give.",
        "Find out whether its process is gone (refused), hangs (time-outs) or cannot be reached (no route).",
        dwell=timedelta(minutes=1),
    )


def _budgets(policy: Policy) -> Iterator[Alert]:
    """Promises: how fast what may fail is used up, in the workbook's two windows at once."""
    if not any(objective.name == "availability" for objective in policy.objectives):
        return
    of = _of(policy)

    def burns(urgency: Urgency) -> str:
        return f"max by (service, objective) (controlplane_error_budget_burns{{{of}, urgency={quoted(urgency)}}}) == 1"

    page, ticket = (
        ", ".join(f"{r.factor(timedelta(days=30)):.3g}x over {r.spelled}" for r in RULES if r.urgency is urgency)
        for urgency in Urgency
    )
    yield Alert(
        "ErrorBudgetBurnsFast",
        burns(Urgency.PAGE),
        Severity.CRITICAL,
        level_of(policy, "error_rate"),
        "The error budget of {{ $labels.objective }} of {{ $labels.service }} burns fast",
        anchored("ErrorBudgetBurnsFast"),
        f"Users get errors so fast that the promise of the whole period is in danger within days ({page}, for a period "
        "of 30 days). It still goes on: the short window says so.",
        "Look at the open incident and its likely causes; if no row is engaged, pull the lever by hand.",
    )
    yield Alert(
        "ErrorBudgetBurnsSlowly",
        burns(Urgency.TICKET),
        Severity.WARNING,
        "none",
        "The error budget of {{ $labels.objective }} of {{ $labels.service }} burns slowly and steadily",
        anchored("ErrorBudgetBurnsSlowly"),
        f"Too few errors to trip a row, and too many to keep the promise ({ticket}, for a period of 30 days).",
        "Find the endpoint, model or client whose requests fail; take the time it needs.",
    )


def _threshold(policy: Policy, signal: Signal, threshold: Threshold, band: Band) -> Alert:
    level = threshold.breach if band is Band.BREACH else threshold.warn
    name, felt = camel(signal.name) + camel(band.value), signal.name in _FELT
    severe = Severity.CRITICAL if felt else Severity.WARNING
    mild = Severity.WARNING if felt else Severity.INFO
    side = "at or over" if signal.worse is Direction.UP else "at or under"
    wanted = f"{side} {spell_value(signal.name, level)}"
    return Alert(
        name,
        f"controlplane_signal_value{{{_of(policy)}, pool=~{one_of(_served(policy))}, signal={quoted(signal.name)}}} "
        f"{'>=' if signal.worse is Direction.UP else '<='} {number(level)}",
        severe if band is Band.BREACH else mild,
        level_of(policy, signal.name),
        f"{signal.name} of pool {{{{ $labels.pool }}}} is {_VALUE[signal.unit]} ({band} is {wanted})",
        anchored(name),
        f"{signal.definition} Over {spell_duration(threshold.window)} it is {wanted}; healthy is "
        f"{spell_value(signal.name, threshold.healthy)}.",
        _LOOK.get(signal.name, "See what changed: traffic, a release, or a replica that is missing."),
        dwell=threshold.dwell,
        labels={"signal": signal.name},
    )


_LOOK = {
    "availability": "See which kind of failure the probes report: refused, time-out, wrong status or no tokens.",
    "latency_p99": "See whether the queue or the engine is slow: a long queue wants capacity, an empty one a look at "
    "the GPUs, at prompt lengths and at the network.",
    "inter_token_latency_p99": "See the batch size, preemptions and the GPU's clocks: a throttled or shared GPU slows "
    "every token.",
    "error_rate": "Tell shed load (503, queue full) from failure (500): the first wants capacity, the second a "
    "rollback.",
    "kv_cache_utilization": "See the number and length of running requests; at the top the engine preempts and "
    "recomputes.",
    "cpu_utilization": "See what else runs on the node; tokenization and scheduling starve before the GPU does.",
    "memory_utilization": "See whether it grows without end: the kernel kills the engine when it is used up.",
    "gpu_utilization": "A busy GPU is what you pay for; it matters together with latency. See who else uses it.",
}


def _worst(policy: Policy) -> Level:
    return max(policy.degradation.rows, key=LEVELS.index, default=Level.NONE)


def _degradation(policy: Policy) -> Iterator[Alert]:
    for level in (level for level in reversed(LEVELS) if level in policy.degradation.rows):
        yield from _row(policy, policy.degradation.rows[level])
    if policy.degradation.rows:
        yield _objective_missed(policy)
        yield waits(policy)
        yield braked(policy)


def _row(policy: Policy, row: Row) -> Iterator[Alert]:
    of, page = _of(policy), f"runbooks/{page_name(row)}.md"
    worst = row.level is Level.P0
    within, doing = spell_duration(row.within), literal(spell_doing(row))
    yield Alert(
        "DegradationEngaged",
        f"max by (service) (controlplane_level{{{of}, level={quoted(row.level)}}}) == 1",
        Severity.CRITICAL if worst else Severity.WARNING,
        row.level,
        f"{literal(inert(policy.service))} is degraded to {row.level}: {doing}",
        page,
        f"Row {row.level} is in force: {doing}. Users are served, with less in reserve than usual.",
        "Follow the page of the row.",
    )
    yield Alert(
        "DegradationNotEngaging",
        f"max by (service, row) (controlplane_row_phase{{{of}, row={quoted(row.level)}, "
        'phase=~"engaging|failed"}) == 1',
        Severity.CRITICAL,
        row.level,
        f"{row.level} is wanted and not in force: could not {doing}",
        page,
        f"Row {row.level} has tripped and its lever does not move, or is not verified. Users feel the fault in full "
        f"while the promise of {within} runs.",
        "Pull the lever by hand, as the page of the row says.",
        dwell=min(timedelta(seconds=30), row.within / 10),
    )
    yield Alert(
        "FallbackPoolNotReady",
        f"max by (service, pool) (controlplane_verdict{{{of}, pool={quoted(row.target)}, "
        f'verdict=~"breach|unknown"}}) == 1',
        Severity.WARNING,
        row.level,
        "Pool {{ $labels.pool }} could not take the traffic " + f"that row {row.level} would give it",
        page,
        f"The pool that row {row.level} leans on is in breach or unknown. Until it is well, the row promises what it "
        "cannot keep.",
        "Mend the pool as if it served users: in the next fault it will.",
        dwell=timedelta(minutes=1),
    )


def _objective_missed(policy: Policy) -> Alert:
    where = f'{_of(policy)}, phase="verified"'
    took = promql.mean_since("controlplane_switch_seconds", where, "service, row", "1h")
    return Alert(
        "ObjectiveMissed",
        f"{took}\n> on (service, row)\nmax by (service, row) (controlplane_row_objective_seconds{{{_of(policy)}}})",
        Severity.CRITICAL,
        _worst(policy),
        "Row {{ $labels.row }} took {{ $value | humanizeDuration }} from detection to verified, more than it promises",
        anchored("ObjectiveMissed"),
        "In the last hour a row restored service later than its objective. The plan is slower than what users "
        "were told.",
        "See in the receipt which phase took long: deciding, moving the lever, or the gateway showing it.",
    )


def _engine(policy: Policy) -> Iterator[Alert]:
    names, of = names_for_rules(policy.fleet.engine), promql.engine_matcher(policy.service)
    for name, threshold in policy.thresholds.items():
        window = promql.span(threshold.window)
        value = promql.engine_value(name, names, f'{of}, pool="primary"', window, "service, pool")
        if value is not None and name not in DCGM.gauges:  # A busy GPU alone is not ill; see the warning above it.
            samples = promql.engine_samples(name, names, f'{of}, pool="primary"', window, "service, pool")
            yield _seen_by_engine(policy, CATALOGUE[name], threshold, value, samples)
    yield from overloaded(policy, names, of)
    stalled = promql.engine_stalled(names, of, "service, pool, instance")
    if stalled is None:
        return
    yield Alert(
        "EngineStalled",
        stalled,
        Severity.CRITICAL,
        level_of(policy, "availability"),
        "{{ $labels.instance }} runs {{ $value }} requests and generates no token",
        anchored("EngineStalled"),
        "The engine holds requests and makes no progress. Its health check still answers 200. A hang that begins "
        "while the engine is idle does not show here; the completion probe sees it.",
        "Take the endpoint out of rotation, keep its stacks and logs, restart it.",
        dwell=timedelta(seconds=30),
    )


def _seen_by_engine(policy: Policy, signal: Signal, threshold: Threshold, value: str, samples: str | None) -> Alert:
    name = f"Engine{camel(signal.name)}Breach"
    up = signal.worse is Direction.UP
    expr = f"{promql.grouped(value)} {'>=' if up else '<='} {number(threshold.breach)}"
    how = "As the engine itself shows it now."
    if samples:
        expr += f"\nand\n{promql.grouped(samples)} >= {threshold.min_samples}"
        how = (
            f"Counted by the engine itself over {spell_duration(threshold.window)}, all endpoints merged, at least "
            f"{threshold.min_samples} samples. What never reached the engine, or died with it, is not in it."
        )
    felt = signal.name in _FELT
    return Alert(
        name,
        expr,
        Severity.CRITICAL if felt else Severity.WARNING,
        level_of(policy, signal.name),
        f"{signal.name} of pool {{{{ $labels.pool }}}} is {_VALUE[signal.unit]} by the engine's own count "
        f"(breach is {spell_value(signal.name, threshold.breach)})",
        anchored(name),
        f"{signal.definition} {how}",
        _LOOK.get(signal.name, "Compare with what the gateway saw."),
        dwell=threshold.dwell,
        labels={"signal": signal.name},
    )


def _drills(policy: Policy) -> Iterator[Alert]:
    if policy.fleet.substrate is None:
        return
    limit = DRILL_PERIOD + DRILL_GRACE
    for experiment in dict.fromkeys(e for plan in policy.drills.values() for e in plan.experiments):
        passed = f"controlplane_drill_last_passed_timestamp_seconds{{experiment={quoted(experiment)}}}"
        said = literal(inert(experiment))
        yield Alert(
            "DrillOverdue",
            f"time() - max by (experiment) ({passed}) > {number(limit.total_seconds())}",
            Severity.WARNING,
            "none",
            f"Drill {said} last passed {{{{ $value | humanizeDuration }}}} ago",
            anchored("DrillOverdue"),
            f"It should pass every month; {limit.days} days are over. Everything may have changed since.",
            "Run the drill in a quiet hour, or find out what refused it.",
            dwell=timedelta(minutes=5),
            labels={"experiment": literal(experiment)},
        )
        yield Alert(
            "DrillNeverPassed",
            f"absent({passed})\nand on ()\nmax(controlplane_ready) == 1",
            Severity.WARNING,
            "none",
            f"Drill {said} has never passed here",
            anchored("DrillNeverPassed"),
            "A degradation plan that nobody has rehearsed is a guess.",
            "Run the drill in a quiet hour.",
            dwell=timedelta(hours=1),
            labels={"experiment": literal(experiment)},
        )
    yield Alert(
        "DrillFailed",
        promql.grew('controlplane_drills_total{outcome=~"failed|invalid|aborted"}', "1d"),
        Severity.WARNING,
        "none",
        "Drill {{ $labels.experiment }} ended as {{ $labels.outcome }}",
        anchored("DrillFailed"),
        "A rehearsal did not prove its row: the row was too slow (failed), the fault was not real (invalid), or the "
        "run was cut short (aborted).",
        "Read the reasons of the drill; mend the plan before the fault comes by itself.",
    )


def _self(policy: Policy) -> Iterator[Alert]:
    yield Alert(
        "ControlPlaneDown",
        f'absent(controlplane_level{{{_of(policy)}, level="none"}})',
        Severity.CRITICAL,
        _worst(policy),
        f"No control plane watches {literal(inert(policy.service))}",
        anchored("ControlPlaneDown"),
        "Prometheus sees no control plane for this service. Traffic flows as the gateway was last told; nothing "
        "will be switched.",
        "Start it. Until it is back, the levers are yours.",
        dwell=timedelta(seconds=30),
    )
    yield Alert(
        "ControlPlaneNotReady",
        "max(controlplane_ready) == 0",
        Severity.WARNING,
        "none",
        "The control plane runs and is not ready",
        anchored("ControlPlaneNotReady"),
        "One of its parts does not work: the store, the inventory or the gateway's address.",
        "Ask it which part.",
        dwell=timedelta(minutes=1),
    )
    yield Alert(
        "ControlPlaneSlow",
        "max by (instance) (controlplane_loop_lag_seconds) > 0.5",
        Severity.WARNING,
        "none",
        "The control plane's loop is {{ $value | humanizeDuration }} late",
        anchored("ControlPlaneSlow"),
        "It is short of CPU: detection is as late as its loop, and time-outs it reports may be its own.",
        "Give its process CPU; see what else runs on its host.",
        dwell=timedelta(minutes=1),
    )
    yield Alert(
        "FaultOverstayed",
        "sum by (kind) (controlplane_faults_active) > 0",
        Severity.CRITICAL,
        "none",
        "{{ $value }} faults of kind {{ $labels.kind }} are still in force",
        anchored("FaultOverstayed"),
        f"No fault may be leased for longer than {spell_duration(MAX_LEASE)}. One that is still in force has outlived "
        "the substrate's own deadline and the control plane's.",
        "Heal it by hand.",
        dwell=MAX_LEASE,
    )
    yield Alert(
        "Watchdog",
        "vector(1)",
        Severity.NONE,
        "none",
        "Alerting works",
        anchored("Watchdog"),
        "It always fires. Have a service outside this Prometheus wake somebody when it stops arriving.",
        "When it is missing: see Prometheus, then Alertmanager, then the way between them.",
    )
