"""A row's `do:`: a list of actions, each a mapping of its verb to what it needs. Called by `degradation`.

What cannot be read, and what could not be undone, becomes a problem on the page.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from controlplane.degradation.action import (
    MOVES,
    Action,
    Cordon,
    CordonNode,
    Notify,
    Prewarm,
    RewriteModel,
    Run,
    Scale,
    ServeFromCache,
    Shed,
    SwitchPool,
    UsePool,
    pool_of,
)
from controlplane.degradation.errand import wrong_with_cordon, wrong_with_rewrite
from controlplane.fleet.model import PRIMARY
from controlplane.policy import quantity
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.typed import Bad, good, is_mapping, read, read_ratio

EXAMPLE = "write `do: [ { switch_pool: { to: standby } } ]`"
_WORKLOADS = ("deployment", "statefulset", "hpa")


@dataclass(frozen=True, slots=True)
class Named:
    """What actions may call by name."""

    receivers: frozenset[str]
    commands: frozenset[str]


def read_actions(page: Page, node: Any, path: Path, named: Named) -> tuple[Action, ...] | None:
    """Read a row's actions; None when one of them cannot be read or may not stand there."""
    if not isinstance(node, list) or not node:
        page.wrong(path, f"`{spell(path)}` is not a list of actions", "a row says what it does", EXAMPLE)
        return None
    read_ones = [_action(page, item, (*path, i), named) for i, item in enumerate(node)]
    actions = tuple(action for action in read_ones if action is not None)
    moves = [i for i, action in enumerate(read_ones) if isinstance(action, MOVES)]
    if len(moves) > 1:
        page.wrong(
            (*path, moves[1]), f"`{spell(path)}` moves the primary's traffic twice", "a row has one place for it",
            "keep one of switch_pool, serve_from_cache and use_pool, or make another row",
        )  # fmt: skip
        return None
    return actions if len(actions) == len(node) else None


def _action(page: Page, node: Any, path: Path, named: Named) -> Action | None:
    if not is_mapping(page, node, path):
        return None
    if len(node) != 1:
        page.wrong(path, f"`{spell(path)}` is not one action", "each has its own dash", EXAMPLE)
        return None
    page.check_keys(node, path, tuple(_VERBS))
    (verb, body), here = next(iter(node.items())), (*path, next(iter(node)))
    if verb not in _VERBS or not is_mapping(page, body, here):
        return None
    return _VERBS[verb](page, body, here, named)


def _plain(kind: Any, page: Page, body: Mapping[str, Any], path: Path, _: Named) -> Action | None:
    """Read an action that is a dataclass of plain values."""
    action: Action | None = good(read(page, kind, body, path))
    return action


def _move(kind: Any, key: str, page: Page, body: Mapping[str, Any], path: Path, named: Named) -> Action | None:
    """Read an action that moves the primary's traffic; refuse one that leads back to the primary."""
    action = _plain(kind, page, body, path, named)
    return _elsewhere(page, action, (*path, key))


def _elsewhere(page: Page, action: Action | None, path: Path) -> Action | None:
    if not isinstance(action, MOVES) or pool_of(action) != PRIMARY:
        return action
    page.wrong(path, "the lever leads back to `primary`", "it would move nothing", "name another pool")
    return None


def _use_pool(page: Page, body: Mapping[str, Any], path: Path, _: Named) -> Action | None:
    page.check_keys(body, path, ("pool", "share"))
    share = read_ratio(page, body.get("share", 1.0), (*path, "share"))
    pool = read(page, str, body.get("pool"), (*path, "pool"))
    if isinstance(pool, Bad) or isinstance(share, Bad):
        return None
    if share == 0:
        page.wrong(
            (*path, "share"), f"`{spell((*path, 'share'))}` is 0%", "it would move nothing", "write `share: 50%`"
        )
        return None
    return _elsewhere(page, UsePool(pool, share), (*path, "pool"))


def _shed(page: Page, body: Mapping[str, Any], path: Path, _: Named) -> Action | None:
    page.check_keys(body, path, ("rate", "burst", "floor"))
    rate = _number(page, body.get("rate"), (*path, "rate"), quantity.rate)
    burst = _number(page, body.get("burst", 0), (*path, "burst"), quantity.number)
    floor = read(page, int, body["floor"], (*path, "floor")) if body.get("floor") is not None else None
    if rate is None or burst is None or isinstance(floor, Bad):
        return None
    return Shed(rate, burst, floor)


def _number(page: Page, node: Any, path: Path, read_one: Callable[[object], float]) -> float | None:
    try:
        return read_one(node)
    except ValueError as error:
        page.wrong(path, f"`{spell(path)}: {node}` is not usable", "it is of another kind", f"write {error}")
        return None


def _scale(page: Page, body: Mapping[str, Any], path: Path, _: Named) -> Action | None:
    """Read `{ deployment: chat, replicas: 4 }` or `{ hpa: chat, min: 2, max: 8 }`."""
    page.check_keys(body, path, (*_WORKLOADS, "namespace", "replicas", "min", "max", "take_over"))
    kinds = [kind for kind in _WORKLOADS if kind in body]
    if len(kinds) != 1:
        page.wrong(
            path, f"`{spell(path)}` needs one of `deployment`, `statefulset` and `hpa`", "it changes one workload",
            "write `scale: { deployment: chat, replicas: 4 }` or `scale: { hpa: chat, min: 2, max: 8 }`",
        )  # fmt: skip
        return None
    (kind,) = kinds
    name = read(page, str, body[kind], (*path, kind))
    namespace = read(page, str, body.get("namespace", "default"), (*path, "namespace"))
    counts = {key: read(page, int, body[key], (*path, key)) for key in ("replicas", "min", "max") if key in body}
    take_over = read(page, bool, body.get("take_over", False), (*path, "take_over"))
    if any(isinstance(one, Bad) for one in (name, namespace, take_over, *counts.values())):
        return None
    wanted = {"min", "max"} if kind == "hpa" else {"replicas"}
    if not counts or not counts.keys() <= wanted:
        page.wrong(
            path, f"`{spell(path)}` does not say what a {kind} is to have", f"a {kind} is set by {_any_of(wanted)}",
            "write `{ deployment: chat, replicas: 4 }` or `{ hpa: chat, min: 2, max: 8 }`",
        )  # fmt: skip
        return None
    if any(count < 0 for count in counts.values()) or counts.get("min", 0) > counts.get("max", counts.get("min", 0)):
        page.wrong(path, f"the counts of `{spell(path)}` are out of order", "0 <= min <= max", "mend the counts")
        return None
    return Scale(f"{kind}/{name}", namespace, take_over=take_over, **counts)


def _any_of(keys: set[str]) -> str:
    return " or ".join(f"`{key}`" for key in sorted(keys, reverse=True))


def _prewarm(page: Page, body: Mapping[str, Any], path: Path, named: Named) -> Action | None:
    action = _plain(Prewarm, page, body, path, named)
    if isinstance(action, Prewarm) and (action.completions < 1 or action.max_tokens < 1):
        page.wrong(path, f"`{spell(path)}` sends nothing", "a warm-up is at least one completion of one token", "say 1")
        return None
    return action


def _checked(
    kind: Any, check: Callable[[Any], str], page: Page, body: Mapping[str, Any], path: Path, named: Named
) -> Action | None:
    """Read an action that is a dataclass of plain values, and hold it to what its types do not say."""
    action = _plain(kind, page, body, path, named)
    wrong = check(action) if action is not None else ""
    if wrong:
        page.wrong(path, f"`{spell(path)}` cannot be done", wrong, "mend it")
    return None if wrong else action


def _notify(page: Page, body: Mapping[str, Any], path: Path, named: Named) -> Action | None:
    action = _plain(Notify, page, body, path, named)
    if isinstance(action, Notify) and action.receiver not in named.receivers:
        page.wrong(
            (*path, "receiver"), f"unknown receiver `{action.receiver}`", _known(named.receivers, "receivers"),
            "add it under `degradation.receivers`",
        )  # fmt: skip
        return None
    return action


def _run(page: Page, body: Mapping[str, Any], path: Path, named: Named) -> Action | None:
    action = _plain(Run, page, body, path, named)
    if not isinstance(action, Run):
        return None
    if action.command not in named.commands:
        page.wrong(
            (*path, "command"), f"unknown command `{action.command}`", _known(named.commands, "commands"),
            "allow it by name under `degradation.commands`",
        )  # fmt: skip
        return None
    return action


def _known(names: frozenset[str], what: str) -> str:
    return f"the page's {what}: {', '.join(sorted(names))}" if names else f"the page has no {what}"


_VERBS: Mapping[str, Callable[[Page, Mapping[str, Any], Path, Named], Action | None]] = {
    "switch_pool": partial(_move, SwitchPool, "to"),
    "serve_from_cache": partial(_move, ServeFromCache, "pool"),
    "use_pool": _use_pool,
    "shed": _shed,
    "scale": _scale,
    "rewrite_model": partial(_checked, RewriteModel, wrong_with_rewrite),
    "cordon_node": partial(_checked, CordonNode, wrong_with_cordon),
    "prewarm": _prewarm,
    "cordon": partial(_plain, Cordon),
    "notify": _notify,
    "run": _run,
}
