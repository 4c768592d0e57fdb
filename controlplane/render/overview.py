"""The fleet overview: how one service stands, what was done about it, and whether the plan is proven; pure.

What each panel asks and means, made from the policy; `dashboards` knows how Grafana wants it written. Called by
`artefacts`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from controlplane.chaos.drill import Drill, Outcome
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import LEVELS, Level
from controlplane.fleet.model import GATEWAY_POOL
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown, promql
from controlplane.render.alerts import DRILL_GRACE, DRILL_PERIOD
from controlplane.render.dashboards import (
    GREEN,
    Mark,
    Panel,
    Section,
    Shelf,
    Steps,
    Variable,
    bars,
    dashboard,
    dashed,
    lines,
    matching,
    named,
    now,
    prose,
    stat,
    table,
    target,
    timeline,
)
from controlplane.render.markdown import Table
from controlplane.render.runbooks.proof import evidence, headline, took_s
from controlplane.render.wording import page_name, spell_doing
from controlplane.signals.engines import names_for_rules
from controlplane.signals.sample import CATALOGUE, Direction, Signal, Unit
from controlplane.slo.threshold import SEVERITY, Band, Threshold

UID = "controlplane-fleet-overview"
"""Links to the dashboard survive renaming it."""

OF = 'service="$service"'
POOL = f'{OF}, pool=~"$pool"'
ENGINE = 'service=~"|${service:regex}", pool=~"$pool"'

_UNITS = {Unit.SECONDS: "s", Unit.RATIO: "percentunit", Unit.COUNT: "short", Unit.PER_SECOND: "short",
          Unit.CELSIUS: "celsius", Unit.WATTS: "watt"}  # fmt: skip
_GRAY = "#8e8e8e"
_LEVEL_COLORS = {Level.NONE: "green", Level.P2: "yellow", Level.P1: "orange", Level.P0: "red"}
_BAND_COLORS = {Band.OK: "green", Band.UNKNOWN: _GRAY, Band.WARN: "yellow", Band.BREACH: "red"}
_PHASE_COLORS = {
    Phase.IDLE: "green", Phase.PENDING: "yellow", Phase.ENGAGING: "orange", Phase.ENGAGED: "red",
    Phase.RELEASING: "blue", Phase.FAILED: "dark-red",
}  # fmt: skip
_POOL_COLORS = {GATEWAY_POOL: "#e0589a", "primary": "blue", "standby": "purple", "base": "orange"}
"""A pool has one colour wherever it is drawn; other pools get Grafana's, by name."""
_OUTCOME_COLORS = {
    Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.INVALID: "orange", Outcome.ABORTED: "orange",
    Outcome.REFUSED: _GRAY,
}  # fmt: skip


def fleet_overview(policy: Policy, drills: Sequence[Drill], header: str) -> str:
    """Return the fleet overview as Grafana's JSON.

    Args:
        policy: whose thresholds and rows the panels show.
        drills: the evidence, newest first.
        header: who made the file and what to edit instead.
    """
    return dashboard(
        UID,
        "Fleet overview",
        f"{header}. How an inference service stands, what was done about it, and whether the plan is proven.",
        _sections(policy, drills),
        variables=(
            Variable("service", "Service", "label_values(controlplane_level, service)", default=policy.service),
            Variable("pool", "Pool", f"label_values(controlplane_verdict{{{OF}}}, pool)"),
        ),
        marks=(
            Mark("Degraded", f'controlplane_level{{{OF}, level!="none"}} == 1', "red", "degraded to {{level}}"),
            Mark("Fault of a drill", "controlplane_faults_active > 0", "purple", "drill: {{kind}} in force"),
        ),
    )


def _sections(policy: Policy, drills: Sequence[Drill]) -> tuple[Section, ...]:
    return (
        Section(
            "How the service stands",
            (
                Shelf(
                    4,
                    ((4, _level_now()), *((4, p) for p in _users_now(policy)), (4, _endpoints_now()), (4, _open_now())),
                ),
                Shelf(5, ((12, _level_over_time()), (12, _rows_over_time()))),
                Shelf(6, ((24, _verdicts()),)),
            ),
        ),
        Section(
            "What users feel",
            (
                Shelf(8, ((12, _signal(policy, "availability")), (12, _signal(policy, "latency_p99")))),
                Shelf(8, ((12, _signal(policy, "error_rate")), (12, _signal(policy, "inter_token_latency_p99")))),
            ),
        ),
        Section(
            "Load and what is left",
            (
                Shelf(
                    7,
                    tuple(
                        (8, _signal(policy, f"{what}_utilization", engine=False)) for what in ("cpu", "memory", "gpu")
                    ),
                ),
                Shelf(7, ((8, _signal(policy, "kv_cache_utilization")), (8, _queue(policy)), (8, _tokens(policy)))),
                Shelf(6, ((12, _endpoints()), (12, _failed_looks()))),
            ),
        ),
        Section(
            "Promises and proof",
            (
                Shelf(7, ((12, _switch_times()), (12, _last_drill()))),
                Shelf(5, ((12, _outcomes()), (12, _proof_age()))),
                Shelf(5, ((24, _evidence(policy, drills)),)),
            ),
        ),
    )


# --- one panel each -------------------------------------------------------------------------------------------------


def _level_now() -> Panel:
    return stat( "Level", [now(f"max by (level) (controlplane_level{{{OF}}}) == 1", "{{level}}")],
        "The degradation level in force: the most severe engaged row of the matrix; `none` is how it should be.",
        options={"textMode": "name"}, overrides=[named(level, color) for level, color in _LEVEL_COLORS.items()],
        colorMode="background",
    )  # fmt: skip


def _users_now(policy: Policy) -> Iterator[Panel]:
    pool = GATEWAY_POOL if policy.fleet.gateway else "primary"
    where = "at the gateway" if policy.fleet.gateway else "of the primary pool"
    for name, title in (("availability", "Availability"), ("latency_p99", "P99 latency"), ("error_rate", "Error rate")):
        signal = CATALOGUE[name]
        yield stat( title, [now(f'controlplane_signal_value{{{OF}, pool="{pool}", signal="{name}"}}', title)],
            f"{signal.definition} Now, {where}: what users get.", unit=_UNITS[signal.unit],
            steps=_steps(signal, policy.thresholds.get(name)), defaults={"noValue": "unknown", "decimals": 2},
            colorMode="background",
        )  # fmt: skip


def _endpoints_now() -> Panel:
    up = f"controlplane_endpoint_up{{{POOL}}}"
    return stat( "Endpoints up", [now(f"sum(max by (pool, endpoint) ({up}))", "up"),
                                 now(f"count(max by (pool, endpoint) ({up}))", "of", "B")],
        "Endpoints that answer their probes, of all that the inventory lists.",
        overrides=[named("of", _GRAY)], orientation="vertical", options={"textMode": "value_and_name"},
    )  # fmt: skip


def _open_now() -> Panel:
    return stat( "Open", [now(f"max(controlplane_incidents_open{{{OF}}})", "incidents"),
                         now("sum(controlplane_faults_active) or vector(0)", "drill faults", "B")],
        "Incidents that are not resolved, and faults that a drill has in force right now.",
        steps=(("green", None), ("orange", 1)), options={"textMode": "value_and_name"}, orientation="vertical",
    )  # fmt: skip


def _level_over_time() -> Panel:
    code = _coded("controlplane_level", OF, "level", [level.value for level in LEVELS])
    return timeline(
        "Level over time", [target(f"max by (service) ({code})", "{{service}}")],
        "Which level was in force when.",
        [(i, level.value, _LEVEL_COLORS[level]) for i, level in enumerate(LEVELS)],
    )  # fmt: skip


def _rows_over_time() -> Panel:
    code = _coded("controlplane_row_phase", OF, "phase", [phase.value for phase in Phase])
    return timeline(
        "Rows of the matrix", [target(f"max by (row) ({code})", "{{row}}")],
        "The phase each row's machine was in: pending waits out its time, engaging moves the lever; engaged: verified.",
        [(i, phase.value, _PHASE_COLORS[phase]) for i, phase in enumerate(Phase)],
    )  # fmt: skip


def _verdicts() -> Panel:
    bands = sorted(Band, key=SEVERITY.__getitem__)
    code = _coded("controlplane_verdict", POOL, "verdict", [band.value for band in bands])
    return timeline(
        "Verdict by pool", [target(f"max by (pool) ({code})", "{{pool}}")],
        "The worst known band of a pool's signals. No data is unknown, never ok.",
        [(SEVERITY[band], band.value, _BAND_COLORS[band]) for band in bands],
    )  # fmt: skip


def _signal(policy: Policy, name: str, *, engine: bool = True) -> Panel:
    """A signal by pool, with the policy's levels as lines, beside what the engine's own series say."""
    signal, threshold = CATALOGUE[name], policy.thresholds.get(name)
    expr = f'max by (pool) (controlplane_signal_value{{{POOL}, signal="{name}"}})'
    targets = [target(expr, "{{pool}}")]
    own = _engine_value(policy, name) if engine else None
    if own:
        targets.append(target(own, "{{pool}}, by the engine", "B"))
    ratio = signal.unit is Unit.RATIO
    custom = _room(signal, threshold)
    return lines( _TITLES[name], targets, _about(signal, threshold, own=bool(own)), unit=_UNITS[signal.unit],
        steps=_steps(signal, threshold), defaults={"min": 0, **({"max": 1} if ratio and name != "error_rate" else {})},
        custom=custom, overrides=_pool_looks(policy), thresholdsStyleMode="dashed" if threshold else "off",
    )  # fmt: skip


_TITLES = {
    "availability": "Availability",
    "latency_p99": "Request latency, P99",
    "error_rate": "Error rate",
    "inter_token_latency_p99": "Time between tokens, P99",
    "cpu_utilization": "CPU",
    "memory_utilization": "Memory",
    "gpu_utilization": "GPU",
    "kv_cache_utilization": "Key-value cache",
}


def _queue(policy: Policy) -> Panel:
    targets = [target(f'max by (pool) (controlplane_signal_value{{{POOL}, signal="queue_depth"}})', "{{pool}}")]
    own = _engine_value(policy, "queue_depth")
    if own:
        targets.append(target(own, "{{pool}}, by the engine", "B"))
    return lines(
        "Queue", targets,
        "Requests waiting for a place in a batch. A queue that grows while tokens per second stand still is a pool at "
        "its end.", unit="short", defaults={"min": 0}, overrides=_pool_looks(policy),
    )  # fmt: skip


def _tokens(policy: Policy) -> Panel:
    targets = [
        target(f'max by (pool) (controlplane_signal_value{{{POOL}, signal="tokens_rate"}})', "{{pool}}"),
    ]
    own = _engine_value(policy, "tokens_rate")
    if own:
        targets.append(target(own, "{{pool}}, by the engine", "B"))
    return lines( "Generated tokens", targets,
        "What the pools produce. Falling while requests run means the engines are stuck or preempting.",
        unit="suffix: tok/s", defaults={"min": 0}, overrides=_pool_looks(policy),
    )  # fmt: skip


def _endpoints() -> Panel:
    return timeline(
        "Endpoints", [target(f"max by (pool, endpoint) (controlplane_endpoint_up{{{POOL}}})", "{{pool}} {{endpoint}}")],
        "Which endpoint answered its probes when.", [(0, "down", "red"), (1, "up", "green")],
    )  # fmt: skip


def _failed_looks() -> Panel:
    looks = 'controlplane_probes_total{result!="ok"}'
    return lines( "Failed looks, by kind", [target(f"sum by (probe, result) (rate({looks}[$__rate_interval]))",
                                                        "{{probe}}: {{result}}")],
        "Refused: nothing listens there. Time-out: it hangs, or the network is cut. Status or answer: it runs and is "
        "wrong. A health check that passes while completions time out is a hung engine.",
        unit="cps", defaults={"min": 0},
    )  # fmt: skip


def _switch_times() -> Panel:
    def took(phase: str, ref: str) -> dict[str, Any]:
        where = f'{OF}, phase="{phase}"'
        total, count = (f"sum by (row) (controlplane_switch_seconds_{part}{{{where}}})" for part in ("sum", "count"))
        return now(f"{total} / ({count} > 0)", "", ref, form="table")

    shown = {"row": "Row", "Value #A": "decided", "Value #B": "acted", "Value #C": "verified", "Value #D": "promise",
             "Value #E": "times"}  # fmt: skip
    verified = f'controlplane_switch_seconds_count{{{OF}, phase="verified"}}'
    return table( "From detection to each phase, against the promise",
        [
            took("decided", "A"), took("acted", "B"), took("verified", "C"),
            now(f"max by (row) (controlplane_row_objective_seconds{{{OF}}})", "", "D", form="table"),
            now(f"sum by (row) ({verified})", "", "E", form="table"),
        ],
        "Means of all switches since the control plane started, drills and real ones; `promise`: the row's objective.",
        unit="s",
        overrides=[{"matcher": {"id": "byName", "options": "times"}, "properties": [{"id": "unit", "value": "short"}]}],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": {"Time": True}, "renameByName": shown,
                "indexByName": {name: i for i, name in enumerate(shown)},
            }},
        ],
    )  # fmt: skip


def _last_drill() -> Panel:
    phases = "sort(max by (experiment, phase) (controlplane_drill_phase_seconds))"
    return bars(
        "Last drill: seconds from the fault", [now(phases, "{{phase}}, {{experiment}}")],
        "When each phase of the newest drill was reached, in the order it happened.", unit="s",
    )  # fmt: skip


def _outcomes() -> Panel:
    overrides = [matching(f"/: {outcome}$/", color) for outcome, color in _OUTCOME_COLORS.items()]
    return bars(
        "Drills by outcome", [now("sum by (experiment, outcome) (controlplane_drills_total)",
                                   "{{experiment}}: {{outcome}}")],
        "Refused: a gate was closed, nothing was touched. Invalid: the fault was not real, so it proves nothing.",
        unit="short", overrides=overrides, defaults={"noValue": "no drill yet", "decimals": 0},
    )  # fmt: skip


def _proof_age() -> Panel:
    overdue = (DRILL_PERIOD + DRILL_GRACE).total_seconds()
    return stat( "Age of the proof",
        [now("time() - max by (experiment) (controlplane_drill_last_passed_timestamp_seconds)", "{{experiment}}")],
        "How long ago each drill last passed. A plan nobody has rehearsed is a guess.", unit="s",
        steps=(("green", None), ("yellow", DRILL_PERIOD.total_seconds()), ("red", overdue)),
        defaults={"noValue": "no drill has passed", "decimals": 0}, colorMode="value",
        options={"textMode": "value_and_name"},
    )  # fmt: skip


def _evidence(policy: Policy, drills: Sequence[Drill]) -> Panel:
    """What the page promises beside what drills have measured, as it stood when this file was rendered."""
    rows = []
    for level, row in sorted(policy.degradation.rows.items(), key=lambda item: LEVELS.index(item[0]), reverse=True):
        proofs = evidence(row, drills)
        last = took_s(proofs[0]) if proofs else None
        rows.append(
            (
                f"**{level}**", markdown.text(spell_doing(row)), spell_duration(row.within),
                "-" if last is None else f"{last:.2f} s", headline(row, drills), f"`runbooks/{page_name(row)}.md`",
            )
        )  # fmt: skip
    shown = Table(("Row", "What it does", "Promise", "Measured", "Proof", "Runbook"), rows or [("-",) * 6])
    return prose(
        "Promised and measured", markdown.table(shown), "From the policy page, and the drills known at rendering."
    )  # fmt: skip


def _pool_looks(policy: Policy) -> list[dict[str, Any]]:
    """Colour series by pool, and dash what the engine counts itself."""
    pools = (GATEWAY_POOL, *policy.fleet.pools)
    colored = [matching(f"/^{name}\\b/", _POOL_COLORS[name]) for name in pools if name in _POOL_COLORS]
    return [*colored, dashed("/by the engine$/")]


def _coded(metric: str, where: str, label: str, values: Sequence[str]) -> str:
    """Turn one-hot series into one number: the position of the value that is 1."""
    return " or ".join(f'{i} * {metric}{{{where}, {label}="{value}"}}' for i, value in enumerate(values))


def _steps(signal: Signal, threshold: Threshold | None) -> Steps:
    """Colour by the policy's levels, from the base up."""
    if threshold is None:
        return GREEN
    if signal.worse is Direction.UP:
        return (("green", None), ("yellow", threshold.warn), ("red", threshold.breach))
    return (("red", None), ("yellow", threshold.breach), ("green", threshold.warn))


def _room(signal: Signal, threshold: Threshold | None) -> dict[str, Any]:
    """Leave room above the breach line, so that it is always in the picture."""
    if threshold is None or signal.worse is Direction.DOWN:
        return {}
    return {"axisSoftMax": round(threshold.breach * 1.25, 6)}


def _about(signal: Signal, threshold: Threshold | None, *, own: bool) -> str:
    lines = [signal.definition]
    if threshold:
        lines.append(
            f"Judged over {spell_duration(threshold.window)}; the lines are the policy's warn and breach levels."
        )
    if own:
        lines.append("Dashed: the engine's own count, endpoints merged.")
    return " ".join(lines)


def _engine_value(policy: Policy, name: str) -> str | None:
    return promql.engine_value(name, names_for_rules(policy.fleet.engine), ENGINE, "$__rate_interval", "pool")
