"""From grafanalib's output to JSON that Grafana 11 to 13 load without migration surprises; pure, on plain data.

grafanalib 0.7.1 writes keys that no longer exist and nulls everywhere, which makes Grafana run old migrations on a
modern dashboard. One pass keeps, per object, only what the panel schema of Grafana 13 knows. Called by `board`.
"""

import json
from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 41
"""The newest version that Grafana 12.0 still accepts; 42 changes nothing that is used here."""

PLUGIN_VERSION = "11.0.0"
"""Without one, Grafana takes a panel for one of version 6 and rewrites its options."""

_DASHBOARD = frozenset(
    (
        "annotations", "description", "editable", "fiscalYearStartMonth", "graphTooltip", "links", "liveNow", "panels",
        "refresh", "schemaVersion", "tags", "templating", "time", "timepicker", "timezone", "title", "uid", "weekStart",
    )
)  # fmt: skip
_PANEL = frozenset(
    (
        "id", "type", "title", "description", "transparent", "datasource", "gridPos", "links", "repeat",
        "repeatDirection", "maxPerRow", "transformations", "interval", "options", "fieldConfig", "targets",
    )
)  # fmt: skip
_ROW = frozenset(("id", "type", "title", "gridPos", "collapsed", "panels", "repeat"))
_VARIABLE = frozenset(
    (
        "name", "type", "label", "hide", "description", "query", "current", "datasource", "multi", "includeAll",
        "allValue", "refresh", "regex", "sort", "definition", "options",
    )
)  # fmt: skip
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)
_TIMEPICKER = frozenset(("refresh_intervals", "quick_ranges", "hidden", "nowDelay"))


def sanitize(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what Grafana's schema knows.

    Args:
        dashboard: grafanalib's output as plain data.

    Returns:
        The dashboard to store; null stands only for the base of thresholds.
    """
    kept = {key: value for key, value in dashboard.items() if key in _DASHBOARD}
    kept["panels"] = [_panel(panel) for panel in dashboard["panels"]]
    kept["templating"] = {"list": [_variable(variable) for variable in dashboard["templating"]["list"]]}
    kept["timepicker"] = {key: value for key, value in dashboard["timepicker"].items() if key in _TIMEPICKER}
    pruned: dict[str, Any] = _prune(kept)
    return pruned


def text(dashboard: Mapping[str, Any]) -> str:
    """Write a dashboard as JSON, the same each time: a line for each key, and for each panel.

    Python's own indenting is done without its C encoder, and takes ten times as long.
    """
    return "{\n" + ",\n".join(f' "{key}": {_lines(dashboard[key])}' for key in sorted(dashboard)) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[\n  " + ",\n  ".join(map(_ENCODER.encode, value)) + "\n ]"
    return _ENCODER.encode(value)


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    if panel["type"] == "row":
        row = {key: value for key, value in panel.items() if key in _ROW}
        row["panels"] = [_panel(child) for child in panel.get("panels", ())] if panel.get("collapsed") else []
        return row
    kept = {key: value for key, value in panel.items() if key in _PANEL}
    if panel["type"] == "text":
        return {key: value for key, value in kept.items() if key not in ("fieldConfig", "targets", "datasource")}
    kept["fieldConfig"] = _field_config(panel["type"], panel["fieldConfig"])
    options = dict(kept.get("options") or {})
    for key in ("fieldOptions", "showThresholdLabels", "showThresholdMarkers"):
        options.pop(key, None)  # bar gauges: a form from before 7.0 that would overwrite the field config
    kept["options"] = options
    kept["pluginVersion"] = PLUGIN_VERSION
    return kept


def _field_config(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {key: value for key, value in config.get("defaults", {}).items() if value not in ("", [], None)}
    for key in ("calcs", "limit", "values", "title", "override"):  # old places where nothing looks any more
        defaults.pop(key, None)
    custom = dict(defaults.pop("custom", {}))
    if kind == "timeseries" and not custom.get("stacking"):
        custom["stacking"] = {"mode": "none", "group": "A"}
    if custom.get("scaleDistribution", {}).get("type") == "linear":
        custom["scaleDistribution"] = {"type": "linear"}
    if custom:
        defaults["custom"] = custom
    return {"defaults": defaults, "overrides": config.get("overrides", [])}


def _variable(variable: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in variable.items() if key in _VARIABLE}
    if kept["type"] == "query":
        kept["definition"] = kept["query"]
        kept["query"] = {
            "query": kept["query"], "refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": 1
        }  # fmt: skip
    else:
        for key in ("datasource", "sort"):
            kept.pop(key, None)
    kept["options"] = []
    if kept.get("includeAll") and kept.get("multi"):
        kept["current"] = {"text": ["All"], "value": ["$__all"]}
    else:
        current = kept.get("current") or {}
        kept["current"] = {key: current[key] for key in ("text", "value") if current.get(key) not in (None, [], "")}
        if not kept["current"]:
            del kept["current"]  # Grafana takes the first value that there is.
    return kept


def _prune(value: Any, key: str = "") -> Any:
    """Drop nulls, except the base of thresholds (the only `value` that may be null)."""
    if isinstance(value, dict):
        return {k: _prune(v, k) for k, v in value.items() if v is not None or (k == "value" and key == "steps")}
    if isinstance(value, list):
        return [_prune(item, key) for item in value]
    return value
