"""Numbers as people say them: lengths of time, shares, and signals in their own unit; pure.

Used by `console` for everything it draws.
"""

import math
from datetime import timedelta

from controlplane.signals.sample import CATALOGUE, Unit

_SUFFIX = {Unit.PER_SECOND: " /s", Unit.CELSIUS: " °C", Unit.WATTS: " W"}


def duration(value: timedelta | float | None) -> str:
    """Write a length of time as people say it: `320 ms`, `4.2 s`, `1 min 15 s`, `3 d 2 h`; None is `unknown`.

    Args:
        value: a timedelta, or seconds.
    """
    if value is None:
        return "unknown"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not math.isfinite(seconds):
        return "unknown"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{sign}{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{sign}{round(seconds, 1 if seconds >= 10 else 2):g} s"
    return sign + _two_units(round(seconds))


def _two_units(seconds: int) -> str:
    """Write whole seconds with the two largest units that are not zero beside each other."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    first = next(i for i, (_, size) in enumerate(units) if seconds >= size)
    parts = []
    for name, size in units[first : first + 2]:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts)


def ratio(value: float | None) -> str:
    """Write a share (0..1) as percent with at most three meaningful digits; it never rounds up to 100%."""
    if value is None or not math.isfinite(value):
        return "unknown"
    percent = value * 100
    if 99 < percent < 100:
        return f"{math.floor(percent * 100) / 100:g}%"
    return f"{percent:.3g}%" if abs(percent) < 1000 else f"{percent:.0f}%"


def reading(value: float | None, signal: str) -> str:
    """Write a signal's value in its own unit; None, and what is not a number, is `unknown`.

    Args:
        value: in the signal's base unit.
        signal: a name of the catalogue; a name it does not hold is written as a bare number.
    """
    if value is None or not math.isfinite(value):
        return "unknown"
    unit = CATALOGUE[signal].unit if signal in CATALOGUE else Unit.COUNT
    if unit is Unit.SECONDS:
        return duration(value)
    if unit is Unit.RATIO:
        return ratio(value)
    number = f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{number}{_SUFFIX.get(unit, '')}"
