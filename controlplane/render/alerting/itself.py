"""Alerts about the control plane itself, and about the way alerts take; pure."""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.chaos.fault import MAX_LEASE
from controlplane.incidents.firing import EVALUATED_AT, WATCHDOG
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.proof import SLOW_STEP, STEP, Proof, Wave, line
from controlplane.render.alerting.rules import Alert, Severity, anchored
from controlplane.render.alerting.subject import Subject
from controlplane.render.promql import number

_INSTANCE = {"instance": "10.0.0.9:8600"}
_SILENT = timedelta(minutes=1)
"""For so long a part that answers every few seconds may say nothing."""
_UNHEARD = timedelta(minutes=5)
"""For so long the watchdog, which is sent every minute, may not come in."""
_SILENT_LEAST = timedelta(seconds=10)
"""A database may be that slow without being ill."""
_NOT_YET_S = 3600.0
"""A time that the clock of a unit test, which begins at 0, does not reach: nothing is late by it."""


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group."""
    yield _down(subject)
    yield _not_ready()
    yield _loop_late()
    yield _judges_slowly()
    yield _store(subject)
    yield _nobody(subject)
    yield _two(subject)
    if subject.policy.alertmanager:
        yield _deaf(subject)
    yield _unheard()
    yield _overstayed()
    yield _watchdog()


def _down(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "level": "none"}
    return Alert(
        "ControlPlaneDown",
        f'absent(controlplane_level{{{subject.of}, level="none"}})',
        Severity.CRITICAL,
        subject.worst,
        f"No control plane watches {subject.service}",
        anchored("ControlPlaneDown"),
        "Prometheus sees no control plane for this service. Traffic flows as the gateway was last told; nothing "
        "will be switched.",
        "Start it. Until it is back, the levers are yours.",
        Proof((Wave(line("controlplane_level", **labels), None, well=1),), 1, labels),
        dwell=subject.patience(subject.worst, timedelta(seconds=30)),
    )


def _not_ready() -> Alert:
    return Alert(
        "ControlPlaneNotReady",
        "max(controlplane_ready) == 0",
        Severity.WARNING,
        "none",
        "The control plane runs and is not ready",
        anchored("ControlPlaneNotReady"),
        "One of its parts does not work: the store, the inventory or the gateway's address.",
        "Ask it which part.",
        Proof((Wave(line("controlplane_ready", **_INSTANCE), 0, well=1),), 0),
        dwell=timedelta(minutes=1),
    )


def _loop_late() -> Alert:
    return Alert(
        "ControlPlaneSlow",
        "max by (instance) (controlplane_loop_lag_seconds) > 0.5",
        Severity.WARNING,
        "none",
        "The control plane's loop is {{ $value | humanizeDuration }} late",
        anchored("ControlPlaneSlow"),
        "It is short of CPU: detection is as late as its loop, and time-outs it reports may be its own.",
        "Give its process CPU; see what else runs on its host.",
        Proof((Wave(line("controlplane_loop_lag_seconds", **_INSTANCE), 1.5, well=0.5),), 1.5, _INSTANCE),
        dwell=timedelta(minutes=1),
    )


def _judges_slowly() -> Alert:
    bucket = "controlplane_evaluation_seconds_bucket"
    ends = {"1.0": (10, 0), "2.5": (10, 10), "+Inf": (10, 10)}
    waves = tuple(
        Wave(line(bucket, **_INSTANCE, le=le), ill, well=well, grows=True) for le, (well, ill) in ends.items()
    )
    return Alert(
        "ControlPlaneJudgesSlowly",
        f"histogram_quantile(0.99, sum by (instance, le) (rate({bucket}[1m]))) > 1",
        Severity.WARNING,
        "none",
        "A pass over windows, verdicts and rows takes the control plane {{ $value | humanizeDuration }}",
        anchored("ControlPlaneJudgesSlowly"),
        "A fault that is over in a second is not seen, and every detection is late by as much.",
        "Give its process CPU, or share the fleet out over more control planes.",
        Proof(waves, 1 + 1.5 * 0.99, _INSTANCE, span=timedelta(minutes=1)),
        dwell=timedelta(minutes=1),
    )


def _store(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, **_INSTANCE}
    silent = max(_SILENT_LEAST, subject.patience(subject.worst, _SILENT))
    metric = "controlplane_store_answered_timestamp_seconds"
    return Alert(
        "StoreDoesNotAnswer",
        f"time() - max by (service, instance) ({metric}{{{subject.of}}}) > {number(silent.total_seconds())}",
        Severity.CRITICAL,
        subject.worst,
        "The database of the control plane at {{ $labels.instance }} has not answered for "
        "{{ $value | humanizeDuration }}",
        anchored("StoreDoesNotAnswer"),
        "What is not stored is not done: no row engages, no drill starts, and no fault is healed by this control "
        "plane until its database answers.",
        "See the disk of its state directory, or the PostgreSQL that it was given with `--database`.",
        _said_long_ago(line(metric, **labels), labels),
        needs=silent,
    )


def _nobody(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service}
    return Alert(
        "NobodyInCharge",
        f"max by (service) (controlplane_leader{{{subject.of}}}) == 0",
        Severity.CRITICAL,
        subject.worst,
        "Every control plane of {{ $labels.service }} watches and none is in charge",
        anchored("NobodyInCharge"),
        "The lease of the service is held by nobody who runs: nothing will be switched.",
        "See whether their database answers, and whether their clocks agree.",
        Proof((Wave(line("controlplane_leader", **labels, **_INSTANCE), 0, well=1),), 0, labels),
        dwell=subject.patience(subject.worst, timedelta(seconds=20)),
    )


def _two(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service}
    other = {**labels, "instance": "10.0.0.8:8600"}
    return Alert(
        "TwoInCharge",
        f"sum by (service) (controlplane_leader{{{subject.of}}}) > 1",
        Severity.CRITICAL,
        subject.worst,
        "{{ $value }} control planes of {{ $labels.service }} believe that they are in charge",
        anchored("TwoInCharge"),
        "They do not share a database. Each of them moves the same levers, and nothing keeps them apart.",
        "Stop all but one, then give them one database with `--database`.",
        Proof(
            (
                Wave(line("controlplane_leader", **labels, **_INSTANCE), 1, well=1),
                Wave(line("controlplane_leader", **other), 1, well=0),
            ),
            2, labels,
        ),
        dwell=subject.patience(subject.worst, timedelta(seconds=20)),
    )  # fmt: skip


def _deaf(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, **_INSTANCE}
    metric = "controlplane_alertmanager_answered_timestamp_seconds"
    return Alert(
        "AlertmanagerUnheard",
        f"time() - max by (service, instance) ({metric}{{{subject.of}}}) > {number(_SILENT.total_seconds())}",
        Severity.WARNING,
        "none",
        "The control plane at {{ $labels.instance }} has heard nothing of Alertmanager for "
        "{{ $value | humanizeDuration }}",
        anchored("AlertmanagerUnheard"),
        "Rows that wait for an alert are unknown, drills cannot tell what fired, and Alertmanager's own notifications "
        "may not arrive either.",
        "See whether Alertmanager runs, and whether `alertmanager:` on the page is its address.",
        _said_long_ago(line(metric, **labels), labels),
        needs=_SILENT,
    )


def _unheard() -> Alert:
    labels = {**_INSTANCE, "source": "alertmanager"}
    metric = "controlplane_watchdog_last_heard_timestamp_seconds"
    return Alert(
        "WebhooksUnheard",
        f"time() - max by (instance, source) ({metric}) > {number(_UNHEARD.total_seconds())}",
        Severity.WARNING,
        "none",
        "The control plane at {{ $labels.instance }} has got no webhook of {{ $labels.source }} for "
        "{{ $value | humanizeDuration }}",
        anchored("WebhooksUnheard"),
        "The watchdog came in and does not any more: an alert that fires now wakes no row, and is known only when "
        "Alertmanager is asked.",
        "See whether Alertmanager reaches the control plane, and with the right token.",
        _said_long_ago(line(metric, **labels), labels, _UNHEARD),
        needs=_UNHEARD,
    )


def _said_long_ago(series: str, labels: dict[str, str], silent: timedelta = _SILENT) -> Proof:
    """Prove an alert about the age of a time; the clock of a unit test begins at 0, so the time lies before it."""
    ill = timedelta(seconds=30)
    first, lasts, _ = Proof((), 0, settles=timedelta(0), lasts=ill).steps(timedelta(0))
    late_s, at_s = 3 * silent.total_seconds(), (first + lasts - 1) * STEP.total_seconds()
    return Proof((Wave(series, at_s - late_s, well=_NOT_YET_S),), late_s, labels, settles=timedelta(0), lasts=ill)


def _overstayed() -> Alert:
    labels = {"kind": "node_kill"}
    return Alert(
        "FaultOverstayed",
        "sum by (kind) (controlplane_faults_active) > 0",
        Severity.CRITICAL,
        "none",
        "{{ $value }} faults of kind {{ $labels.kind }} are still in force",
        anchored("FaultOverstayed"),
        f"No fault may be leased for longer than {spell_duration(MAX_LEASE)}. One that is still in force has outlived "
        "the substrate's own deadline and the control plane's.",
        "Heal it by hand.",
        Proof((Wave(line("controlplane_faults_active", **labels), 2, well=0),), 2, labels, step=SLOW_STEP),
        dwell=MAX_LEASE,
    )


def _watchdog() -> Alert:
    first, lasts, _ = Proof((), 0).steps(timedelta(0))
    proven_at = (first + lasts - 1) * STEP
    return Alert(
        WATCHDOG,
        "vector(time())",
        Severity.NONE,
        "none",
        "Alerting works",
        anchored(WATCHDOG),
        "It always fires. Have a service outside this Prometheus wake somebody when it stops arriving.",
        "When it is missing: see Prometheus, then Alertmanager, then the way between them.",
        # Its value is when it was evaluated, so that the way of each repetition is timed.
        Proof((), proven_at.total_seconds()),
        annotations={EVALUATED_AT: "{{ $value }}"},
    )
