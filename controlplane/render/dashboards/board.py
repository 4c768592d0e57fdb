"""A whole dashboard: sections and their places, variables, marks, links, and the finished JSON; pure.

Called by every dashboard beside it, with what it shows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import grafanalib.core as g
from grafanalib._gen import DashboardEncoder

from controlplane.render.dashboards import sanitize
from controlplane.render.dashboards.panels import SOURCE, Panel, link

TAG = "controlplane"
"""Every dashboard of ours has it, and links to all that have it."""

CONSOLE = "${console:raw}"
"""The control plane's own address, as it says itself; links of panels and dashboards begin with it."""

_IDS = 900_000
"""Panels are numbered below this; such a number can still be read in an address."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Panels side by side: their height and, in 24 columns, their widths."""

    height: int
    panels: tuple[tuple[int, Panel], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row of a dashboard."""

    title: str
    shelves: tuple[Shelf, ...]
    per: str = ""
    """A variable: the section is shut, asks nothing before it is opened, and stands there once for each of its values;
    for what only some fleets have."""


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader chooses at the top."""

    name: str
    label: str
    query: str
    default: str = ""
    several: bool = True
    """All of them at first, and any number at once; else one, the first there is without a default."""
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Moments drawn across all panels."""

    name: str
    expr: str
    color: str
    title: str


@dataclass(frozen=True, slots=True)
class Board:
    """What makes one dashboard another than the rest."""

    uid: str
    title: str
    about: str
    sections: Sequence[Section]
    variables: Sequence[Variable]
    marks: Sequence[Mark] = ()
    since: str = "now-1h"
    """How far back a reader looks at first."""


def finished(board: Board, header: str) -> dict[str, Any]:
    """Return a dashboard as Grafana loads it; JSON has no comments, so its description says who made it."""
    made = g.Dashboard(
        title=board.title,
        uid=board.uid,
        description=f"{header}. {board.about}",
        tags=[TAG, "llm-inference", "rendered"],
        editable=False,
        timezone="browser",
        refresh="10s",
        schemaVersion=sanitize.SCHEMA_VERSION,
        graphTooltip=g.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        time=g.Time(board.since, "now"),
        timePicker=g.TimePicker(refreshIntervals=["5s", "10s", "30s", "1m", "5m"], timeOptions=[]),
        templating=g.Templating([_datasource(), *(_variable(v) for v in board.variables)]),
        annotations=g.Annotations([_mark(m) for m in board.marks]),
        links=_links(),
        panels=list(_placed(board.sections)),
    )
    plain = json.loads(json.dumps(made.to_json_data(), cls=DashboardEncoder))
    return sanitize.sanitize(plain)


def _placed(sections: Sequence[Section]) -> Iterator[Panel]:
    """Give every panel its place, sections under each other, and a number made of its title.

    Numbers that were counted would shift when a panel is added, and with them every link to a single panel.
    """
    y, taken = 0, set[int]()
    for section in sections:
        row = g.RowPanel(title=section.title, gridPos=g.GridPos(h=1, w=24, x=0, y=y), collapsed=bool(section.per))
        row.id = _number(section.title, taken)
        if section.per:
            row.repeat = g.Repeat(variable=section.per)
        y += 1
        below = []
        for shelf in section.shelves:
            x = 0
            for width, panel in shelf.panels:
                panel.gridPos = g.GridPos(h=shelf.height, w=width, x=x, y=y)
                panel.id = _number(f"{section.title}/{panel.title}", taken)
                x += width
                below.append(panel)
            y += shelf.height
        if section.per:
            row.panels = below
            y = row.gridPos.y + 1
            yield row
        else:
            yield from (row, *below)


def _number(name: str, taken: set[int]) -> int:
    number = 1 + crc32(name.encode()) % _IDS
    while number in taken:
        number += 1
    taken.add(number)
    return number


def _datasource() -> Any:
    return g.Template(
        name="datasource", type="datasource", query="prometheus", label="Data source", default="prometheus"
    )  # fmt: skip


def _variable(variable: Variable) -> Any:
    return g.Template(
        name=variable.name, label=variable.label, query=variable.query, dataSource=SOURCE, refresh=2, sort=1,
        includeAll=variable.several, multi=variable.several, default=variable.default or None,
        hide=g.HIDE_VARIABLE if variable.hidden else g.SHOW,
    )  # fmt: skip


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "name": mark.name, "enable": True, "hide": False, "iconColor": mark.color, "datasource": SOURCE,
        "expr": mark.expr, "step": "10s", "titleFormat": mark.title,
    }  # fmt: skip


def _links() -> list[dict[str, Any]]:
    """Return the way to the other dashboards, and to the console and the runbooks of the service that is shown."""
    others = link("Dashboards", "") | {
        "type": "dashboards", "tags": [TAG], "asDropdown": True, "includeVars": True, "keepTime": True,
        "targetBlank": False,
    }  # fmt: skip
    return [others, link("Console", CONSOLE, icon="bolt"), link("Runbooks", f"{CONSOLE}/runbooks", icon="doc")]
