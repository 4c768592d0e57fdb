"""Charts of signals over time, laid out as numbers for an inline SVG; pure.

Templates draw them with attributes only, so that a page works under a policy that forbids inline style.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from controlplane.incidents.history import Trace
from controlplane.render.wording import spell_value
from controlplane.signals.sample import CATALOGUE, Direction, Unit
from controlplane.slo.threshold import Threshold

WIDTH, HEIGHT = 720, 170
LABEL_HEIGHT = 12
LEFT, RIGHT, TOP, BOTTOM = 78, 708, 26, 142
"""Where the plot stands in the picture."""

COLOURS: Mapping[str, str] = {
    "gateway": "#2d6cb5",
    "primary": "#b8620a",
    "standby": "#1f8a4c",
    "base": "#8a4fb0",
    "cache": "#0b6b63",
}
OTHER = "#6b7280"

Axis = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that is drawn on every chart."""

    label: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One pool's line; it is broken where the signal was unknown."""

    pool: str
    role: str
    """Its colour's class, where a style sheet is at hand."""
    colour: str
    parts: tuple[str, ...]
    """Points of polylines, as SVG takes them."""
    summary: str


@dataclass(frozen=True, slots=True)
class Level:
    """A threshold's line."""

    label: str
    y: float


@dataclass(frozen=True, slots=True)
class Shade:
    """Where on the axis a signal is in a band that is not well."""

    band: str
    """`warn` or `breach`."""
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A mark's place."""

    label: str
    x: float
    clock: str
    y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One signal, every pool, one time axis."""

    signal: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    shades: tuple[Shade, ...]
    marks: tuple[Moment, ...]
    top: str
    bottom: str
    begins: str
    ends: str
    says: str
    """The chart in words, for those who cannot see it."""


def charts(
    history: Sequence[Trace], thresholds: Mapping[str, Threshold], marks: Sequence[Mark], wanted: Sequence[str]
) -> tuple[Chart, ...]:
    """Lay out one chart for each signal that has values.

    Args:
        history: what was kept.
        thresholds: by signal; warn and breach are drawn.
        marks: moments to draw on each.
        wanted: signals in the order in which they are to be shown.
    """
    times = [at for trace in history for at, _ in trace.known]
    if not times:
        return ()
    begin, end = min(times), max(*times, *(mark.at.timestamp() for mark in marks), min(times) + 1.0)
    made = []
    for signal in wanted:
        traces = [trace for trace in history if trace.signal == signal and trace.known]
        if traces:
            made.append(_chart(signal, traces, thresholds.get(signal), marks, (begin, end)))
    return tuple(made)


def _chart(
    signal: str, traces: Sequence[Trace], threshold: Threshold | None, marks: Sequence[Mark], time: tuple[float, float]
) -> Chart:
    levels = [("warn", threshold.warn), ("breach", threshold.breach)] if threshold else []
    values = [value for trace in traces for _, value in trace.known if isfinite(value)] or [0.0]
    low, high = _scale(signal, values, [value for _, value in levels])

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (min(max(value, low), high) - low) / (high - low), 1)

    def x(at: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (at - time[0]) / (time[1] - time[0]), 1)

    inside = [mark for mark in marks if time[0] <= mark.at.timestamp() <= time[1]]
    lines = tuple(
        Line(t.pool, t.pool if t.pool in COLOURS else "other", COLOURS.get(t.pool, OTHER), _parts(t, x, y), summary(t))
        for t in sorted(traces, key=_place)
    )
    return Chart(
        signal,
        lines,
        _levels(signal, [(name, at, y(at)) for name, at in levels if low <= at <= high]),
        _shades(threshold, CATALOGUE[signal].worse, (low, high), y) if threshold else (),
        tuple(
            Moment(mark.label, x(mark.at.timestamp()), _clock(mark.at.timestamp()), 12 + 11 * (place % 2))
            for place, mark in enumerate(inside)
        ),
        spell_value(signal, round(high, 4)),
        spell_value(signal, round(low, 4)),
        _clock(time[0]),
        _clock(time[1]),
        f"{signal} from {_clock(time[0])} to {_clock(time[1])} UTC: "
        + "; ".join(f"{line.pool} {line.summary}" for line in lines),
    )  # fmt: skip


def _levels(signal: str, placed: Sequence[tuple[str, float, float]]) -> tuple[Level, ...]:
    """Label thresholds; where two lie so near that their texts would cover each other, one text says both."""
    lines = [Level(f"{name} {spell_value(signal, value)}", at) for name, value, at in placed]
    if len(lines) == 2 and abs(lines[0].y - lines[1].y) < LABEL_HEIGHT:
        lines = [Level("", lines[0].y), Level(f"{lines[1].label}, {lines[0].label}", min(lines[0].y, lines[1].y))]
    return tuple(lines)


def _shades(threshold: Threshold, worse: Direction, axis: tuple[float, float], y: Axis) -> tuple[Shade, ...]:
    """Lay out the bands that begin at the thresholds, as far as the axis shows them."""
    low, high = axis
    end = high if worse is Direction.UP else low
    bands = (("warn", threshold.warn, threshold.breach), ("breach", threshold.breach, end))
    placed = []
    for band, begins, ends in bands:
        top, bottom = (min(max(value, low), high) for value in (max(begins, ends), min(begins, ends)))
        if top > bottom and (begins < high if worse is Direction.UP else begins > low):
            placed.append(Shade(band, y(top), round(y(bottom) - y(top), 1)))
    return tuple(placed)


def summary(trace: Trace) -> str:
    """Say what a trace did: the first value, the worst and the last."""
    known = trace.known
    if not known:
        return "unknown"
    worst = max if CATALOGUE[trace.signal].worse is Direction.UP else min
    at, value = worst(known, key=lambda point: point[1])
    first, last = (spell_value(trace.signal, _short(point[1])) for point in (known[0], known[-1]))
    return f"{first}, at worst {spell_value(trace.signal, _short(value))} at {_clock(at)}, then {last}"


def unknown_s(trace: Trace) -> float:
    """Return for how many seconds a signal was unknown between its first and its last point."""
    gaps = 0.0
    for (at, value), (after, _) in zip(trace.points, trace.points[1:], strict=False):
        if value is None:
            gaps += after - at
    return gaps


def _parts(trace: Trace, x: Axis, y: Axis) -> tuple[str, ...]:
    """Cut a trace where it was unknown."""
    parts: list[list[str]] = [[]]
    for at, value in trace.points:
        if value is None or not isfinite(value):
            if parts[-1]:
                parts.append([])
        else:
            parts[-1].append(f"{x(at)},{y(value)}")
    return tuple(" ".join(part * 2 if len(part) == 1 else part) for part in parts if part)


def _scale(signal: str, values: Sequence[float], levels: Sequence[float]) -> tuple[float, float]:
    """Choose the lowest and the highest value of the axis: all values, and the thresholds near them."""
    low, high = min(values), max(values)
    near = [level for level in levels if level <= 3 * max(high, 1e-9)]
    high, low = max((high, *near)), min((low, *near))
    if CATALOGUE[signal].unit is not Unit.RATIO or CATALOGUE[signal].worse is Direction.UP:
        low = min(low, 0.0)
    return (low, high) if high > low else (low - (0.5 if low > 0.5 else 0.0), low + 0.5)


def _place(trace: Trace) -> tuple[int, str]:
    order = tuple(COLOURS)
    return (order.index(trace.pool) if trace.pool in COLOURS else len(order), trace.pool)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
