"""A service's standing as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from controlplane.cli.output import BAND_STYLES, LEVEL_STYLES
from controlplane.signals.sample import spell

SHOWN_SIGNALS = {
    "availability": "avail",
    "latency_p99": "p99",
    "error_rate": "errors",
    "cpu_utilization": "cpu",
    "memory_utilization": "mem",
    "gpu_utilization": "gpu",
}
"""Signal -> heading: what fits a terminal of 80 columns; `--json` has everything."""


def standing_table(standing: Mapping[str, Any]) -> Group:
    """Draw a standing as the API gives it."""
    level = standing["level"]
    head = Text.assemble(
        (standing["service"], "bold"), "  level ", (level, LEVEL_STYLES[level]), f"  mode {standing['mode']}"
    )
    if standing["why"]:
        head.append(f"\n{'; '.join(standing['why'])}", "dim")
    for problem in standing["problems"]:
        head.append(f"\n{problem}", "yellow")
    return Group(head, _pools(standing), _rows(standing))


def _pools(standing: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("pool", "verdict", "traffic", "up", *SHOWN_SIGNALS.values()):
        table.add_column(column, no_wrap=True)
    for pool in standing["pools"]:
        evidence = {e["signal"]: e for e in pool["verdict"]["evidence"]}
        up = sum(1 for e in pool["endpoints"] if e["up"])
        weight = "" if pool["weight"] is None else f"{pool['weight']}%"
        cells = [_value(evidence.get(signal)) for signal in SHOWN_SIGNALS]
        band = pool["verdict"]["band"]
        count = Text(f"{up} of {len(pool['endpoints'])}", "" if up == len(pool["endpoints"]) else "red")
        table.add_row(pool["name"], Text(band, BAND_STYLES[band]), weight, count, *cells)
    return table


def _value(evidence: Mapping[str, Any] | None) -> Text:
    if evidence is None or evidence["value"] is None:
        return Text("unknown", "dim")
    return Text(spell(evidence["signal"], evidence["value"]), BAND_STYLES[evidence["band"]])


def _rows(standing: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("row", "phase", "within", "because"):
        table.add_column(column)
    for row in standing["rows"]:
        within = f"{row['row']['within'] / 60:g} min"
        because = "; ".join(row["because"]) if row["phase"] != "idle" else ""
        table.add_row(row["row"]["level"], row["phase"], within, because)
    for level, why in standing["not_armed"].items():
        table.add_row(level, Text("not armed", "dim"), "", Text(why, "dim"))
    return table
