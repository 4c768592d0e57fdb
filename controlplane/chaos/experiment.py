"""An experiment: one fault story in Chaos Toolkit's format, checked before anything is run; pure.

Chaos Toolkit runs arbitrary Python and commands if an experiment asks for it, ignores controls that cannot load, and
skips rollbacks by default. So an experiment may use our extension only, must say which row it proves, and must ask
for its rollbacks always to run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Problem

EXTENSION_MODULE = "controlplane.chaos.extension"
"""The only module that activities may name."""


EXTENSION_FUNCTIONS = ("await_row", "heal", "inject", "level_is", "service_answers")
"""What it exports."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What we need to know of an experiment besides its steps, which Chaos Toolkit walks."""

    name: str
    """The file's name without its ending."""
    title: str
    description: str
    row: str
    """The row of the matrix that must engage, such as `P0`."""
    blast_radius: str
    """In words, as the file says it."""


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
    return Experiment(name, title, description, ours["row"], ours["blast_radius"]), ()


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
        and provider.get("func") in EXTENSION_FUNCTIONS
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
