"""Degradation and incidents: which level when, which levers moved, in what time, and what waits for people; pure.

Called by `collection`.
"""

from controlplane.degradation.matrix import LEVELS
from controlplane.policy.model import Policy
from controlplane.render.dashboards import palette, readings
from controlplane.render.dashboards.board import CONSOLE, Board, Mark, Section, Shelf
from controlplane.render.dashboards.overview import DEGRADED, FAULT, level_over_time, rows_over_time
from controlplane.render.dashboards.palette import ALARM
from controlplane.render.dashboards.panels import (
    Panel,
    bars,
    columns,
    lines,
    linked,
    matching,
    now,
    stat,
    target,
)
from controlplane.render.dashboards.promises import promise_spent, promised, runbook, switch_times
from controlplane.render.dashboards.readings import OF, POOL, signal
from controlplane.slo.burn import Urgency

UID = "controlplane-degradation"


def board(policy: Policy) -> Board:
    """Return degradation and incidents of a policy's service."""
    return Board(
        UID,
        "Degradation and incidents",
        "Which level was in force when, which levers were moved and how long it took, against the promises.",
        (
            Section(
                "Levels",
                (
                    Shelf(5, ((24, level_over_time()),)),
                    Shelf(6, ((24, _with_runbooks(policy, rows_over_time())),)),
                    Shelf(7, ((12, _traffic(policy)), (12, _share_of_time()))),
                ),
            ),
            Section(
                "Receipts",
                (
                    Shelf(6, ((24, switch_times()),)),
                    Shelf(6, ((12, _switches()), (12, promise_spent()))),
                ),
            ),
            Section(
                "Incidents and people",
                (
                    Shelf(4, ((6, _open()), (6, _waiting()), (6, _brake()), (6, _burning()))),
                    Shelf(7, ((12, _incidents()), (12, _worries()))),
                ),
            ),
            Section("Budgets and promises", (Shelf(7, ((12, _budget()), (12, promised(policy)))),)),
        ),
        (readings.service(policy), readings.POOL_CHOICE, readings.INSTANCE, readings.CONSOLE),
        (
            DEGRADED, FAULT,
            Mark("Lever verified",
                 f'changes(controlplane_switch_seconds_count{{{OF}, phase="verified"}}[$__interval]) > 0',
                 "green", "{{row}} verified"),
        ),
        since="now-6h",
    )  # fmt: skip


def _with_runbooks(policy: Policy, panel: Panel) -> Panel:
    """Lead from the rows to their runbooks."""
    for level, _, _, address in runbook(policy):
        panel = linked(panel, f"Runbook of {level}", address)
    return panel


def _traffic(policy: Policy) -> Panel:
    panel = signal(policy, "request_rate", engine=False, pools=POOL)
    panel.title = "Where the traffic went"
    panel.description = "Requests per second that each pool finished, and the gateway: what a lever moved is seen here."
    return panel


def _share_of_time() -> Panel:
    level = f"max by (level) (avg_over_time(controlplane_level{{{OF}}}[$__range]))"
    return bars( "Share of the time at each level", [now(level, "{{level}}")],
        "Of the time that is shown: how much of it each level was in force.", unit="percentunit",
        overrides=[matching(f"/^{name}$/", color) for name, color in palette.LEVELS.items()],
        defaults={"max": 1, "decimals": 2},
    )  # fmt: skip


def _switches() -> Panel:
    moved = f"sum by (row, outcome) (increase(controlplane_switches_total{{{OF}}}[$__rate_interval]))"
    return columns( "Levers pulled", [target(moved, "{{row}} {{outcome}}")],
        "Engagements by how they ended. Verified: proven in the gateway's live configuration and in real answers. "
        "Refused: its gate was closed, nothing was touched. Failed: it was taken back, see the receipt on the console.",
        overrides=[matching(f"/ {name}$/", color) for name, color in palette.SWITCHES.items()],
    )  # fmt: skip


def _open() -> Panel:
    return linked(
        stat( "Incidents open", [now(f"max by (service) (controlplane_incidents_open{{{OF}}})", "open")],
            "Incidents that are not resolved.", steps=ALARM, colorMode="background"),
        "Incidents on the console", CONSOLE,
    )  # fmt: skip


def _waiting() -> Panel:
    return linked(
        stat( "Waits for a person", [now(f"sum(max by (row) (controlplane_row_waits{{{OF}}}))", "rows")],
            "Rows that would engage and wait for somebody to approve them: `controlplane approve`.", steps=ALARM,
            colorMode="background"),
        "Approve on the console", CONSOLE,
    )  # fmt: skip


def _brake() -> Panel:
    said = {"0": {"text": "free", "index": 0}, "1": {"text": "pulled", "index": 1}}
    return stat( "Brake", [now(f"max by (service) (controlplane_brake{{{OF}}})", "brake")],
        "Pulled after too many switches in an hour, or by a person: nothing engages or is given back by itself until "
        "`controlplane brake release`.", steps=(("green", None), ("red", 1)), colorMode="background",
        mappings=[{"type": "value", "options": said}],
    )  # fmt: skip


def _burning() -> Panel:
    return stat( "Budgets burning", [now(f"sum(max by (objective, urgency) (controlplane_error_budget_burns{{{OF}}}))",
                                         "burns")],
        "Error budgets that burn too fast in two windows at once.", steps=ALARM, colorMode="background",
    )  # fmt: skip


def _incidents() -> Panel:
    degraded = 1 - len(LEVELS)
    severity = " or ".join(
        f'{i} * controlplane_level{{{OF}, level="{level.value}"}}' for i, level in enumerate(LEVELS) if i
    )
    return lines( "Incidents and level",
        [target(f"max by (service) (controlplane_incidents_open{{{OF}}})", "incidents open"),
         target(f"max by (service) ({severity})", "level", "B")],
        f"Open incidents beside the level in force (0 none to {-degraded} P0): an incident that outlives its level has "
        "not been closed, a level without one was not written down.", unit="short", defaults={"min": 0, "decimals": 0},
        overrides=[matching("/^level$/", palette.DEGRADED)],
    )  # fmt: skip


def _worries() -> Panel:
    told = f"sum by (row, worry) (increase(controlplane_worries_total{{{OF}}}[$__rate_interval]))"
    return columns( "What people had to hear", [target(told, "{{row}}: {{worry}}")],
        "Rows that failed, were late or pulled the brake, when they did.",
    )  # fmt: skip


def _budget() -> Panel:
    return lines( "Error budget left",
        [target(f"min by (objective) (controlplane_error_budget_left_ratio{{{OF}}})", "{{objective}}"),
         *(target(f'max by (objective) (controlplane_error_budget_burns{{{OF}, urgency="{urgency}"}})',
                  f"{{{{objective}}}} burns: {urgency}", ref)
           for urgency, ref in zip(Urgency, "BC", strict=True))],
        "What is left of each objective's error budget over its window, and when it burnt too fast: for a page, or for "
        "a ticket.", unit="percentunit", steps=(("red", None), ("green", 0.0)), thresholdsStyleMode="dashed",
        overrides=[matching(f"/: {urgency}$/", color) for urgency, color in palette.URGENCIES.items()],
    )  # fmt: skip
