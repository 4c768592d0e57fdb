"""Looking at rendered dashboards: their panels, every query in them, and what Grafana would put for its variables."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from tests.golden.cases import DRILLS

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a dashboard."""

    where: str
    """Dashboard, panel and reference, for people."""
    expr: str
    instant: bool


def dashboards(of: Policy) -> dict[str, dict[str, Any]]:
    """Return the rendered dashboards of a policy by file name."""
    made = render(of, DRILLS, "controlplane.yaml")
    return {
        path.removeprefix("dashboards/"): json.loads(text)
        for path, text in made.items()
        if path.startswith("dashboards/") and path.endswith(".json")
    }


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give every panel, rows and what is inside shut rows included."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Give every query of panels and marks."""
    title = dashboard["title"]
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield Query(f"{title} / {panel['title']} / {target['refId']}", target["expr"], target["instant"])
    for mark in dashboard["annotations"]["list"]:
        yield Query(f"{title} / mark {mark['name']}", mark["expr"], instant=False)


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Put values in place of Grafana's variables, as Grafana does.

    Raises:
        KeyError: for a variable that neither Grafana nor the dashboard has.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def defined(dashboard: Mapping[str, Any]) -> set[str]:
    """Return the names of the dashboard's own variables."""
    return {variable["name"] for variable in dashboard["templating"]["list"]}


def used(text: str) -> set[str]:
    """Return the names of the variables in a text, without those of Grafana."""
    found = {match[1] or match[2] for match in _VARIABLE.finditer(text)}
    return {name for name in found if not name.startswith("__")}
