"""`controlplane drill`: breaking the fleet on purpose, and what came of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli import complete
from controlplane.cli.plane import DEFAULT_PAGE, DEFAULT_STATE, AsJson, StateDir

PHASES = ("detected", "decided", "acted", "verified", "healed", "recovered")
POLL_S = 0.25

Experiment = Annotated[
    str,
    typer.Argument(
        help="Name of a file in the experiments directory, without its ending.", autocompletion=complete.experiments
    ),
]
DrillId = Annotated[
    str,
    typer.Argument(help="The drill's id, as `controlplane drill list` shows it.", autocompletion=complete.drills),
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="Break the fleet on purpose and time the matrix.", no_args_is_help=True)
    group.command("run")(run)
    group.command("start")(start)
    group.command("preview")(preview)
    group.command("list")(list_drills)
    group.command("show")(show)
    group.command("abort")(abort)
    group.command("heal")(heal)
    group.command("plan")(plan)
    group.command("report")(report)
    app.add_typer(group, name="drill")
    app.command()(halt)
    app.command()(resume)


def run(
    experiment: Experiment,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Touch nothing: say what would break, what survives, what the gates say.")
    ] = False,
) -> None:
    """Run an experiment as a drill and wait for its outcome; exit status 0 only when it passed."""
    import getpass
    import json
    import time

    from controlplane.cli.client import connect
    from controlplane.cli.output import err, out

    client = connect(state_dir)
    if dry_run:
        _preview(client.get(f"/api/v1/experiments/{_quoted(experiment)}/preview"), as_json)
        return
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


def start(experiment: Experiment, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Start an experiment as a drill and do not wait for it; exit status 3 when a gate refuses."""
    import getpass

    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    body = {"experiment": experiment, "requested_by": getpass.getuser()}
    drill = connect(state_dir).post("/api/v1/drills", body)
    print_json(drill) if as_json else out.print(drill["id"])


def preview(experiment: Experiment, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say what would break, what survives, and what the gates say; touches nothing. Exit status 1 when refused."""
    from controlplane.cli.client import connect

    _preview(connect(state_dir).get(f"/api/v1/experiments/{_quoted(experiment)}/preview"), as_json)


def show(drill: DrillId, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show how a drill stands, and what has happened in it so far."""
    from controlplane.cli.client import connect
    from controlplane.cli.output import clock_time, out, print_json

    server = connect(state_dir)
    found = server.get(f"/api/v1/drills/{_quoted(drill)}")
    events = server.get(f"/api/v1/drills/{_quoted(drill)}/events")
    if as_json:
        print_json({"drill": found, "events": events})
        return
    print_outcome(found)
    for event in events:
        out.print(f"{clock_time(event['at'])}  {event['text']}", markup=False)


def abort(
    drill: DrillId,
    why: Annotated[str, typer.Option("--why", help="The reason, for the record.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Tell one running drill to stop: it breaks nothing more, its faults end first, and it proves nothing."""
    import getpass

    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    told = connect(state_dir).post(f"/api/v1/drills/{_quoted(drill)}/abort", {"why": why, "by": getpass.getuser()})
    if as_json:
        print_json(told)
        return
    out.print(f"{told['id']} was told to stop; `controlplane drill show {told['id']}` says when it has", markup=False)


def heal(drill: DrillId, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """End every fault of one drill now; `controlplane halt` ends the drill itself, too."""
    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    done = connect(state_dir).post(f"/api/v1/drills/{_quoted(drill)}/heal", {})
    if as_json:
        print_json(done)
        return
    for line in done["healed"]:
        out.print(line, markup=False)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _preview(found: dict[str, Any], as_json: bool) -> None:
    """Print what a drill would do; exit status 1 when it would be refused."""
    import json

    from controlplane.cli.output import out

    if as_json:
        out.print_json(json.dumps(found))
    else:
        for line in found["words"]:
            out.print(line, markup=False)
        for seen in found["gates"]:
            out.print(f"  open: {seen}", style="green", markup=False)
        for reason in found["refused"]:
            out.print(f"  closed: {reason}", style="red", markup=False)
        out.print("it may start" if not found["refused"] else "it may not start; nothing was touched")
    raise typer.Exit(1 if found["refused"] else 0)


def halt(
    why: Annotated[str, typer.Option("--why", help="The reason, for the record and for who finds drills halted.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Stop every drill, end every fault, and let nothing new start until `controlplane resume`."""
    import getpass

    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    done = connect(state_dir).post("/api/v1/halt", {"why": why, "by": getpass.getuser()})
    if as_json:
        print_json(done)
        return
    for line in done["healed"]:
        out.print(line, markup=False)
    count = len(done["healed"])
    out.print(f"drills are halted: {done['halt']['why']}", style="bold", markup=False)
    out.print(f"{count} fault{'' if count == 1 else 's'} leased; `controlplane resume` lets drills start again")


def resume(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Let drills start again after `controlplane halt`."""
    import getpass

    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    said = connect(state_dir).post("/api/v1/resume", {"by": getpass.getuser()})
    if as_json:
        print_json(said)
        return
    ended = said["halt"]
    out.print(
        f"drills may start again; halted was: {ended['why']}" if ended else "drills were not halted", markup=False
    )


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


def report(
    drill: DrillId,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print the report of one drill, as Markdown; its HTML page and its journal are where the report says."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    found = connect(state_dir).get(f"/api/v1/drills/{_quoted(drill)}/report")
    if as_json:
        out.print_json(json.dumps(found))
    else:
        typer.echo(found["markdown"])
        typer.echo(f"page: {found['html_path']}")


def plan(
    page: Annotated[Path, typer.Argument(help="The policy page.")] = DEFAULT_PAGE,
    months: Annotated[int, typer.Option(help="How many dates to print for each plan.", min=1, max=120)] = 12,
) -> None:
    """Print when the scheduled drills come round, and which dates fall into a freeze."""
    from controlplane.chaos.schedule import frozen
    from controlplane.cli.output import out
    from controlplane.clock import utcnow
    from controlplane.policy.load import load
    from controlplane.runtime.scheduler import upcoming

    plans = load(page).policy.drills
    freezes = [freeze for drills in plans.values() for freeze in drills.freeze]
    for name, drills in plans.items():
        for at in upcoming(drills.at, utcnow(), months):
            freeze = frozen(freezes, at.date())
            out.print(
                f"{at:%F %R %Z}  {name}: {', '.join(drills.experiments)}{f'  frozen: {freeze}' if freeze else ''}",
                markup=False,
            )


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
