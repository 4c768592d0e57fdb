"""A plan in the words of Istio's `VirtualService` and of a Gateway API `HTTPRoute`, and read back from them. Pure.

Ours is the list of rules as a whole: both kinds keep it as one atomic field, so a server-side apply owns all of it or
none. In it, the weights of our pools' backends and the `x-degradation-level` response header are set; the rest of every
rule, and rules that lead to none of our pools, are handed back as they are.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.degradation.actuator import Observed, RoutePlan
from controlplane.degradation.actuators.headers import LEVEL_HEADER

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RouteKind:
    """One kind of route object."""

    group: str
    version: str
    plural: str
    kind: str
    rules: str
    """The field of its spec that holds the rules."""
    backends: str
    """The field of a rule that holds what it splits traffic over."""


ROUTES: Mapping[str, RouteKind] = {
    "virtualservice": RouteKind("networking.istio.io", "v1", "virtualservices", "VirtualService", "http", "route"),
    "httproute": RouteKind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", "rules", "backendRefs"),
}
_HEADER_FILTER = "ResponseHeaderModifier"


def refusal_of(plan: RoutePlan) -> str:
    """Return what of a plan these routes have no words for, or an empty text."""
    if plan.shed:
        return "neither a VirtualService nor an HTTPRoute can shed: limit the rate at the gateway itself"
    if plan.cordoned:
        return "neither a VirtualService nor an HTTPRoute knows single endpoints: cordon the node, or scale"
    return ""


def planned_rules(found: Mapping[str, Any], kind: RouteKind, pools: Mapping[str, str], plan: RoutePlan) -> list[Any]:
    """Return the rules of an object as the plan wants them.

    Args:
        found: the object as it is.
        kind: which of the two it is.
        pools: the backend's name by pool.
        plan: the split.

    Raises:
        LookupError: when no rule leads to our pools, or one lacks a pool of the plan.
        ValueError: when a rule that is ours also leads elsewhere: the shares would not be what the plan says.
    """
    rules: list[Any] = copy.deepcopy(list(found.get("spec", {}).get(kind.rules) or ()))
    ours = list(_ours(rules, kind, pools))
    if not ours:
        raise LookupError(f"no rule of {kind.kind} leads to any of {', '.join(sorted(pools.values()))}")
    by_backend = {backend: pool for pool, backend in pools.items()}
    for place, rule in ours:
        names = [backend_name(entry) for entry in rule[kind.backends]]
        foreign = [name for name in names if name not in by_backend]
        if foreign:
            raise ValueError(f"rule {place + 1} leads to {', '.join(foreign)} as well, which is no pool of the fleet")
        lacking = [pools.get(p, p) for p, weight in plan.weights.items() if weight and pools.get(p, p) not in names]
        if lacking:
            raise LookupError(f"rule {place + 1} has no backend {', '.join(lacking)}")
        for entry, name in zip(rule[kind.backends], names, strict=True):
            entry["weight"] = plan.weights.get(by_backend[name], 0)
        _set_level(rule, kind, plan.level.value)
    return rules


def observed_in(found: Mapping[str, Any], kind: RouteKind, pools: Mapping[str, str]) -> Observed:
    """Return the split that an object asks for, and what its gateway has against it."""
    rules = list(found.get("spec", {}).get(kind.rules) or ())
    by_backend = {backend: pool for pool, backend in pools.items()}
    splits = []
    for _, rule in _ours(rules, kind, pools):
        entries = rule[kind.backends]
        # One backend without a weight gets everything; a Gateway API weight is 1 unless it is given.
        each = 100 if len(entries) == 1 else 1
        weights = {by_backend.get(backend_name(e), backend_name(e)): int(e.get("weight", each)) for e in entries}
        splits.append(({pool: weight for pool, weight in weights.items() if weight}, _level(rule, kind)))
    if not splits:
        return Observed({}, "", rejected=f"no rule of {kind.kind} leads to the fleet's pools")
    if any(split != splits[0] for split in splits):
        return Observed({}, "", rejected="its rules split the traffic differently")
    return Observed(*splits[0], rejected=_refused(found))


def backend_name(entry: Mapping[str, Any]) -> str:
    """Return what a backend is called: a Service's name, or `HOST` or `HOST/SUBSET`."""
    if "destination" in entry:
        destination = entry["destination"]
        subset = destination.get("subset")
        return f"{destination['host']}/{subset}" if subset else str(destination["host"])
    return str(entry.get("name", ""))


def _ours(
    rules: Sequence[Mapping[str, Any]], kind: RouteKind, pools: Mapping[str, str]
) -> Iterator[tuple[int, Document]]:
    """Walk the rules that lead to at least one of our pools."""
    backends = set(pools.values())
    for place, rule in enumerate(rules):
        if any(backend_name(entry) in backends for entry in rule.get(kind.backends) or ()):
            yield place, dict(rule) if not isinstance(rule, dict) else rule


def _set_level(rule: Document, kind: RouteKind, level: str) -> None:
    if kind.rules == "http":
        rule.setdefault("headers", {}).setdefault("response", {}).setdefault("set", {})[LEVEL_HEADER] = level
        return
    filters = rule.setdefault("filters", [])
    ours = next((f for f in filters if f.get("type") == _HEADER_FILTER), None)
    if ours is None:  # A rule has at most one of these.
        ours = {"type": _HEADER_FILTER, "responseHeaderModifier": {}}
        filters.append(ours)
    headers = ours["responseHeaderModifier"].setdefault("set", [])
    headers[:] = [header for header in headers if header["name"].lower() != LEVEL_HEADER]
    headers.append({"name": LEVEL_HEADER, "value": level})


def _level(rule: Mapping[str, Any], kind: RouteKind) -> str:
    if kind.rules == "http":
        return str(rule.get("headers", {}).get("response", {}).get("set", {}).get(LEVEL_HEADER, ""))
    for found in rule.get("filters") or ():
        for header in found.get("responseHeaderModifier", {}).get("set") or ():
            if header["name"].lower() == LEVEL_HEADER:
                return str(header["value"])
    return ""


def _refused(found: Mapping[str, Any]) -> str:
    """Return what a gateway has against an HTTPRoute, from the conditions in its status."""
    for parent in found.get("status", {}).get("parents") or ():
        for condition in parent.get("conditions") or ():
            if condition.get("type") in ("Accepted", "ResolvedRefs") and condition.get("status") == "False":
                return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""
