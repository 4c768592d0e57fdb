"""The page's `degradation`: the matrix, row by row, and the rules that hold between rows. Called by `load`."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from controlplane.degradation.action import missing_pool
from controlplane.degradation.errand import CommandSpec, ReceiverSpec, wrong_with_command, wrong_with_receiver
from controlplane.degradation.matrix import (
    MAX_SWITCHES_PER_HOUR,
    AlertFires,
    AllOf,
    AnyOf,
    Condition,
    Degradation,
    Level,
    Mode,
    ReleasePlan,
    Row,
    Trigger,
)
from controlplane.fleet.model import FleetSpec
from controlplane.policy.actions import Named, read_actions
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.prewarm import read_prewarm
from controlplane.policy.thresholds import read_level
from controlplane.policy.typed import Bad, good, is_mapping, read, read_list, read_mapping, read_ratio
from controlplane.signals.sample import CATALOGUE, Direction, Signal
from controlplane.slo.threshold import Band

S = TypeVar("S", ReceiverSpec, CommandSpec)

_PATH: Path = ("degradation",)
_LEVELS = tuple(level for level in Level if level is not Level.NONE)
_KEYS = ("mode", "max_switches_per_hour", "receivers", "commands", "prewarm", *_LEVELS)
_ROW_KEYS = ("when", "do", "within", "release", "escalate", "mode")


def read_degradation(page: Page, data: Any, fleet: FleetSpec) -> Degradation:
    """Read the matrix; a default row that the fleet cannot carry out is left out, with the reason."""
    if not is_mapping(page, data, _PATH):
        return Degradation({})
    page.check_keys(data, _PATH, _KEYS)
    mode = read(page, Mode, data.get("mode", Mode.AUTO), (*_PATH, "mode"))
    switches = _switches(page, data.get("max_switches_per_hour", MAX_SWITCHES_PER_HOUR))
    receivers = _specs(page, data, "receivers", ReceiverSpec, wrong_with_receiver)
    commands = _specs(page, data, "commands", CommandSpec, wrong_with_command)
    named = Named(frozenset(data.get("receivers") or ()), frozenset(data.get("commands") or ()))
    prewarm = read_prewarm(page, data.get("prewarm") or [], (*_PATH, "prewarm"), fleet.pools)
    rows: dict[Level, Row] = {}
    not_armed: dict[str, str] = {}
    for level in _LEVELS:
        row = _row(page, level, data[level], named) if level in data else None
        if row is None:
            continue
        lacking = missing_pool(row.do, fleet.pools)
        if not lacking:
            rows[level] = row
        elif (*_PATH, level) in page.lines:
            page.wrong(
                (*_PATH, level, "do"), f"row {level} needs pool `{lacking}`", "the fleet has no such pool",
                f"add it under `fleet.pools`, or leave {level} out",
            )  # fmt: skip
        else:
            not_armed[level] = f"the fleet has no pool `{lacking}`"
    rows = {level: _escalation(page, row, rows) for level, row in rows.items()}
    _check_cycles(page, rows)
    mode = mode if isinstance(mode, Mode) else Mode.AUTO
    return Degradation(rows, mode, not_armed, switches, receivers, commands, prewarm)


def _specs(
    page: Page, data: Mapping[str, Any], key: str, kind: type[S], wrong_with: Callable[[S], str]
) -> dict[str, S]:
    """Read what actions may call by name."""
    path: Path = (*_PATH, key)
    found: dict[str, S] = read_mapping(page, data.get(key) or {}, path, partial(read, page, kind))
    for name, spec in found.items():
        why = wrong_with(spec)
        if why:
            page.wrong((*path, name), f"`{spell((*path, name))}` is not usable", why, "see docs/matrix.md")
    return found


def _switches(page: Page, node: Any) -> int:
    path = (*_PATH, "max_switches_per_hour")
    count = read(page, int, node, path)
    if isinstance(count, int) and count < 1:
        page.wrong(path, f"`{spell(path)}: {count}` lets nothing happen", "each engagement is one switch", "say 6")
    return count if isinstance(count, int) else MAX_SWITCHES_PER_HOUR


def _row(page: Page, level: Level, node: Any, named: Named) -> Row | None:
    path: Path = (*_PATH, level.value)
    if not is_mapping(page, node, path):
        return None
    page.check_keys(node, path, _ROW_KEYS)
    for key in _ROW_KEYS[:3]:
        if key not in node:
            page.wrong(
                path, f"`{spell((*path, key))}` is missing", "a row says when, what and how fast", f"add `{key}:`"
            )
            return None
    when = _trigger(page, node["when"], (*path, "when"))
    do = read_actions(page, node["do"], (*path, "do"), named)
    within = read(page, timedelta, node["within"], (*path, "within"))
    release = _release(page, node.get("release", {}), (*path, "release"))
    escalate = read(page, Level, node["escalate"], (*path, "escalate")) if node.get("escalate") is not None else None
    mode = read(page, Mode, node["mode"], (*path, "mode")) if node.get("mode") is not None else None
    if when is None or do is None or isinstance(within, Bad) or release is None:
        return None
    return Row(level, when, do, within, release, good(escalate), good(mode))


def _escalation(page: Page, row: Row, rows: Mapping[Level, Row]) -> Row:
    """Refuse an escalation that leads nowhere; one of the defaults is left out where its row is not armed."""
    if row.escalate is None or row.escalate in rows:
        return row
    path = (*_PATH, row.level.value, "escalate")
    if path in page.lines:
        page.wrong(
            path, f"row {row.level} escalates to {row.escalate}, which is not armed", "nobody would act",
            f"one of: {', '.join(level for level in rows if level is not row.level) or 'no other row is armed'}",
        )  # fmt: skip
    return _without_escalation(row)


def _without_escalation(row: Row) -> Row:
    return Row(row.level, row.when, row.do, row.within, row.release, None, row.mode)


def _check_cycles(page: Page, rows: Mapping[Level, Row]) -> None:
    """Refuse rows that escalate to each other in a circle: a fault would chase itself."""
    told: set[Level] = set()
    for level in rows:
        way = [level]
        while (following := rows[way[-1]].escalate) is not None and following not in way:
            way.append(following)
        if following == level and level not in told:
            told.update(way)
            circle = " -> ".join((*way, level))
            page.wrong(
                (*_PATH, level.value, "escalate"), f"the escalation goes in a circle: {circle}",
                "a fault that no row mends would chase itself", "let it end at the worst row",
            )  # fmt: skip


def _release(page: Page, node: Any, path: Path) -> ReleasePlan | None:
    if not is_mapping(page, node, path):
        return None
    page.check_keys(node, path, ("steps", "hold"))
    hold = read(page, timedelta, node.get("hold", "30s"), (*path, "hold"))
    steps = read_list(page, node.get("steps", ["10%", "50%", "100%"]), (*path, "steps"), partial(read_ratio, page))
    if not steps or list(steps) != sorted(set(steps)) or steps[-1] != 1.0:
        page.wrong(
            (*path, "steps"), "the release steps do not lead back to the primary", "they rise and end at 100%",
            "write `steps: [10%, 50%, 100%]`",
        )  # fmt: skip
        return None
    return None if isinstance(hold, Bad) else ReleasePlan(steps, hold)


def _trigger(page: Page, node: Any, path: Path) -> Trigger | None:
    """Read a tree of `any`, `all`, alerts and conditions."""
    if not is_mapping(page, node, path):
        return None
    if len(node) != 1:
        page.wrong(path, f"`{spell(path)}` needs one key", "a condition is about one signal", "use `any:` or `all:`")
        return None
    (key, body), here = next(iter(node.items())), (*path, next(iter(node)))
    if key in ("any", "all"):
        if not isinstance(body, list) or not body:
            page.wrong(here, f"`{spell(here)}` is not a list", "it combines conditions", f"write `{key}: [ ... ]`")
            return None
        parts = [_trigger(page, part, (*here, i)) for i, part in enumerate(body)]
        whole = tuple(p for p in parts if p is not None)
        combine = AnyOf if key == "any" else AllOf
        return combine(whole) if len(whole) == len(parts) else None
    if key == "alert":
        alert = read(page, str, body, here)
        return None if isinstance(alert, Bad) else AlertFires(alert)
    page.check_keys(node, path, ("any", "all", "alert", *CATALOGUE))
    return read_condition(page, CATALOGUE[key], body, here) if key in CATALOGUE else None


def read_condition(page: Page, signal: Signal, body: Any, path: Path) -> Condition | None:
    """Read one of `100%`, `breach`, `{ above: 5%, for: 3s }`."""
    if body in (Band.WARN.value, Band.BREACH.value):
        return Condition(signal.name, band=Band(body))
    if not isinstance(body, Mapping):
        level = read_level(page, signal, body, path)
        if level is None:
            return None
        up = signal.worse is Direction.UP
        return Condition(signal.name, above=level if up else None, below=None if up else level)
    page.check_keys(body, path, ("above", "below", "for"))
    if ("above" in body) == ("below" in body):
        page.wrong(
            path, f"`{spell(path)}` needs one of `above` and `below`", "a condition compares with one level",
            "write `{ above: 5%, for: 3s }`",
        )  # fmt: skip
        return None
    side = "above" if "above" in body else "below"
    level = read_level(page, signal, body[side], (*path, side))
    dwell = read(page, timedelta, body.get("for", "0s"), (*path, "for"))
    if level is None or isinstance(dwell, Bad):
        return None
    above, below = (level, None) if side == "above" else (None, level)
    return Condition(signal.name, above=above, below=below, dwell=dwell)
