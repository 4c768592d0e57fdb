"""The machine of a row, drawn from its own table; pure. Called by `console`.

Positions are attributes, so that the picture works under the console's content security policy.
"""

from collections.abc import Mapping
from math import hypot

from markupsafe import Markup

from controlplane.degradation.machine import TRANSITIONS, Phase

_AT = {
    Phase.IDLE: (90, 72),
    Phase.PENDING: (370, 72),
    Phase.ENGAGING: (650, 72),
    Phase.RELEASING: (90, 272),
    Phase.FAILED: (370, 272),
    Phase.ENGAGED: (650, 272),
}
_WIDTH, _HEIGHT = 740, 345
_HALF_WIDTH, _HALF_HEIGHT = 55, 18
_BEND = {(Phase.IDLE, Phase.ENGAGING): -95, (Phase.ENGAGED, Phase.RELEASING): 110, (Phase.RELEASING, Phase.ENGAGED): 62}
"""How far an edge that would run through another phase is bent aside."""
_BESIDE = 16
"""How far every other edge is, so that two between the same phases can be told apart."""


def edges() -> dict[tuple[Phase, Phase], tuple[str, ...]]:
    """Return the ways between phases, each with the cues that lead along it."""
    ways: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, cue), transition in TRANSITIONS.items():
        ways.setdefault((phase, transition.to), []).append(cue.value)
    return {way: tuple(cues) for way, cues in ways.items()}


def mermaid() -> str:
    """Write the machine as a Mermaid state diagram."""
    first = next(iter(TRANSITIONS))[0]
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {was} --> {to}: {', '.join(cues)}" for (was, to), cues in edges().items()]
    return "\n".join(lines) + "\n"


def machine_svg(rows: Mapping[str, Phase]) -> Markup:
    """Draw the machine as a picture.

    Args:
        rows: where each row stands; it is named in its phase.
    """
    drawn = [_edge(was, to, cues) for (was, to), cues in edges().items() if was is not to]
    drawn += [_stays(was, cues) for (was, to), cues in edges().items() if was is to]
    drawn += [_phase(phase, [level for level, at in rows.items() if at is phase]) for phase in _AT]
    arrow = Markup(
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return Markup(
        '<svg class="machine" viewBox="0 0 {} {}" role="img" aria-label="The phases of a row and what leads from one '
        'to another">{}{}</svg>'
    ).format(_WIDTH, _HEIGHT, arrow, Markup("").join(drawn))


def _phase(phase: Phase, levels: list[str]) -> Markup:
    x, y = _AT[phase]
    name = f"{phase} · {', '.join(levels)}" if levels else phase.value
    return Markup(
        '<g class="{}"><rect x="{}" y="{}" width="{}" height="{}" rx="8"/><text x="{}" y="{}">{}</text></g>'
    ).format(
        "phase here" if levels else "phase", x - _HALF_WIDTH, y - _HALF_HEIGHT, 2 * _HALF_WIDTH, 2 * _HALF_HEIGHT,
        x, y + 4, name,
    )  # fmt: skip


def _edge(was: Phase, to: Phase, cues: tuple[str, ...]) -> Markup:
    """Draw a curve from one phase to another, to the right of the straight way, with its cues beside it."""
    (ax, ay), (bx, by) = _AT[was], _AT[to]
    length = hypot(bx - ax, by - ay)
    aside = _BEND.get((was, to), _BESIDE * 2)
    nx, ny = -(by - ay) / length, (bx - ax) / length
    if (was, to) in _BEND:
        nx, ny = 0.0, 1.0
    cx, cy = (ax + bx) / 2 + nx * aside, (ay + by) / 2 + ny * aside
    (sx, sy), (ex, ey) = _rim(ax, ay, cx, cy), _rim(bx, by, cx, cy)
    mx, my = (sx + 2 * cx + ex) / 4, (sy + 2 * cy + ey) / 4
    return Markup(
        '<g class="edge"><path d="M{:.0f} {:.0f}Q{:.0f} {:.0f} {:.0f} {:.0f}" marker-end="url(#arrow)"/>'
        '<text x="{:.0f}" y="{:.0f}">{}</text></g>'
    ).format(sx, sy, cx, cy, ex, ey, mx, my + 4, ", ".join(cues))


def _stays(phase: Phase, cues: tuple[str, ...]) -> Markup:
    """Write the cues on which a phase stays what it is beside it: above those at the top, below the others."""
    x, y = _AT[phase]
    beside = -_HALF_HEIGHT - 7 if y < _HEIGHT / 2 else _HALF_HEIGHT + 20
    return Markup('<g class="edge"><text x="{}" y="{}">↻ {}</text></g>').format(x, y + beside, ", ".join(cues))


def _rim(x: float, y: float, towards_x: float, towards_y: float) -> tuple[float, float]:
    """Return where the way from the middle of a phase to a point leaves its box."""
    dx, dy = towards_x - x, towards_y - y
    scale = min(_HALF_WIDTH / abs(dx) if dx else 9.0, _HALF_HEIGHT / abs(dy) if dy else 9.0)
    return x + dx * scale, y + dy * scale
