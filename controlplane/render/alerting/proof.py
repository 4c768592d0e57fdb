"""How an alert is proven: series that are well, then not, then well again, and what it must say meanwhile; pure.

Each alert carries its proof beside its expression; `unit_tests` writes them as promtool's unit tests. `expand` says
what Prometheus's templates make of a value; promtool, which compares, is the judge of that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil, inf, isinf, isnan

from controlplane.render.promql import number, quoted

STEP = timedelta(seconds=5)
"""Between two samples of a proof that is about seconds."""
SLOW_STEP = timedelta(minutes=1)
"""Between two samples of one that is about hours."""
DAYS_STEP = timedelta(minutes=15)
"""Between two samples of one that is about days."""


@dataclass(frozen=True, slots=True)
class Wave:
    """One input series over the three parts of a proof."""

    series: str
    """In PromQL, with all its labels."""
    ill: float | None
    """While the alert must fire. None: the series is not there."""
    well: float | None = None
    """Before that. None: the series is not there."""
    after: float | None = None
    """After it; None: as before."""
    grows: bool = False
    """The three are what a counter grows by in each step."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Series, and what the alert says when it fires on them."""

    waves: tuple[Wave, ...]
    value: float
    """The value of its expression when it fires."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of the sample it fires with, without the rule's own."""
    span: timedelta = timedelta(0)
    """How long the expression looks back: what was well must leave it, and later what was ill."""
    step: timedelta = STEP
    settles: timedelta | None = None
    """How long it is well at first; None: as long as the expression looks back."""
    lasts: timedelta | None = None
    """How long it is ill; None: as long as the expression looks back and the rule waits."""
    resolves: timedelta | None = None
    """How long it takes to resolve; None: as long as the expression looks back."""

    def steps(self, dwell: timedelta) -> tuple[int, int, int]:
        """Return how many samples each part has, for a rule that waits so long."""
        back = ceil(self.span / self.step)
        first = back if self.settles is None else ceil(self.settles / self.step)
        ill = back + ceil(dwell / self.step) if self.lasts is None else ceil(self.lasts / self.step)
        last = back if self.resolves is None else ceil(self.resolves / self.step)
        return first + 3, ill + 3, last + 3


def line(metric: str, **labels: str) -> str:
    """Write one series as promtool reads it."""
    return f"{metric}{{{', '.join(f'{k}={quoted(v)}' for k, v in labels.items())}}}"


def values(wave: Wave, parts: tuple[int, int, int]) -> str:
    """Write a series' samples in promtool's notation, `parts` samples for each of the three parts."""
    levels = (wave.well, wave.ill, wave.well if wave.after is None else wave.after)
    if wave.grows:
        total, words = 0.0, []
        for growth, count in zip(levels, parts, strict=True):
            words.append(f"{number(total)}+{number(growth or 0.0)}x{count - 1}")
            total += (growth or 0.0) * count
        return " ".join(words)
    words = []
    for i, (level, count) in enumerate(zip(levels, parts, strict=True)):
        if level is not None:
            words.append(f"{_sample(level)}x{count - 1}")
        elif i and levels[i - 1] is not None:  # Ended at once, and not when Prometheus forgets it.
            words.append(f"stale _x{count - 1}")
        else:
            words.append(f"_x{count}")
    return " ".join(words)


def _sample(value: float) -> str:
    return "NaN" if isnan(value) else number(value)


_ACTION = re.compile(r'\{\{ (?:"(\{\{)"|\$labels\.(\w+)|\$value(?: \| (\w+))?) \}\}')


def expand(template: str, labels: Mapping[str, str], value: float) -> str:
    """Return what Prometheus makes of a template with these labels and this value."""

    def said(found: re.Match[str]) -> str:
        brace, label, how = found.groups()
        if brace:
            return str(brace)
        if label:
            return labels.get(label, "")
        return _HOW[how](value)

    return _ACTION.sub(said, template)


def _plain(value: float) -> str:
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e21 else repr(value)


def _humanize(value: float) -> str:
    if value == 0 or abs(value) == inf:
        return f"{value:.4g}"
    if abs(value) >= 1:
        prefixes, factor = ("", "k", "M", "G", "T", "P"), 1000.0
        grows = abs(value)
        steps = 0
        while grows >= 1000 and steps < len(prefixes) - 1:
            grows, steps = grows / factor, steps + 1
        return f"{value / factor**steps:.4g}{prefixes[steps]}"
    small, steps = value, 0
    while abs(small) < 1 and steps < len(_SMALL):
        small, steps = small * 1000, steps + 1
    return f"{small:.4g}{_SMALL[steps - 1]}"


_SMALL = ("m", "u", "n", "p", "f", "a")


def _duration(value: float) -> str:
    if value == 0:
        return "0s"
    if abs(value) < 1:
        return f"{_humanize(value)}s"
    sign, seconds = ("-", -value) if value < 0 else ("", value)
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {whole % 60}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {whole % 60}s"
    if minutes:
        return f"{sign}{minutes}m {whole % 60}s"
    return f"{sign}{seconds:.4g}s"


_HOW = {
    None: _plain,
    "humanize": _humanize,
    "humanizePercentage": lambda value: f"{value * 100:.4g}%",
    "humanizeDuration": _duration,
}
