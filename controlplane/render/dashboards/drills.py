"""Chaos drills: what is broken on purpose now, how drills ended, how fast, and how old the proof is; pure.

Called by `collection`.
"""

from controlplane.chaos.drill import DrillPhase
from controlplane.chaos.score import TIMES
from controlplane.policy.model import Policy
from controlplane.render.dashboards import palette, readings
from controlplane.render.dashboards.board import CONSOLE, Board, Mark, Section, Shelf, Variable
from controlplane.render.dashboards.overview import DEGRADED, FAULT, level_over_time
from controlplane.render.dashboards.palette import ALARM
from controlplane.render.dashboards.panels import (
    Panel,
    bars,
    column,
    columns,
    in_unit,
    lines,
    linked,
    matching,
    now,
    stat,
    table,
    target,
    timeline,
)
from controlplane.render.dashboards.promises import promised, proof_age
from controlplane.render.dashboards.readings import OF, OURS, at_most, signal

UID = "controlplane-drills"

EXPERIMENT = Variable(
    "experiment", "Experiment", f"label_values(controlplane_drills_total{{{OURS}}}, experiment)"
)  # fmt: skip
_DRILL = f'{OURS}, experiment=~"$experiment"'
_GATEWAY = f'{OF}, pool="gateway"'
_EVERY = f"0 * max by (experiment) (controlplane_drills_total{{{_DRILL}}})"


def board(policy: Policy) -> Board:
    """Return the drills of a policy's service."""
    users = _GATEWAY if policy.fleet.gateway else f'{OF}, pool="primary"'
    return Board(
        UID,
        "Chaos drills",
        "What is broken on purpose now, how drills ended and how fast, and whether the plan is still proven.",
        (
            Section(
                "Now",
                (
                    Shelf(4, ((5, _running()), (5, _faults_now()), (4, _halted()), (5, _overdue()), (5, _score()))),
                    Shelf(6, ((24, _faults()),)),
                    Shelf(5, ((24, level_over_time()),)),
                ),
            ),
            Section(
                "What users got meanwhile",
                (
                    Shelf(
                        7,
                        (
                            (12, signal(policy, "availability", engine=False, pools=users)),
                            (12, signal(policy, "latency_p99", engine=False, pools=users)),
                        ),
                    ),
                ),
            ),
            Section(
                "Outcomes and times",
                (
                    Shelf(7, ((8, _outcomes()), (16, _last_drill()))),
                    Shelf(7, ((14, _times()), (10, _medians()))),
                ),
            ),
            Section(
                "Proof",
                (
                    Shelf(6, ((8, proof_age(policy)), (8, _ended()), (8, _postponed()))),
                    Shelf(6, ((24, promised(policy)),)),
                ),
            ),
        ),
        (readings.service(policy), readings.INSTANCE, EXPERIMENT, readings.CONSOLE),
        (
            Mark("Drill", f"controlplane_drill_running{{{_DRILL}}} == 1", palette.DRILL, "drill {{experiment}}"),
            FAULT,
            DEGRADED,
        ),
        since="now-6h",
    )


def _running() -> Panel:
    running = f"max by (experiment) (controlplane_drill_running{{{_DRILL}}})"
    return linked(
        stat( "Drills running", [now(f"sum({running})", "running")],
            "Drills that run now; only one runs at a time.", steps=(("green", None), (palette.DRILL, 1)),
            colorMode="background"),
        "Drills on the console", CONSOLE,
    )  # fmt: skip


def _faults_now() -> Panel:
    return stat( "Faults in force", [now(f"sum(max by (kind) (controlplane_faults_active{{{OURS}}}))", "faults")],
        "Faults that are leased and not healed yet; each ends by itself at its lease's deadline.",
        steps=(("green", None), (palette.FAULT, 1)), colorMode="background",
    )  # fmt: skip


def _halted() -> Panel:
    return stat( "Drills halted", [now(f"max(controlplane_drills_halted{{{OURS}}})", "halted")],
        "Whether somebody has halted every drill: `controlplane resume` lets them start again.",
        steps=(("green", None), ("orange", 1)), colorMode="background",
        mappings=[{"type": "value", "options": {"0": {"text": "no", "index": 0}, "1": {"text": "halted", "index": 1}}}],
    )  # fmt: skip


def _overdue() -> Panel:
    overdue = f"max by (experiment) (controlplane_drill_overdue{{{_DRILL}}})"
    return stat( "Drills overdue", [now(f"sum({overdue}) or vector(0)", "overdue")],
        "Scheduled experiments that have not passed for longer than the page allows.", steps=ALARM,
        colorMode="background",
    )  # fmt: skip


def _score() -> Panel:
    return stat( "Score", [now(f"max(controlplane_drill_score_ratio{{{OURS}}})", "passed")],
        "Share of the drills that passed in the newest month with one; one that could not tell did not pass.",
        unit="percentunit", steps=(("red", None), ("yellow", 0.8), ("green", 1.0)), colorMode="background",
        defaults={"noValue": "no drill yet", "decimals": 0},
    )  # fmt: skip


def _faults() -> Panel:
    kinds = f"max by (kind) ({at_most(f'controlplane_faults_active{{{OURS}}}')})"
    panel = timeline(
        "Faults in force over time", [target(f"clamp_max({kinds}, 1)", "{{kind}}")],
        "Which kind of fault was in force when, by the leases that the control plane holds.",
        [(0, "none", palette.GRAY), (1, "in force", palette.FAULT)],
    )  # fmt: skip
    panel.showValue = "never"
    return panel


def _outcomes() -> Panel:
    overrides = [matching(f"/: {outcome}$/", color) for outcome, color in palette.OUTCOMES.items()]
    counted = f"sum by (experiment, outcome) (controlplane_drills_total{{{_DRILL}}})"
    return bars(
        "Drills by outcome", [now(counted, "{{experiment}}: {{outcome}}")],
        "Since the control plane started. Refused: a gate was closed, nothing was touched. Invalid: the fault was not "
        "real, so it proves nothing. Aborted: stopped before it could tell.",
        unit="short", overrides=overrides, defaults={"noValue": "no drill yet", "decimals": 0},
    )  # fmt: skip


def _last_drill() -> Panel:
    phases = f"sort(max by (experiment, phase) (controlplane_drill_phase_seconds{{{_DRILL}}}))"
    return bars(
        "Last drill: seconds from the fault", [now(phases, "{{phase}}, {{experiment}}")],
        "When each phase of the newest drill of each experiment was reached, in the order it happened.", unit="s",
        defaults={"noValue": "no drill since the control plane started"},
    )  # fmt: skip


def _times() -> Panel:
    refs = dict(zip((phase for phase in DrillPhase if phase is not DrillPhase.FAULT), "ABCDEF", strict=True))
    seconds = f"max by (experiment) (controlplane_drill_phase_seconds{{{_DRILL}, phase="
    queries = [now(f'{seconds}"{phase}"}})', "", ref, form="table") for phase, ref in refs.items()]
    return table( "Last drill of each experiment", queries,
        "Seconds from the fault to each phase. Detected to verified is what the row's promise is held against; healed: "
        "the last fault is taken back; recovered: the traffic is where it was.",
        {"experiment": "Experiment", **{f"Value #{ref}": phase.value for phase, ref in refs.items()}}, unit="s",
        overrides=[column("Experiment", in_unit("string"))],
    )  # fmt: skip


def _medians() -> Panel:
    shown = ", ".join(f"{name}: the fault to {phase}" for name, phase in TIMES.items())
    return bars( "Median times of the month", [now(f"max by (time) (controlplane_drill_median_seconds{{{OURS}}})",
                                                   "{{time}}")],
        f"Over the drills of the newest month with one. {shown}.", unit="s", defaults={"noValue": "no drill yet"},
    )  # fmt: skip


def _ended() -> Panel:
    ended = f"sum by (experiment, outcome) (increase(controlplane_drills_total{{{_DRILL}}}[$__rate_interval]))"
    return columns( "Drills ended", [target(ended, "{{experiment}}: {{outcome}}")], "When drills ended, and how.",
        overrides=[matching(f"/: {outcome}$/", color) for outcome, color in palette.OUTCOMES.items()],
    )  # fmt: skip


def _postponed() -> Panel:
    put_off = f"sum by (experiment) (increase(controlplane_drill_postponed_total{{{_DRILL}}}[$__rate_interval]))"
    return lines( "Dates postponed", [target(f"{put_off} or {_EVERY}", "{{experiment}}")],
        "Attempts at a date of the schedule that a closed gate postponed; it is tried again inside the plan's window.",
        unit="short", defaults={"min": 0, "decimals": 0},
    )  # fmt: skip
