"""How the policy's values are said to people: levels, actions, triggers; and how any text is made inert; pure.

Called by every renderer beside it. What a person or a foreign system wrote (a service's name, a drill's reasons) goes
through `inert` before it reaches a page.
"""

import re
import unicodedata

from controlplane.degradation.action import Action, ServeFromCache, SwitchPool, UsePool, spell_actions
from controlplane.degradation.matrix import AlertFires, AllOf, Condition, Row, Trigger
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.signals.sample import CATALOGUE, Direction, Unit
from controlplane.slo.threshold import Band

MAX_TEXT = 240
"""Longer values are cut: a page that is read at night has no use for more."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def invisible(char: str) -> bool:
    """Tell whether a character cannot be seen where it stands: controls, separators of lines, marks of direction."""
    return char in _BIDI or unicodedata.category(char) in ("Cc", "Zl", "Zp")


def inert(text: object, limit: int = MAX_TEXT) -> str:
    """Return a value as one line without control or direction characters, cut at `limit` characters."""
    kept = str(text)
    if not kept.isprintable():
        kept = "".join(" " if invisible(c) else c for c in kept if c not in _BIDI)
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def slug(text: str) -> str:
    """Return a value as part of a file name: letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80] or "unnamed"


def spell_ratio(value: float) -> str:
    """Write a ratio 0..1 as a percentage."""
    return f"{value * 100:g}%"


def spell_value(signal: str, value: float) -> str:
    """Write a level of a signal as it stands on the policy page."""
    unit = CATALOGUE[signal].unit
    if unit is Unit.RATIO:
        return spell_ratio(value)
    if unit is Unit.SECONDS:
        return f"{value * 1000:g}ms" if value < 1 else f"{value:g}s"
    return f"{value:g}/s" if unit is Unit.PER_SECOND else f"{value:g}"


def spell_doing(row: Row) -> str:
    """Say what a row does, as a line of prose."""
    return ", then ".join(_spell_action(action) for action in row.do)


def _spell_action(action: Action) -> str:
    if isinstance(action, SwitchPool):
        return f"switch all traffic of the primary pool to {inert(action.to)}"
    if isinstance(action, ServeFromCache):
        return f"answer the primary pool's traffic from {inert(action.pool)}"
    if isinstance(action, UsePool):
        return f"send {spell_ratio(action.share)} of the primary pool's traffic to {inert(action.pool)}"
    return inert(spell_actions((action,)))


def page_name(row: Row) -> str:
    """Return a row's runbook, such as `P0-switch-to-standby`."""
    if row.move is None:
        return f"{row.level}-{slug(spell_actions(row.do))}"
    verb = {SwitchPool: "switch-to", ServeFromCache: "serve-from", UsePool: "use"}[type(row.move)]
    return f"{row.level}-{verb}-{slug(row.target)}"


def spell_trigger(policy: Policy, trigger: Trigger) -> tuple[str, ...]:
    """Say what trips a row: one line for each part of which any is enough."""
    if isinstance(trigger, Condition):
        return (_condition(policy, trigger),)
    if isinstance(trigger, AlertFires):
        return (f"alert `{inert(trigger.alert)}` fires",)
    lines = tuple(line for part in trigger.parts for line in spell_trigger(policy, part))
    return (" **and** ".join(lines),) if isinstance(trigger, AllOf) else lines


def _condition(policy: Policy, condition: Condition) -> str:
    name, threshold = condition.signal, policy.thresholds.get(condition.signal)
    held = f" for {spell_duration(condition.dwell)}" if condition.dwell else ""
    if condition.above is not None:
        return f"`{name}` at {spell_value(name, condition.above)} or over{held}"
    if condition.below is not None:
        return f"`{name}` under {spell_value(name, condition.below)}{held}"
    band = condition.band or Band.BREACH
    if threshold is None:
        return f"`{name}` in {band}"
    level = threshold.breach if band is Band.BREACH else threshold.warn
    side = "over" if CATALOGUE[name].worse is Direction.UP else "under"
    dwell = f" for {spell_duration(threshold.dwell)}" if threshold.dwell else ""
    return f"`{name}` in {band} ({spell_value(name, level)} or {side}{dwell})"
