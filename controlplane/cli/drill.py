"""`controlplane drill`: breaking the fleet on purpose, and what came of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_PAGE, DEFAULT_STATE, AsJson, StateDir

PHASES = ("detected", "decided", "acted", "verified", "healed", "recovered")
POLL_S = 0.25


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="Break the fleet on purpose and time the matrix.", no_args_is_help=True)
    group.command("run")(run)
    group.command("list")(list_drills)
    group.command("plan")(plan)
    app.add_typer(group, name="drill")


def run(
    experiment: Annotated[str, typer.Argument(help="Name of a file in the experiments directory, without its ending.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Run an experiment as a drill and wait for its outcome; exit status 0 only when it passed."""
    import getpass
    import json
    import time

    from controlplane.cli.client import connect
    from controlplane.cli.output import err, out

    client = connect(state_dir)
    drill = client.post("/api/v1/drills", {"experiment": experiment, "requested_by": getpass.getuser()})
    if not as_json:
        err.print(f"drill {drill['id']} runs; console {client.url}")
    while drill["outcome"] == "running":
        time.sleep(POLL_S)
        drill = client.get(f"/api/v1/drills/{drill['id']}")
    if as_json:
        out.print_json(json.dumps(drill))
    else:
        print_outcome(drill)
    raise typer.Exit(0 if drill["outcome"] == "passed" else 1)


def list_drills(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List the drills on record, newest first."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    drills = connect(state_dir).get("/api/v1/drills")
    if as_json:
        out.print_json(json.dumps(drills))
    elif drills:
        out.print(drill_table(drills))
    else:
        out.print("No drill has been run yet: `controlplane drill run node-kill`")


def plan(
    page: Annotated[Path, typer.Argument(help="The policy page.")] = DEFAULT_PAGE,
    months: Annotated[int, typer.Option(help="How many dates to print for each plan.", min=1, max=120)] = 12,
) -> None:
    """Print when the scheduled drills come round."""
    from controlplane.cli.output import out
    from controlplane.clock import utcnow
    from controlplane.policy.load import load
    from controlplane.runtime.scheduler import upcoming

    for name, drills in load(page).policy.drills.items():
        for at in upcoming(drills.at, utcnow(), months):
            out.print(f"{at:%F %R %Z}  {name}: {', '.join(drills.experiments)}")


def drill_table(drills: list[dict[str, Any]]) -> Any:
    """Draw drills, one a line; times are since the fault."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import OUTCOME_STYLES, clock_time, seconds

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("drill", "experiment", "row", "outcome", "started", *PHASES, "objective"):
        table.add_column(column, no_wrap=True)
    for drill in drills:
        outcome = Text(drill["outcome"], OUTCOME_STYLES.get(drill["outcome"], "red"))
        times = [seconds(since_fault(drill, phase)) for phase in PHASES]
        table.add_row(
            drill["id"], drill["experiment"], drill["row"], outcome, clock_time(drill["started_at"]), *times,
            seconds(drill["objective"]),
        )  # fmt: skip
    return table


def print_outcome(drill: dict[str, Any]) -> None:
    """Print how one drill ended: outcome, every phase against the objective, every reason."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import OUTCOME_STYLES, out, seconds

    style = OUTCOME_STYLES.get(drill["outcome"], "red")
    out.print(Text.assemble(f"drill {drill['experiment']} ", (drill["outcome"], f"bold {style}")))
    for reason in drill["reasons"]:
        out.print(f"  {reason}", style="red", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("since the fault", *PHASES):
        table.add_column(column, no_wrap=True)
    table.add_row("measured", *(seconds(since_fault(drill, phase)) for phase in PHASES))
    table.add_row(Text(f"objective for {drill['row']}", "dim"), "", "", "", f"{drill['objective'] / 60:g} min", "", "")
    out.print(table)


def since_fault(drill: dict[str, Any], phase: str) -> float | None:
    """Return the seconds from the fault to a phase of a drill as the API gives it."""
    from datetime import datetime

    moments = drill["phases"]
    if "fault" not in moments or phase not in moments:
        return None
    return (datetime.fromisoformat(moments[phase]) - datetime.fromisoformat(moments["fault"])).total_seconds()
