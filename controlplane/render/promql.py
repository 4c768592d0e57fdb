"""PromQL made of the signal catalogue: selectors, and what each signal is on the engine's own series; pure.

Called by `alerts` and `dashboards`. Engine series are told apart by the label `pool`, which `file_sd` lists carry, and
by `service` where one Prometheus scrapes several.
"""

import re
from datetime import timedelta

from controlplane.policy.quantity import spell_duration
from controlplane.render.wording import invisible
from controlplane.signals.sample import EngineNames

_V1 = 'handler=~"/v1/.*"'
"""Users' requests only; health checks and scrapes are not what an error rate is about."""

_RE2 = re.compile(r"([\\.+*?()|\[\]{}^$])")


def quoted(text: str) -> str:
    """Return a value as a PromQL string; what could not be seen on a page is written as its number."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(char: str) -> str:
    if char in '\\"':
        return f"\\{char}"
    return f"\\U{ord(char):08x}" if invisible(char) else char


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
    """Return a signal's value on the engine's own series.

    Args:
        signal: a name of the catalogue.
        names: the engine's series.
        where: label matchers without braces.
        window: a PromQL duration for rates.
        by: labels to keep, such as `service, pool`.

    Returns:
        The expression, or None when the engine's series cannot tell.
    """
    rate = f"sum by ({by}) (rate(%s[{window}]))"
    requests = f"{names.requests_by_status}{{{where}, {_V1}}}"
    failed = f'{names.requests_by_status}{{{where}, {_V1}, {names.status_label}=~"5.*"}}'
    gauge = f'{{{where}, engine!=""}}'
    known: dict[str, tuple[str, str]] = {
        "latency_p99": (names.latency_histogram, _quantile(names.latency_histogram, where, window, by)),
        "inter_token_latency_p99": (
            names.inter_token_histogram,
            _quantile(names.inter_token_histogram, where, window, by),
        ),
        "error_rate": (names.requests_by_status, f"{rate % failed}\n/ {rate % requests}"),
        "request_rate": (names.requests_by_status, rate % requests),
        "tokens_rate": (names.generated_tokens, rate % f"{names.generated_tokens}{{{where}}}"),
        "requests_running": (names.running, f"sum by ({by}) ({names.running}{gauge})"),
        "queue_depth": (names.waiting, f"sum by ({by}) ({names.waiting}{gauge})"),
        "kv_cache_utilization": (names.kv_cache_usage, f"max by ({by}) ({names.kv_cache_usage}{gauge})"),
    }
    series, expr = known.get(signal, ("", ""))
    return expr if series else None


def engine_samples(signal: str, names: EngineNames, where: str, window: str, by: str) -> str | None:
    """Return how many samples a signal's value rests on; None where it rests on none (a gauge)."""
    counters = {
        "latency_p99": f"{names.latency_histogram}_count{{{where}}}",
        "inter_token_latency_p99": f"{names.inter_token_histogram}_count{{{where}}}",
        "error_rate": f"{names.requests_by_status}{{{where}, {_V1}}}",
    }
    return f"sum by ({by}) (increase({counters[signal]}[{window}]))" if signal in counters else None


def _quantile(histogram: str, where: str, window: str, by: str) -> str:
    """Merge the endpoints' buckets first: a mean of quantiles is no quantile."""
    return f"histogram_quantile(0.99, sum by ({by}, le) (rate({histogram}_bucket{{{where}}}[{window}])))"
