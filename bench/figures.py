"""What a bench reports, how it is printed and where it is kept."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number."""

    figure: str
    value: float
    unit: str
    n: int
    """How many measurements the value is the median (or count) of."""
    command: str
    goal: str = ""
    met: bool | None = None
    """None where there is no goal."""
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    """The value over the peer's, measured in the same run."""


def below(name: str, seconds: Sequence[float], goal_s: float | None, command: str) -> Figure:
    """Report the median of some durations against an upper goal, if there is one."""
    value = statistics.median(seconds)
    goal = "" if goal_s is None else f"< {goal_s:g} s"
    met = None if goal_s is None else value < goal_s
    return Figure(name, round(value, 4), "s", len(seconds), command, goal, met)


def report(name: str, figures: Sequence[Figure]) -> None:
    """Print a bench's table and write its JSON."""
    table = Table("figure", "value", "goal", "met", "peer", "ratio", "n", title=name)
    for f in figures:
        met = "" if f.met is None else "yes" if f.met else "NO"
        peer = f"{f.peer} {f.peer_value:g}" if f.peer_value is not None else ""
        ratio = f"{f.ratio:.2f}" if f.ratio is not None else ""
        table.add_row(f.figure, f"{f.value:g} {f.unit}", f.goal, met, peer, ratio, str(f.n))
    Console().print(table)
    OUT.mkdir(exist_ok=True)
    text = json.dumps([{k: v if v != "" else None for k, v in asdict(f).items()} for f in figures], indent=1)
    (OUT / f"{name}.json").write_text(text + "\n", encoding="utf-8")
