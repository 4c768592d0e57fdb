"""Kinds of panels, made through grafanalib; pure.

What grafanalib's classes do not know, or default to something old, goes through `extraJson`; `sanitize` removes what
they write too much. Called by every dashboard beside it; `board` puts panels into their places.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import grafanalib.core as g

from controlplane.render.dashboards.palette import BLUE, GREEN, Steps

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""The data source that the reader chooses; never a name, which newer Grafana replaces by its default."""

Panel = Any
"""A grafanalib panel; the library is not typed."""

Target = dict[str, Any]
Override = dict[str, Any]

_LINES: Mapping[str, Any] = {
    "showPoints": "never", "fillOpacity": 6, "lineWidth": 2, "tooltipMode": "multi", "tooltipSort": "desc",
    "legendDisplayMode": "list", "colorMode": "palette-classic-by-name",
}  # fmt: skip


def target(expr: str, legend: str, ref: str = "A") -> Target:
    """Return a query over the time range; grafanalib's own class writes a coarser step and keys of its own."""
    return {
        "refId": ref, "datasource": SOURCE, "expr": expr, "legendFormat": legend, "editorMode": "code",
        "range": True, "instant": False,
    }  # fmt: skip


def now(expr: str, legend: str, ref: str = "A", *, form: str = "time_series") -> Target:
    """Return a query for the present moment."""
    return target(expr, legend, ref) | {"range": False, "instant": True, "format": form}


def lines(title: str, targets: Sequence[Target], about: str, **more: Any) -> Panel:
    """Return curves over time."""
    return _panel(g.TimeSeries, title, targets, about, **_LINES, **more)


def columns(title: str, targets: Sequence[Target], about: str, **more: Any) -> Panel:
    """Return counted events over time, stacked."""
    looks = {**_LINES, "drawStyle": "bars", "fillOpacity": 80, "lineWidth": 1}
    more.setdefault("unit", "short")
    stacked = {"mode": "normal", "group": "A"}
    return _panel(
        g.TimeSeries, title, targets, about, **looks, stacking=stacked, defaults={"min": 0, "decimals": 0}, **more
    )  # fmt: skip


def stat(title: str, targets: Sequence[Target], about: str, **more: Any) -> Panel:
    """Return one number (or one for each series), coloured by thresholds."""
    defaults = {"color": {"mode": "thresholds"}, "noValue": "-", **more.pop("defaults", {})}
    return _panel(
        g.Stat, title, targets, about, reduceCalc="lastNotNull", graphMode="none", defaults=defaults, **more
    )  # fmt: skip


def table(title: str, targets: Sequence[Target], about: str, shown: Mapping[str, str], **more: Any) -> Panel:
    """Return a table of instant queries, one row for each set of labels.

    Args:
        title: the panel's.
        targets: instant queries of the form `table`.
        about: what it shows.
        shown: column by field (a label, or `Value #REF`), in order; a field without a name is left out.
        more: as for every panel.
    """
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {
            "excludeByName": {"Time": True, **{field: True for field, name in shown.items() if not name}},
            "renameByName": {field: name for field, name in shown.items() if name},
            "indexByName": {name: i for i, name in enumerate(shown)},
        }},
    ]  # fmt: skip
    return _panel(
        g.Table, title, targets, about, custom={"cellOptions": {"type": "auto"}, "minWidth": 60},
        transformations=transformations, **more,
    )  # fmt: skip


def timeline(title: str, targets: Sequence[Target], about: str, states: Sequence[tuple[int, str, str]]) -> Panel:
    """Return states over time; each state is its number, its name and its colour, the numbers ascending."""
    steps = tuple((color, float(n) if i else None) for i, (n, _, color) in enumerate(states))
    return _panel(
        g.StateTimeline, title, targets, about, steps=steps, mappings=[mapping(states)],
        showValue="auto", options={"legend": {"displayMode": "list", "placement": "bottom", "showLegend": False}},
    )  # fmt: skip


def mapping(states: Sequence[tuple[int, str, str]]) -> dict[str, Any]:
    """Return what gives numbers their names and colours."""
    by_number = {str(n): {"text": text, "color": color, "index": i} for i, (n, text, color) in enumerate(states)}
    return {"type": "value", "options": by_number}


def bars(title: str, targets: Sequence[Target], about: str, **more: Any) -> Panel:
    """Return one horizontal bar for each series."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "displayMode": "basic",
        "orientation": "horizontal", "valueMode": "color", "showUnfilled": True, "namePlacement": "left",
        "text": {"titleSize": 13, "valueSize": 18},
    }  # fmt: skip
    defaults = {"min": 0, "color": {"mode": "thresholds"}, **more.pop("defaults", {})}
    more.setdefault("steps", BLUE)
    return _panel(g.BarGauge, title, targets, about, options=options, defaults=defaults, **more)


def prose(title: str, markdown: str, about: str) -> Panel:
    """Return a panel of Markdown."""
    return g.Text(title=title, description=about, mode="markdown", content=markdown)


def linked(panel: Panel, title: str, url: str) -> Panel:
    """Add a link to a panel's title."""
    panel.links = [*(panel.links or []), link(title, url)]
    return panel


def link(title: str, url: str, *, icon: str = "external link") -> dict[str, Any]:
    """Return a link to a place outside Grafana, with everything that its schema wants of one."""
    return {
        "title": title, "url": url, "type": "link", "icon": icon, "targetBlank": True, "asDropdown": False,
        "includeVars": False, "keepTime": False, "tags": [], "tooltip": "",
    }  # fmt: skip


# --- what one series or column looks like ---------------------------------------------------------------------------


def named(name: str, color: str) -> Override:
    """Give the series of one name a fixed colour."""
    return column(name, _fixed(color))


def matching(regex: str, color: str) -> Override:
    """Give the series whose names match a fixed colour."""
    return {"matcher": {"id": "byRegexp", "options": regex}, "properties": [_fixed(color)]}


def dashed(regex: str) -> Override:
    """Draw the series whose names match as dashes."""
    return {
        "matcher": {"id": "byRegexp", "options": regex},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 6]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }


def column(name: str, *properties: Mapping[str, Any]) -> Override:
    """Give the column (or series) of one name properties of its own."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [dict(p) for p in properties]}


def in_unit(unit: str) -> dict[str, Any]:
    """Return a column's unit."""
    return {"id": "unit", "value": unit}


def colored(steps: Steps) -> tuple[dict[str, Any], ...]:
    """Return what colours a column's text by steps."""
    return (
        {"id": "thresholds", "value": _thresholds(steps)},
        {"id": "color", "value": {"mode": "thresholds"}},
        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
    )


def mapped(states: Sequence[tuple[int, str, str]]) -> tuple[dict[str, Any], ...]:
    """Return what shows a column's numbers as named states."""
    return (
        {"id": "mappings", "value": [mapping(states)]},
        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
    )


def _fixed(color: str) -> dict[str, Any]:
    return {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}


def _thresholds(steps: Steps) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}


def _panel(
    kind: Any, title: str, targets: Sequence[Target], about: str, *, unit: str = "", steps: Steps = GREEN,
    defaults: Mapping[str, Any] | None = None, custom: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, overrides: Sequence[Override] = (), **more: Any,
) -> Panel:  # fmt: skip
    """Make one panel; grafanalib reads its `extraJson` and changes nothing in it."""
    fields: dict[str, Any] = {
        "thresholds": _thresholds(steps),
        **({"unit": unit} if unit else {}),
        **({"custom": dict(custom)} if custom else {}),
        **(defaults or {}),
    }
    extra: dict[str, Any] = {
        "datasource": SOURCE,
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        **({"options": dict(options)} if options else {}),
    }
    return kind(
        title=title, description=about, targets=list(targets), maxDataPoints=None, extraJson=extra, **more
    )  # fmt: skip
