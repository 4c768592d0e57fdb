"""The page's `degradation.prewarm`: which pools are warmed up by the clock. Called by `degradation`."""

from collections.abc import Collection
from datetime import timedelta
from functools import partial
from typing import Any

from controlplane.degradation.warmup import FORECAST, MOST_BEFORE, WarmUp
from controlplane.policy.moment import check_moment
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.typed import BAD, Bad, is_mapping, read, read_list


def read_prewarm(page: Page, node: Any, path: Path, pools: Collection[str]) -> tuple[WarmUp, ...]:
    """Read every line.

    Args:
        page: collects what is wrong.
        node: what stands there.
        path: where.
        pools: the fleet's.
    """
    return read_list(page, node, path, partial(_warm_up, page, pools))


def _warm_up(page: Page, pools: Collection[str], node: Any, path: Path) -> WarmUp | Bad:
    if not isinstance(node, dict):
        is_mapping(page, node, path)
        return BAD
    learnt = node.setdefault("at", FORECAST) == FORECAST  # The resolved page shows what is in force.
    if learnt:
        del node["at"]
    found: WarmUp | Bad = read(page, WarmUp, node, path)
    if learnt:
        node["at"] = FORECAST
    if isinstance(found, Bad):
        return BAD
    if found.pool not in pools:
        page.wrong(
            (*path, "pool"), f"`{spell((*path, 'pool'))}: {found.pool}` is no pool", "the fleet has no such pool",
            f"one of: {', '.join(pools)}",
        )  # fmt: skip
    if not timedelta(0) < found.before <= MOST_BEFORE:
        page.wrong(
            (*path, "before"), f"`{spell((*path, 'before'))}` is out of reach", "peaks come round within a week",
            "write a time such as `2h`, at most `7d`",
        )  # fmt: skip
    if found.completions < 1:
        page.wrong(
            (*path, "completions"), f"`{spell((*path, 'completions'))}: {found.completions}` warms nothing",
            "each endpoint needs at least one", "write 4",
        )  # fmt: skip
    if found.at:
        check_moment(page, found.at.hour, found.at.minute, found.at.timezone, (*path, "at"))
    return found
