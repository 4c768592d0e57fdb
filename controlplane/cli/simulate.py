"""`controlplane record` and `controlplane simulate`: what just happened, and what another matrix would have done."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

if TYPE_CHECKING:
    from controlplane.flows.simulate import Simulated


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(record)
    app.command()(simulate)


def record(
    lasts: Annotated[str, typer.Option("--for", help="How much of the last 30 minutes, such as 10m.")] = "10m",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Print the signals of the last minutes, a line a value, for `simulate`."""
    from urllib.parse import quote

    from controlplane.cli.client import connect

    typer.echo(connect(state_dir).text(f"/api/v1/recording?for={quote(lasts)}"), nl=False)


def simulate(
    file: Annotated[Path, typer.Argument(help="Recorded signals: JSON lines, or CSV with a heading; - reads stdin.")],
    page: Annotated[Path, typer.Option("--policy", help="The policy page to try.")] = Path("controlplane.yaml"),
    as_json: AsJson = False,
) -> None:
    """Replay recorded signals through a page's thresholds and matrix, and say what would have happened."""
    import json
    import sys

    from controlplane.cli.output import out
    from controlplane.errors import UsageError
    from controlplane.flows.simulate import simulate as run
    from controlplane.policy.load import load
    from controlplane.signals.recording import read_points

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}", str(error), "record one: controlplane record > FILE") from error
    simulated = run(load(page).policy, read_points(text, str(file)))
    if as_json:
        out.print_json(json.dumps(as_data(simulated)))
        return
    for line in drawn(simulated):
        out.print(line)


def as_data(simulated: "Simulated") -> dict[str, Any]:
    """Return what would have happened as plain data."""
    return {
        "since": simulated.since.isoformat(),
        "until": simulated.until.isoformat(),
        "transitions": [
            {
                "at": change.at.isoformat(timespec="milliseconds"), "row": change.row, "from": change.before,
                "to": change.after, "because": list(change.because),
            }
            for change in simulated.changes
        ],
        "level_seconds": dict(simulated.level_s),
        "switches": simulated.switches,
        "flaps": list(simulated.flaps),
        "told": list(simulated.told),
        "never_recorded": list(simulated.unknown),
    }  # fmt: skip


def drawn(simulated: "Simulated") -> list[Any]:
    """Draw what would have happened: the transitions, the time in each level, and what flapped."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import LEVEL_STYLES

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("at", "row", "from", "to", "because"):
        table.add_column(column, no_wrap=column != "because")
    for change in simulated.changes:
        after = (change.at - simulated.since).total_seconds()
        table.add_row(
            f"{change.at:%H:%M:%S} +{after:g}s", Text(change.row, LEVEL_STYLES[change.row]), change.before,
            change.after, "; ".join(change.because),
        )  # fmt: skip
    spent = ", ".join(f"{level} {seconds:g} s" for level, seconds in simulated.level_s.items())
    lines: list[Any] = [table if simulated.changes else Text("no row would have moved")]
    lines.append(Text(f"in each level: {spent}; {simulated.switches} switches"))
    lines += [Text(f"flapped: {flap}", "red") for flap in simulated.flaps]
    lines += [Text(f"people told: {text}", "yellow") for text in simulated.told]
    if simulated.unknown:
        lines.append(Text(f"never recorded, so unknown: {', '.join(simulated.unknown)}", "yellow"))
    lines.append(Text("as if levers obeyed and people approved; the signals are as they were recorded", "dim"))
    return lines
