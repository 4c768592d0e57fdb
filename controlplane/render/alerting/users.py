"""Alerts about what users feel and what the pools have left, as the control plane judges it; pure."""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.degradation.matrix import Level
from controlplane.fleet.model import PRIMARY
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.proof import Proof, Wave, line
from controlplane.render.alerting.rules import OUTRANKING, Alert, Severity, anchored
from controlplane.render.alerting.subject import FELT, VALUE, Subject, beyond, camel, short_of
from controlplane.render.promql import number, one_of, quoted
from controlplane.render.wording import spell_value
from controlplane.signals.sample import CATALOGUE, Direction, Signal
from controlplane.slo.threshold import Band, Threshold

LOOK = {
    "availability": "See which kind of failure the probes report: refused, time-out, wrong status or no tokens.",
    "latency_p99": "See whether the queue or the engine is slow: a long queue wants capacity, an empty one a look at "
    "the GPUs, at prompt lengths and at the network.",
    "inter_token_latency_p99": "See the batch size, preemptions and the GPU's clocks: a throttled or shared GPU slows "
    "every token.",
    "error_rate": "Tell shed load (503, queue full) from failure (500): the first wants capacity, the second a "
    "rollback.",
    "queue_depth": "See whether traffic grew or a replica is missing: the queue of those that are left says so first.",
    "kv_cache_utilization": "See the number and length of running requests; at the top the engine preempts and "
    "recomputes.",
    "cpu_utilization": "See what else runs on the node; tokenization and scheduling starve before the GPU does.",
    "memory_utilization": "See whether it grows without end: the kernel kills the engine when it is used up.",
    "gpu_utilization": "A busy GPU is what you pay for; it matters together with latency. See who else uses it.",
    "gpu_temperature": "See fans, inlet air and neighbours; a hot GPU lowers its clocks before it stops.",
}


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group."""
    for name, threshold in subject.policy.thresholds.items():
        for band in (Band.BREACH, Band.WARN):
            yield _threshold(subject, CATALOGUE[name], threshold, band)
    yield _stalled(subject)
    yield _unknown(subject)
    yield _endpoint_down(subject)


def _threshold(subject: Subject, signal: Signal, threshold: Threshold, band: Band) -> Alert:
    level = threshold.breach if band is Band.BREACH else threshold.warn
    name, felt = camel(signal.name) + camel(band.value), signal.name in FELT
    severe = Severity.CRITICAL if felt else Severity.WARNING
    mild = Severity.WARNING if felt else Severity.INFO
    up = signal.worse is Direction.UP
    wanted = f"{'at or over' if up else 'at or under'} {spell_value(signal.name, level)}"
    row = subject.level_of(signal.name)
    outranks = band is Band.BREACH and felt and row is not Level.NONE
    series = line("controlplane_signal_value", service=subject.policy.service, pool=PRIMARY, signal=signal.name)
    ill = beyond(signal, level)
    return Alert(
        name,
        f"controlplane_signal_value{{{subject.of}, pool=~{one_of(subject.served)}, signal={quoted(signal.name)}}} "
        f"{'>=' if up else '<='} {number(level)}",
        severe if band is Band.BREACH else mild,
        row,
        f"{signal.name} of pool {{{{ $labels.pool }}}} is {VALUE[signal.unit]} ({band} is {wanted})",
        anchored(name),
        f"{signal.definition} Over {spell_duration(threshold.window)} it is {wanted}; healthy is "
        f"{spell_value(signal.name, threshold.healthy)}.",
        LOOK.get(signal.name, "See what changed: traffic, a release, or a replica that is missing."),
        Proof(
            (Wave(series, ill, well=short_of(signal, level)),),
            ill,
            {"service": subject.policy.service, "pool": PRIMARY, "signal": signal.name},
        ),
        dwell=threshold.dwell,
        needs=threshold.window + subject.looks,
        labels={"signal": signal.name, "band": band.value, **(OUTRANKING if outranks else {})},
    )


def _stalled(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "pool": PRIMARY, "signal": "token_progress"}
    level = subject.level_of("availability")
    return Alert(
        "TokensStalled",
        f'controlplane_signal_value{{{subject.of}, pool="primary", signal="token_progress"}} < 1',
        Severity.CRITICAL,
        level,
        "Tokens move on {{ $value | humanizePercentage }} of the busy endpoints of pool {{ $labels.pool }}",
        anchored("TokensStalled"),
        "At least one endpoint holds requests and makes no token, or real completions on it do not end while its "
        "health check answers. Users who were sent there wait for nothing.",
        "Take the endpoint that is stuck out of rotation, keep its stacks and logs, restart it.",
        Proof((Wave(line("controlplane_signal_value", **labels), 0.5, well=1.0),), 0.5, labels),
        dwell=subject.patience(level, timedelta(seconds=10)),
        needs=subject.window_of("token_progress") + subject.looks,
        labels={"signal": "token_progress", **OUTRANKING},
    )


def _unknown(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "pool": PRIMARY}
    series = line("controlplane_verdict", **labels, verdict="unknown")
    return Alert(
        "PoolUnknown",
        f"max by (service, pool) (controlplane_verdict{{{subject.of}, pool=~{one_of(subject.served)}, "
        'verdict="unknown"}) == 1',
        Severity.CRITICAL,
        subject.worst,
        "Nothing is known about pool {{ $labels.pool }}",
        anchored("PoolUnknown"),
        "No probe of this pool gives an answer that can be judged. No data is never read as healthy: no row trips and "
        "none is released until it is known again.",
        "See whether the endpoints can be reached from the control plane's host at all; if they can, see whether "
        "completions end in time.",
        Proof((Wave(series, 1, well=0),), 1, labels),
        dwell=subject.patience(subject.worst, timedelta(seconds=30)),
        needs=subject.looks,
    )


def _endpoint_down(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "pool": PRIMARY, "endpoint": "primary-1"}
    return Alert(
        "EndpointDown",
        f"min by (service, pool, endpoint) (controlplane_endpoint_up{{{subject.of}}}) == 0",
        Severity.WARNING,
        "none",
        "Endpoint {{ $labels.endpoint }} of pool {{ $labels.pool }} is down",
        anchored("EndpointDown"),
        "One replica does not answer. The gateway sends its share to the others; the pool has less to give.",
        "Find out whether its process is gone (refused), hangs (time-outs) or cannot be reached (no route).",
        Proof((Wave(line("controlplane_endpoint_up", **labels), 0, well=1),), 0, labels),
        dwell=timedelta(minutes=1),
        needs=subject.looks,
    )
