"""How the command line prints: errors, tables, times."""

import json
from datetime import datetime

from rich.console import Console
from rich.text import Text

from controlplane.errors import ControlplaneError, PolicyError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PIPED_COLUMNS = 200
"""How wide a table is where no terminal says."""

BAND_STYLES = {"ok": "green", "warn": "yellow", "breach": "red", "unknown": "dim"}
LEVEL_STYLES = {"none": "green", "P2": "yellow", "P1": "dark_orange", "P0": "bold red"}
OUTCOME_STYLES = {"passed": "green", "running": "cyan", "refused": "yellow", "invalid": "yellow"}


def print_error(error: ControlplaneError) -> None:
    """Print an error as what, why and fix, on the standard error stream."""
    err.print(Text.assemble(("error: ", "bold red"), error.what))
    if isinstance(error, PolicyError):
        for problem in error.problems:
            err.print(Text.assemble((problem.where, "bold"), f": {problem.what}"), soft_wrap=True)
            _print_reasons(problem.why, problem.fix)
    else:
        _print_reasons(error.why, error.fix)


def _print_reasons(why: str, fix: str) -> None:
    for label, text in (("why", why), ("fix", fix)):
        if text:
            err.print(Text.assemble((f"  {label}: ", "dim"), text), soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value as JSON: the one form of `--json`, indented at a terminal, as it is in a pipe."""
    out.print_json(json.dumps(value)) if out.is_terminal else out.file.write(json.dumps(value, indent=2) + "\n")


def wide() -> Console:
    """Return where tables are printed: the terminal, or a wide page where there is none."""
    return out if out.is_terminal else Console(width=PIPED_COLUMNS, highlight=False)


def seconds(value: float | None) -> str:
    """Write a duration: milliseconds below a second, two digits above."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"


def clock_time(text: str | None) -> str:
    """Write an RFC 3339 time as local hours, minutes and seconds."""
    return datetime.fromisoformat(text).astimezone().strftime("%F %T") if text else "-"
