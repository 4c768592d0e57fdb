"""An experiment: one fault story in Chaos Toolkit's format, checked before anything is run; pure.

Chaos Toolkit runs arbitrary Python and commands if an experiment asks for it, ignores controls that cannot load, and
skips rollbacks by default. So an experiment may use our extension only, must say which row it proves, and must ask
for its rollbacks always to run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from controlplane.chaos.fault import MAX_LEASE, FaultKind, Setting
from controlplane.chaos.parameters import settled
from controlplane.errors import Problem, UsageError
from controlplane.fleet.model import CONTROLPLANE_POOL

EXTENSION_MODULE = "controlplane.chaos.extension"
"""The only module that activities may name."""


_BREAKING: Mapping[str, frozenset[str]] = {
    "inject": frozenset({"kind", "pool", "endpoints", "down_for", "parameters"}),
    "inject_rolling": frozenset({"kind", "pool", "down_for", "within_s", "pause_s", "parameters"}),
}
EXTENSION_FUNCTIONS: Mapping[str, frozenset[str]] = {
    "await_healed": frozenset({"within_s"}),
    "await_level": frozenset({"level", "within_s"}),
    "await_pool": frozenset({"pool", "within_s"}),
    "await_row": frozenset({"row", "phase", "within_s"}),
    "heal": frozenset(),
    "level_is": frozenset({"level"}),
    "level_stays": frozenset({"level", "for_s"}),
    "service_answers": frozenset(),
    **_BREAKING,
}
"""What it exports, and the arguments each takes."""

_OUR_KEYS = frozenset({"name", "row", "blast_radius", "expected_alerts", "forbidden_alerts"})
_ROW = re.compile(r"none|P\d")
_ALERT = re.compile(r"[A-Z][A-Za-z0-9]*")
_LEASE_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault as the file asks for it."""

    kind: FaultKind
    pool: str
    share: float
    """Share (0..1) of the pool's endpoints; at least one is broken."""
    count: int
    """How many endpoints instead; 0 goes by the share."""
    lasts: timedelta
    parameters: Mapping[str, Setting]
    rolling: bool = False
    """One endpoint after another, each once the one before is back."""

    def broken_at_once(self, endpoints: int) -> int:
        """Return how many endpoints of a pool are broken at one time.

        Args:
            endpoints: how many the pool has.
        """
        if self.rolling:
            return min(1, endpoints)
        return min(endpoints, self.count or max(1, round(endpoints * self.share)))


@dataclass(frozen=True, slots=True)
class Experiment:
    """What we need to know of an experiment besides its steps, which Chaos Toolkit walks."""

    name: str
    """The file's name without its ending."""
    title: str
    description: str
    row: str
    """The row of the matrix that must engage, such as `P0`; `none` when redundancy must carry the fault."""
    blast_radius: str
    """In words, as the file says it."""
    expected_alerts: tuple[str, ...] = ()
    """Alerts that must fire while it runs, by name."""
    forbidden_alerts: tuple[str, ...] = ()
    """Alerts that must not."""
    faults: tuple[PlannedFault, ...] = field(default=())
    """What it breaks, in order."""


@dataclass(frozen=True, slots=True)
class ExperimentFile:
    """A file in the experiments directory."""

    name: str
    """The file's, without its ending."""
    experiment: Experiment | None
    """None when it may not be run as it is written."""
    problems: tuple[Problem, ...]
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How Chaos Toolkit says a run went."""

    status: str
    """`completed`, `failed`, `aborted`, `interrupted`; empty when it left no journal."""
    deviated: bool
    failed_activities: tuple[str, ...]


def read(name: str, page: object) -> tuple[Experiment | None, tuple[Problem, ...]]:
    """Check an experiment.

    Args:
        name: the file's name without its ending.
        page: the parsed file.

    Returns:
        The experiment, and everything that is wrong with it (None when anything is).
    """
    where = f"experiments/{name}.yaml"
    if not isinstance(page, Mapping):
        return None, (
            Problem(where, "not an experiment", "the file holds no mapping", "see experiments/node-kill.yaml"),
        )
    problems = [*_activity_problems(where, page), *_hidden_problems(where, page), *_runtime_problems(where, page)]
    ours = _ours(page)
    faults, wrong = _faults(where, page)
    problems += [*_our_problems(where, ours), *wrong]
    for key in ("row", "blast_radius"):
        if not isinstance(ours.get(key), str) or not ours[key]:
            problems.append(
                Problem(
                    where,
                    f"`extensions: [{{name: controlplane}}]` has no `{key}`",
                    "a drill proves one row and names its blast radius",
                    f"add `{key}` to the extension named controlplane",
                )
            )
    if problems:
        return None, tuple(problems)
    title, description = str(page.get("title", name)), str(page.get("description", ""))
    must, must_not = (tuple(map(str, ours.get(key, ()))) for key in ("expected_alerts", "forbidden_alerts"))
    return Experiment(name, title, description, ours["row"], ours["blast_radius"], must, must_not, faults), ()


def overreach(experiment: Experiment, pools: Mapping[str, int]) -> tuple[Problem, ...]:
    """Return what is wrong with an experiment on the fleet as it stands: targets that are gone, or all there is.

    Args:
        experiment: one that `read` has accepted.
        pools: how many endpoints each pool has.
    """
    where = f"experiments/{experiment.name}.yaml"
    serving = {name for name, endpoints in pools.items() if endpoints}
    found = []
    for fault in experiment.faults:
        if fault.pool == CONTROLPLANE_POOL:
            continue
        endpoints = pools.get(fault.pool, 0)
        if not endpoints or endpoints < fault.count:
            found.append(
                Problem(
                    where,
                    f"{fault.kind} cannot find its target: pool {fault.pool}",
                    f"it has {endpoints} endpoints, {fault.count or 'at least one'} needed",
                    f"name one of: {', '.join(sorted(serving)) or 'none is there'}",
                )
            )
        elif fault.broken_at_once(endpoints) == endpoints and serving <= {fault.pool}:
            found.append(
                Problem(
                    where,
                    f"{fault.kind} would break 100 % of the service's only pool, {fault.pool}",
                    "nothing would be left to serve users",
                    "break a share of it, or add a pool that takes over",
                )
            )
    return tuple(found)


def _our_problems(where: str, ours: Mapping[str, Any]) -> Iterator[Problem]:
    """Refuse keys that mean nothing, rows that cannot be and alerts that have no name."""
    for key in sorted(map(str, set(ours) - _OUR_KEYS)):
        yield Problem(
            where, f"the extension named controlplane has an unknown key `{key}`", "it would be ignored",
            f"use one of: {', '.join(sorted(_OUR_KEYS))}",
        )  # fmt: skip
    row = ours.get("row")
    if isinstance(row, str) and row and not _ROW.fullmatch(row):
        yield Problem(where, f"there is no row `{row}`", "a row is P0, P1 and so on, or none", "name the row it proves")
    named: list[str] = []
    for key in ("expected_alerts", "forbidden_alerts"):
        alerts = ours.get(key, [])
        if not isinstance(alerts, list) or not all(isinstance(a, str) and _ALERT.fullmatch(a) for a in alerts):
            yield Problem(
                where, f"`{key}` is no list of alerts", "alerts have names such as EndpointDown", "list names"
            )
        else:
            named += alerts
    if len(set(named)) < len(named):
        twice = ", ".join(sorted({alert for alert in named if named.count(alert) > 1}))
        yield Problem(where, f"named twice: {twice}", "an alert must fire or must not", "name each alert once")


def _faults(where: str, page: Mapping[str, Any]) -> tuple[tuple[PlannedFault, ...], list[Problem]]:
    """Read every fault that the steps ask for, and what is wrong with them."""
    faults, problems = [], []
    for activity in (*_list(page.get("method")), *_list(page.get("rollbacks"))):
        provider = _mapping(_mapping(activity).get("provider"))
        func, arguments = provider.get("func"), _mapping(provider.get("arguments"))
        if not _is_ours(provider):
            continue
        name = f"activity `{_mapping(activity).get('name', '?')}`"
        extra = sorted(map(str, set(arguments) - EXTENSION_FUNCTIONS[str(func)]))
        if extra:
            problems.append(
                Problem(where, f"{name}: {func} has no argument `{extra[0]}`", "Chaos Toolkit would fail there",
                        f"it takes: {', '.join(sorted(EXTENSION_FUNCTIONS[str(func)])) or 'none'}")
            )  # fmt: skip
        elif func in _BREAKING:
            try:
                faults.append(_fault(arguments, rolling=func == "inject_rolling"))
            except UsageError as error:
                problems.append(Problem(where, f"{name}: {error.what}", error.why, error.fix))
    return tuple(faults), problems


def _fault(arguments: Mapping[str, Any], *, rolling: bool) -> PlannedFault:
    """Read one fault.

    Raises:
        UsageError: when it could not be injected as it is written.
    """
    kinds = [kind.value for kind in FaultKind]
    kind, pool = arguments.get("kind"), arguments.get("pool")
    if kind not in kinds:
        raise UsageError(
            f"there is no fault `{kind}`", "it is none of the registered kinds", f"one of: {', '.join(kinds)}"
        )
    if not isinstance(pool, str) or not pool:
        raise UsageError("it names no pool", "a fault breaks endpoints of one pool", "add `pool: primary`")
    lasts = _lease(arguments.get("down_for", "10s"))
    if not timedelta(0) < lasts <= MAX_LEASE:
        raise UsageError(f"a fault may not last {lasts}", f"the longest lease is {MAX_LEASE}", "ask for a shorter one")
    share, count = _share(arguments.get("endpoints", "100%"))
    given = arguments.get("parameters", {})
    if not isinstance(given, Mapping):
        raise UsageError(f"`parameters` is {given!r}", "it is a mapping of names to values", "write `{ mode: drop }`")
    parameters = settled(FaultKind(kind), given)
    return PlannedFault(FaultKind(kind), pool, share, count, lasts, parameters, rolling)


def _lease(text: object) -> timedelta:
    parts = _LEASE_PART.findall(text) if isinstance(text, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"`down_for` is {text!r}", "a lease is a duration such as 8s or 2m", "write one")
    return timedelta(seconds=min(1e9, sum(float(number) * _UNITS_S[unit] for number, unit in parts)))


def _share(given: object) -> tuple[float, int]:
    """Return the share (0..1) and the count, one of them 0."""
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return 0.0, given
    found = _SHARE.fullmatch(given) if isinstance(given, str) else None
    if found and 0 < float(found[1]) <= 100:
        return float(found[1]) / 100, 0
    raise UsageError(f"`endpoints` is {given!r}", "it is a share such as 50%, or a number of endpoints", "write one")


def _ours(page: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the extension block that is addressed to us; an empty one when there is none."""
    blocks = [e for e in _list(page.get("extensions")) if isinstance(e, Mapping)]
    return next((e for e in blocks if e.get("name") == "controlplane"), {})


def _runtime_problems(where: str, page: Mapping[str, Any]) -> Iterator[Problem]:
    strategy = _mapping(_mapping(page.get("runtime")).get("rollbacks")).get("strategy")
    if strategy != "always":
        yield Problem(
            where,
            f"`runtime.rollbacks.strategy` is {strategy or 'not set'}",
            "Chaos Toolkit skips rollbacks of an interrupted run unless it says `always`",
            "write `runtime: {rollbacks: {strategy: always}}`",
        )


def _activity_problems(where: str, page: Mapping[str, Any]) -> Iterator[Problem]:
    """Refuse what the walked steps do besides asking us."""
    hypothesis = page.get("steady-state-hypothesis", {})
    parts = {"method": page.get("method"), "rollbacks": page.get("rollbacks", [])}
    parts["steady-state-hypothesis.probes"] = _mapping(hypothesis).get("probes", [] if hypothesis == {} else None)
    for part, activities in parts.items():
        if not isinstance(activities, list):
            yield Problem(where, f"`{part}` is not a list", "it holds activities", f"write `{part}: [ ... ]`")
            continue
        for activity in activities:
            provider = _mapping(_mapping(activity).get("provider"))
            if not _is_ours(provider):
                yield _foreign(where, f"activity `{_mapping(activity).get('name', '?')}`", provider)


def _hidden_problems(where: str, node: object, path: str = "") -> Iterator[Problem]:
    """Refuse providers and controls wherever else they hide: in tolerances, configuration, secrets, single steps."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(node, Mapping):
        children = [(f"{path}.{key}".lstrip("."), value) for key, value in node.items()]
        if node.get("controls"):
            yield Problem(
                where,
                "controls are not allowed",
                f"at `{f'{path}.controls'.lstrip('.')}`: Chaos Toolkit runs on without one that cannot load; "
                "gates and guards are the control plane's",
                "remove `controls`",
            )
        elif "provider" in node and not _is_step(path) and not _is_ours(_mapping(node["provider"])):
            yield _foreign(where, f"`{path}`", _mapping(node["provider"]))
    elif isinstance(node, list):
        children = [(f"{path}[{i}]", value) for i, value in enumerate(node)]
    for below, value in children:
        if not below.endswith("controls"):
            yield from _hidden_problems(where, value, below)


_STEP = re.compile(r"(method|rollbacks|steady-state-hypothesis\.probes)\[\d+\]")


def _is_step(path: str) -> bool:
    """Tell whether a path is that of a walked step, which `_activity_problems` looks at."""
    return bool(_STEP.fullmatch(path))


def _is_ours(provider: Mapping[str, Any]) -> bool:
    return (
        provider.get("type") == "python"
        and provider.get("module") == EXTENSION_MODULE
        and isinstance(provider.get("func"), str)
        and provider["func"] in EXTENSION_FUNCTIONS
    )


def _foreign(where: str, who: str, provider: Mapping[str, Any]) -> Problem:
    what = provider.get("module", provider.get("path", provider.get("url", "?")))
    return Problem(
        where,
        f"{who} uses provider {provider.get('type', '?')}:{what}:{provider.get('func', '')}".rstrip(":"),
        "an experiment may only use the control plane's own extension",
        f"use `type: python`, `module: {EXTENSION_MODULE}` and one of: {', '.join(EXTENSION_FUNCTIONS)}",
    )


def _mapping(node: object) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _list(node: object) -> Sequence[Any]:
    return node if isinstance(node, list) else ()
