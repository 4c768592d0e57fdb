"""A service's standing as tables: the pools, every signal with its evidence, the rows."""

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


NARROW = 120
"""A terminal with fewer columns is shown no windows, nothing about what is usual, and not where a number comes from."""


def standing_table(standing: Mapping[str, Any], width: int = 200) -> Group:
    """Draw a standing as the API gives it.

    Args:
        standing: the answer of `/api/v1/standing`.
        width: how many columns there are.
    """
    level = standing["level"]
    head = Text.assemble(
        (standing["service"], "bold"), "  level ", (level, LEVEL_STYLES[level]), f"  mode {standing['mode']}"
    )
    if standing["why"]:
        head.append(f"\n{'; '.join(standing['why'])}", "dim")
    for problem in standing["problems"]:
        head.append(f"\n{problem}", "yellow")
    for held in standing.get("budgets", ()):
        head.append_text(_budget(held))
    return Group(head, _pools(standing), _signals(standing, width), _rows(standing))


def _budget(held: Mapping[str, Any]) -> Text:
    """Write an objective's error budget in one line."""
    budget = held["budget"]
    if budget["left"] is None:
        return Text(f"\n{held['objective']} {budget['target']:.3%}: nothing has been counted yet", "dim")
    tripped = [burn for burn in budget["burns"] if burn["trips"]]
    line = f"\n{held['objective']} {budget['target']:.3%}: {budget['left']:.1%} of the error budget left"
    line += f", by {budget['events']:,.0f} events in {age(budget['watched_s'])}"
    for burn in tripped:
        line += f"; burns {burn['short']:.1f}x ({burn['rule']['urgency']} from {burn['factor']:.3g}x)"
    return Text(line, "red" if any(b["rule"]["urgency"] == "page" for b in tripped) else "yellow" if tripped else "dim")


_COLUMNS = (
    ("pool", 7), ("signal", 23), ("value", -8), ("band", 7), ("samples", -7), ("bound", 16), ("age", -5),
    ("window", -6), ("usual", -5),
)  # fmt: skip
"""Titles with the least width; of those below zero, the text stands at the right."""


def _signals(standing: Mapping[str, Any], width: int) -> Table:
    """Draw every signal that is known: what it is, how sure that is, how old it is, and where it comes from."""
    wide = width >= NARROW
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0))
    for column, least in _COLUMNS if wide else _COLUMNS[:-2]:
        table.add_column(column, justify="right" if least < 0 else "left", no_wrap=True, min_width=abs(least))
    if wide:
        table.add_column("source", no_wrap=True, overflow="ellipsis", max_width=width - NARROW + 20)
    for pool in standing["pools"]:
        known = [e for e in pool["verdict"]["evidence"] if e["value"] is not None]
        for i, e in enumerate(known):
            window = "" if e.get("window_s") is None else age(e["window_s"])
            more = (window, _usual(e), Text(e["source"], "dim")) if wide else ()
            table.add_row(pool["name"] if i == 0 else "", *_cells(e), *more)
        lacking = len(pool["verdict"]["evidence"]) - len(known)
        if lacking:
            table.add_row("" if known else pool["name"], Text(f"{lacking} more unknown", "dim"))
    return table


def _cells(e: Mapping[str, Any]) -> tuple[str | Text, ...]:
    name, band = e["signal"], e["band"]
    bound = "" if e["low"] is None else f"{spell(name, e['low'])} .. {_edge(name, e['high'])}"
    samples = f"{e['samples']:,}" if e["samples"] else ""
    value = Text(spell(name, e["value"]), BAND_STYLES[band])
    return name, value, Text(band, BAND_STYLES[band]), samples, bound, age(e.get("age_s"))


def _edge(signal: str, high: float | None) -> str:
    """Write an upper bound; none means that the value lies beyond the last bucket."""
    return "or more" if high is None else spell(signal, high)


def _usual(evidence: Mapping[str, Any]) -> str:
    """Write how far a value is from what is usual at this hour of the week; empty while that is not learnt."""
    if evidence.get("usual") is None or evidence.get("deviation") is None:
        return ""
    return f"{spell(evidence['signal'], evidence['usual'])} ({evidence['deviation']:+.1f})"


def age(seconds: float | None) -> str:
    """Write an age or a window in few letters: `0.4s`, `30s`, `12m`, `3h`, `2d`."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 and seconds % 1 else f"{seconds:.0f}s"


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
        said = (row.get("waits_for") or "", *row["because"])
        because = "; ".join(text for text in said if text) if row["phase"] != "idle" else ""
        table.add_row(row["row"]["level"], row["phase"], within, because)
    for level, why in standing["not_armed"].items():
        table.add_row(level, Text("not armed", "dim"), "", Text(why, "dim"))
    return table
