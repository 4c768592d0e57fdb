"""What the policy promises, beside what has been measured; on more than one dashboard; pure. Called by them."""

from controlplane.degradation.matrix import LEVELS
from controlplane.policy.model import DrillPlan, Policy, Slot
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown
from controlplane.render.dashboards.board import CONSOLE
from controlplane.render.dashboards.panels import Panel, bars, column, in_unit, now, prose, stat, table
from controlplane.render.dashboards.readings import OF, OURS
from controlplane.render.markdown import Table
from controlplane.render.wording import page_name, spell_doing

_NOTHING = DrillPlan(Slot(), ())


def runbook(policy: Policy) -> list[tuple[str, str, str, str]]:
    """Return every armed row: its level, what it does, its promise, its runbook's address; the most severe first."""
    armed = sorted(policy.degradation.rows.items(), key=lambda item: LEVELS.index(item[0]), reverse=True)
    return [
        (level.value, spell_doing(row), spell_duration(row.within), f"{CONSOLE}/runbooks/{page_name(row)}")
        for level, row in armed
    ]  # fmt: skip


def promised(policy: Policy) -> Panel:
    """Return what each row does, what it promises, and where its runbook is."""
    rows = [
        (f"**{level}**", markdown.text(does), within, f"[runbook]({address})")
        for level, does, within, address in runbook(policy)
    ]  # fmt: skip
    shown = Table(("Row", "What it does", "Promise", "Runbook"), rows or [("-",) * 4])
    return prose(
        "What is promised", markdown.table(shown),
        "The rows of the matrix as the policy page has them; the promise is the time from detection to restored "
        "service.",
    )  # fmt: skip


def proof_age(policy: Policy) -> Panel:
    """Return how long ago each drill last passed."""
    plan = min(policy.drills.values(), key=lambda plan: plan.overdue_after, default=_NOTHING)
    overdue_s = plan.overdue_after.total_seconds()
    passed = f"max by (experiment) (controlplane_drill_last_passed_timestamp_seconds{{{OURS}}})"
    return stat( "Age of the proof", [now(f"time() - {passed}", "{{experiment}}")],
        "How long ago each drill last passed. A plan nobody has rehearsed is a guess; after "
        f"{spell_duration(plan.overdue_after)} it is overdue.", unit="s",
        steps=(("green", None), ("yellow", overdue_s * 0.8), ("red", overdue_s)),
        defaults={"noValue": "no drill has passed", "decimals": 0}, colorMode="value",
        options={"textMode": "value_and_name"},
    )  # fmt: skip


def switch_times() -> Panel:
    """Return how long each row took to each phase, beside what it promises."""

    def took(phase: str, ref: str) -> dict[str, object]:
        where = f'{OF}, phase="{phase}"'
        total, count = (f"sum by (row) (controlplane_switch_seconds_{part}{{{where}}})" for part in ("sum", "count"))
        return now(f"{total} / ({count} > 0)", "", ref, form="table")

    shown = {"row": "Row", "Value #A": "decided", "Value #B": "intended", "Value #C": "acted", "Value #D": "verified",
             "Value #E": "slowest below", "Value #F": "promise", "Value #G": "times"}  # fmt: skip
    verified = f'{{{OF}, phase="verified"}}'
    slowest = f"histogram_quantile(1, sum by (row, le) (controlplane_switch_seconds_bucket{verified}))"
    return table( "From detection to each phase, against the promise",
        [
            took("decided", "A"), took("intended", "B"), took("acted", "C"), took("verified", "D"),
            now(f"{slowest} > 0", "", "E", form="table"),
            now(f"max by (row) (controlplane_row_objective_seconds{{{OF}}})", "", "F", form="table"),
            now(f"sum by (row) (controlplane_switch_seconds_count{verified})", "", "G", form="table"),
        ],
        "Means of all switches since the control plane started, drills and real ones. Intended: the receipt is stored, "
        "nothing is touched yet. Slowest below: the edge of the histogram's bucket that no switch went beyond. "
        "Promise: the row's objective, from detection to restored service.",
        shown, unit="s", overrides=[column("times", in_unit("short"), {"id": "decimals", "value": 0})],
    )  # fmt: skip


def promise_spent() -> Panel:
    """Return how much of its promise each row's switches took."""
    where = f'{OF}, phase="verified"'
    total, count = (f"sum by (row) (controlplane_switch_seconds_{part}{{{where}}})" for part in ("sum", "count"))
    objective = f"max by (row) (controlplane_row_objective_seconds{{{OF}}})"
    return bars( "Share of the promise that was needed",
        [now(f"({total} / ({count} > 0)) / {objective}", "{{row}}")],
        "Mean time from detection to verified, as a share of the row's objective. 100% is late. A row that has never "
        "engaged is not here.", unit="percentunit",
        steps=(("green", None), ("yellow", 0.5), ("red", 1.0)),
        defaults={"max": 1, "decimals": 2, "noValue": "no row has engaged yet"},
    )  # fmt: skip
