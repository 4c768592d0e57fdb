"""Alerts of the second witness: the engines' own series, read by Prometheus alone; pure.

They still see when the control plane does not. The proofs are made of the table of engines, for whichever engine the
policy names: a series an engine is read by is a series its alert is tested with.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from controlplane.degradation.matrix import LEVELS, Level, alerts_of
from controlplane.fleet.model import PRIMARY
from controlplane.policy.quantity import spell_duration
from controlplane.render import promql
from controlplane.render.alerting.proof import STEP, Proof, Wave, line
from controlplane.render.alerting.rules import OUTRANKING, Alert, Severity, anchored
from controlplane.render.alerting.subject import FELT, VALUE, Subject, beyond, camel, short_of
from controlplane.render.alerting.users import LOOK
from controlplane.render.promql import number
from controlplane.render.wording import spell_value
from controlplane.signals.engines import DCGM, EngineNames, Quantity, Series
from controlplane.signals.sample import CATALOGUE, Direction, Fold, Signal
from controlplane.slo.threshold import Threshold

OVERLOADED = "InferenceOverloaded"
"""The name under which the default matrix waits for it."""
OVERLOADED_QUEUE = 100
"""As many waiting requests as trip the default row by our own probes."""

_BY = "service, pool"
_POOL: Mapping[str, str] = {"pool": PRIMARY}


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group."""
    names, where = subject.engine, f'{subject.of_engines}, pool="{PRIMARY}"'
    for name, threshold in subject.policy.thresholds.items():
        window = subject.window(threshold.window)
        value = promql.engine_value(name, names, where, promql.span(window), _BY)
        if value is None or name in DCGM.gauges or name in DCGM.counters:
            continue  # A busy GPU alone is not ill; what is wrong with GPUs has rules of its own.
        yield _breach(subject, CATALOGUE[name], threshold, value)
    yield from _overloaded(subject, names, where)
    yield from _stalled(subject, names)
    yield _not_scraped(subject)


def _breach(subject: Subject, signal: Signal, threshold: Threshold, value: str) -> Alert:
    name, names = f"Engine{camel(signal.name)}Breach", subject.engine
    window = subject.window(threshold.window)
    where = f'{subject.of_engines}, pool="{PRIMARY}"'
    samples = promql.engine_samples(signal.name, names, where, promql.span(window), _BY)
    up = signal.worse is Direction.UP
    expr = f"{promql.grouped(value)} {'>=' if up else '<='} {number(threshold.breach)}"
    how = "As the engine itself shows it now."
    if samples:
        expr += f"\nand\n{promql.grouped(samples)} >= {threshold.min_samples}"
        how = (
            f"Counted by the engine itself over {spell_duration(window)}, all endpoints merged, at least "
            f"{threshold.min_samples} samples. What never reached the engine, or died with it, is not in it."
        )
    felt, row = signal.name in FELT, subject.level_of(signal.name)
    return Alert(
        name,
        expr,
        Severity.CRITICAL if felt else Severity.WARNING,
        row,
        f"{signal.name} of pool {{{{ $labels.pool }}}} is {VALUE[signal.unit]} by the engine's own count "
        f"(breach is {spell_value(signal.name, threshold.breach)})",
        anchored(name),
        f"{signal.definition} {how}",
        LOOK.get(signal.name, "Compare with what the gateway saw."),
        _proof(signal, names, threshold, window),
        dwell=threshold.dwell,
        needs=window if samples or signal.fold in (Fold.RATE, Fold.GROWTH) else timedelta(0),
        labels={"signal": signal.name, **(OUTRANKING if felt and row is not Level.NONE else {})},
    )


def _proof(signal: Signal, names: EngineNames, threshold: Threshold, window: timedelta) -> Proof:
    """Prove a breach on the newest names the engine has for it."""
    level = threshold.breach
    if signal.name == "error_rate":
        return Proof(_errors(names, threshold.min_samples), 1.0, _POOL, span=window)
    if signal.fold is Fold.QUANTILE:
        (series,) = names.histograms[signal.key].ways[0]
        ill, waves = _slow(signal, series, level, threshold.min_samples)
        return Proof(waves, ill, _POOL, span=window)
    ill, well = beyond(signal, level), short_of(signal, level)
    if signal.fold in (Fold.RATE, Fold.GROWTH):
        of = STEP.total_seconds() if signal.fold is Fold.RATE else STEP / window
        waves = _all(names.counters[signal.key], ill * of, None if well is None else well * of, grows=True)
        return Proof(waves, ill, _POOL, span=window)
    return Proof(_all(names.gauges[signal.key], ill, well), ill, _POOL)


def _all(
    quantity: Quantity, ill: float, well: float | None, labels: Mapping[str, str] = _POOL, *, grows: bool = False
) -> tuple[Wave, ...]:
    """Make waves of the first way of a quantity: its first family carries the value, the others nothing."""
    waves: list[Wave] = []
    for i, series in enumerate(quantity.ways[0]):
        share = (0.0 if i else 1.0) / series.scale
        waves.append(
            Wave(_named(series, labels), ill * share, well=None if well is None else well * share, grows=grows)
        )
        waves += [
            Wave(line(name, **labels), 1, well=1)
            for name in series.over
            if name != series.name and not any(name in wave.series for wave in waves)
        ]
    return tuple(waves)


def _errors(names: EngineNames, enough: int) -> tuple[Wave, ...]:
    """Every request is answered well, then every one fails."""
    (failed,) = names.counters["server_errors"].ways[0]
    asked = names.counters["requests"].ways[0]
    among = failed.name in [series.name for series in asked]
    waves = []
    for series in asked:
        if series.name != failed.name:
            waves.append(Wave(_named(series, _POOL), 0 if among else enough, well=enough, grows=True))
        elif any(
            match.wanted for match in failed.only if match not in series.only
        ):  # Told apart by a label of its own.
            waves.append(Wave(_named(series, {**_POOL, "outcome": "ok"}), 0, well=enough, grows=True))
    return (*waves, Wave(_named(failed, _POOL), enough, well=0, grows=True))


def _slow(signal: Signal, series: Series, level: float, enough: int) -> tuple[float, tuple[Wave, ...]]:
    """All requests end under the level, then all between it and its double, where the quantile is interpolated."""
    edge = level / series.scale
    ends = {number(edge): (enough, 0), number(2 * edge): (enough, enough), "+Inf": (enough, enough)}
    buckets = tuple(
        Wave(_named(series, {**_POOL, "le": le}, "_bucket"), ill, well=well, grows=True)
        for le, (well, ill) in ends.items()
    )
    count = Wave(_named(series, _POOL, "_count"), enough, well=enough, grows=True)
    return level * (1 + signal.quantile), (*buckets, count)


def _named(series: Series, labels: Mapping[str, str], end: str = "") -> str:
    """Name one series that the family's conditions let through."""
    matching = {match.label: match.pattern.split("|")[0].replace(".*", "") for match in series.only if match.wanted}
    return line(f"{series.name}{end}", **{**labels, **{k: v for k, v in matching.items() if v}})


def _overloaded(subject: Subject, names: EngineNames, where: str) -> Iterator[Alert]:
    """The alert that rows may name as their trigger: Prometheus sees the overload, whatever our probes see."""
    waiting = promql.engine_value("queue_depth", names, where, "1m", _BY)
    if waiting is None:
        return
    rows = [row for row in subject.policy.degradation.rows.values() if OVERLOADED in alerts_of(row.when)]
    level = max((row.level for row in rows), key=LEVELS.index, default=Level.NONE)
    signal, ill = CATALOGUE["queue_depth"], 2.0 * OVERLOADED_QUEUE
    tripped = f" Row {level} trips by it once Alertmanager tells the control plane." if rows else ""
    yield Alert(
        OVERLOADED,
        f"{promql.grouped(waiting)} >= {OVERLOADED_QUEUE}",
        Severity.WARNING,
        level,
        "{{ $value }} requests wait in pool {{ $labels.pool }}",
        anchored(OVERLOADED),
        f"By the engine's own count {OVERLOADED_QUEUE} requests or more wait for a place in a batch.{tripped}",
        "See whether traffic grew or a replica is missing; shed what can wait meanwhile.",
        Proof(_all(names.gauges["queue_depth"], ill, short_of(signal, OVERLOADED_QUEUE)), ill, _POOL),
        dwell=subject.patience(level, timedelta(seconds=15)),
    )


def _stalled(subject: Subject, names: EngineNames) -> Iterator[Alert]:
    level = subject.level_of("availability")
    window = subject.window(subject.patience(level, timedelta(minutes=1)))
    span = promql.span(window)
    stalled = promql.engine_stalled(names, subject.of_engines, f"{_BY}, instance", span)
    if stalled is None:
        return
    one = {**_POOL, "instance": "10.0.0.1:8000"}
    waves = (
        *_all(names.gauges["requests_running"], 3, 3, one),
        *_all(names.counters["generated_tokens"], 0, 50, one, grows=True),
    )
    yield Alert(
        "EngineStalled",
        stalled,
        Severity.CRITICAL,
        level,
        "{{ $labels.instance }} runs {{ $value }} requests and generates no token",
        anchored("EngineStalled"),
        "The engine holds requests and makes no progress. Its health check still answers 200. A hang that begins "
        "while the engine is idle does not show here; the completion probe sees it.",
        "Take the endpoint out of rotation, keep its stacks and logs, restart it.",
        Proof(waves, 3, one, span=window),
        dwell=subject.patience(level, timedelta(seconds=30)),
        needs=window,
        labels=OUTRANKING,
    )


def _not_scraped(subject: Subject) -> Alert:
    labels = {"job": "fleet", "instance": "10.0.0.1:8000", **_POOL}
    return Alert(
        "EngineNotScraped",
        f'up{{{subject.of_engines}, pool!=""}} == 0',
        Severity.WARNING,
        "none",
        "Prometheus cannot read the metrics of {{ $labels.instance }} in pool {{ $labels.pool }}",
        anchored("EngineNotScraped"),
        "The second witness is blind on one side: what the engine would say of itself is missing. It may be down, or "
        "only out of Prometheus's reach.",
        "Compare with EndpointDown: where the control plane reaches it, mend the way from Prometheus.",
        Proof((Wave(line("up", **labels), 0, well=1),), 0, labels),
        dwell=timedelta(minutes=1),
    )
