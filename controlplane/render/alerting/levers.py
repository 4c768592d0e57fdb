"""Alerts about what holds the matrix back, and the alert that its rows may wait for; pure. Called by `alerts`."""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.degradation.matrix import LEVELS, Level, alerts_of
from controlplane.policy.model import Policy
from controlplane.render import promql
from controlplane.render.alerting.rules import Alert, Severity, anchored
from controlplane.render.promql import quoted
from controlplane.signals.engines import EngineNames

OVERLOADED = "InferenceOverloaded"
"""The name under which the default matrix waits for it."""
OVERLOADED_QUEUE = 100
"""As many waiting requests as trip the default row by our own probes."""


def _of(policy: Policy) -> str:
    return f"service={quoted(policy.service)}"


def waits(policy: Policy) -> Alert:
    """A row is wanted, and people or a rule hold it back."""
    return Alert(
        "RowWaitsForPerson",
        f"max by (service, row) (controlplane_row_waits{{{_of(policy)}}}) == 1",
        Severity.CRITICAL,
        max(policy.degradation.rows, key=LEVELS.index, default=Level.NONE),
        "Row {{ $labels.row }} would engage and waits for a person",
        anchored("RowWaitsForPerson"),
        "Its trigger holds, and its mode or the brake keeps it from acting: users feel the fault until a person "
        "approves it or refuses.",
        "See `controlplane level`; then `controlplane approve` or `controlplane refuse` the row.",
    )


def braked(policy: Policy) -> Alert:
    """The brake is on."""
    return Alert(
        "MatrixBraked",
        f"max by (service) (controlplane_brake{{{_of(policy)}}}) == 1",
        Severity.CRITICAL,
        max(policy.degradation.rows, key=LEVELS.index, default=Level.NONE),
        "The matrix of {{ $labels.service }} is braked: nothing engages or is given back by itself",
        anchored("MatrixBraked"),
        f"The rows switched more than {policy.degradation.max_switches_per_hour} times within an hour, or a person "
        "pulled the brake. Traffic is still taken back from a primary that breaks on the way back.",
        "Find out what goes back and forth (`controlplane record`, `controlplane simulate`); then let go: "
        "`controlplane brake release`.",
    )


def overloaded(policy: Policy, names: EngineNames, of: str) -> Iterator[Alert]:
    """The alert that rows may name as their trigger: Prometheus sees the overload, whatever our probes see."""
    waiting = promql.engine_value("queue_depth", names, f'{of}, pool="primary"', "1m", "service, pool")
    rows = [row for row in policy.degradation.rows.values() if OVERLOADED in alerts_of(row.when)]
    if waiting is None or not rows:
        return
    level = max((row.level for row in rows), key=LEVELS.index)
    yield Alert(
        OVERLOADED,
        f"{promql.grouped(waiting)} >= {OVERLOADED_QUEUE}",
        Severity.WARNING,
        level,
        "{{ $value }} requests wait in pool {{ $labels.pool }}",
        anchored(OVERLOADED),
        f"By the engine's own count {OVERLOADED_QUEUE} requests or more wait for a place in a batch. Row {level} trips "
        "by it once Alertmanager tells the control plane.",
        "See whether traffic grew or a replica is missing; the row sheds what it can meanwhile.",
        dwell=timedelta(seconds=15),
    )
