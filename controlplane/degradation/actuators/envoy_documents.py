"""A plan in Envoy's own words: what is ours in `rds.json` and in the `eds*.json` files, and how it is read back. Pure.

Ours in the routes: the weights of `weighted_clusters` entries named after pools; the value of the
`x-degradation-level` response header; a token bucket on every route that splits traffic (`typed_per_filter_config`,
known by its `stat_prefix`); and a route before each of those that refuses low priorities (known by its name).
Ours in the endpoints: `DRAINING` on those that carry our mark in their metadata. Everything else is whoever wrote it.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.degradation.action import Shed
from controlplane.degradation.actuator import RoutePlan, burst_of
from controlplane.degradation.actuators.headers import GATEWAY, LEVEL_HEADER, PRIORITY_HEADER, SERVED_BY_HEADER

Document = dict[str, Any]

RATE_LIMIT_FILTER = "envoy.filters.http.local_ratelimit"
SHED = "controlplane_shed"
"""The `stat_prefix` of our bucket, and the name of the route that refuses by priority."""
CORDON_MARK = "controlplane"
RETRY_AFTER_S = 1
"""What a request that was refused is told to wait; a bucket refills within a second or so."""
MOST = 2**63 - 1
"""The largest number that Envoy compares a header with."""
_TYPES = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3"
_PER_FILL_S = 0.1
"""The bucket is refilled about this often, so that what is let in is not clumped; Envoy wants 50 ms at least."""


def set_plan(document: Mapping[str, Any], plan: RoutePlan) -> None:
    """Change the weights, the level and what is shed on every route that splits traffic over pools.

    Raises:
        LookupError: when a pool of the plan has no entry to weigh.
        ValueError: when the bucket cannot be had, or a route is limited by somebody else's already.
    """
    for route_config in document["resources"]:
        for host in route_config.get("virtual_hosts", ()):
            if any(_is_floor(route) for route in host.get("routes", ())):
                host["routes"] = [route for route in host["routes"] if not _is_floor(route)]
        for split in _splits(route_config):
            _weigh(split, plan.weights)
        for header in _level_headers(route_config):
            header["header"]["value"] = plan.level.value
        for host in route_config.get("virtual_hosts", ()):
            _shed(host, plan)


def _weigh(split: Mapping[str, Any], weights: Mapping[str, int]) -> None:
    entries = {c["name"]: c for c in split["clusters"]}
    missing = [pool for pool, weight in weights.items() if weight and pool not in entries]
    if missing:
        raise LookupError(f"no weighted cluster named {', '.join(missing)}")
    for pool, entry in entries.items():
        entry["weight"] = weights.get(pool, 0)


def _shed(host: Document, plan: RoutePlan) -> None:
    """Put the bucket on the splitting routes of a host and the floor before them, or take both away."""
    routes: list[Document] = []
    for route in host.get("routes", ()):
        if _split_of(route):
            filters = route.get("typed_per_filter_config", {})
            if RATE_LIMIT_FILTER in filters and filters[RATE_LIMIT_FILTER].get("stat_prefix") != SHED:
                if plan.shed:
                    raise ValueError("a route that splits traffic has a rate limit of its own already")
            elif plan.shed:
                route.setdefault("typed_per_filter_config", {})[RATE_LIMIT_FILTER] = bucket(plan.shed, plan.level.value)
            elif filters.pop(RATE_LIMIT_FILTER, None) and not filters:
                del route["typed_per_filter_config"]
            if plan.shed and plan.shed.floor is not None:
                routes.append(_floor(route["match"], plan.shed.floor, plan.level.value))
        routes.append(route)
    if routes:
        host["routes"] = routes


def bucket(shed: Shed, level: str) -> Document:
    """Render the token bucket; what it refuses says so: 429, when to come back, at which level, by whom.

    Raises:
        ValueError: when nothing would ever be let in.
    """
    if not shed.rate > 0:
        raise ValueError(f"a rate of {shed.rate:g}/s would let nobody in")
    per_fill = max(round(shed.rate * _PER_FILL_S), 1)
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": f"{_TYPES}.LocalRateLimit",
        "stat_prefix": SHED,
        "token_bucket": {
            "max_tokens": max(burst_of(shed), per_fill),
            "tokens_per_fill": per_fill,
            "fill_interval": f"{max(per_fill / shed.rate, 0.05):.6f}s",
        },
        "filter_enabled": always,
        "filter_enforced": copy.deepcopy(always),
        "response_headers_to_add": [
            _header("retry-after", str(RETRY_AFTER_S)),
            _header(LEVEL_HEADER, level),
            _header(SERVED_BY_HEADER, GATEWAY),
        ],
    }


def _floor(match: Mapping[str, Any], floor: int, level: str) -> Document:
    """Render the route that refuses what is less important; a request without a priority is let through."""
    less = {"name": PRIORITY_HEADER, "range_match": {"start": str(floor + 1), "end": str(MOST)}}
    return {
        "name": SHED,
        "match": {**copy.deepcopy(dict(match)), "headers": [*copy.deepcopy(match.get("headers", [])), less]},
        "direct_response": {"status": 429, "body": {"inline_string": "refused: low priority\n"}},
        "response_headers_to_add": [
            _header("retry-after", str(RETRY_AFTER_S)),
            _header(LEVEL_HEADER, level),
            _header(SERVED_BY_HEADER, GATEWAY),
        ],
    }


def _header(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


# -- read back ---------------------------------------------------------------------------------------------------------


def weights_of(route_config: Mapping[str, Any]) -> dict[str, int]:
    """Return the weight of every pool of a route configuration."""
    return {c["name"]: int(c.get("weight", 0)) for split in _splits(route_config) for c in split["clusters"]}


def level_of(route_config: Mapping[str, Any]) -> str:
    """Return the level that responses carry; an empty text when none is set."""
    return next((str(h["header"]["value"]) for h in _level_headers(route_config)), "")


def shed_of(route_config: Mapping[str, Any]) -> Shed | None:
    """Return what is shed on the routes that split traffic."""
    floor = None
    for route in _routes(route_config):
        if _is_floor(route):
            ranges = [h["range_match"] for h in route["match"]["headers"] if h["name"] == PRIORITY_HEADER]
            floor = int(ranges[-1]["start"]) - 1
        ours = route.get("typed_per_filter_config", {}).get(RATE_LIMIT_FILTER, {})
        if ours.get("stat_prefix") == SHED:
            tokens = ours["token_bucket"]
            every_s = float(str(tokens["fill_interval"]).removesuffix("s"))
            return Shed(int(tokens.get("tokens_per_fill", 1)) / every_s, float(tokens["max_tokens"]), floor)
    return None


# -- endpoints ---------------------------------------------------------------------------------------------------------


def endpoint_names(document: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    """Walk the endpoints of an EDS document (or of a dumped one) with the names in their metadata."""
    for assignment in document["resources"]:
        for locality in assignment.get("endpoints", ()):
            for entry in locality.get("lb_endpoints", ()):
                yield str(_metadata(entry).get("envoy.lb", {}).get("endpoint", "")), entry


def set_cordons(document: Mapping[str, Any], cordoned: tuple[str, ...]) -> bool:
    """Drain the named endpoints and give back those that are drained by us and no longer named; tell if any changed.

    Raises:
        ValueError: when no endpoint of a pool would be left.
    """
    changed = newly = False
    entries = list(endpoint_names(document))
    for name, entry in entries:
        marked = CORDON_MARK in _metadata(entry)
        if name in cordoned and not marked:
            filters = entry.setdefault("metadata", {}).setdefault("filter_metadata", {})
            filters[CORDON_MARK] = {"cordoned": True, "before": entry.get("health_status", "")}
            entry["health_status"] = "DRAINING"
            changed = newly = True
        elif marked and name not in cordoned:
            before = entry["metadata"]["filter_metadata"].pop(CORDON_MARK).get("before", "")
            entry.pop("health_status", None)
            entry.update({"health_status": before} if before else {})
            changed = True
    if newly and all(entry.get("health_status") == "DRAINING" for _, entry in entries):
        raise ValueError(f"cordoning {', '.join(name for name, _ in entries)} would leave its pool without endpoints")
    return changed


def is_cordoned(entry: Mapping[str, Any]) -> bool:
    """Tell whether a dumped endpoint carries our mark and gets no new requests."""
    return CORDON_MARK in _metadata(entry) and entry.get("health_status") != "HEALTHY"


def _metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry.get("metadata", {}).get("filter_metadata", {})
    return found


# -- walking -----------------------------------------------------------------------------------------------------------


def _routes(route_config: Mapping[str, Any]) -> Iterator[Document]:
    for host in route_config.get("virtual_hosts", ()):
        yield from host.get("routes", ())


def _split_of(route: Mapping[str, Any]) -> Document | None:
    found: Document | None = route.get("route", {}).get("weighted_clusters")
    return found


def _splits(route_config: Mapping[str, Any]) -> Iterator[Document]:
    for route in _routes(route_config):
        if split := _split_of(route):
            yield split


def _is_floor(route: Mapping[str, Any]) -> bool:
    return route.get("name") == SHED and "direct_response" in route


def _level_headers(route_config: Mapping[str, Any]) -> Iterator[Document]:
    """Find our header wherever the document sets it: on the whole configuration, a host or a route."""
    hosts = list(route_config.get("virtual_hosts", ()))
    for holder in (route_config, *hosts, *(route for host in hosts for route in host.get("routes", ()))):
        for header in holder.get("response_headers_to_add", ()):
            if header["header"]["key"].lower() == LEVEL_HEADER:
                yield header
