"""`controlplane incident`: what went wrong, who sees to it, what was done about it, and what came of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

Id = Annotated[str, typer.Argument(help="The incident's id, as `controlplane incident list` shows it.")]
Why = Annotated[str, typer.Option("--why", help="The reason; it stands on the timeline.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="What went wrong, who sees to it, and what was done about it.", no_args_is_help=True)
    group.command("list")(list_incidents)
    group.command("stats")(stats)
    for command in (show, report, ack, assign, note, resolve, reopen):
        group.command()(command)
    app.add_typer(group, name="incident")


def list_incidents(
    state: Annotated[str, typer.Option("--state", help="open, mitigated or resolved.")] = "",
    level: Annotated[str, typer.Option("--level", help="P0, P1, P2 or none.")] = "",
    pool: Annotated[str, typer.Option("--pool", help="Those that something of this pool belongs to.")] = "",
    drill: Annotated[bool | None, typer.Option("--drill/--real", help="Those of drills, or the others.")] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the incidents on record, newest first."""
    import json
    from urllib.parse import urlencode

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    client = connect(state_dir)
    asked = {"state": state, "level": level, "pool": pool, "drill": "" if drill is None else str(drill).lower()}
    chosen = urlencode({name: value for name, value in asked.items() if value})
    found = client.get(f"/api/v1/incidents{'?' if chosen else ''}{chosen}")
    if as_json:
        out.print_json(json.dumps(found))
    elif found:
        out.print(incident_table([item["incident"] for item in found]))
        out.print(f"pages: {client.url}/incidents/ID", markup=False)
    else:
        out.print("No such incident is on record: one opens by itself when an alert fires or a row engages")


def show(incident: Id, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show one incident: how it stands, who has it, what belongs to it, and its timeline."""
    import json

    from rich.text import Text

    from controlplane.cli.client import connect
    from controlplane.cli.output import clock_time, out

    found = connect(state_dir).get(_path(incident))
    if as_json:
        out.print_json(json.dumps(found))
        return
    of = found["incident"]
    out.print(incident_table([of]))
    out.print(Text(of["title"], "bold"))
    has = of["assignee"] or of["acknowledged_by"] or "nobody"
    out.print(Text(f"severity {of['severity']}; {has} has it"))
    for member in found["members"]:
        out.print(Text(f"  {member['status']:<9}{member['name']} since {clock_time(member['starts_at'])}"))
    for entry in found["timeline"]:
        who = f"{entry['who']} " if entry["who"] else ""
        out.print(Text(f"{clock_time(entry['at'])}  {entry['kind']:<9}{who}{entry['text']}"), soft_wrap=True)


def stats(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show MTTD, MTTA, MTTM and MTTR of the last 30 days; drills are counted apart."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    found = connect(state_dir).get("/api/v1/incidents/statistics")
    if as_json:
        out.print_json(json.dumps(found))
    else:
        out.print(statistics_table(found))


def ack(incident: Id, why: Why = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say that you have seen it and see to it."""
    _say(state_dir, incident, "acknowledge", {"why": why}, as_json)


def assign(
    incident: Id,
    to: Annotated[str, typer.Argument(help="Whom it is given to; an empty name takes it from whoever has it.")],
    why: Why = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Give it to somebody."""
    _say(state_dir, incident, "assign", {"to": to, "why": why}, as_json)


def note(
    incident: Id,
    text: Annotated[str, typer.Argument(help="What to write.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Write on its timeline."""
    _say(state_dir, incident, "note", {"text": text}, as_json)


def resolve(incident: Id, why: Why, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """End it; not while a row of the matrix is in force because of it."""
    _say(state_dir, incident, "resolve", {"why": why}, as_json)


def reopen(incident: Id, why: Why, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Open it again; then only a person resolves it."""
    _say(state_dir, incident, "reopen", {"why": why}, as_json)


def _path(incident: str) -> str:
    from urllib.parse import quote

    return f"/api/v1/incidents/{quote(incident, safe='')}"


def _say(state_dir: Path, incident: str, verb: str, body: dict[str, Any], as_json: bool) -> None:
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    found = connect(state_dir).post(f"{_path(incident)}/{verb}", body)
    if as_json:
        out.print_json(json.dumps(found))
    else:
        out.print(incident_table([found]))


def report(
    incident: Id,
    html: Annotated[
        bool, typer.Option("--html", help="Print a page with charts that needs nothing else, not Markdown.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print the report of one incident: timeline, signals, phase times, error budget spent, follow-ups."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    found = connect(state_dir).get(f"{_path(incident)}/report")
    if as_json:
        out.print_json(json.dumps(found))
    else:
        typer.echo(found["html"] if html else found["markdown"], nl=False)


def incident_table(incidents: list[dict[str, Any]]) -> Any:
    """Draw incidents, one a line; times are since the first evidence."""
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import clock_time, seconds

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("incident", "level", "state", "detected", "mitigated", "resolved", "who", "drill"):
        table.add_column(column, no_wrap=True)
    styles = {"open": "bold red", "mitigated": "yellow", "resolved": "green"}

    def since(incident: dict[str, Any], moment: str) -> str:
        if not incident[moment]:
            return seconds(None)
        took = datetime.fromisoformat(incident[moment]) - datetime.fromisoformat(incident["detected_at"])
        return seconds(took.total_seconds())

    for incident in incidents:
        state = Text(incident["state"], styles.get(incident["state"], ""))
        times = [since(incident, "mitigated_at"), since(incident, "resolved_at")]
        table.add_row(
            Text(incident["id"]), incident["level"], state, clock_time(incident["detected_at"]), *times,
            Text(incident["assignee"] or incident["acknowledged_by"] or "-"), Text(incident["drill_id"] or "-"),
        )  # fmt: skip
    return table


def statistics_table(groups: list[dict[str, Any]]) -> Any:
    """Draw how long incidents took, a level a line: mean and median of those that are known."""
    from rich.table import Table

    from controlplane.cli.output import seconds

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("incidents", "number", "open", "MTTD", "MTTA", "MTTM", "MTTR"):
        table.add_column(column, no_wrap=True)
    for group in groups:
        name = f"{'drills, ' if group['drill'] else ''}{group['level']}"
        times = [group["times"][step] for step in ("detect", "acknowledge", "mitigate", "resolve")]
        said = [f"{seconds(t['mean_s'])} ({seconds(t['median_s'])})" if t["count"] else "-" for t in times]
        table.add_row(name, str(group["incidents"]), str(group["open"]), *said)
    return table
