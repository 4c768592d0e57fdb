"""An experiment: one fault story in Chaos Toolkit's format, checked before anything is run; pure.

Chaos Toolkit runs arbitrary Python and commands if an experiment asks for it, ignores controls that cannot load, and
skips rollbacks by default. So an experiment may use our extension only, must say which row it proves, and must ask
for its rollbacks always to run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Problem

EXTENSION_MODULE = "controlplane.chaos.extension"
"""The only module that activities may name."""


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
    problems = [*_activity_problems(where, page), *_runtime_problems(where, page)]
    ours: Mapping[str, Any] = next((e for e in page.get("extensions", ()) if e.get("name") == "controlplane"), {})
    for key in ("row", "blast_radius"):
        if not ours.get(key):
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
    return Experiment(
        name, str(page.get("title", name)), str(page.get("description", "")), ours["row"], ours["blast_radius"]
    ), ()


def _runtime_problems(where: str, page: Mapping[str, Any]) -> Iterator[Problem]:
    strategy = page.get("runtime", {}).get("rollbacks", {}).get("strategy")
    if strategy != "always":
        yield Problem(
            where,
            f"`runtime.rollbacks.strategy` is {strategy or 'not set'}",
            "Chaos Toolkit skips rollbacks of an interrupted run unless it says `always`",
            "write `runtime: {rollbacks: {strategy: always}}`",
        )
    if page.get("controls"):
        yield Problem(
            where,
            "controls are not allowed",
            "Chaos Toolkit runs on without a control that cannot load; gates and guards are the control plane's",
            "remove `controls`",
        )


def _activity_problems(where: str, page: Mapping[str, Any]) -> Iterator[Problem]:
    for activity in _activities(page):
        provider = activity.get("provider", {})
        if provider.get("type") != "python" or provider.get("module") != EXTENSION_MODULE:
            yield Problem(
                where,
                f"activity `{activity.get('name', '?')}` uses provider "
                f"{provider.get('type', '?')}:{provider.get('module', provider.get('path', provider.get('url', '?')))}",
                "an experiment may only use the control plane's own extension",
                f"use `type: python` with `module: {EXTENSION_MODULE}`",
            )


def _activities(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from page.get("steady-state-hypothesis", {}).get("probes", ())
    yield from page.get("method", ())
    yield from page.get("rollbacks", ())
