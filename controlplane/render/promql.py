"""PromQL made of the signal catalogue: selectors, and what each signal is on the engine's own series; pure.

Called by `alerts` and `dashboards`. Engine series are told apart by the label `pool`, which `file_sd` lists carry, and
by `service` where one Prometheus scrapes several.
"""

import re
from collections.abc import Iterable
from datetime import timedelta

from controlplane.policy.quantity import spell_duration
from controlplane.render.wording import invisible
from controlplane.signals.engines import EngineNames, Merge, Quantity, Series
from controlplane.signals.sample import CATALOGUE, Fold

_RE2 = re.compile(r"([\\.+*?()|\[\]{}^$])")


def quoted(text: str) -> str:
    """Return a value as a PromQL string; what could not be seen on a page is written as its number."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if escaped.isascii() and escaped.isprintable():
        return f'"{escaped}"'
    return '"' + "".join(f"\\U{ord(c):08x}" if invisible(c) else c for c in escaped) + '"'


def one_of(values: tuple[str, ...]) -> str:
    """Return values as a PromQL string that holds a regular expression matching exactly these."""
    return quoted("|".join(_RE2.sub(r"\\\1", value) for value in values))


def engine_matcher(service: str) -> str:
    """Select engine series of a service; a scrape configuration for one service alone may leave the label out."""
    return f"service=~{one_of(('', service))}"


def number(value: float) -> str:
    """Write a number so that it reads well and keeps its value."""
    return f"{value:.12g}"


def span(value: timedelta) -> str:
    """Write a duration as PromQL takes it."""
    return spell_duration(value)


def grew(series: str, window: str) -> str:
    """Return an expression for a counter that grew within a window.

    `increase` does not see a series being born, which is how a counter with labels shows its first event; the second
    half does.
    """
    return f"increase({series}[{window}]) > 0\nor\n(\n  {series} > 0\n  unless {series} offset {window}\n)"


def mean_since(histogram: str, where: str, by: str, window: str) -> str:
    """Return the mean of a histogram's observations within a window, births of series included."""
    total, count = f"{histogram}_sum{{{where}}}", f"{histogram}_count{{{where}}}"
    return (
        f"(\n"
        f"    sum by ({by}) (increase({total}[{window}]))\n"
        f"  / (sum by ({by}) (increase({count}[{window}])) > 0)\n"
        f"  or\n"
        f"    sum by ({by}) ({total})\n"
        f"  / (sum by ({by}) ({count}) > 0)\n"
        f"  unless sum by ({by}) ({count} offset {window})\n"
        f")"
    )


def engine_value(signal: str, names: EngineNames, where: str, window: str, by: str) -> str | None:
    """Return a signal's value on the engine's own series; names the engine had before stand behind `or`.

    Args:
        signal: a name of the catalogue.
        names: the engine's series.
        where: label matchers without braces.
        window: a PromQL duration for rates.
        by: labels to keep, such as `service, pool`.

    Returns:
        The expression, or None when the engine's series cannot tell.
    """
    seen = CATALOGUE[signal]
    if signal == "error_rate" and "server_errors" in names.counters:
        failed = _grown(names.counters["server_errors"], "rate", where, window, by)
        every = _grown(names.counters["requests"], "rate", where, window, by)
        return f"{grouped(failed)}\n/ {grouped(every)}"
    if seen.fold is Fold.QUANTILE and seen.key in names.histograms:
        ways = names.histograms[seen.key].ways
        return _or(_quantile(seen.quantile, way[0], where, window, by) for way in ways)
    if seen.fold in (Fold.RATE, Fold.GROWTH) and seen.key in names.counters:
        function = "rate" if seen.fold is Fold.RATE else "increase"
        return _grown(names.counters[seen.key], function, where, window, by)
    if seen.fold in (Fold.SUM, Fold.MAX, Fold.MIN) and seen.key in names.gauges:
        return _or(" + ".join(_gauge(s, seen.fold, where, by) for s in way) for way in names.gauges[seen.key].ways)
    return None


def engine_samples(signal: str, names: EngineNames, where: str, window: str, by: str) -> str | None:
    """Return how many samples a signal's value rests on; None where it rests on none (a gauge)."""
    seen = CATALOGUE[signal]
    if signal == "error_rate" and "requests" in names.counters:
        return _grown(names.counters["requests"], "increase", where, window, by)
    if seen.fold is Fold.QUANTILE and seen.key in names.histograms:
        ways = names.histograms[seen.key].ways
        return _or(f"sum by ({by}) (increase({_on(way[0], where, '_count')}[{window}]))" for way in ways)
    return None


def engine_stalled(names: EngineNames, where: str, by: str, window: str) -> str | None:
    """Return how many requests an engine holds while its tokens stand still; None where its series cannot tell."""
    running = engine_value("requests_running", names, where, window, by)
    tokens = engine_value("tokens_rate", names, where, window, by)
    return f"({grouped(running)} > 0)\nand\n{grouped(tokens)} == 0" if running and tokens else None


def grouped(expr: str) -> str:
    """Put an expression of several parts into brackets, so that an operator behind it takes the whole."""
    return f"(\n  {expr.replace(chr(10), chr(10) + '  ')}\n)" if "\n" in expr or " + " in expr else expr


def _or(ways: Iterable[str]) -> str:
    return "\nor ".join(ways)


def _on(series: Series, where: str, end: str = "") -> str:
    """Return a family with its matchers."""
    labels = [where] if where else []
    for match in series.only:
        plain = _RE2.search(match.pattern) is None
        operator = {(True, True): "=", (True, False): "=~", (False, True): "!=", (False, False): "!~"}[
            match.wanted, plain
        ]
        labels.append(f"{match.label}{operator}{quoted(match.pattern)}")
    return f"{series.name}{end}{{{', '.join(labels)}}}"


def _scaled(expr: str, scale: float) -> str:
    return expr if scale == 1.0 else f"{expr} * {number(scale)}"


def _grown(quantity: Quantity, function: str, where: str, window: str, by: str) -> str:
    """Return how counters grew; several of one way are added up."""
    return _or(
        " + ".join(f"sum by ({by}) ({function}({_on(series, where)}[{window}]))" for series in way)
        for way in quantity.ways
    )


def _gauge(series: Series, fold: Fold, where: str, by: str) -> str:
    how = "count" if series.merge is Merge.COUNT else fold.value
    value = _on(series, where)
    if series.over:
        whole = " + ".join(f"{name}{{{where}}}" for name in series.over)
        value = f"{value} / ({whole})" if len(series.over) > 1 else f"{value} / {whole}"
    return _scaled(f"{how} by ({by}) ({value})", series.scale)


def _quantile(q: float, series: Series, where: str, window: str, by: str) -> str:
    """Merge the endpoints' buckets first: a mean of quantiles is no quantile."""
    buckets = _on(series, where, "_bucket")
    return _scaled(f"histogram_quantile({number(q)}, sum by ({by}, le) (rate({buckets}[{window}])))", series.scale)
