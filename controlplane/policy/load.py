"""`controlplane.yaml` -> `Policy`, or everything that is wrong with it at once, each with `file:line`, why and fix.

The page is laid over `defaults.yaml`, then read type by type. Called by the command line and by wiring.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import resources
from pathlib import Path as FilePath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from controlplane.degradation.action import MOVES, Action, SwitchPool, UsePool, missing_pool, pool_of
from controlplane.degradation.matrix import (
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
from controlplane.errors import PolicyError, UsageError
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, EndpointSource, FleetSpec
from controlplane.policy import quantity
from controlplane.policy.drills import read_drills
from controlplane.policy.model import Objective, Policy, PublishSpec
from controlplane.policy.page import Page, Path, overlay, parse, spell
from controlplane.policy.typed import BAD, Bad, good, is_mapping, one_of, read, read_list, read_ratio
from controlplane.probes.probe import ProbeSpec
from controlplane.signals.engines import AUTO, ENGINES
from controlplane.signals.sample import CATALOGUE, Direction, Signal, Unit
from controlplane.slo.threshold import Band, Threshold

T = TypeVar("T")

_TOP = ("service", "fleet", "probes", "thresholds", "objectives", "degradation", "drills", "publish")

_BY_UNIT: dict[Unit, Callable[[object], float]] = {
    Unit.SECONDS: lambda text: quantity.duration(text).total_seconds(),
    Unit.RATIO: quantity.ratio,
    Unit.COUNT: quantity.number,
    Unit.PER_SECOND: quantity.number,
    Unit.CELSIUS: quantity.number,
    Unit.WATTS: quantity.number,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and the page it came from."""

    policy: Policy
    resolved: Mapping[str, Any]
    """The page with every default filled in, as people write it."""
    path: FilePath

    @property
    def base(self) -> FilePath:
        """The directory that relative paths on the page start from."""
        return self.path.parent


def default_text() -> str:
    """Return the page of defaults, as text."""
    return resources.files("controlplane.policy").joinpath("defaults.yaml").read_text(encoding="utf-8")


def load(path: FilePath) -> Loaded:
    """Read a policy page.

    Raises:
        PolicyError: with every problem on the page.
        UsageError: when there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            f"no policy page at {path}", "the file does not exist", "name the page, or let `controlplane up` write one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", str(error), "make it a readable UTF-8 file") from error
    return loads(text, path)


def loads(text: str, path: FilePath) -> Loaded:
    """Read a policy page from its text; `path` is for messages and for relative paths on the page."""
    page = parse(str(path), text)
    if page.problems:
        raise PolicyError(tuple(page.problems))
    if not isinstance(page.data, Mapping):
        page.wrong((), "the page is not a mapping", "its top level must be keys such as `service:`", "see README.md")
        raise PolicyError(tuple(page.problems))
    resolved = overlay(parse("defaults.yaml", default_text()).data, page.data)
    policy = _policy(page, resolved)
    if page.problems or policy is None:
        raise PolicyError(tuple(sorted(page.problems, key=lambda p: int(p.where.rpartition(":")[2]))))
    for row in policy.degradation.not_armed:
        resolved["degradation"].pop(row)
    in_order = {key: resolved[key] for key in _TOP if key in resolved}
    return Loaded(policy, in_order, path)


def _policy(page: Page, data: Mapping[str, Any]) -> Policy | None:
    page.check_keys(data, (), _TOP)
    service = _required(page, data, "service", str)
    fleet = _fleet(page, data)
    probes = read_list(page, data["probes"], ("probes",), partial(_probe, page))
    thresholds = _thresholds(page, data["thresholds"])
    objectives = read_list(page, data["objectives"], ("objectives",), partial(read, page, Objective))
    drills, alertmanager = read_drills(page, data["drills"], _condition, _check_url)
    publish = read(page, PublishSpec, data["publish"], ("publish",))
    if isinstance(fleet, FleetSpec):
        degradation = _degradation(page, data["degradation"], fleet)
        if not page.problems and not isinstance(service, Bad):
            return Policy(service, fleet, probes, thresholds, objectives, degradation, drills, publish, alertmanager)
    return None


def _required(page: Page, data: Mapping[str, Any], key: str, kind: type[T]) -> T | Bad:
    if key in data:
        value: T | Bad = read(page, kind, data[key], (key,))
        return value
    page.wrong((), f"`{key}` is missing", "a page needs at least `service` and `fleet`", f"add `{key}:`")
    return BAD


def _fleet(page: Page, data: Mapping[str, Any]) -> FleetSpec | Bad:
    fleet = _required(page, data, "fleet", FleetSpec)
    if not isinstance(fleet, FleetSpec):
        return BAD
    if PRIMARY not in fleet.pools:
        page.wrong(
            ("fleet", "pools"), "missing pool `primary`", "every service has a pool that normally serves it",
            "add `primary: { endpoints: { static: [...] } }`",
        )  # fmt: skip
    if fleet.engine not in (AUTO, *ENGINES):
        page.wrong(
            ("fleet", "engine"), f"unknown engine `{fleet.engine}`", "its metric names are not known",
            f"one of: {', '.join((AUTO, *ENGINES))}",
        )  # fmt: skip
    if GATEWAY_POOL in fleet.pools:
        page.wrong(
            ("fleet", "pools", GATEWAY_POOL),
            f"a pool may not be called `{GATEWAY_POOL}`",
            "the gateway itself is watched under that name",
            "give the pool another name",
        )
    for name, pool in fleet.pools.items():
        _check_source(page, pool.endpoints, ("fleet", "pools", name, "endpoints"))
    return fleet


def _check_source(page: Page, source: EndpointSource, path: Path) -> None:
    if bool(source.static) == bool(source.file):
        page.wrong(
            path, f"`{spell(path)}` needs exactly one of `static` and `file`", "endpoints are listed in one place",
            'write `static: ["http://10.0.1.1:8000"]` or `file: sd/primary.json`',
        )  # fmt: skip
    for i, url in enumerate(source.static):
        why = _no_endpoint(url)
        if why:
            page.wrong(
                (*path, "static", i), f"`{url}` is not an endpoint", why, "write one such as `http://10.0.1.1:8000`"
            )


def _no_endpoint(url: str) -> str:
    """Return why a text is not an endpoint's base URL, or an empty string."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        return str(error)
    return "" if usable else "an endpoint is a base URL"


def _thresholds(page: Page, data: Any) -> dict[str, Threshold]:
    read: dict[str, Threshold] = {}
    if not is_mapping(page, data, ("thresholds",)):
        return read
    page.check_keys(data, ("thresholds",), tuple(CATALOGUE))
    for name, node in data.items():
        if name in CATALOGUE and is_mapping(page, node, ("thresholds", name)):
            threshold = _threshold(page, CATALOGUE[name], node)
            if threshold:
                read[name] = threshold
    return read


def _threshold(page: Page, signal: Signal, node: Mapping[str, Any]) -> Threshold | None:
    path: Path = ("thresholds", signal.name)
    known = ("healthy", "warn", "breach", "window", "for", "min_samples")
    page.check_keys(node, path, known)
    for key in known[:5]:
        if key not in node:
            page.wrong(path, f"`{spell((*path, key))}` is missing", "this signal has no default", f"add `{key}:`")
            return None
    levels = [_level(page, signal, node[key], (*path, key)) for key in ("healthy", "warn", "breach")]
    window = read(page, timedelta, node["window"], (*path, "window"))
    dwell = read(page, timedelta, node["for"], (*path, "for"))
    samples = read(page, int, node.get("min_samples", 1), (*path, "min_samples"))
    if None in levels or isinstance(window, Bad) or isinstance(dwell, Bad) or isinstance(samples, Bad):
        return None
    healthy, warn, breach = (level for level in levels if level is not None)
    ordered = sorted(levels) if signal.worse is Direction.UP else sorted(levels, reverse=True)  # type: ignore[type-var]
    if ordered != levels:
        direction = "rise" if signal.worse is Direction.UP else "fall"
        page.wrong(
            path, f"the levels of `{signal.name}` are out of order", f"from healthy to breach they must {direction}",
            "put them in order",
        )  # fmt: skip
        return None
    return Threshold(healthy, warn, breach, window, dwell, samples)


def _level(page: Page, signal: Signal, node: Any, path: Path) -> float | None:
    """Read one level in the unit its signal has."""
    try:
        return _BY_UNIT[signal.unit](node)
    except ValueError as error:
        page.wrong(
            path, f"`{spell(path)}: {node}` has the wrong unit", f"{signal.name} is held in {signal.unit.spelled}",
            f"write {error}",
        )  # fmt: skip
        return None


def _degradation(page: Page, data: Any, fleet: FleetSpec) -> Degradation:
    path: Path = ("degradation",)
    if not is_mapping(page, data, path):
        return Degradation({})
    levels = [level for level in Level if level is not Level.NONE]
    page.check_keys(data, path, ("mode", *levels))
    mode = read(page, Mode, data.get("mode", Mode.AUTO), (*path, "mode"))
    rows: dict[Level, Row] = {}
    not_armed: dict[str, str] = {}
    for level in levels:
        row = _row(page, level, data[level]) if level in data else None
        if row is None:
            continue
        lacking = missing_pool(row.do, fleet.pools)
        if not lacking:
            rows[level] = row
        elif (*path, level) in page.lines:
            page.wrong(
                (*path, level, "do"), f"row {level} needs pool `{lacking}`", "the fleet has no such pool",
                f"add it under `fleet.pools`, or leave {level} out",
            )  # fmt: skip
        else:
            not_armed[level] = f"the fleet has no pool `{lacking}`"
    return Degradation(rows, mode if isinstance(mode, Mode) else Mode.AUTO, not_armed)


def _row(page: Page, level: Level, node: Any) -> Row | None:
    path: Path = ("degradation", level.value)
    if not is_mapping(page, node, path):
        return None
    known = ("when", "do", "within", "release")
    page.check_keys(node, path, known)
    for key in known[:3]:
        if key not in node:
            page.wrong(
                path, f"`{spell((*path, key))}` is missing", "a row says when, what and how fast", f"add `{key}:`"
            )
            return None
    when = _trigger(page, node["when"], (*path, "when"))
    do = _action(page, node["do"], (*path, "do"))
    within = read(page, timedelta, node["within"], (*path, "within"))
    release = _release(page, node.get("release", {}), (*path, "release"))
    if when is None or do is None or isinstance(within, Bad) or release is None:
        return None
    return Row(level, when, (do,), within, release)


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


def _action(page: Page, node: Any, path: Path) -> Action | None:
    """Read `do: [ { switch_pool: { to: standby } } ]`."""
    if not isinstance(node, list) or len(node) != 1 or not isinstance(node[0], Mapping) or len(node[0]) != 1:
        page.wrong(
            path, f"`{spell(path)}` is not one action", "a row pulls one lever",
            "write `do: [ { switch_pool: { to: standby } } ]`",
        )  # fmt: skip
        return None
    (verb, body), here = next(iter(node[0].items())), (*path, 0)
    page.check_keys(node[0], here, ("switch_pool", "use_pool"))
    if verb == "switch_pool":
        return _elsewhere(page, good(read(page, SwitchPool, body, (*here, verb))), (*here, verb, "to"))
    if verb == "use_pool" and is_mapping(page, body, (*here, verb)):
        share = read_ratio(page, body.get("share", 1.0), (*here, verb, "share"))
        pool = read(page, str, body.get("pool"), (*here, verb, "pool"))
        page.check_keys(body, (*here, verb), ("pool", "share"))
        use = None if isinstance(pool, Bad) or isinstance(share, Bad) else UsePool(pool, share)
        return _elsewhere(page, use, (*here, verb, "pool"))
    return None


def _elsewhere(page: Page, action: Action | None, path: Path) -> Action | None:
    """Refuse an action that moves the primary's traffic to the primary."""
    if action is None or not isinstance(action, MOVES) or pool_of(action) != PRIMARY:
        return action
    page.wrong(path, "the lever leads back to `primary`", "it would move nothing", "name another pool")
    return None


def _trigger(page: Page, node: Any, path: Path) -> Trigger | None:
    """Read a tree of `any`, `all` and conditions."""
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
        good = tuple(p for p in parts if p is not None)
        combine = AnyOf if key == "any" else AllOf
        return combine(good) if len(good) == len(parts) else None
    page.check_keys(node, path, ("any", "all", *CATALOGUE))
    return _condition(page, CATALOGUE[key], body, here) if key in CATALOGUE else None


def _condition(page: Page, signal: Signal, body: Any, path: Path) -> Condition | None:
    """Read one of `100%`, `breach`, `{ above: 5%, for: 3s }`."""
    if body in (Band.WARN.value, Band.BREACH.value):
        return Condition(signal.name, band=Band(body))
    if not isinstance(body, Mapping):
        level = _level(page, signal, body, path)
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
    level = _level(page, signal, body[side], (*path, side))
    dwell = read(page, timedelta, body.get("for", "0s"), (*path, "for"))
    if level is None or isinstance(dwell, Bad):
        return None
    above, below = (level, None) if side == "above" else (None, level)
    return Condition(signal.name, above=above, below=below, dwell=dwell)


def _probe(page: Page, node: Any, path: Path) -> ProbeSpec | Bad:
    spec: ProbeSpec | Bad = one_of(page, ProbeSpec, node, path)
    if isinstance(spec, ProbeSpec) and spec.promql:
        here = (*path, "promql", "queries")
        page.check_keys(spec.promql.queries, here, tuple(CATALOGUE))
        if not spec.promql.queries:
            page.wrong(here, f"`{spell(here)}` is empty", "nothing would be asked", "name a signal and its expression")
        _check_url(page, spec.promql.url, (*path, "promql", "url"))
    if isinstance(spec, ProbeSpec) and spec.events:
        _check_url(page, spec.events.api, (*path, "events", "api"))
    for kind, at in (("host", spec.host), ("gpu", spec.gpu)) if isinstance(spec, ProbeSpec) else ():
        if at and at.page:
            _check_url(page, at.page, (*path, kind, "page"))
    return spec


def _check_url(page: Page, url: str, path: Path) -> None:
    why = _no_endpoint(url)
    if why:
        such = f"write `http://{url}`" if "://" not in url else "write one such as `http://10.0.1.1:9090`"
        page.wrong(path, f"`{spell(path)}: {url}` is no URL", why, such)
