"""Guards: what must stay true while a drill runs; pure. The drill's journey asks at every evaluation.

A guard that cannot be evaluated counts as broken: it blocks the start, and it stops a run once it has been unknown for
as long as it may be out of bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.signals.sample import spell

STALE_S = 10.0
"""A reading whose newest sample is older than this is no reading."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The bounds of one signal of what users get."""

    below: float | None = None
    """Broken below this, in the signal's base unit; exactly one of the two is set."""
    above: float | None = None
    """Broken at or above this."""
    dwell: timedelta = timedelta(0)
    """How long it may be out of bounds before the drill is stopped."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a guard looks at."""

    value: float | None
    """In the signal's base unit; None when it is not known."""
    age_s: float | None = None
    """How old the newest sample in it is; None for what has no age."""
    why: str = ""
    """Why it is not known."""


def wrong(signal: str, guard: Guard, reading: Reading | None) -> str:
    """Return what is wrong with a guard now, in words; an empty string while it holds.

    Args:
        signal: its name in the catalogue.
        guard: its bounds.
        reading: what was seen last; None when nothing was.
    """
    why = unknown(signal, reading)
    if why or reading is None or reading.value is None:
        return why
    if guard.below is not None and reading.value < guard.below:
        return f"{signal} is {spell(signal, reading.value)}, below {spell(signal, guard.below)}"
    if guard.above is not None and reading.value >= guard.above:
        return f"{signal} is {spell(signal, reading.value)}, not below {spell(signal, guard.above)}"
    return ""


def unknown(signal: str, reading: Reading | None) -> str:
    """Return why a signal is not known now, in words; an empty string when it is."""
    if reading is None or reading.value is None:
        return f"{signal} is unknown{f': {reading.why}' if reading and reading.why else ''}"
    if reading.age_s is not None and reading.age_s > STALE_S:
        return f"{signal} is unknown: the newest sample is {reading.age_s:.0f} s old"
    return ""


def watch(
    guards: Mapping[str, Guard], readings: Mapping[str, Reading], since: Mapping[str, datetime], now: datetime
) -> tuple[Mapping[str, datetime], tuple[str, ...]]:
    """Look at every guard once.

    Args:
        guards: by signal.
        readings: by signal; what is missing is unknown.
        since: since when which guard is out of bounds or unknown, as the last call gave it.
        now: aware UTC time of this look.

    Returns:
        The next `since`, and every guard that has been wrong for too long, in words.
    """
    found = {signal: wrong(signal, guard, readings.get(signal)) for signal, guard in guards.items()}
    lasting = {signal: since.get(signal, now) for signal, what in found.items() if what}
    broken = [
        f"guard {signal}: {found[signal]} for {(now - at).total_seconds():.1f} s"
        for signal, at in lasting.items()
        if now - at >= guards[signal].dwell
    ]
    return lasting, tuple(broken)
