"""Dashboards through grafanalib, whose only importer this is: panel kinds, places, the finished JSON; pure.

What a dashboard shows stands beside this (`overview`); how Grafana wants it written stands here and in `grafana`.
grafanalib's classes carry what they do well; the rest goes through `extraJson`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import grafanalib.core as g
from grafanalib._gen import DashboardEncoder

from controlplane.render import grafana

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""The data source that the reader chooses; never a name, which newer Grafana replaces by its default."""

Panel = Any
"""A grafanalib panel; the library is not typed."""

Steps = tuple[tuple[str, float | None], ...]
"""Colours from the base (whose value is None) up."""

GREEN: Steps = (("green", None),)

_LINES: Mapping[str, Any] = {
    "showPoints": "never", "fillOpacity": 6, "lineWidth": 2, "tooltipMode": "multi", "tooltipSort": "desc",
    "legendDisplayMode": "list", "colorMode": "palette-classic-by-name",
}  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader chooses at the top."""

    name: str
    label: str
    query: str
    default: str = ""
    """Empty: all of them, and several at once."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Moments drawn across all panels."""

    name: str
    expr: str
    color: str
    title: str


def dashboard(
    uid: str,
    title: str,
    about: str,
    sections: Sequence[Section],
    *,
    variables: Sequence[Variable],
    marks: Sequence[Mark],
) -> str:
    """Return a dashboard as the JSON that Grafana loads; JSON has no comments, so `about` says who made it."""
    made = g.Dashboard(
        title=title,
        uid=uid,
        description=about,
        tags=["controlplane", "llm-inference", "rendered"],
        editable=False,
        timezone="browser",
        refresh="10s",
        schemaVersion=grafana.SCHEMA_VERSION,
        graphTooltip=g.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        time=g.Time("now-1h", "now"),
        timePicker=g.TimePicker(refreshIntervals=["5s", "10s", "30s", "1m", "5m"], timeOptions=[]),
        templating=g.Templating([_datasource(), *(_variable(v) for v in variables)]),
        annotations=g.Annotations([_mark(m) for m in marks]),
        panels=list(_placed(sections)),
    ).auto_panel_ids()
    plain = json.loads(json.dumps(made.to_json_data(), cls=DashboardEncoder))
    return grafana.text(grafana.sanitize(plain))


def target(expr: str, legend: str, ref: str = "A") -> dict[str, Any]:
    """Return a query over the time range; grafanalib's own class writes a coarser step and keys of its own."""
    return {
        "refId": ref, "datasource": SOURCE, "expr": expr, "legendFormat": legend, "editorMode": "code",
        "range": True, "instant": False,
    }  # fmt: skip


def now(expr: str, legend: str, ref: str = "A", *, form: str = "time_series") -> dict[str, Any]:
    """Return a query for the present moment."""
    return target(expr, legend, ref) | {"range": False, "instant": True, "format": form}


def lines(title: str, targets: list[dict[str, Any]], about: str, **more: Any) -> Panel:
    """Return curves over time."""
    return _panel(g.TimeSeries, title, targets, about, **_LINES, **more)


def stat(title: str, targets: list[dict[str, Any]], about: str, **more: Any) -> Panel:
    """Return one number (or one for each series), coloured by thresholds."""
    defaults = {"color": {"mode": "thresholds"}, "noValue": "-", **more.pop("defaults", {})}
    return _panel(
        g.Stat, title, targets, about, reduceCalc="lastNotNull", graphMode="none", defaults=defaults, **more
    )  # fmt: skip


def table(title: str, targets: list[dict[str, Any]], about: str, **more: Any) -> Panel:
    """Return a table of instant queries."""
    return _panel(g.Table, title, targets, about, custom={"cellOptions": {"type": "auto"}}, **more)


def timeline(title: str, targets: list[dict[str, Any]], about: str, states: Sequence[tuple[int, str, str]]) -> Panel:
    """Return states over time; each state is its number, its name and its colour."""
    mapping = {str(n): {"text": text, "color": color, "index": i} for i, (n, text, color) in enumerate(states)}
    steps = tuple((color, float(n) if i else None) for i, (n, _, color) in enumerate(states))
    return _panel(
        g.StateTimeline, title, targets, about, steps=steps, mappings=[{"type": "value", "options": mapping}],
        showValue="auto", options={"legend": {"displayMode": "list", "placement": "bottom", "showLegend": False}},
    )  # fmt: skip


def bars(title: str, targets: list[dict[str, Any]], about: str, **more: Any) -> Panel:
    """Return one horizontal bar for each series."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "displayMode": "basic",
        "orientation": "horizontal", "valueMode": "color", "showUnfilled": True, "namePlacement": "left",
        "text": {"titleSize": 13, "valueSize": 18},
    }  # fmt: skip
    defaults = {"min": 0, "color": {"mode": "thresholds"}, **more.pop("defaults", {})}
    blue: Steps = (("blue", None),)
    return _panel(g.BarGauge, title, targets, about, options=options, defaults=defaults, steps=blue, **more)


def prose(title: str, markdown: str, about: str) -> Panel:
    """Return a panel of Markdown."""
    return g.Text(title=title, description=about, mode="markdown", content=markdown)


def named(name: str, color: str) -> dict[str, Any]:
    """Give the series of one name a fixed colour."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [_fixed(color)]}


def matching(regex: str, color: str) -> dict[str, Any]:
    """Give the series whose names match a fixed colour."""
    return {"matcher": {"id": "byRegexp", "options": regex}, "properties": [_fixed(color)]}


def dashed(regex: str) -> dict[str, Any]:
    """Draw the series whose names match as dashes."""
    return {
        "matcher": {"id": "byRegexp", "options": regex},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 6]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }


def _fixed(color: str) -> dict[str, Any]:
    return {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}


def _panel(
    kind: Any, title: str, targets: list[dict[str, Any]], about: str, *, unit: str = "", steps: Steps = GREEN,
    defaults: Mapping[str, Any] | None = None, custom: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, overrides: Sequence[Mapping[str, Any]] = (), **more: Any,
) -> Panel:  # fmt: skip
    """Make one panel; what grafanalib's classes do not know, or default to something old, goes through `extraJson`."""
    fields: dict[str, Any] = {
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
        **({"unit": unit} if unit else {}),
        **({"custom": dict(custom)} if custom else {}),
        **(defaults or {}),
    }
    extra: dict[str, Any] = {
        "datasource": SOURCE,
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        **({"options": dict(options)} if options else {}),
    }
    return kind(title=title, description=about, targets=targets, maxDataPoints=None, extraJson=deepcopy(extra), **more)


def _placed(sections: Sequence[Section]) -> Iterator[Panel]:
    """Give every panel its place, sections under each other."""
    y = 0
    for section in sections:
        yield g.RowPanel(title=section.title, gridPos=g.GridPos(h=1, w=24, x=0, y=y))
        y += 1
        for shelf in section.shelves:
            x = 0
            for width, panel in shelf.panels:
                panel.gridPos = g.GridPos(h=shelf.height, w=width, x=x, y=y)
                x += width
                yield panel
            y += shelf.height


def _datasource() -> Any:
    return g.Template(
        name="datasource", type="datasource", query="prometheus", label="Data source", default="prometheus"
    )  # fmt: skip


def _variable(variable: Variable) -> Any:
    every = not variable.default
    return g.Template(
        name=variable.name, label=variable.label, query=variable.query, dataSource=SOURCE, refresh=2, sort=1,
        includeAll=every, multi=every, default=variable.default or None,
    )  # fmt: skip


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "name": mark.name, "enable": True, "hide": False, "iconColor": mark.color, "datasource": SOURCE,
        "expr": mark.expr, "step": "10s", "titleFormat": mark.title,
    }  # fmt: skip
