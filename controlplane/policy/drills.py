"""The `drills:` section of the policy page: plans by name."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from controlplane.chaos.guard import Guard
from controlplane.chaos.schedule import Freeze, read_freeze
from controlplane.degradation.matrix import Condition
from controlplane.policy.model import DrillPlan, Slot
from controlplane.policy.moment import check_moment
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.typed import BAD, Bad, is_mapping, read, read_list, read_mapping
from controlplane.signals.sample import CATALOGUE, Signal

ReadCondition = Callable[[Page, Signal, Any, Path], Condition | None]

_DAY = re.compile(r"([1-9]|[12]\d|3[01])|last|(1st|2nd|3rd|4th|5th|last) (mon|tue|wed|thu|fri|sat|sun)")
_OWN = ("guards", "freeze")
"""Keys of a plan whose values are not read by their type alone."""


def read_drills(page: Page, node: Any, read_condition: ReadCondition) -> dict[str, DrillPlan]:
    """Read every plan.

    Args:
        page: collects what is wrong.
        node: what stands under `drills:`.
        read_condition: reads `{ below: 99%, for: 10s }` for a signal, as the matrix does.
    """
    return read_mapping(page, node, ("drills",), partial(_plan, page, read_condition))


def _plan(page: Page, read_condition: ReadCondition, node: Any, path: Path) -> DrillPlan | Bad:
    if not isinstance(node, dict):
        return BAD if not is_mapping(page, node, path) else _plan(page, read_condition, dict(node), path)
    at = node.get("at")
    if isinstance(at, dict) and type(at.get("day")) is int:
        at["day"] = str(at["day"])  # A day of the month may be written as the number it is.
    own = {key: node.pop(key) for key in _OWN if key in node}
    plan: DrillPlan | Bad = read(page, DrillPlan, node, path)
    node.update(own)
    guards = _guards(page, own.get("guards", {}), (*path, "guards"), read_condition)
    freeze = read_list(page, own.get("freeze", []), (*path, "freeze"), partial(_freeze, page))
    if isinstance(plan, Bad):
        return BAD
    _check_slot(page, plan.at, (*path, "at"))
    _check_limits(page, plan, path)
    return replace(plan, guards=guards, freeze=freeze)


def _guards(page: Page, node: Any, path: Path, read_condition: ReadCondition) -> dict[str, Guard]:
    guards: dict[str, Guard] = {}
    if not is_mapping(page, node, path):
        return guards
    page.check_keys(node, path, tuple(CATALOGUE))
    for signal, body in node.items():
        if signal not in CATALOGUE:
            continue
        here = (*path, signal)
        if not isinstance(body, Mapping):
            page.wrong(
                here, f"`{spell(here)}: {body}` is no guard", "a guard has a bound and a time",
                "write `{ below: 99%, for: 10s }`",
            )  # fmt: skip
            continue
        read = read_condition(page, CATALOGUE[signal], body, here)
        if read:
            guards[signal] = Guard(read.below, read.above, read.dwell)
    return guards


def _freeze(page: Page, node: Any, path: Path) -> Freeze | Bad:
    try:
        return read_freeze(str(node))
    except ValueError as error:
        page.wrong(
            path, f"`{spell(path)}: {node}` is no freeze", str(error), 'write days such as "2026-12-24/2027-01-02"'
        )
        return BAD


def _check_limits(page: Page, plan: DrillPlan, path: Path) -> None:
    """Refuse limits under which nobody would be served, or nothing would ever be tried."""
    if plan.blast_radius.endpoints >= 1.0:
        page.wrong(
            (*path, "blast_radius", "endpoints"), "a blast radius of 100% leaves nobody to serve",
            "a drill may never take every endpoint away", "write a smaller share, such as 50%",
        )  # fmt: skip
    if plan.blast_radius.survivors < 1:
        page.wrong(
            (*path, "blast_radius", "survivors"), f"{plan.blast_radius.survivors} survivors serve nobody",
            "somebody has to serve while the fault lasts", "write at least 1",
        )  # fmt: skip
    for key, span in (("retry_within", plan.retry_within), ("overdue_after", plan.overdue_after)):
        if span <= timedelta(0):
            page.wrong((*path, key), f"`{spell((*path, key))}` is nothing", "it is a time", "write one such as `6h`")


def _check_slot(page: Page, at: Slot, path: Path) -> None:
    check_moment(page, at.hour, at.minute, at.timezone, path)
    if not _DAY.fullmatch(at.day):
        page.wrong(
            (*path, "day"),
            f"`{spell((*path, 'day'))}: {at.day}` never comes",
            "it is no day of the month",
            "write a number from 1 to 31, `last`, or one such as `1st tue` or `last fri`",
        )
