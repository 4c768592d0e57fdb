"""The fleet overview: how one service stands, what users feel, what is left; pure.

The first place to look, and where every alert leads. Called by `collection`.
"""

from collections.abc import Iterator

from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import LEVELS
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.policy.model import Policy
from controlplane.render.dashboards import palette, readings
from controlplane.render.dashboards.board import Board, Mark, Section, Shelf
from controlplane.render.dashboards.gpus import gpus_at_a_glance
from controlplane.render.dashboards.palette import ALARM, GRAY, levels_of
from controlplane.render.dashboards.panels import (
    Panel,
    Target,
    colored,
    column,
    in_unit,
    lines,
    mapped,
    named,
    now,
    stat,
    table,
    target,
    timeline,
)
from controlplane.render.dashboards.promises import promised, proof_age
from controlplane.render.dashboards.readings import OF, OURS, POOL, TITLES, UNITS, at_least, coded, coded_over, signal
from controlplane.signals.sample import CATALOGUE, Direction
from controlplane.slo.threshold import SEVERITY, Band

UID = "controlplane-fleet-overview"
"""Links to the dashboard survive renaming it."""

BAND_STATES = tuple(
    (SEVERITY[band], band.value, palette.BANDS[band]) for band in sorted(Band, key=SEVERITY.__getitem__)
)  # fmt: skip

DEGRADED = Mark("Degraded", f'controlplane_level{{{OF}, level!="none"}} == 1', palette.DEGRADED, "degraded: {{level}}")
FAULT = Mark("Fault of a drill", f"controlplane_faults_active{{{OURS}}} > 0", palette.FAULT, "drill: {{kind}} in force")


def board(policy: Policy) -> Board:
    """Return the fleet overview of a policy's service."""
    return Board(
        UID,
        "Fleet overview",
        "How an inference service stands, what users feel, what is left, and what is promised.",
        (
            Section(
                "How the service stands",
                (
                    Shelf(4, tuple((4, panel) for panel in _at_a_glance(policy))),
                    Shelf(5, ((12, level_over_time()), (12, rows_over_time()))),
                    Shelf(8, ((10, _verdicts()), (14, _pools(policy)))),
                ),
            ),
            Section(
                "What users feel",
                (
                    Shelf(8, ((12, signal(policy, "availability")), (12, signal(policy, "latency_p99")))),
                    Shelf(8, ((12, signal(policy, "error_rate")), (12, signal(policy, "inter_token_latency_p99")))),
                ),
            ),
            Section(
                "Load and what is left",
                (
                    Shelf(
                        7,
                        (
                            (8, signal(policy, "cpu_utilization", engine=False)),
                            (8, signal(policy, "memory_utilization", engine=False)),
                            (8, signal(policy, "kv_cache_utilization")),
                        ),
                    ),
                    Shelf(
                        7,
                        ((8, signal(policy, "queue_depth")), (8, signal(policy, "request_rate")),
                         (8, signal(policy, "tokens_rate"))),
                    ),
                    Shelf(6, ((12, endpoints_over_time()), (12, _failed_looks()))),
                ),
            ),
            gpus_at_a_glance(policy),
            Section("Promises and proof", (Shelf(6, ((16, promised(policy)), (8, proof_age(policy)))),)),
        ),
        (readings.service(policy), readings.POOL_CHOICE, readings.INSTANCE, readings.GPU_POOLS, readings.CONSOLE),
        (DEGRADED, FAULT),
    )  # fmt: skip


def level_over_time() -> Panel:
    """Return which level was in force when."""
    code = coded_over("controlplane_level", OF, "level", [level.value for level in LEVELS])
    return timeline(
        "Level over time", [target(f"max by (service) ({code})", "{{service}}")],
        "Which level was in force when: the most severe engaged row of the matrix, and the worst in each step.",
        [(i, level.value, palette.LEVELS[level]) for i, level in enumerate(LEVELS)],
    )  # fmt: skip


def rows_over_time() -> Panel:
    """Return which phase each row of the matrix was in when."""
    code = coded_over("controlplane_row_phase", OF, "phase", [phase.value for phase in Phase])
    return timeline(
        "Rows of the matrix", [target(f"max by (row) ({code})", "{{row}}")],
        "The phase each row's machine was in: pending waits out its time, engaging moves the lever; engaged: verified.",
        [(i, phase.value, palette.PHASES[phase]) for i, phase in enumerate(Phase)],
    )  # fmt: skip


def endpoints_over_time() -> Panel:
    """Return which endpoint answered its probes when."""
    up = at_least(f"controlplane_endpoint_up{{{POOL}}}")
    return timeline(
        "Endpoints", [target(f"max by (pool, endpoint) ({up})", "{{pool}} {{endpoint}}")],
        "Which endpoint answered its probes when; down where it was at any moment of a step.",
        [(0, "down", "red"), (1, "up", "green")],
    )  # fmt: skip


def _at_a_glance(policy: Policy) -> Iterator[Panel]:
    yield stat( "Level", [now(f"max by (level) (controlplane_level{{{OF}}}) == 1", "{{level}}")],
        "The degradation level in force: the most severe engaged row of the matrix; `none` is how it should be.",
        options={"textMode": "name"}, overrides=[named(level, color) for level, color in palette.LEVELS.items()],
        colorMode="background",
    )  # fmt: skip
    yield from _users_now(policy)
    yield stat( "Error budget left", [now(f"min by (objective) (controlplane_error_budget_left_ratio{{{OF}}})",
                                          "{{objective}}")],
        "What is left of the error budget of each objective; below 0 it is overspent. Drills want some of it.",
        unit="percentunit", steps=(("red", None), ("yellow", 0.0), ("green", 0.25)), colorMode="value",
        defaults={"noValue": "no traffic counted yet", "decimals": 1},
    )  # fmt: skip
    up = f"max by (pool, endpoint) (controlplane_endpoint_up{{{POOL}}})"
    yield stat( "Open", [now(f"count({up} == 0) or vector(0)", "endpoints down"),
                         now(f"max(controlplane_incidents_open{{{OF}}})", "incidents", "B"),
                         now(f"sum(controlplane_faults_active{{{OURS}}}) or vector(0)", "drill faults", "C")],
        "Endpoints that do not answer their probes, incidents that are not resolved, and faults that a drill has in "
        "force right now.", steps=ALARM, options={"textMode": "value_and_name"}, orientation="vertical",
    )  # fmt: skip


def _users_now(policy: Policy) -> Iterator[Panel]:
    pool = GATEWAY_POOL if policy.fleet.gateway else PRIMARY
    where = "at the gateway" if policy.fleet.gateway else "of the primary pool"
    for name, title in (("availability", "Availability"), ("latency_p99", "P99 latency"), ("error_rate", "Error rate")):
        seen = CATALOGUE[name]
        worst = "max" if seen.worse is Direction.UP else "min"
        yield stat( title,
            [now(f'{worst} by (service) (controlplane_signal_value{{{OF}, pool="{pool}", signal="{name}"}})', title)],
            f"{seen.definition} Now, {where}: what users get.", unit=UNITS[seen.unit],
            steps=levels_of(seen, policy.thresholds.get(name)), defaults={"noValue": "unknown", "decimals": 2},
            colorMode="background",
        )  # fmt: skip


def _verdicts() -> Panel:
    code = coded_over("controlplane_verdict", POOL, "verdict", [name for _, name, _ in BAND_STATES])
    return timeline(
        "Verdict by pool", [target(f"max by (pool) ({code})", "{{pool}}")],
        "The worst known band of a pool's signals. No data is unknown, never ok.", BAND_STATES,
    )  # fmt: skip


def _pools(policy: Policy) -> Panel:
    """Return every pool in one line: its verdict, what its users feel, what it has left."""
    code = coded("controlplane_verdict", POOL, "verdict", [name for _, name, _ in BAND_STATES])
    queries: list[Target] = [now(f"max by (pool) ({code})", "", "A", form="table")]
    shown, looks = {"pool": "Pool", "Value #A": "Verdict"}, [column("Verdict", *mapped(BAND_STATES))]
    columns = {"availability": "Availability", "latency_p99": "P99", "error_rate": "Errors", "queue_depth": "Queue",
               "kv_cache_utilization": "KV cache", "request_rate": "Req/s"}  # fmt: skip
    for ref, (name, title) in zip("BCDEFG", columns.items(), strict=True):
        seen, worst = CATALOGUE[name], "min" if CATALOGUE[name].worse is Direction.DOWN else "max"
        expr = f'{worst} by (pool) (controlplane_signal_value{{{POOL}, signal="{name}"}})'
        queries.append(now(expr, "", ref, form="table"))
        shown[f"Value #{ref}"] = title
        threshold = policy.thresholds.get(name)
        looks.append(
            column(title, in_unit(UNITS[seen.unit]), {"id": "decimals", "value": 1},
                   *(colored(levels_of(seen, threshold)) if threshold else ()))
        )  # fmt: skip
    return table(
        "Pools now", queries,
        "Each pool's verdict and signals now, coloured by the policy's levels; an empty field is not known. "
        f"{TITLES['availability']} of a pool is the share of its looks that succeeded.",
        shown, overrides=looks,
    )  # fmt: skip


def _failed_looks() -> Panel:
    looks = f'controlplane_probes_total{{{OURS}, result!="ok"}}'
    every = f"0 * sum by (probe) (rate(controlplane_probes_total{{{OURS}}}[$__rate_interval]))"
    return lines( "Failed looks, by kind",
        [target(f"sum by (probe, result) (rate({looks}[$__rate_interval]))", "{{probe}}: {{result}}"),
         target(every, "{{probe}}", "B")],
        "Refused: nothing listens there. Time-out: it hangs, or the network is cut. Status or answer: it runs and is "
        "wrong. A health check that passes while completions time out is a hung engine.",
        unit="cps", defaults={"min": 0}, overrides=[named("", GRAY)],
    )  # fmt: skip
